//! One field line: where its name and its value are (RFC 9112, 5).

use std::ops::Range;

use super::sixteen::Sixteen;

/// A name and a value within a text that somebody else holds.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    at: u32,
    value: u32,
    length: u32,
    name: u16,
    form: Form,
    mark: Mark,
}

/// How a line stands in its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As the client wrote it.
    Loose,
    /// As it would be sent: one blank before the value, the line's end behind it.
    Plain,
    /// As [`Form::Plain`], within the text of what was set, not of what was read.
    Set,
}

/// One of 64 kinds of names: those of different kinds are different, so that most are told apart
/// without being compared. Chosen so that what a gateway looks for is of no kind that clients send
/// every day. A name that differs from another by `_` or `.` in place of `-` is of its kind, and all
/// that begin with `x` are of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(u8);

impl Mark {
    #[inline]
    pub(super) const fn of(name: &[u8]) -> Self {
        match (name.first(), name.last()) {
            (Some(b'x'), _) => Self(63),
            (Some(first), Some(last)) => {
                let ends = first.wrapping_mul(55).wrapping_add(last.wrapping_mul(61));
                Self((name.len() as u8).wrapping_add(ends) % 64)
            }
            _ => Self(0),
        }
    }

    /// Its place in a set of marks.
    #[inline]
    pub(super) const fn bit(self) -> u64 {
        1 << self.0
    }
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
    /// case. There are no control characters in it, as [`text_length`](super::text_length) tells. `None`: it is none.
    pub fn read(text: &mut [u8], at: usize, end: usize) -> Option<Self> {
        u32::try_from(end).ok()?;
        let line = &mut text[at..end];
        let name = lower_name(line);
        let (b':', behind) = line.get(name..)?.split_first()? else { return None };
        if name == 0 {
            return None;
        }
        let edge = |byte: &u8| matches!(byte, b' ' | b'\t');
        let (lead, length, spaced) = match behind {
            // As nearly everybody sends it.
            [b' ', value @ ..] if !value.first().is_some_and(edge) && !value.last().is_some_and(edge) => {
                (1, value.len(), true)
            }
            _ => {
                let value = behind.trim_ascii_start();
                let lead = behind.len() - value.len();
                (lead, value.trim_ascii_end().len(), lead == 1 && behind[0] == b' ')
            }
        };
        let mark = Mark::of(&line[..name]);
        let start = at + name + 1 + lead;
        let plain = spaced && text[start + length..].starts_with(END);
        Some(Self {
            at: at as u32,
            value: start as u32,
            length: length as u32,
            name: u16::try_from(name).ok()?,
            form: if plain { Form::Plain } else { Form::Loose },
            mark,
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
            form: Form::Set,
            mark: Mark::of(name),
        }
    }

    #[inline]
    pub(super) fn is_set(self) -> bool {
        self.form == Form::Set
    }

    #[inline]
    pub(super) fn mark(self) -> Mark {
        self.mark
    }

    /// The same line where its text stands behind `by` bytes of another.
    #[inline]
    pub(super) fn shifted(self, by: u32) -> Self {
        Self { at: self.at + by, value: self.value + by, ..self }
    }

    /// Within its text.
    #[inline]
    pub fn name(self, text: &[u8]) -> &[u8] {
        &text[self.at as usize..][..usize::from(self.name)]
    }

    /// Within its text.
    #[inline]
    pub fn value(self, text: &[u8]) -> &[u8] {
        &text[self.value as usize..][..self.length as usize]
    }

    /// Whether it stands behind another one, and both as they would be sent.
    #[inline]
    pub(super) fn follows(self, before: Self) -> bool {
        self.form == before.form && self.form != Form::Loose && self.at == before.end()
    }

    /// Where this line and those up to another one stand, if as they would be sent.
    #[inline]
    pub(super) fn through(self, last: Self) -> Option<Range<usize>> {
        (self.form != Form::Loose).then(|| self.at as usize..last.end() as usize)
    }

    /// Where a line ends with its line end, unless it is loose.
    #[inline]
    fn end(self) -> u32 {
        self.value + self.length + END.len() as u32
    }
}

/// Makes the name that a line begins with lower case; how long it is.
fn lower_name(line: &mut [u8]) -> usize {
    // Nearly all names are shorter, and of usual letters.
    if let Some(sixteen) = line.first_chunk_mut() {
        let given = Sixteen::read(sixteen);
        let (colons, lower) = (given.colons(), given.lower());
        let before = colons.wrapping_sub(1) & !colons;
        if before != 0 && colons != 0 && lower.usual() & before == before {
            let name = colons.trailing_zeros();
            // To copy as many bytes as there are would take a call.
            *sixteen = lower.before(name, given).bytes();
            return name as usize;
        }
    }
    let mut name = 0;
    for byte in line {
        let lower = LOWER[usize::from(*byte)];
        if lower == 0 {
            break;
        }
        *byte = lower;
        name += 1;
    }
    name
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
    use crate::message::text_length;

    fn read(line: &str) -> Option<(String, String, bool)> {
        let mut text = format!("before{line}\r\n").into_bytes();
        let end = text.len() - 2;
        if text_length(&text) < end {
            return None;
        }
        let line = Line::read(&mut text, 6, end)?;
        let string = |part: &[u8]| String::from_utf8(part.to_vec()).expect("a part of a text");
        Some((string(line.name(&text)), string(line.value(&text)), line.form == Form::Plain))
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
    fn names_become_lower_case() {
        for (length, at) in (1..20).flat_map(|length| (0..length).map(move |at| (length, at))) {
            // Other control characters than tabs are told by `text_length`.
            for byte in (0..=255_u8).filter(|byte| *byte == b'\t' || !byte.is_ascii_control()) {
                let mut name = vec![b'X'; length];
                name[at] = byte;
                let mut text = [&name, &b": V\r\n"[..]].concat();
                let line = Line::read(&mut text, 0, length + 3);
                let named = line.map(|line| (line.name(&text).to_vec(), line.value(&text).to_vec()));
                let sound = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
                let expected = match byte {
                    // It ends the name before the other one.
                    b':' if at == 0 => None,
                    b':' => Some((vec![b'x'; at], [&name[at + 1..], b": V"].concat())),
                    _ => sound.then(|| (name.to_ascii_lowercase(), b"V".to_vec())),
                };
                assert_eq!(named, expected, "{byte} at {at} of {length}");
            }
        }
    }

    proptest! {
        /// As httparse reads it, which hyper builds on.
        #[test]
        fn a_line_is_read_as_httparse_reads_it(line in "[A-Za-z:_ \t-]{0,6}[: \tx]{0,3}[\t\x0b\r\x00\x7f -~\u{e9}]{0,9}") {
            let text = format!("{line}\r\n\r\n");
            let mut judged = text.clone().into_bytes();
            let whole = text_length(line.as_bytes()) == line.len();
            let ours = whole.then(|| Line::read(&mut judged, 0, line.len())).flatten();
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
