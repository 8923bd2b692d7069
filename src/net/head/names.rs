//! Names inside a head that decide where a message ends and whose it is: framing fields, Host, the
//! target's authority.

use std::ops::Range;

use memchr::memchr;

use crate::net::Refusal;

/// The fields that say whose message it is and where it ends.
pub(super) enum Framer {
    Authorization,
    Connection,
    ContentLength,
    Host,
    TransferEncoding,
}

impl Framer {
    /// A name that only becomes one of these when `_` or `.` is read as `-` is refused: some
    /// server behind would read it so.
    pub(super) fn named(name: &[u8]) -> Result<Option<Self>, Refusal> {
        let (exact, framer): (&[u8], _) = match name.len() {
            4 => (b"host", Self::Host),
            10 => (b"connection", Self::Connection),
            13 => (b"authorization", Self::Authorization),
            14 => (b"content-length", Self::ContentLength),
            17 => (b"transfer-encoding", Self::TransferEncoding),
            _ => return Ok(None),
        };
        if name.eq_ignore_ascii_case(exact) {
            return Ok(Some(framer));
        }
        let folded = name.iter().zip(exact).all(|(&b, &e)| match b {
            b'_' | b'.' => e == b'-',
            _ => b.eq_ignore_ascii_case(&e),
        });
        if folded { Err(Refusal::BadRequest("a name that folds onto a framing field")) } else { Ok(None) }
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
    !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(b)) && port(behind)
}
