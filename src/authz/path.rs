//! One view of a path: the bytes that are judged are the bytes that are forwarded, and every way in which
//! a server may read them is judged too. `rules` decides who owns a path.

use std::fmt;

pub use readings::Reading;

mod readings;

/// A path that passes the checks that do not depend on the service. Borrowed from the request target, so that
/// the judged bytes are the forwarded bytes.
#[derive(Clone, Debug)]
pub struct RequestPath<'a> {
    literal: &'a str,
    capitals: bool,
    /// Whether its escapes decode to UTF-8.
    utf8: bool,
    /// Other plausible readings; empty for a path without suspicious bytes.
    readings: Vec<Reading>,
}

/// Why a path is refused, whatever the service (docs/decision.md, "One view of a path").
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
    /// Parses a path component, without query or fragment.
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
            seen & (ESCAPE | PARAMETER | DOUBLE_SLASH) != 0 || seen & TAIL != 0 && readings::is_cut(path);
        let (readings, utf8) = if suspicious { readings::all(path)? } else { (Vec::new(), true) };
        Ok(Self { literal: path, capitals: seen & CAPITAL != 0, utf8, readings })
    }

    pub fn literal(&self) -> &'a str {
        self.literal
    }

    /// Whether its escapes decode to UTF-8. If not, its service must have [`Allowance::InvalidUtf8`].
    ///
    /// [`Allowance::InvalidUtf8`]: crate::authz::rules::Allowance::InvalidUtf8
    pub fn is_utf8(&self) -> bool {
        self.utf8
    }

    /// Whether the literal path contains upper-case letters.
    pub fn has_capitals(&self) -> bool {
        self.capitals
    }

    /// Every reading except the literal one. Each also stands for its lower-case form.
    pub fn readings(&self) -> &[Reading] {
        &self.readings
    }
}

const SLASH: u8 = 1;
/// A slash after a slash: the scan shifts `SLASH` up by one bit.
const DOUBLE_SLASH: u8 = SLASH << 1;
const ESCAPE: u8 = 1 << 2;
const PARAMETER: u8 = 1 << 3;
const CAPITAL: u8 = 1 << 4;
/// Characters that some servers cut off at the end of a segment (`.`, `+`), or that begin what they cut off
/// (`:$DATA`, `(S(...))`).
const TAIL: u8 = 1 << 5;
const FORBIDDEN: u8 = 1 << 7;

/// The class of each byte: RFC 3986 `pchar` and `/` by how servers may read them, and `[ ] | ^ { }`, which
/// browsers leave unescaped and every server reads literally. Every other byte is forbidden.
const CLASS: [u8; 256] = {
    let mut class = [FORBIDDEN; 256];
    let mut byte = 0;
    while byte < 128 {
        class[byte] = match byte as u8 {
            b'/' => SLASH,
            b'%' => ESCAPE,
            b';' => PARAMETER,
            b'A'..=b'Z' => CAPITAL,
            b'.' | b'+' | b'$' | b'(' => TAIL,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' | b':' | b'@' => 0,
            b'!' | b'&' | b'\'' | b')' | b'*' | b',' | b'=' => 0,
            b'[' | b']' | b'|' | b'^' | b'{' | b'}' => 0,
            _ => FORBIDDEN,
        };
        byte += 1;
    }
    class
};

/// Displays a byte that must not be in a path unescaped.
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
