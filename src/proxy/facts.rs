//! What the decision asks about a request, read from its head once.

use std::{net::IpAddr, rc::Rc};

use http::{HeaderMap, header};

use crate::{
    authz::{
        answer::Reason,
        carriers::{self, Carried, Site},
        decide::Credential,
        destination::Destination,
        forwarding::{client_address, is_secure, method_override, stated_hosts},
    },
    net::Connection,
    proxy::{Gateway, host::HostName, trusts, worker_state::WorkerState},
};

/// Everything that the client controls beside method and target. Judged again whenever the state
/// changes, so it is kept for as long as the request is under way.
pub struct RequestFacts {
    /// `None`: HTTP/1.0 without Host.
    pub host: Option<Rc<HostName>>,
    /// `Authorization` as a bearer.
    pub credential: Credential,
    /// What stands in the other carriers that some service accepts.
    pub carried: Vec<Carried>,
    /// The client's address, as trusted proxies report it.
    pub client: IpAddr,
    pub upgrade: bool,
    pub method_override: bool,
    /// WebDAV's second target.
    pub destination: Option<Destination>,
    /// The client asked by TLS, as far as carriers of credentials are concerned.
    pub secure: bool,
    /// Hosts that a trusted proxy names beside the request's own.
    pub stated_hosts: Vec<String>,
}

impl RequestFacts {
    /// The facts of a request for `host`. An error: trusted proxies contradict each other, or cannot be understood.
    pub fn read(
        gateway: &Gateway,
        state: &WorkerState,
        connection: &Connection,
        headers: &HeaderMap,
        host: Option<Rc<HostName>>,
    ) -> Result<Self, Reason> {
        let settings = &state.snapshot.rules.settings;
        let (peer, trusted) = (connection.address(), trusts(state, connection));
        let client = client_address(headers, peer, trusted, &settings.trusted_proxies);
        let has_imports = gateway.parts.state.index().imported() > 0;
        let credential = Credential::from_headers(headers, settings.perm_alias, has_imports);
        // Asked only for what a client is told of carriers.
        let has_carriers = state.snapshot.rules.carriers().is_some();
        let secure = connection.secure || has_carriers && trusted && is_secure(headers);
        let carried = state.snapshot.rules.carriers().map(|carriers| {
            let site = Site { host: host.as_ref().map(|host| host.field()), secure };
            carriers::read(headers, credential, carriers, site, (settings.perm_alias, has_imports))
        });
        Ok(Self {
            client: client.map_err(|_| Reason::BadRequest)?,
            credential,
            secure,
            carried: carried.unwrap_or_default(),
            upgrade: headers.contains_key(header::UPGRADE),
            method_override: method_override(headers),
            destination: Destination::from_headers(headers, host.as_ref().map(|host| host.field())),
            stated_hosts: if trusted {
                stated_hosts(headers).map_err(|_| Reason::BadRequest)?
            } else {
                Vec::new()
            },
            host,
        })
    }

    /// Of a request whose head cannot be judged: only the peer's address is known.
    pub fn unreadable(peer: IpAddr) -> Self {
        Self {
            host: None,
            credential: Credential::Missing,
            carried: Vec::new(),
            secure: false,
            client: peer,
            upgrade: false,
            method_override: false,
            destination: None,
            stated_hosts: Vec::new(),
        }
    }

    /// The host in lower case and without port.
    pub fn host_name(&self) -> Option<&str> {
        self.host.as_ref().map(|host| host.as_str())
    }

    /// The host as the client sent it.
    pub fn host_field(&self) -> Option<&[u8]> {
        self.host.as_ref().map(|host| host.field())
    }
}
