//! Who the client is, behind proxies that are trusted to say so.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, header};
use ipnet::IpNet;

use super::FORWARDED_FOR;

/// `Forwarded` and `X-Forwarded-For` of a trusted proxy name different clients: one of the two was
/// passed on from a stranger. Answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Forwarded and X-Forwarded-For disagree about the client")]
pub struct AmbiguousClient;

/// Who may say on whose behalf a request comes; nobody unless named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    pub networks: Vec<IpNet>,
    /// Whoever connects through a unix socket.
    pub unix: bool,
}

impl TrustedProxies {
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether the address is one of theirs.
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

/// The client's address: the peer's, or, when the peer is trusted, the rightmost one told that is
/// not a trusted proxy's.
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
    let told = |name: header::HeaderName, separators: &[char], read: fn(&str) -> Option<IpAddr>| {
        let values = headers.get_all(name);
        // A value that is not text tells nothing about the hops to its left.
        let mut hops = Vec::new();
        for value in &values {
            hops.extend(value.to_str().unwrap_or("?").split(|c| separators.contains(&c)));
        }
        (!hops.is_empty()).then(|| rightmost(&hops, peer, trusted_proxies, read))
    };
    let list = told(FORWARDED_FOR, &[','], |hop| address(hop.trim()));
    let elements = told(header::FORWARDED, &[','], |element| {
        let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
        let mut nodes = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
        let (_, node) = nodes.next().filter(|_| nodes.next().is_none())?;
        address(node.trim().trim_matches('"'))
    });
    match (list, elements) {
        (Some(list), Some(elements)) if list != elements => Err(AmbiguousClient),
        (Some(client), _) | (None, Some(client)) => Ok(client),
        (None, None) => Ok(peer),
    }
}

/// From the right, each trusted hop vouches for the next one; what cannot be read ends the chain at
/// the hop that told it.
fn rightmost(
    hops: &[&str],
    peer: IpAddr,
    trusted_proxies: &TrustedProxies,
    read: fn(&str) -> Option<IpAddr>,
) -> IpAddr {
    let mut client = peer;
    for hop in hops.iter().rev() {
        let Some(address) = read(hop) else { break };
        client = address;
        if !trusted_proxies.contains(client) {
            break;
        }
    }
    client
}

/// An address, also with a port, IPv6 also in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let address = text.parse().ok().or_else(bare).or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    address.map(|address| address.to_canonical())
}
