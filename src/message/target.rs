//! What a request asks for: a path and a query, byte for byte as the client sent them.

use std::{fmt, rc::Rc};

use http::{Uri, uri::PathAndQuery};
use memchr::memchr;

/// A request's target in origin form, or `*` (RFC 9112, 3.2). Of one in absolute form what stands
/// behind the host; empty where there is no path, as in CONNECT's.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    text: Rc<str>,
    /// How long the path is.
    path: usize,
}

/// What nobody doubts in a target, by byte; the rest is for a parser of URIs to judge.
const PLAIN: [bool; 256] = {
    let (mut table, mut byte) = ([false; 256], 0);
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let (marks, mut at) = (b"-._~/?%&=+,:;@!$'()*", 0);
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    table
};

impl Target {
    /// `None`: it is none, in whatever form.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let plain = text.iter().fold(true, |all, byte| all & PLAIN[usize::from(*byte)]);
        if plain && text.first() == Some(&b'/') {
            return Some(Self::new(str::from_utf8(text).ok()?));
        }
        Some(Self::from(&Uri::try_from(text).ok()?))
    }

    fn new(text: &str) -> Self {
        Self { text: text.into(), path: memchr(b'?', text.as_bytes()).unwrap_or(text.len()) }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn path(&self) -> &str {
        &self.text[..self.path]
    }
}

impl From<&PathAndQuery> for Target {
    fn from(parsed: &PathAndQuery) -> Self {
        match parsed.as_str() {
            // RFC 9112, 3.2.1: an empty path is sent as `/`.
            query if query.starts_with('?') => Self::new(&format!("/{query}")),
            text => Self::new(text),
        }
    }
}

impl From<&Uri> for Target {
    fn from(uri: &Uri) -> Self {
        uri.path_and_query().map_or_else(|| Self::new(""), Self::from)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A bearer may stand in it.
        f.write_str("Target(..)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_target_is_a_path_and_a_query() {
        fn check(text: &str, expected: Option<(&str, &str)>) {
            let target = Target::parse(text.as_bytes());
            let read = target.as_ref().map(|target| (target.as_str(), target.path()));
            assert_eq!(read, expected, "{text}");
        }
        check("/", Some(("/", "/")));
        check("/a%2Fb?c=/?d", Some(("/a%2Fb?c=/?d", "/a%2Fb")));
        check("/?", Some(("/?", "/")));
        check("*", Some(("*", "*")));
        check("http://a.example/b?c", Some(("/b?c", "/b")));
        check("http://a.example", Some(("/", "/")));
        check("http://a.example?c", Some(("/?c", "/")));
        check("a.example:443", Some(("", "")));
        check("/a|b\"", Some(("/a|b\"", "/a|b\"")));
        check("/a b", None);
        check("/\u{1}", None);
        check("", None);
    }

    proptest! {
        #[test]
        fn plain_ones_are_read_as_a_parser_of_uris_reads_them(text in "/[!-~]{0,12}") {
            let parsed = text.parse::<PathAndQuery>().ok().filter(|parsed| parsed.as_str() == text);
            let target = Target::parse(text.as_bytes()).filter(|target| target.as_str() == text);
            prop_assert_eq!(target.as_ref().map(Target::path), parsed.as_ref().map(PathAndQuery::path));
        }
    }
}
