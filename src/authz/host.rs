//! Host names in canonical form: one spelling per host, so that they can be compared for equality.

use std::{borrow::Cow, net::Ipv6Addr};

/// A `host[:port]` (RFC 3986, 3.2). The host is in lower case without a final dot; an IPv6 address is in
/// brackets and in canonical form (RFC 5952).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    pub host: Cow<'a, str>,
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// `None` if it is malformed or has user information.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let text = str::from_utf8(text).ok()?;
        let end =
            if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
        let (host, behind) = text.split_at(end);
        let port = match behind.strip_prefix(':') {
            None if behind.is_empty() => None,
            None => return None,
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
        };
        Some(Self { host: canonical(host)?, port })
    }

    /// Whether both name the same host and port. `default` is the port of an authority without one.
    pub fn is_same(&self, other: &Self, default: u16) -> bool {
        self.host == other.host && self.port.unwrap_or(default) == other.port.unwrap_or(default)
    }
}

/// Returns a host's canonical spelling, or `None` if it cannot be served.
pub fn canonical(host: &str) -> Option<Cow<'_, str>> {
    if let Some(open) = host.strip_prefix('[') {
        let address: Ipv6Addr = open.strip_suffix(']')?.parse().ok()?;
        return Some(Cow::Owned(format!("[{address}]")));
    }
    // Servers may ignore one final dot. A second one is refused below, as an empty label.
    let name = host.strip_suffix('.').unwrap_or(host);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let has_empty_label = name.split('.').any(str::is_empty);
    if has_empty_label || !name.bytes().all(allowed) {
        return None;
    }
    let has_capitals = name.bytes().any(|byte| byte.is_ascii_uppercase());
    Some(if has_capitals { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_has_one_spelling() {
        let check = |text: &str, expected: Option<(&str, Option<u16>)>| {
            let found = Authority::parse(text.as_bytes());
            let found = found.as_ref().map(|found| (found.host.as_ref(), found.port));
            assert_eq!(found, expected, "{text}");
        };
        check("a.example", Some(("a.example", None)));
        check("A.Example.:8080", Some(("a.example", Some(8080))));
        check("a:", Some(("a", None)));
        check("[::1]:80", Some(("[::1]", Some(80))));
        check("[0:0::0001]", Some(("[::1]", None)));
        check("[2001:DB8::A]", Some(("[2001:db8::a]", None)));
        for none in [
            "", ":80", ".", ".a", "a..", "a..b", "u@a", "a/b", "a b", "a:8o", "a:65536", "a:+1", "[::1",
            "[::1]a", "[a]",
        ] {
            check(none, None);
        }
    }

    #[test]
    fn a_port_that_is_not_written_is_the_default() {
        let same = |one: &str, other: &str| {
            let parse = |text: &'static str| Authority::parse(text.as_bytes()).unwrap();
            let (one, other) = (one.to_owned().leak(), other.to_owned().leak());
            parse(one).is_same(&parse(other), 80)
        };
        assert!(same("a", "A.:80"));
        assert!(same("a:8080", "a:8080"));
        assert!(!same("a", "a:8080"));
        assert!(!same("a:443", "a"));
        assert!(!same("a", "b"));
    }
}
