//! Edits of header fields: those that the upstream gets, and those that the client gets back. The edits are
//! in place, since copying a header map costs more than the whole decision.

use std::{cell::RefCell, net::IpAddr, ops::Deref};

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, AsHeaderName},
};

use crate::authz::{
    carriers::{self, Carriers},
    cookies,
    decide::Permit,
    destination::{self, Destination},
    host::Authority,
    rules::Authorization,
    subject::Directory,
};

pub use client::{AmbiguousClient, TrustedProxies, client_address};
pub use dropped::{DropReason, FieldPattern, FieldPolicy, PassField, PassFrom, drop_reason, patterns};
pub use hop::{is_secure, stated_hosts};
pub use identity::{ASSERTION, Claims, IdentityCache, ReportedIdentity};
use names::{FieldSection, is_dropped_if_listed, is_forwarded};
pub(in crate::authz) use names::{folds_onto, is_reserved};
pub use names::{has_framing_alias, has_method_parameter, has_spoofing_field, method_override};

mod client;
mod dropped;
mod hop;
mod identity;
mod names;

/// The part of `Forwarded` and `X-Forwarded-*` that a connection determines; made when it is accepted.
#[derive(Clone, Debug)]
pub struct PeerFields {
    address: Option<HeaderValue>,
    ip: Option<IpAddr>,
    /// The start of the gateway's element of `Forwarded`.
    element: String,
    proto: HeaderValue,
    /// The fields for the last host that was requested; a client rarely requests two.
    cached: RefCell<Option<(Option<Vec<u8>>, ForwardedFields)>>,
}

type ForwardedFields = Vec<(HeaderName, HeaderValue)>;

/// What a request adds to [`PeerFields`].
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    pub peer: &'a PeerFields,
    /// Whether the connection comes from a trusted proxy. If so, its `Forwarded` and `X-Forwarded-*` are kept
    /// and extended; otherwise they are dropped.
    pub peer_trusted: bool,
    /// The host as the client sent it.
    pub host: Option<&'a [u8]>,
    pub request_id: &'a HeaderValue,
    /// The second target of the request, which the permit covers.
    pub destination: Option<&'a Destination>,
}

/// The user's groups exceed 4 KiB. The list is never cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the groups of the user do not fit into 4 KiB")]
pub struct IdentityTooLarge;

/// Turns the header fields of a permitted request into those that the upstream gets.
pub fn edit_request(
    headers: &mut HeaderMap,
    permit: &Permit<'_>,
    identities: &IdentityCache<impl Deref<Target = Directory>>,
    hop: &Hop<'_>,
) -> Result<(), IdentityTooLarge> {
    let service = permit.owner().service;
    let section = if hop.peer_trusted { FieldSection::TrustedRequest } else { FieldSection::Request };
    let accepts_trailers = drop_fields(headers, section, &service.spec.fields);
    // The admin listener's cookies, which browsers send to every port of its host.
    edit_values(headers, &header::COOKIE, cookies::strip_own);
    let authorization = &service.spec.authorization;
    // The token came in another field, so `Authorization` belongs to the application.
    let is_theirs =
        permit.subject().is_some() && permit.carrier().is_some_and(|kind| !kind.is_authorization());
    if service.spec.credentials != Carriers::BEARER {
        let in_authorization = is_theirs || permit.subject().is_none();
        carriers::strip(headers, &service.spec.credentials, in_authorization);
    }
    match authorization {
        Authorization::Strip if is_theirs => {}
        Authorization::Strip => {
            headers.remove(header::AUTHORIZATION);
        }
        // An anonymous request keeps no bearer: the token is not granted for this service, or its owner may
        // not read the service.
        Authorization::Keep if permit.subject().is_none() => drop_bearer(headers),
        Authorization::Keep => {}
        Authorization::Replace(credential) => {
            headers.insert(header::AUTHORIZATION, credential.0.clone());
        }
    }
    if accepts_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if hop.peer_trusted {
        hop::add(headers, hop);
    } else {
        hop.peer.set_forwarded(headers, hop.host);
    }
    if let Some(target) = hop.destination.and_then(Destination::target) {
        headers.insert(destination::NAME, target.clone());
    }
    headers.insert(REQUEST_ID, hop.request_id.clone());
    if service.spec.identity.has_headers() {
        identities.set(headers, permit)?;
    }
    Ok(())
}

/// Drops the request trailers that [`edit_request`] would drop as headers.
pub fn edit_request_trailers(trailers: &mut HeaderMap, policy: &FieldPolicy) {
    drop_fields(trailers, FieldSection::RequestTrailers, policy);
}

/// Drops fields that concern only the upstream's connection, and cookies of the gateway, and sets
/// `X-Request-Id`.
pub fn edit_response(headers: &mut HeaderMap, request_id: &HeaderValue) {
    drop_fields(headers, FieldSection::Response, &FieldPolicy::default());
    edit_values(headers, &header::SET_COOKIE, |value| cookies::sets_own(value).then(Vec::new));
    headers.insert(REQUEST_ID, request_id.clone());
}

/// Drops response trailers that frame or route the message or concern one connection (RFC 9110, 6.5.1).
pub fn edit_response_trailers(trailers: &mut HeaderMap) {
    drop_fields(trailers, FieldSection::ResponseTrailers, &FieldPolicy::default());
}

impl PeerFields {
    /// `address` is `None` for a unix socket.
    pub fn new(address: Option<IpAddr>, secure: bool) -> Self {
        let proto = if secure { "https" } else { "http" };
        let text = address.map(|address| address.to_canonical().to_string());
        let node = hop::node(address);
        Self {
            address: text.and_then(|text| HeaderValue::from_str(&text).ok()),
            ip: address,
            element: format!("for={node};proto={proto}"),
            proto: HeaderValue::from_static(proto),
            cached: RefCell::default(),
        }
    }

    /// The gateway's element of `Forwarded`, for a host that needs no escaping.
    fn element(&self, host: Option<&HeaderValue>) -> HeaderValue {
        let mut element = self.element.clone();
        if let Some(host) = host.and_then(|host| host.to_str().ok()) {
            element.push_str(";host=\"");
            element.push_str(host);
            element.push('"');
        }
        HeaderValue::try_from(element).expect("a host that is_host is visible ASCII")
    }

    /// Sets `Forwarded` and `X-Forwarded-*`. The client's own must have been dropped.
    fn set_forwarded(&self, headers: &mut HeaderMap, host: Option<&[u8]>) {
        let mut cached = self.cached.borrow_mut();
        let (_, fields) = match &mut *cached {
            Some(cached) if cached.0.as_deref() == host => cached,
            stale => stale.insert((host.map(Vec::from), self.forwarded_fields(host))),
        };
        for (name, value) in fields {
            headers.insert(name.clone(), value.clone());
        }
    }

    fn forwarded_fields(&self, host: Option<&[u8]>) -> ForwardedFields {
        let host = valid_host(host);
        let named = [
            (FORWARDED_FOR, self.address.clone()),
            (header::FORWARDED, Some(self.element(host.as_ref()))),
            (FORWARDED_PROTO, Some(self.proto.clone())),
            (FORWARDED_HOST, host),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// The non-empty elements of a comma-separated list, which may extend over several fields.
pub fn list_elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let values = headers.get_all(name).into_iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|e| !e.is_empty())
}

/// RFC 9110 `tchar`.
pub fn is_token_char(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// The value of a field that occurs exactly once; `None` otherwise.
pub fn single_value(headers: &HeaderMap, name: HeaderName) -> Option<&[u8]> {
    at_most_one(headers, name).ok().flatten().map(HeaderValue::as_bytes)
}

/// A field occurs more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated;

/// The value of a field, which must not occur more than once.
pub fn at_most_one(headers: &HeaderMap, name: impl AsHeaderName) -> Result<Option<&HeaderValue>, Repeated> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next();
    if values.next().is_none() { Ok(value) } else { Err(Repeated) }
}

/// Whether the client accepts trailers. Only then does the upstream get a `TE`, the gateway's own.
fn accepts_trailers(headers: &HeaderMap) -> bool {
    list_elements(headers, header::TE).any(|coding| {
        let coding = coding.split(|byte| *byte == b';').next().unwrap_or_default();
        coding.trim_ascii().eq_ignore_ascii_case(b"trailers")
    })
}

/// Drops the fields that `Connection` lists and those that must not cross this side, and rewrites `Trailer`.
/// Returns whether `TE` accepts trailers.
fn drop_fields(headers: &mut HeaderMap, section: FieldSection, policy: &FieldPolicy) -> bool {
    let mut dropped: Vec<HeaderName> = headers
        .keys()
        .filter(|name| !is_forwarded(name.as_str().as_bytes(), section, policy))
        .cloned()
        .collect();
    if dropped.is_empty() && !headers.contains_key(header::TRAILER) {
        return false;
    }
    // Read first, because `Connection` must list `TE`, which is then dropped.
    let accepts_trailers = accepts_trailers(headers);
    dropped.extend(
        list_elements(headers, header::CONNECTION)
            .filter_map(|option| HeaderName::from_bytes(option).ok())
            .filter(|name| is_dropped_if_listed(name.as_str().as_bytes(), section, policy)),
    );
    for name in dropped {
        headers.remove(name);
    }
    rewrite_trailer_field(headers, section, policy);
    accepts_trailers
}

/// Replaces the values for which `edit` returns another; an empty one is removed.
fn edit_values(headers: &mut HeaderMap, name: &HeaderName, edit: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let values: Vec<_> = headers.get_all(name).iter().map(|value| (edit(value.as_bytes()), value)).collect();
    if values.iter().all(|(edited, _)| edited.is_none()) {
        return;
    }
    let edited = |(edited, value): (Option<Vec<u8>>, &HeaderValue)| match edited {
        None => Some(value.clone()),
        Some(edited) if edited.is_empty() => None,
        Some(edited) => HeaderValue::from_maybe_shared(edited).ok(),
    };
    let kept: Vec<_> = values.into_iter().filter_map(edited).collect();
    headers.remove(name);
    for value in kept {
        headers.append(name, value);
    }
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

/// Limits `Trailer` to the names that may cross.
fn rewrite_trailer_field(headers: &mut HeaderMap, section: FieldSection, policy: &FieldPolicy) {
    if !headers.contains_key(header::TRAILER) {
        return;
    }
    let names = list_elements(headers, header::TRAILER).filter_map(|name| HeaderName::from_bytes(name).ok());
    let names: Vec<_> =
        names.filter(|name| is_forwarded(name.as_str().as_bytes(), section.trailers(), policy)).collect();
    headers.remove(header::TRAILER);
    if !names.is_empty() {
        let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
        let value = HeaderValue::try_from(names.join(", ")).expect("field names are visible ASCII");
        headers.insert(header::TRAILER, value);
    }
}

fn valid_host(host: Option<&[u8]>) -> Option<HeaderValue> {
    HeaderValue::from_bytes(host.filter(|host| is_host(host))?).ok()
}

/// Whether this is a valid host, which needs no escaping inside quotes.
fn is_host(host: &[u8]) -> bool {
    Authority::parse(host).is_some()
}

#[cfg(test)]
mod tests;
