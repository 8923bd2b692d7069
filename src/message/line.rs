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

/// What a name may hold (RFC 9110, 5.6.2), in lower case, by byte; zero: it may not.
const LOWER: [u8; 256] = {
    let (mut table, mut byte) = ([0; 256], 0);
    while byte < 256 {
        if (byte as u8).is_ascii_alphanumeric() {
            table[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    let (marks, mut at) = (b"!#$%&'*+-.^_`|~", 0);
    while at < marks.len() {
        table[marks[at] as usize] = marks[at];
        at += 1;
    }
    table
};

/// Between a name and its value, as it is sent.
const COLON: &[u8] = b": ";
const END: &[u8] = b"\r\n";

impl Line {
    /// The line that begins at `at` and ends, without its line end, at `end`; its name becomes lower
    /// case. `None`: it is none.
    pub fn read(text: &mut [u8], at: usize, end: usize) -> Option<Self> {
        u32::try_from(end).ok()?;
        let line = &mut text[at..end];
        let mut name = 0;
        for byte in &mut *line {
            let lower = LOWER[usize::from(*byte)];
            if lower == 0 {
                break;
            }
            *byte = lower;
            name += 1;
        }
        let (b':', behind) = line.get(name..)?.split_first()? else { return None };
        if name == 0 || !is_text(line) {
            return None;
        }
        let edge = |byte: &u8| matches!(byte, b' ' | b'\t');
        let (lead, length) = match behind {
            // As nearly everybody sends it.
            [b' ', value @ ..] if !value.first().is_some_and(edge) && !value.last().is_some_and(edge) => {
                (1, value.len())
            }
            _ => {
                let value = behind.trim_ascii_start();
                (behind.len() - value.len(), value.trim_ascii_end().len())
            }
        };
        let start = at + name + 1 + lead;
        let plain = lead == 1 && behind[0] == b' ' && text[start + length..].starts_with(END);
        Some(Self {
            at: at as u32,
            value: start as u32,
            length: length as u32,
            name: u16::try_from(name).ok()?,
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

    pub(super) fn value(self, text: &[u8]) -> &[u8] {
        &text[self.value as usize..][..self.length as usize]
    }

    /// Where the whole line is, its end included, if it stands there as it would be sent.
    pub(super) fn whole(self) -> Option<std::ops::Range<usize>> {
        self.plain.then(|| self.at as usize..(self.value + self.length) as usize + END.len())
    }
}

/// Whether a text holds no control characters but tabs (RFC 9110, 5.5). Every byte of every head is
/// looked at: sixteen in one step, which compilers make one instruction of each operation.
pub fn is_text(text: &[u8]) -> bool {
    fn is_control(byte: u8) -> bool {
        (byte < b' ') & (byte != b'\t') | (byte == 0x7f)
    }
    fn suspect<const N: usize>(block: &[u8; N]) -> bool {
        block.iter().fold(0, |found, byte| found | u8::from(is_control(*byte))) != 0
    }
    // The last ones overlap those before them, so that none is looked at alone.
    let found = match (text.last_chunk::<16>(), text.first_chunk::<8>(), text.last_chunk::<8>()) {
        (Some(last), ..) => {
            text.as_chunks::<16>().0.iter().fold(suspect(last), |found, block| found | suspect(block))
        }
        (None, Some(first), Some(last)) => suspect(first) | suspect(last),
        _ => text.iter().any(|byte| is_control(*byte)),
    };
    !found
}

/// RFC 9110, 8.6: the number that a `Content-Length` is.
pub fn length_of(value: &[u8]) -> Option<u64> {
    // 18 digits are more than anybody sends, and less than any integer's end.
    let sound = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    sound.then(|| value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
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
        let mut text = format!("before{line}\r\n").into_bytes();
        let end = text.len() - 2;
        let line = Line::read(&mut text, 6, end)?;
        let string = |part: &[u8]| String::from_utf8(part.to_vec()).expect("a part of a text");
        Some((string(line.name(&text)), string(line.value(&text)), line.plain))
    }

    #[test]
    fn a_line_is_a_name_and_a_value() {
        fn check(line: &str, expected: Option<(&str, &str, bool)>) {
            let found = read(line);
            let found = found.as_ref().map(|(name, value, plain)| (name.as_str(), value.as_str(), *plain));
            assert_eq!(found, expected, "{line:?}");
        }
        check("Host: a", Some(("host", "a", true)));
        check("Host:a", Some(("host", "a", false)));
        check("Host:\ta", Some(("host", "a", false)));
        check("Host:  a\t ", Some(("host", "a", false)));
        check("Host: a b", Some(("host", "a b", true)));
        check("Host: ", Some(("host", "", true)));
        check("Host:", Some(("host", "", false)));
        check("X: \u{e9}\tx", Some(("x", "\u{e9}\tx", true)));
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
    fn names_become_lower_case() {
        for byte in 0..=255_u8 {
            let mut text = [b'X', byte, b'-', b':', b' ', b'V', b'\r', b'\n'];
            let line = Line::read(&mut text, 0, 6);
            let named = line.map(|line| (line.name(&text).to_vec(), line.value(&text)));
            let sound = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let expected = sound.then(|| (vec![b'x', byte.to_ascii_lowercase(), b'-'], &b"V"[..]));
            // The colon ends the name before the other one.
            let expected = if byte == b':' { Some((vec![b'x'], &b"-: V"[..])) } else { expected };
            assert_eq!(named, expected, "{byte}");
        }
    }

    proptest! {
        /// As httparse reads it, which hyper builds on.
        #[test]
        fn a_line_is_read_as_httparse_reads_it(line in "[A-Za-z:_ \t-]{0,6}[: \tx]{0,3}[\t\x0b\r\x00\x7f -~\u{e9}]{0,9}") {
            let text = format!("{line}\r\n\r\n");
            let mut judged = text.clone().into_bytes();
            let ours = Line::read(&mut judged, 0, line.len());
            let ours = ours.map(|read| (read.name(&judged).to_vec(), read.value(&judged).to_vec()));
            let mut headers = [httparse::EMPTY_HEADER; 2];
            let theirs = match httparse::parse_headers(text.as_bytes(), &mut headers) {
                Ok(httparse::Status::Complete((_, [one]))) => Some((one.name.to_ascii_lowercase().into_bytes(), one.value.to_vec())),
                _ => None,
            };
            prop_assert_eq!(ours, theirs);
        }
    }
}
