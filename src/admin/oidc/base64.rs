//! Base64 (RFC 4648): the URL's alphabet for what JOSE wants, the common one for `Authorization: Basic`.

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub(super) fn url(bytes: &[u8]) -> String {
    encode(bytes, URL)
}

/// With its padding.
pub(super) fn standard(bytes: &[u8]) -> String {
    let mut text = encode(bytes, STANDARD);
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

/// Without padding, and with no bits left over: a value has one text.
pub(super) fn from_url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.as_bytes().chunks(4) {
        let mut bits: u32 = 0;
        for byte in chunk {
            bits = bits << 6 | sextet(*byte)?;
        }
        let (whole, left) = match chunk.len() {
            4 => (3, 0),
            3 => (2, 2),
            2 => (1, 4),
            _ => return None,
        };
        if bits & ((1 << left) - 1) != 0 {
            return None;
        }
        bytes.extend_from_slice(&(bits >> left).to_be_bytes()[4 - whole..]);
    }
    Some(bytes)
}

fn sextet(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    };
    Some(value.into())
}

fn encode(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for sextet in 0..=chunk.len() {
            let index = bits >> (18 - 6 * sextet) & 63;
            text.push(char::from(alphabet[index as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for length in 0..40u8 {
            let bytes: Vec<u8> = (0..length).map(|at| at.wrapping_mul(97) ^ 0xf5).collect();
            assert_eq!(from_url(&url(&bytes)), Some(bytes), "{length}");
        }
        // RFC 4648, 10.
        assert_eq!(standard(b"fooba"), "Zm9vYmE=");
        assert_eq!(standard(b"foob"), "Zm9vYg==");
        assert_eq!(url(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        let check = |name: &str, text: &str| assert_eq!(from_url(text), None, "{name}");
        check("one sextet", "A");
        check("padding", "Zg==");
        check("bits left over", "Zh");
        check("the other alphabet", "+/8A");
        check("a line feed", "Zm9v\n");
    }
}
