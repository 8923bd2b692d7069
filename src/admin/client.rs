//! The origin of a request: the client's address, also behind proxies in front of the listener.

use std::net::IpAddr;

use http::{HeaderMap, header};

use super::Context;
use crate::{
    authz::{
        forwarding::{DropReason, client_address, drop_reason},
        reason::Reason,
    },
    net::{Connection, Peer},
};

/// Which clients may read `/metrics` without a token: `admin.metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MetricsAccess {
    /// Clients on this machine whose request did not visibly pass a proxy.
    #[default]
    Local,
    /// Peers on the unix socket.
    Socket,
    /// Everybody who reaches the listener.
    Listener,
    /// Everybody who reaches a separate listener at this address; nobody on the others.
    SeparateListener(crate::net::Address),
}

impl MetricsAccess {
    /// The address of the listener that serves nothing else.
    pub fn separate_listener(&self) -> Option<&crate::net::Address> {
        if let Self::SeparateListener(address) = self { Some(address) } else { None }
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClientOrigin {
    /// The client's address as trusted proxies report it.
    pub address: IpAddr,
    /// A proxy forwarded the request, so the peer is not the client.
    pub forwarded: bool,
}

impl ClientOrigin {
    /// Fails if trusted proxies contradict each other about the client.
    pub fn from_request(
        headers: &HeaderMap,
        connection: &Connection,
        context: &Context,
    ) -> Result<Self, Reason> {
        let trusted = connection.peer.is_trusted(&context.trusted_proxies);
        let address = client_address(headers, connection.address(), trusted, &context.trusted_proxies);
        let address = address.map_err(|_| Reason::BadForwarded)?;
        Ok(Self { address, forwarded: is_forwarded(headers) || trusted && is_tcp(connection) })
    }

    /// Whether this client may read `/metrics` without a token.
    pub fn reads_metrics(&self, headers: &HeaderMap, connection: &Connection, context: &Context) -> bool {
        let over_unix = matches!(connection.peer, Peer::Unix { .. }) && !self.forwarded;
        match context.metrics_access {
            MetricsAccess::Local => {
                let from_here = is_tcp(connection) && connection.address().is_loopback();
                over_unix || from_here && !self.forwarded && has_loopback_host(headers)
            }
            MetricsAccess::Socket => over_unix,
            MetricsAccess::Listener => true,
            MetricsAccess::SeparateListener(_) => false,
        }
    }
}

fn is_tcp(connection: &Connection) -> bool {
    matches!(connection.peer, Peer::Inet(_))
}

/// Whether the request has headers by which proxies tell about their client or its target. permgate's own proxy
/// always adds some.
fn is_forwarded(headers: &HeaderMap) -> bool {
    let is_added = |name: &[u8]| drop_reason(name).is_some_and(|reason| !matches!(reason, DropReason::Ours));
    headers.keys().any(|name| *name == header::VIA || is_added(name.as_str().as_bytes()))
}

/// Whether Host is a loopback name or address. Requests for the page's public name are not local.
fn has_loopback_host(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let (name, address) = super::guard::split_port(host);
    address.is_some_and(|address| address.to_canonical().is_loopback())
        || name.eq_ignore_ascii_case("localhost")
}
