//! Where a request comes from, behind proxies in front of the listener.

use std::net::IpAddr;

use http::{HeaderMap, header};

use super::Context;
use crate::{
    authz::{answer::Reason, forwarding::client_address},
    net::{Connection, Peer},
};

/// Who gets `/metrics` without a token: `admin.metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MetricsAccess {
    /// Whoever asks from this machine, but through no proxy, as far as that can be seen.
    #[default]
    Local,
    /// Peers on the unix socket.
    Socket,
    /// Whoever reaches the listener.
    Listener,
    /// Whoever reaches a listener of their own; on the others nobody.
    Apart(crate::net::Address),
}

/// What a request says about where it comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The client's address, by the word of trusted proxies.
    pub address: IpAddr,
    /// A proxy has passed the request on: its peer is not the client.
    pub forwarded: bool,
}

impl Origin {
    /// An error: trusted proxies contradict each other about the client.
    pub fn of(headers: &HeaderMap, connection: &Connection, context: &Context) -> Result<Self, Reason> {
        let trusted = connection.peer.is_trusted(&context.trusted_proxies);
        let address = client_address(headers, connection.address(), trusted, &context.trusted_proxies);
        let address = address.map_err(|_| Reason::BadRequest)?;
        Ok(Self { address, forwarded: is_forwarded(headers) || trusted && is_tcp(connection) })
    }

    /// Whether `/metrics` is for this client without a token.
    pub fn reads_metrics(&self, headers: &HeaderMap, connection: &Connection, context: &Context) -> bool {
        let over_unix = matches!(connection.peer, Peer::Unix { .. }) && !self.forwarded;
        match context.metrics_access {
            MetricsAccess::Local => {
                let from_here = is_tcp(connection) && connection.address().is_loopback();
                over_unix || from_here && !self.forwarded && names_this_machine(headers)
            }
            MetricsAccess::Socket => over_unix,
            MetricsAccess::Listener => true,
            MetricsAccess::Apart(_) => false,
        }
    }
}

fn is_tcp(connection: &Connection) -> bool {
    matches!(connection.peer, Peer::Inet(_))
}

/// Whether a proxy has added what proxies add. Our own always does.
fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        *name == header::FORWARDED
            || *name == header::VIA
            || name.as_str() == "x-real-ip"
            || name.as_str().starts_with("x-forwarded-")
    })
}

/// Whether Host names this machine and not the page, which only others ask for by its name.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = super::guard::name_of(host);
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.is_ok_and(|address| address.to_canonical().is_loopback())
        || name.eq_ignore_ascii_case("localhost")
}
