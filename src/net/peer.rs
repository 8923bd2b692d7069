//! The peer at the other end of a connection.

use std::net::{IpAddr, SocketAddr};

use crate::authz::forwarding::TrustedProxies;

/// The peer at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Inet(SocketAddr),
    /// A process on a unix socket, as the kernel reports it.
    Unix {
        uid: u32,
        pid: Option<i32>,
    },
    /// A client that the trusted proxy at this address does not name. It has the proxy's address, but not the
    /// proxy's trust.
    Unnamed(IpAddr),
}

impl Peer {
    /// Returns the peer's address. A unix socket's peer counts as local.
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Inet(address) => address.ip(),
            Self::Unix { .. } => IpAddr::from([127, 0, 0, 1]),
            Self::Unnamed(proxy) => *proxy,
        }
    }

    /// Whether the peer is trusted to name its clients.
    pub fn is_trusted(&self, trusted: &TrustedProxies) -> bool {
        match self {
            Self::Inet(address) => trusted.contains(address.ip()),
            Self::Unix { .. } => trusted.unix,
            Self::Unnamed(_) => false,
        }
    }

    /// The address to which the limit per address applies.
    pub(super) fn limited_address(&self) -> Option<IpAddr> {
        match self {
            Self::Inet(address) => Some(address.ip()),
            Self::Unix { .. } | Self::Unnamed(_) => None,
        }
    }
}
