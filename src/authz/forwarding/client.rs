//! The client's address, as trusted proxies report it.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

use super::FORWARDED_FOR;

/// `Forwarded` and `X-Forwarded-For` of a trusted proxy name different clients, so the proxy has passed on
/// one of them from an untrusted sender. Answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Forwarded and X-Forwarded-For disagree about the client")]
pub struct AmbiguousClient;

/// The proxies that may report a client's address; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    pub networks: Vec<IpNet>,
    /// Whether every peer on a unix socket is trusted.
    pub unix: bool,
}

impl TrustedProxies {
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether the address belongs to a trusted proxy.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|net| net.contains(&address))
    }
}

impl FromIterator<IpNet> for TrustedProxies {
    fn from_iter<T: IntoIterator<Item = IpNet>>(networks: T) -> Self {
        Self { networks: networks.into_iter().collect(), unix: false }
    }
}

/// The client's address: the peer's, or, if the peer is trusted, the rightmost reported address that is not a
/// trusted proxy's.
pub fn client_address(
    headers: &HeaderMap,
    peer: IpAddr,
    peer_trusted: bool,
    trusted_proxies: &TrustedProxies,
) -> Result<IpAddr, AmbiguousClient> {
    let peer = peer.to_canonical();
    if !peer_trusted {
        return Ok(peer);
    }
    let values = headers.get_all(FORWARDED_FOR).iter().rev().map(HeaderValue::as_bytes);
    let hops = values.flat_map(|value| value.rsplit(|b| *b == b','));
    let list = rightmost(hops.map(node), peer, trusted_proxies);
    let values = headers.get_all(header::FORWARDED).iter().rev().map(HeaderValue::as_bytes);
    let hops = values.flat_map(|value| Elements { left: Some(value) });
    let elements = rightmost(hops.map(element_for), peer, trusted_proxies);
    match (list, elements) {
        (Some(list), Some(elements)) if list != elements => Err(AmbiguousClient),
        (Some(client), _) | (None, Some(client)) => Ok(client),
        (None, None) => Ok(peer),
    }
}

/// Follows the hops from the right, as long as the one that reported the next is trusted. An unreadable hop
/// ends the chain at the hop that reported it. `None` if there are no hops.
fn rightmost(
    hops: impl Iterator<Item = Option<IpAddr>>,
    peer: IpAddr,
    trusted_proxies: &TrustedProxies,
) -> Option<IpAddr> {
    let mut hops = hops.peekable();
    hops.peek()?;
    let mut client = peer;
    for hop in hops {
        let Some(address) = hop else { break };
        client = address;
        if !trusted_proxies.contains(client) {
            break;
        }
    }
    Some(client)
}

/// The elements of a `Forwarded` value from last to first. Parsed from the right: a quote that an untrusted
/// sender leaves open would otherwise swallow the elements that proxies append.
struct Elements<'a> {
    left: Option<&'a [u8]>,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let list = self.left.take()?;
        let mut quoted = false;
        for (at, byte) in list.iter().enumerate().rev() {
            match byte {
                b'"' if !quoted => quoted = true,
                b'"' if !is_escaped(list, at) => quoted = false,
                b',' if !quoted => {
                    self.left = Some(&list[..at]);
                    return Some(&list[at + 1..]);
                }
                _ => {}
            }
        }
        Some(list)
    }
}

/// Whether the byte follows a backslash that is not itself escaped.
fn is_escaped(text: &[u8], at: usize) -> bool {
    text[..at].iter().rev().take_while(|b| **b == b'\\').count() % 2 == 1
}

/// The address in the `for` of a valid element.
pub(super) fn element_for(element: &[u8]) -> Option<IpAddr> {
    node(&parameter(element, b"for")?)
}

/// The addresses in `X-Forwarded-For` from left to right; `None` for an entry that is no address.
pub(super) fn listed_addresses(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let values = headers.get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
    values.flat_map(|value| value.split(|b| *b == b',')).map(node).collect()
}

/// The elements of `Forwarded` from left to right.
pub(super) fn elements(headers: &HeaderMap) -> Vec<&[u8]> {
    let values = headers.get_all(header::FORWARDED).iter().rev().map(HeaderValue::as_bytes);
    let mut elements: Vec<_> = values.flat_map(|value| Elements { left: Some(value) }).collect();
    elements.reverse();
    elements
}

/// The value of a parameter of a valid element. Ignores case in the name.
pub(super) fn parameter<'e>(element: &'e [u8], wanted: &[u8]) -> Option<Cow<'e, [u8]>> {
    parameters(element)?
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
        .map(|(_, value)| value)
}

/// The most parameters of an element of `Forwarded`. RFC 7239 defines four. Each name is compared with the others.
const MAX_PARAMETERS: usize = 16;

/// The names and values of an element's parameters; `None` if it is malformed, repeats a name or has too many.
pub(super) fn parameters(element: &[u8]) -> Option<Vec<(&[u8], Cow<'_, [u8]>)>> {
    let mut pairs: Vec<(&[u8], Cow<'_, [u8]>)> = Vec::new();
    let mut rest = element.trim_ascii();
    while let Some(first) = rest.first() {
        // RFC 7239, 4: a parameter may be empty.
        if *first == b';' {
            rest = rest[1..].trim_ascii_start();
            continue;
        }
        let equals = rest.iter().position(|b| *b == b'=')?;
        let (name, value) = (rest[..equals].trim_ascii(), rest[equals + 1..].trim_ascii_start());
        HeaderName::from_bytes(name).ok()?;
        let (value, behind) = match value.strip_prefix(b"\"") {
            Some(open) => unquoted(open)?,
            None => {
                let end = value.iter().position(|b| *b == b';').unwrap_or(value.len());
                (Cow::Borrowed(value[..end].trim_ascii_end()), &value[end..])
            }
        };
        rest = match behind.split_first() {
            None => behind,
            Some((b';', more)) => more.trim_ascii_start(),
            Some(_) => return None,
        };
        let repeats = pairs.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        if repeats || pairs.len() == MAX_PARAMETERS {
            return None;
        }
        pairs.push((name, value));
    }
    Some(pairs)
}

/// Decodes a quoted string after its opening quote. Returns its content and what follows it.
fn unquoted(open: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let mut said = Vec::new();
    let mut from = 0;
    loop {
        let at = from + open[from..].iter().position(|b| matches!(b, b'"' | b'\\'))?;
        if open[at] == b'"' {
            let last = &open[from..at];
            let said = if from == 0 { Cow::Borrowed(last) } else { Cow::Owned([&said, last].concat()) };
            return Some((said, open[at + 1..].trim_ascii_start()));
        }
        said.extend_from_slice(&open[from..at]);
        said.push(*open.get(at + 1)?);
        from = at + 2;
    }
}

/// An address, which may have a port; IPv6 may be in brackets. `None` for `unknown` and obfuscated names.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, behind): (IpAddr, &str) = match text.strip_prefix('[') {
        Some(open) => {
            let (address, behind) = open.split_once(']')?;
            (address.parse::<Ipv6Addr>().ok()?.into(), behind)
        }
        None => {
            let (address, behind) = text.split_at(text.find(':')?);
            (address.parse::<Ipv4Addr>().ok()?.into(), behind)
        }
    };
    let is_sound = behind.is_empty() || behind.strip_prefix(':').is_some_and(is_port);
    is_sound.then(|| address.to_canonical())
}

/// Whether this is a port number or an obfuscated port (RFC 7239, 6).
fn is_port(port: &str) -> bool {
    match port.strip_prefix('_') {
        Some(name) => {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        }
        None => port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok(),
    }
}

#[cfg(test)]
mod tests;
