//! Who is at the other end of a connection.

use std::net::{IpAddr, SocketAddr};

use crate::authz::forwarding::TrustedProxies;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Inet(SocketAddr),
    /// A unix socket, by the kernel's word.
    Unix {
        uid: u32,
        pid: Option<i32>,
    },
    /// Somebody whom the trusted proxy at this address does not name: it counts for the address,
    /// and is not believed for it.
    Unnamed(IpAddr),
}

impl Peer {
    /// A unix socket's peer counts as local.
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Inet(address) => address.ip(),
            Self::Unix { .. } => IpAddr::from([127, 0, 0, 1]),
            Self::Unnamed(proxy) => *proxy,
        }
    }

    /// Whether what it says of its clients is believed.
    pub fn is_trusted(&self, trusted: &TrustedProxies) -> bool {
        match self {
            Self::Inet(address) => trusted.contains(address.ip()),
            Self::Unix { .. } => trusted.unix,
            Self::Unnamed(_) => false,
        }
    }

    /// The address whose connections are counted.
    pub(super) fn counted(&self) -> Option<IpAddr> {
        match self {
            Self::Inet(address) => Some(address.ip()),
            Self::Unix { .. } | Self::Unnamed(_) => None,
        }
    }
}
