//! One field line: where its name and its value are (RFC 9112, 5).

/// A name and a value within a text that somebody else holds.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    at: u32,
    value: u32,
    length: u32,
    name: u16,
    /// Written as it would be sent: one blank before the value, the line's end behind it.
    plain: bool,
    /// Within the text of what was set, not of what was read.
    set: bool,
}

/// What a name may hold (RFC 9110, 5.6.2), by byte.
const TOKEN: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0);
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let (marks, mut at) = (b"!#$%&'*+-.^_`|~", 0);
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

/// Between a name and its value, as it is sent.
const COLON: &[u8] = b": ";
const END: &[u8] = b"\r\n";

impl Line {
    /// The line that begins at `at` and ends, without its line end, at `end`. `None`: it is none.
    pub fn read(text: &[u8], at: usize, end: usize) -> Option<Self> {
        let line = &text[at..end];
        let colon = line.iter().position(|byte| !TOKEN[usize::from(*byte)])?;
        if colon == 0 || line[colon] != b':' {
            return None;
        }
        let value = line[colon + 1..].trim_ascii_start();
        let start = end - value.len();
        let value = value.trim_ascii_end();
        let sound = is_text(line);
        let plain = start == at + colon + COLON.len()
            && line[colon + 1] == b' '
            && text[start + value.len()..].starts_with(END);
        sound.then_some(Self {
            at: u32::try_from(at).ok()?,
            value: u32::try_from(start).ok()?,
            length: u32::try_from(value.len()).ok()?,
            name: u16::try_from(colon).ok()?,
            plain,
            set: false,
        })
    }

    /// Writes a line behind a text.
    pub(super) fn set(text: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Self {
        let at = text.len();
        put_field(text, name, value);
        let place = |place: usize| u32::try_from(place).expect("fields are smaller than 4 GiB");
        Self {
            at: place(at),
            value: place(at + name.len() + COLON.len()),
            length: place(value.len()),
            name: u16::try_from(name.len()).expect("names are shorter than 64 KiB"),
            plain: true,
            set: true,
        }
    }

    pub(super) fn is_set(self) -> bool {
        self.set
    }

    /// The same line where its text stands behind `by` bytes of another.
    pub(super) fn shifted(self, by: usize) -> Self {
        let by = u32::try_from(by).expect("fields are smaller than 4 GiB");
        Self { at: self.at + by, value: self.value + by, ..self }
    }

    pub(super) fn name(self, text: &[u8]) -> &[u8] {
        &text[self.at as usize..][..usize::from(self.name)]
    }

    pub(super) fn name_mut(self, text: &mut [u8]) -> &mut [u8] {
        &mut text[self.at as usize..][..usize::from(self.name)]
    }

    pub(super) fn value(self, text: &[u8]) -> &[u8] {
        &text[self.value as usize..][..self.length as usize]
    }

    /// Where the whole line is, its end included, if it stands there as it would be sent.
    pub(super) fn whole(self) -> Option<std::ops::Range<usize>> {
        self.plain.then(|| self.at as usize..(self.value + self.length) as usize + END.len())
    }
}

/// One in every byte.
const ONES: u64 = u64::MAX / 255;

/// Whether a text holds no control characters but tabs (RFC 9110, 5.5). Eight bytes in one step:
/// every byte of every head is looked at.
pub fn is_text(text: &[u8]) -> bool {
    /// Not zero when one of eight bytes is below a blank, or 127.
    fn suspicion(eight: [u8; 8]) -> u64 {
        let word = u64::from_le_bytes(eight);
        let delete = word ^ (ONES * 0x7f);
        let low = word.wrapping_sub(ONES * 0x20) & !word;
        let deleted = delete.wrapping_sub(ONES) & !delete;
        (low | deleted) & (ONES * 0x80)
    }
    let is_control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    // The last eight overlap those before them, so that none is looked at alone.
    let Some(last) = text.last_chunk::<8>() else { return !text.iter().any(is_control) };
    let mut suspect = suspicion(*last);
    for eight in text.as_chunks::<8>().0 {
        suspect |= suspicion(*eight);
    }
    suspect == 0 || !text.iter().any(is_control)
}

/// RFC 9110, 8.6: the number that a `Content-Length` is.
pub fn length_of(value: &[u8]) -> Option<u64> {
    // 18 digits are more than anybody sends, and less than any integer's end.
    let sound = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    sound.then(|| value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// As `make_ascii_lowercase`, for texts that are short: eight bytes in one step.
pub(super) fn lower(text: &mut [u8]) {
    let (eights, rest) = text.as_chunks_mut::<8>();
    for eight in eights {
        let word = u64::from_le_bytes(*eight);
        let low = word & (ONES * 0x7f);
        // The high bit of a byte: beyond Z; not before A; ASCII.
        let beyond = low + ONES * u64::from(0x7f - b'Z');
        let within = low + ONES * u64::from(0x80 - b'A');
        let upper = (beyond ^ within) & !word & (ONES * 0x80);
        *eight = (word | upper >> 2).to_le_bytes();
    }
    rest.make_ascii_lowercase();
}

/// A field line as it is sent.
pub fn put_field(into: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    into.extend_from_slice(name);
    into.extend_from_slice(COLON);
    into.extend_from_slice(value);
    into.extend_from_slice(END);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &str) -> Option<(String, String, bool)> {
        let text = format!("before{line}\r\n");
        let line = Line::read(text.as_bytes(), 6, text.len() - 2)?;
        let string = |part: &[u8]| String::from_utf8(part.to_vec()).expect("a part of a text");
        Some((string(line.name(text.as_bytes())), string(line.value(text.as_bytes())), line.plain))
    }

    #[test]
    fn a_line_is_a_name_and_a_value() {
        fn check(line: &str, expected: Option<(&str, &str, bool)>) {
            let found = read(line);
            let found = found.as_ref().map(|(name, value, plain)| (name.as_str(), value.as_str(), *plain));
            assert_eq!(found, expected, "{line:?}");
        }
        check("Host: a", Some(("Host", "a", true)));
        check("Host:a", Some(("Host", "a", false)));
        check("Host:\ta", Some(("Host", "a", false)));
        check("Host:  a\t ", Some(("Host", "a", false)));
        check("Host: a b", Some(("Host", "a b", true)));
        check("Host: ", Some(("Host", "", true)));
        check("Host:", Some(("Host", "", false)));
        check("X: \u{e9}\tx", Some(("X", "\u{e9}\tx", true)));
        check("!#$%&'*+-.^_`|~: 1", Some(("!#$%&'*+-.^_`|~", "1", true)));
        for none in [
            "",
            ":",
            ": a",
            "Host",
            "Host : a",
            " Host: a",
            "H\u{e9}: a",
            "a: \0",
            "a: \x7f",
            "a: \x1b",
            "a: b\rc",
        ] {
            check(none, None);
        }
    }

    #[test]
    fn a_text_has_no_control_characters() {
        for length in 0..40 {
            let text = vec![b'\t'; length];
            assert!(is_text(&text), "{length}");
            for (at, byte) in (0..length).flat_map(|at| (0..=255).map(move |byte| (at, byte))) {
                let mut text = vec![b'a'; length];
                text[at] = byte;
                assert_eq!(
                    is_text(&text),
                    byte >= b' ' && byte != 0x7f || byte == b'\t',
                    "{byte} at {at} of {length}"
                );
            }
        }
    }

    #[test]
    fn upper_case_letters_alone_are_made_lower() {
        for length in 0..20 {
            for byte in 0..=255 {
                let mut text = vec![byte; length];
                lower(&mut text);
                assert_eq!(text, vec![byte.to_ascii_lowercase(); length], "{byte}, {length}");
            }
        }
        let mut text = *b"X-Aa@Zz[`{\xc1\x7f-CONTENT";
        lower(&mut text);
        assert_eq!(&text, b"x-aa@zz[`{\xc1\x7f-content");
    }

    proptest! {
        /// As httparse reads it, which hyper builds on.
        #[test]
        fn a_line_is_read_as_httparse_reads_it(line in "[A-Za-z:_ \t-]{0,6}[: \tx]{0,3}[\t\x0b\r\x00\x7f -~\u{e9}]{0,9}") {
            let text = format!("{line}\r\n\r\n");
            let ours = Line::read(text.as_bytes(), 0, line.len());
            let ours = ours.map(|read| (read.name(text.as_bytes()).to_vec(), read.value(text.as_bytes()).to_vec()));
            let mut headers = [httparse::EMPTY_HEADER; 2];
            let theirs = match httparse::parse_headers(text.as_bytes(), &mut headers) {
                Ok(httparse::Status::Complete((_, [one]))) => Some((one.name.as_bytes().to_vec(), one.value.to_vec())),
                _ => None,
            };
            prop_assert_eq!(ours, theirs);
        }
    }
}
