//! Pure edits of a header map: what would be sent upstream, and what goes back. In place, since
//! copying the map costs more than the whole decision.

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

use crate::authz::{decide::Permit, subject::Directory};

/// What a connection contributes to every request on it; made once, when it is accepted.
#[derive(Clone, Debug)]
pub struct PeerFields {
    address: Option<HeaderValue>,
    secure: bool,
}

/// What a request adds to its connection's part.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    pub peer: &'a PeerFields,
    /// The connection comes from a trusted proxy: its `Forwarded` and `X-Forwarded-*` are kept and
    /// added to. Anybody else's are dropped.
    pub peer_trusted: bool,
    /// The host as the client sent it.
    pub host: Option<&'a HeaderValue>,
    pub request_id: &'a HeaderValue,
}

/// The user's groups do not fit; they are never cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the groups of the user do not fit into 4 KiB")]
pub struct IdentityTooLarge;

/// `Forwarded` and `X-Forwarded-For` of a trusted proxy name different clients: one of the two was
/// passed on from a stranger. Answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Forwarded and X-Forwarded-For disagree about the client")]
pub struct AmbiguousClient;

/// Makes the fields of a permitted request those that the upstream gets.
pub fn edit_request(
    _headers: &mut HeaderMap,
    _permit: &Permit<'_>,
    _directory: &Directory,
    _hop: &Hop<'_>,
) -> Result<(), IdentityTooLarge> {
    todo!()
}

/// Drops from a request's trailers what [`edit_request`] would not let through as a header.
pub fn edit_request_trailers(_trailers: &mut HeaderMap) {
    todo!()
}

/// Drops what concerns the upstream's connection alone and sets `X-Request-Id`.
pub fn edit_response(_headers: &mut HeaderMap, _request_id: &HeaderValue) {
    todo!()
}

/// Drops from an answer's trailers what frames, routes or concerns one connection.
pub fn edit_response_trailers(_trailers: &mut HeaderMap) {
    todo!()
}

/// Whether a field's name folds (`_` and `.` to `-`) onto a framing field without being it:
/// answered with 400, since a server behind may take it for the real one.
pub fn framing_alias(_headers: &HeaderMap) -> bool {
    todo!()
}

/// Whether a field asks the upstream to take another method than the one that was judged.
pub fn method_override(_headers: &HeaderMap) -> bool {
    todo!()
}

/// The client's address: the peer's, or, behind trusted proxies, the rightmost one told that is not
/// a trusted proxy's.
pub fn client_address(
    _headers: &HeaderMap,
    _peer: IpAddr,
    _trusted_proxies: &[IpNet],
) -> Result<IpAddr, AmbiguousClient> {
    todo!()
}

/// Whether the address is one of the trusted proxies'.
pub fn is_trusted(peer: IpAddr, trusted_proxies: &[IpNet]) -> bool {
    let peer = peer.to_canonical();
    trusted_proxies.iter().any(|net| net.contains(&peer))
}

impl PeerFields {
    /// `None`: a unix socket.
    pub fn new(address: Option<IpAddr>, secure: bool) -> Self {
        let address = address.map(|address| {
            HeaderValue::from_str(&address.to_canonical().to_string()).expect("an address is ASCII")
        });
        Self { address, secure }
    }
}
