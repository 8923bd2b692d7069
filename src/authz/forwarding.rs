//! Pure edits of a header map: what would be sent upstream, and what goes back. In place, since
//! copying the map costs more than the whole decision.

use std::{cell::RefCell, net::IpAddr, ops::Deref};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, Entry},
};

use crate::authz::{decide::Permit, rules::Authorization, subject::Directory};

pub use client::{AmbiguousClient, TrustedProxies, client_address};
pub use identity::{ASSERTION, Claims, Identities};
use names::{Fate, Side, fate, may_be_listed};
pub use names::{framing_alias, method_override, misleads};

mod client;
mod identity;
mod names;

/// What a connection contributes to every request on it; made once, when it is accepted.
#[derive(Clone, Debug)]
pub struct PeerFields {
    address: Option<HeaderValue>,
    /// The beginning of our element of `Forwarded`.
    element: String,
    /// The whole element and the host that it names: hardly a client asks for two.
    forwarded: RefCell<Option<(Option<HeaderValue>, HeaderValue)>>,
    proto: HeaderValue,
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

/// Makes the fields of a permitted request those that the upstream gets.
pub fn edit_request(
    headers: &mut HeaderMap,
    permit: &Permit<'_>,
    identities: &Identities<impl Deref<Target = Directory>>,
    hop: &Hop<'_>,
) -> Result<(), IdentityTooLarge> {
    let service = permit.owner().service;
    // One growth at most: the map seldom has room for all that is set.
    headers.reserve(MOST_SET);
    let side = if hop.peer_trusted { Side::TrustedRequest } else { Side::Request };
    let takes_trailers = drop_fields(headers, side);
    match &service.spec.authorization {
        Authorization::Strip => drop(headers.remove(header::AUTHORIZATION)),
        // Of a bearer that is forwarded anonymously the upstream is not to hear: the token is not
        // granted for this service, or its owner may not read it.
        Authorization::Keep if permit.subject().is_none() => drop_bearer(headers),
        Authorization::Keep => {}
        Authorization::Replace(credential) => {
            headers.insert(header::AUTHORIZATION, credential.0.clone());
        }
    }
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if hop.peer_trusted {
        add_hop(headers, hop);
    } else {
        set_hop(headers, hop);
    }
    headers.insert(REQUEST_ID, hop.request_id.clone());
    if service.spec.identity.has_headers() {
        identities.set(headers, permit)?;
    }
    Ok(())
}

/// Drops from a request's trailers what [`edit_request`] would not let through as a header.
pub fn edit_request_trailers(trailers: &mut HeaderMap) {
    drop_fields(trailers, Side::RequestTrailers);
}

/// Drops what concerns the upstream's connection alone and sets `X-Request-Id`.
pub fn edit_response(headers: &mut HeaderMap, request_id: &HeaderValue) {
    drop_fields(headers, Side::Response);
    headers.insert(REQUEST_ID, request_id.clone());
}

/// Drops from an answer's trailers what frames, routes or concerns one connection.
pub fn edit_response_trailers(trailers: &mut HeaderMap) {
    drop_fields(trailers, Side::ResponseTrailers);
}

impl PeerFields {
    /// `None`: a unix socket.
    pub fn new(address: Option<IpAddr>, secure: bool) -> Self {
        let proto = if secure { "https" } else { "http" };
        let text = address.map(|address| address.to_canonical().to_string());
        let node = match (&text, address.map(|address| address.to_canonical())) {
            (Some(text), Some(IpAddr::V6(_))) => format!("\"[{text}]\""),
            (Some(text), _) => text.clone(),
            (None, _) => "unknown".to_owned(),
        };
        Self {
            address: text.and_then(|text| HeaderValue::from_str(&text).ok()),
            element: format!("for={node};proto={proto}"),
            forwarded: RefCell::default(),
            proto: HeaderValue::from_static(proto),
        }
    }

    /// Our element of `Forwarded`, for a host that needs no escaping.
    fn forwarded(&self, host: Option<&HeaderValue>) -> HeaderValue {
        if let Some((of, element)) = &*self.forwarded.borrow()
            && of.as_ref() == host
        {
            return element.clone();
        }
        let mut element = self.element.clone();
        if let Some(host) = host.and_then(|host| host.to_str().ok()) {
            element.push_str(";host=\"");
            element.push_str(host);
            element.push('"');
        }
        let element = HeaderValue::try_from(element).expect("a host that is_host is visible ASCII");
        // Copied: the client's own value would keep its whole head in memory.
        let of = host.map(|host| HeaderValue::from_bytes(host.as_bytes()).expect("was a field value"));
        self.forwarded.replace(Some((of, element.clone())));
        element
    }
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// How many fields are set at most.
const MOST_SET: usize = 12;

/// Only our own `TE` goes on, and only when the client said that it takes trailers.
fn accepts_trailers(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(header::TE).iter().filter_map(|te| te.to_str().ok());
    let mut codings = codings.flat_map(|te| te.split(','));
    codings.any(|coding| coding.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("trailers"))
}

/// Drops what `Connection` names and what does not cross this side; makes `Trailer` anew. Whether
/// `TE` said that trailers are taken. One look at every name, and a look-up only for what is there.
fn drop_fields(headers: &mut HeaderMap, side: Side) -> bool {
    let (mut standard, mut trailer) = (0u32, false);
    let mut others = Vec::new();
    for name in headers.keys() {
        match fate(name.as_str().as_bytes(), side) {
            Fate::Keep => {}
            Fate::Remake => trailer = true,
            Fate::DropStandard(bit) => standard |= 1 << bit,
            Fate::Drop => others.push(name.clone()),
        }
    }
    // Before `Connection` is obeyed, which has to name `TE`.
    let takes_trailers = standard & 1 << names::TE_BIT != 0 && accepts_trailers(headers);
    if standard & 1 << names::CONNECTION_BIT != 0 {
        drop_listed(headers);
    }
    if trailer {
        remake_trailer(headers, side);
    }
    while standard != 0 {
        let bit = standard.trailing_zeros();
        headers.remove(&names::STANDARD[bit as usize]);
        standard &= standard - 1;
    }
    others.iter().for_each(|name| drop(headers.remove(name)));
    takes_trailers
}

fn drop_bearer(headers: &mut HeaderMap) {
    let is_bearer = |value: &HeaderValue| {
        let scheme = value.as_bytes().trim_ascii_start().first_chunk::<6>();
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer"))
    };
    if headers.get_all(header::AUTHORIZATION).iter().any(is_bearer) {
        headers.remove(header::AUTHORIZATION);
    }
}

/// The fields that `Connection` names; what others rely on cannot be dropped that way.
fn drop_listed(headers: &mut HeaderMap) {
    let values: Vec<HeaderValue> = headers.get_all(header::CONNECTION).iter().cloned().collect();
    for option in values.iter().flat_map(|value| value.as_bytes().split(|b| *b == b',')) {
        let option = option.trim_ascii().to_ascii_lowercase();
        if may_be_listed(&option)
            && let Ok(name) = HeaderName::from_bytes(&option)
        {
            headers.remove(name);
        }
    }
}

/// hyper sends the trailers that `Trailer` names, and those alone: it names what may pass.
fn remake_trailer(headers: &mut HeaderMap, side: Side) {
    let Entry::Occupied(entry) = headers.entry(header::TRAILER) else { return };
    let (_, values) = entry.remove_entry_mult();
    let values: Vec<HeaderValue> = values.collect();
    let mut names = String::new();
    for name in values.iter().flat_map(|value| value.as_bytes().split(|b| *b == b',')) {
        let name = name.trim_ascii().to_ascii_lowercase();
        if let Ok(name) = HeaderName::from_bytes(&name)
            && matches!(fate(name.as_str().as_bytes(), side.trailers()), Fate::Keep)
        {
            names.push_str(if names.is_empty() { "" } else { ", " });
            names.push_str(name.as_str());
        }
    }
    if !names.is_empty() {
        headers.insert(header::TRAILER, HeaderValue::try_from(names).expect("field names are visible ASCII"));
    }
}

/// `Forwarded` and `X-Forwarded-*` when nothing of them is there.
fn set_hop(headers: &mut HeaderMap, hop: &Hop<'_>) {
    let host = hop.host.filter(|host| is_host(host.as_bytes()));
    if let Some(address) = &hop.peer.address {
        headers.insert(FORWARDED_FOR, address.clone());
    }
    headers.insert(header::FORWARDED, hop.peer.forwarded(host));
    headers.insert(FORWARDED_PROTO, hop.peer.proto.clone());
    if let Some(host) = host {
        headers.insert(FORWARDED_HOST, host.clone());
    }
}

/// `Forwarded` and `X-Forwarded-*`: a trusted proxy's are kept and added to.
fn add_hop(headers: &mut HeaderMap, hop: &Hop<'_>) {
    if let Some(address) = &hop.peer.address {
        append(headers, FORWARDED_FOR, address);
    }
    let host = hop.host.filter(|host| is_host(host.as_bytes()));
    append(headers, header::FORWARDED, &hop.peer.forwarded(host));
    keep_one(headers, FORWARDED_PROTO, Some(&hop.peer.proto), |proto| matches!(proto, b"http" | b"https"));
    keep_one(headers, FORWARDED_HOST, host, is_host);
    keep_one(headers, FORWARDED_PORT, None, |port| {
        matches!(port.len(), 1..=5) && port.iter().all(u8::is_ascii_digit)
    });
}

/// Joins what is there and the new value to one list.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    match headers.entry(name) {
        Entry::Vacant(entry) => drop(entry.insert(value.clone())),
        Entry::Occupied(mut entry) => {
            let mut list = Vec::new();
            for part in entry.iter().chain([value]).filter(|part| !part.is_empty()) {
                list.extend_from_slice(if list.is_empty() { b"" } else { b", " });
                list.extend_from_slice(part.as_bytes());
            }
            entry.insert(HeaderValue::from_maybe_shared(list).unwrap_or_else(|_| value.clone()));
        }
    }
}

/// Keeps a single sound value, else puts ours there.
fn keep_one(headers: &mut HeaderMap, name: HeaderName, ours: Option<&HeaderValue>, sound: fn(&[u8]) -> bool) {
    let mut values = headers.get_all(&name).iter();
    match (values.next(), values.next(), ours) {
        (Some(value), None, _) if sound(value.as_bytes()) => {}
        (_, _, Some(ours)) => drop(headers.insert(name, ours.clone())),
        (None, _, None) => {}
        (_, _, None) => drop(headers.remove(name)),
    }
}

/// A host that needs no escaping inside of quotes.
fn is_host(host: &[u8]) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':');
    !host.is_empty() && host.iter().all(|b| plain(b) || b"_~[]%!$&'()*+,;=".contains(b))
}

#[cfg(test)]
mod tests;
