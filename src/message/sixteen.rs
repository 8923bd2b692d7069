//! Sixteen bytes that are looked at in one step. What is told about them is a set of places, the
//! first byte's the lowest bit.

use wide::i8x16;

#[derive(Clone, Copy)]
pub(super) struct Sixteen(i8x16);

/// The number of each place.
const PLACES: i8x16 = i8x16::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

/// How many bytes of a text come before the first control character that is no tab (RFC 9110, 5.5).
/// Every byte of every head is looked at.
pub fn text_length(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(sixteen) = text[at..].first_chunk() {
        let controls = Sixteen::read(sixteen).controls();
        if controls != 0 {
            return at + controls.trailing_zeros() as usize;
        }
        at += 16;
    }
    let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    text[at..].iter().position(control).map_or(text.len(), |found| at + found)
}

impl Sixteen {
    #[inline]
    pub fn read(bytes: &[u8; 16]) -> Self {
        Self(bytes.map(u8::cast_signed).into())
    }

    #[inline]
    pub fn bytes(self) -> [u8; 16] {
        self.0.to_array().map(i8::cast_unsigned)
    }

    /// Control characters, tabs aside.
    #[inline]
    fn controls(self) -> u32 {
        let low = self.within(0, 0x1f) & !self.is(b'\t');
        (low | self.is(0x7f)).to_bitmask()
    }

    #[inline]
    pub fn colons(self) -> u32 {
        self.is(b':').to_bitmask()
    }

    /// Capitals become small letters; digits and the hyphen stay what they are.
    #[inline]
    pub fn lower(self) -> Self {
        Self(self.0 | i8x16::splat(0x20))
    }

    /// Small letters, digits and the hyphen.
    #[inline]
    pub fn usual(self) -> u32 {
        (self.within(b'a', b'z') | self.within(b'0', b'9') | self.is(b'-')).to_bitmask()
    }

    /// The first `count` of these, the others from behind them.
    #[inline]
    pub fn before(self, count: u32, behind: Self) -> Self {
        Self(PLACES.simd_lt(i8x16::splat((count as u8).cast_signed())).select(self.0, behind.0))
    }

    #[inline]
    fn is(self, byte: u8) -> i8x16 {
        self.0.simd_eq(i8x16::splat(byte.cast_signed()))
    }

    /// Of ASCII: what is beyond it is negative here.
    #[inline]
    fn within(self, low: u8, high: u8) -> i8x16 {
        let splat = |byte: u8| i8x16::splat(byte.cast_signed());
        self.0.simd_gt(splat(low.wrapping_sub(1))) & self.0.simd_lt(splat(high + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_told() {
        for (byte, at) in (0..=255_u8).flat_map(|byte| (0..16).map(move |at| (byte, at))) {
            let mut bytes = [b'A'; 16];
            bytes[at] = byte;
            let sixteen = Sixteen::read(&bytes);
            let check = |told: u32, expected: fn(&u8) -> bool, of: [u8; 16]| {
                let places = of.iter().rev().fold(0, |places, byte| places << 1 | u32::from(expected(byte)));
                assert_eq!(told, places, "{byte} at {at}");
            };
            check(sixteen.controls(), |byte| byte.is_ascii_control() && *byte != b'\t', bytes);
            check(sixteen.colons(), |byte| *byte == b':', bytes);
            let lower = bytes.map(|byte| byte | 0x20);
            assert_eq!((sixteen.bytes(), sixteen.lower().bytes()), (bytes, lower));
            let usual = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
            check(sixteen.lower().usual(), usual, lower);
        }
    }

    #[test]
    fn a_text_ends_before_a_control_character() {
        for length in 0..40 {
            assert_eq!(text_length(&vec![b'\t'; length]), length);
            for (at, byte) in (0..length).flat_map(|at| (0..=255).map(move |byte| (at, byte))) {
                let mut text = vec![b'a'; length];
                text[at] = byte;
                let sound = byte >= b' ' && byte != 0x7f || byte == b'\t';
                let expected = if sound { length } else { at };
                assert_eq!(text_length(&text), expected, "{byte} at {at} of {length}");
            }
        }
    }
}
