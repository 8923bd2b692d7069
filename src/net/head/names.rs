//! Names inside a head that decide where a message ends and whose it is: framing fields, Host, the
//! target's authority.

use std::ops::Range;

use memchr::memchr;

use crate::{message::Names, net::Refusal};

/// The fields that say whose message it is and where it ends.
pub(super) enum Framer {
    ContentLength,
    Host,
    TransferEncoding,
}

pub(super) const FRAMERS: Names = Names::of(&["content-length", "host", "transfer-encoding"]);

impl Framer {
    /// What the field of this name says, which is in lower case. A name that only becomes one of
    /// these when `_` or `.` is read as `-` is refused: some server behind would read it so. (A name
    /// without `-` cannot be meant in that way.)
    pub(super) fn of(name: &[u8]) -> Result<Option<Self>, Refusal> {
        let (framer, expected): (_, &[u8]) = match name {
            b"host" => return Ok(Some(Self::Host)),
            [b'c', ..] => (Self::ContentLength, b"content-length"),
            [b't', ..] => (Self::TransferEncoding, b"transfer-encoding"),
            _ => return Ok(None),
        };
        if name == expected {
            return Ok(Some(framer));
        }
        let folds = |(given, expected): (&u8, &u8)| {
            given == expected || *expected == b'-' && matches!(given, b'_' | b'.')
        };
        if name.len() == expected.len() && name.iter().zip(expected).all(folds) {
            return Err(Refusal::BadRequest("a name that folds onto a framing field"));
        }
        Ok(None)
    }
}

/// Where the authority is in a target that is no path; `OPTIONS *` and `CONNECT host:port` have
/// none that could disagree with Host.
#[cold]
pub(super) fn authority(method: &[u8], target: &[u8]) -> Result<Option<Range<usize>>, Refusal> {
    if matches!((method, target), (b"CONNECT", _) | (b"OPTIONS", b"*")) {
        return Ok(None);
    }
    [&b"http://"[..], b"https://"]
        .iter()
        .find_map(|scheme| {
            let (start, rest) = target.split_at_checked(scheme.len())?;
            let len = rest.iter().position(|b| b"/?".contains(b)).unwrap_or(rest.len());
            (start.eq_ignore_ascii_case(scheme) && len > 0).then_some(Some(start.len()..start.len() + len))
        })
        .ok_or(Refusal::BadRequest("malformed request target"))
}

/// `host` or `host:port`: a registered name, an address, or a bracketed IPv6 address.
pub(super) fn valid_host(host: &[u8]) -> bool {
    let port = |port: &[u8]| port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    if let Some(rest) = host.strip_prefix(b"[") {
        let Some(close) = memchr(b']', rest) else { return false };
        let literal = std::str::from_utf8(&rest[..close]).unwrap_or_default();
        let behind = &rest[close + 1..];
        return literal.parse::<std::net::Ipv6Addr>().is_ok()
            && (behind.is_empty() || behind.strip_prefix(b":").is_some_and(port));
    }
    let (name, behind) = match memchr(b':', host) {
        Some(colon) => (&host[..colon], &host[colon + 1..]),
        None => (host, &[][..]),
    };
    !name.is_empty()
        // A server may cut one dot off at the end: what is left must not be another name again.
        && !name.windows(2).any(|two| two == b"..")
        && name
            .iter()
            .all(|b| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~'))
        && port(behind)
}
