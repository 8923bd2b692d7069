//! One view of a path: what is judged is what is forwarded, and every reading of it is looked at.

/// A path that is acceptable whatever the service. Borrowed from the request target: these bytes
/// are judged and these bytes are sent.
#[derive(Clone, Debug)]
pub struct RequestPath<'a> {
    literal: &'a str,
    /// Other plausible readings; empty for a path without suspicious bytes.
    readings: Vec<String>,
}

/// Why a path is refused whatever the service (domain.md, "The path", rule 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path does not start with \"/\"")]
    NotAbsolute,
    #[error("the path has a byte that RFC 3986 does not allow there")]
    Byte,
    #[error("the path has a malformed % escape")]
    Escape,
    #[error("the path has an encoded control character")]
    Control,
    #[error("the path decodes to invalid UTF-8")]
    Utf8,
    #[error("the path has a \".\" or \"..\" segment")]
    DotSegment,
}

impl<'a> RequestPath<'a> {
    /// Takes the path component (no query, no fragment).
    pub fn parse(_path: &'a str) -> Result<Self, PathError> {
        todo!()
    }
    pub fn literal(&self) -> &'a str {
        self.literal
    }
    /// Every reading but the literal one.
    pub fn readings(&self) -> &[String] {
        &self.readings
    }
}
