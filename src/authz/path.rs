//! One view of a path: what is judged is what is forwarded, and every reading of it is looked at.

use std::fmt;

pub use readings::Reading;

mod readings;

/// A path that is acceptable whatever the service. Borrowed from the request target: these bytes
/// are judged and these bytes are sent.
#[derive(Clone, Debug)]
pub struct RequestPath<'a> {
    literal: &'a str,
    capitals: bool,
    /// Its escapes decode to UTF-8.
    utf8: bool,
    /// Other plausible readings; empty for a path without suspicious bytes.
    readings: Vec<Reading>,
}

/// Why a path is refused whatever the service (domain.md, "The path", rule 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path does not start with \"/\"")]
    NotAbsolute,
    #[error("the path has {}", Unescaped(*.0))]
    Byte(u8),
    #[error("the path has a \"%\" that two hexadecimal digits do not follow")]
    Escape,
    #[error("the path has an encoded control character")]
    Control,
    #[error("the path has escapes that are not UTF-8")]
    Utf8,
    #[error("the path has a \".\" or \"..\" segment")]
    DotSegment,
    #[error("the path can be read in too many ways")]
    TooManyReadings,
}

impl<'a> RequestPath<'a> {
    /// Takes the path component (no query, no fragment).
    pub fn parse(path: &'a str) -> Result<Self, PathError> {
        if !path.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        let (mut seen, mut previous) = (0, 0);
        for byte in path.bytes() {
            let class = CLASS[usize::from(byte)];
            seen |= class | (class & previous & SLASH) << 1;
            previous = class;
        }
        if seen & FORBIDDEN != 0 {
            let refused = |byte: &u8| CLASS[usize::from(*byte)] & FORBIDDEN != 0;
            return Err(PathError::Byte(path.bytes().find(refused).unwrap_or_default()));
        }
        let suspicious =
            seen & (ESCAPE | PARAMETER | DOUBLE_SLASH) != 0 || seen & TAIL != 0 && readings::has_end(path);
        let (readings, utf8) = if suspicious { readings::all(path)? } else { (Vec::new(), true) };
        Ok(Self { literal: path, capitals: seen & CAPITAL != 0, utf8, readings })
    }

    pub fn literal(&self) -> &'a str {
        self.literal
    }

    /// Whether its escapes decode to UTF-8: a service has to allow others.
    pub fn is_utf8(&self) -> bool {
        self.utf8
    }

    /// Whether folding letters to lower case changes the literal path.
    pub fn has_capitals(&self) -> bool {
        self.capitals
    }

    /// Every reading but the literal one; each stands for its lower-case form as well.
    pub fn readings(&self) -> &[Reading] {
        &self.readings
    }
}

const SLASH: u8 = 1;
/// A slash behind a slash: the scan shifts one bit up.
const DOUBLE_SLASH: u8 = SLASH << 1;
const ESCAPE: u8 = 1 << 2;
const PARAMETER: u8 = 1 << 3;
const CAPITAL: u8 = 1 << 4;
/// What some servers cut off at the end of a segment, or with the end.
const TAIL: u8 = 1 << 5;
const FORBIDDEN: u8 = 1 << 7;

/// RFC 3986 `pchar` and `/`, by what they can be read as, and what browsers do not escape although
/// they should (`[ ] | ^ { }`), which no server reads as anything but itself.
const CLASS: [u8; 256] = {
    let mut class = [FORBIDDEN; 256];
    let mut byte = 0;
    while byte < 128 {
        class[byte] = match byte as u8 {
            b'/' => SLASH,
            b'%' => ESCAPE,
            b';' => PARAMETER,
            b'A'..=b'Z' => CAPITAL,
            b'.' | b'+' | b'$' => TAIL,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' | b':' | b'@' => 0,
            b'!' | b'&' | b'\'' | b'(' | b')' | b'*' | b',' | b'=' => 0,
            b'[' | b']' | b'|' | b'^' | b'{' | b'}' => 0,
            _ => FORBIDDEN,
        };
        byte += 1;
    }
    class
};

/// A byte that stands in a path as it is and must not, for people.
struct Unescaped(u8);

impl fmt::Display for Unescaped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            b' ' => f.write_str("a space, which has to be written as %20"),
            b'#' => f.write_str("a fragment (\"#\"), which clients do not send"),
            byte if byte.is_ascii_graphic() => {
                write!(f, "{:?}, which has to be written as %{byte:02X}", char::from(byte).to_string())
            }
            byte if byte.is_ascii() => f.write_str("a control character"),
            _ => f.write_str("a character beyond ASCII, which has to be percent-encoded"),
        }
    }
}

#[cfg(test)]
mod tests;
