//! `Forwarded` and `X-Forwarded-*` of a trusted proxy: kept, extended, and translated into each other, so
//! that upstreams learn the same from either.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};

use super::{
    FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PORT, FORWARDED_PROTO, Hop,
    client::{element_for, elements, listed_addresses, parameter, parameters},
    is_host, single_value, valid_host,
};
use crate::authz::host::Authority;

/// Adds the gateway's hop to those that a trusted proxy reports.
pub fn add(headers: &mut HeaderMap, hop: &Hop<'_>) {
    let host = valid_host(hop.host);
    let (said, said_otherwise) =
        (headers.contains_key(FORWARDED), X_FORWARDED.iter().any(|name| headers.contains_key(name)));
    if said && !said_otherwise {
        translate_elements(headers);
    }
    let addresses = listed_addresses(headers);
    keep_single(headers, FORWARDED_PROTO, Some(&hop.peer.proto), is_scheme);
    keep_single(headers, FORWARDED_HOST, host.as_ref(), is_host);
    keep_single(headers, FORWARDED_PORT, None, |port| {
        matches!(port.len(), 1..=5) && port.iter().all(u8::is_ascii_digit)
    });
    let ours = hop.peer.element(host.as_ref());
    if !said && said_otherwise {
        let first = first_element(headers, addresses.first().copied().unwrap_or(hop.peer.ip));
        let rest = addresses.iter().skip(1).map(|address| format!("for={}", node(*address)));
        let list = std::iter::once(first).chain(rest).collect::<Vec<_>>().join(", ");
        if let Ok(list) = HeaderValue::try_from(list) {
            headers.insert(FORWARDED, list);
        }
        if !addresses.is_empty() {
            append(headers, FORWARDED, &ours);
        }
    } else {
        append(headers, FORWARDED, &ours);
    }
    if let Some(address) = &hop.peer.address {
        append(headers, FORWARDED_FOR, address);
    }
}

/// `Forwarded` of a trusted proxy is malformed: a more lenient parser could find another host in it than the
/// judged one. Answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Forwarded is malformed")]
pub struct MalformedForwarded;

/// The most elements of `Forwarded`, more than requests take hops. A proxy may pass on those of its client, and the
/// path is judged on the host of each.
const MAX_ELEMENTS: usize = 32;

/// The hosts that a trusted proxy names besides the request's own, in canonical form. An invalid or repeated
/// `X-Forwarded-Host` is ignored, since it does not reach an upstream.
pub fn stated_hosts(headers: &HeaderMap) -> Result<Vec<String>, MalformedForwarded> {
    let canonical = |host: &[u8]| Authority::parse(host).map(|authority| authority.host.into_owned());
    let mut hosts: Vec<_> = single_value(headers, FORWARDED_HOST).and_then(canonical).into_iter().collect();
    let elements = elements(headers);
    if elements.len() > MAX_ELEMENTS {
        return Err(MalformedForwarded);
    }
    for element in elements {
        let parameters = parameters(element).ok_or(MalformedForwarded)?;
        if let Some((_, host)) = parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"host")) {
            let host = canonical(host).ok_or(MalformedForwarded)?;
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
    }
    Ok(hosts)
}

/// Whether a trusted proxy reports that the client used TLS.
pub fn is_secure(headers: &HeaderMap) -> bool {
    let is_tls = |scheme: &[u8]| scheme.eq_ignore_ascii_case(b"https") || scheme.eq_ignore_ascii_case(b"wss");
    let elements = elements(headers);
    let element = elements.first().and_then(|element| parameter(element, b"proto"));
    single_value(headers, FORWARDED_PROTO).is_some_and(is_tls)
        || element.is_some_and(|scheme| is_tls(&scheme))
}

/// The text of a node in `Forwarded` (RFC 7239, 6); `unknown` without an address.
pub fn node(address: Option<IpAddr>) -> String {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V6(address)) => format!("\"[{address}]\""),
        Some(IpAddr::V4(address)) => address.to_string(),
        None => "unknown".to_owned(),
    }
}

/// The fields that repeat parts of `Forwarded`.
const X_FORWARDED: [HeaderName; 3] = [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST];

/// Adds `X-Forwarded-*` from the elements of `Forwarded`. Scheme and host are those of the first element,
/// which the client requested.
fn translate_elements(headers: &mut HeaderMap) {
    let elements = elements(headers);
    let name = |element: &&[u8]| element_for(element).map_or_else(|| "unknown".to_owned(), |a| a.to_string());
    let list = elements.iter().map(name).collect::<Vec<_>>().join(", ");
    let of_first = |name| parameter(elements.first()?, name).and_then(|v| HeaderValue::from_bytes(&v).ok());
    let (proto, host) = (of_first(b"proto"), of_first(b"host"));
    let values =
        [(FORWARDED_FOR, HeaderValue::try_from(list).ok()), (FORWARDED_PROTO, proto), (FORWARDED_HOST, host)];
    for (name, value) in values.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        headers.append(name, value);
    }
}

/// The element for the client's own hop, from its `X-Forwarded-*`.
fn first_element(headers: &HeaderMap, address: Option<IpAddr>) -> String {
    let text = |name: HeaderName| headers.get(name).and_then(|value| str::from_utf8(value.as_bytes()).ok());
    let mut element = format!("for={}", node(address));
    if let Some(proto) = text(FORWARDED_PROTO) {
        element = element + ";proto=" + proto;
    }
    if let Some(host) = text(FORWARDED_HOST) {
        element = element + ";host=\"" + host + "\"";
    }
    element
}

/// Whether this is a scheme as in RFC 7239, or one that some proxies write for a WebSocket Upgrade.
fn is_scheme(proto: &[u8]) -> bool {
    [&b"http"[..], b"https", b"ws", b"wss"].iter().any(|scheme| proto.eq_ignore_ascii_case(scheme))
}

/// Joins the existing values and the new one into one list.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    let mut list = Vec::new();
    let values = headers.get_all(&name).into_iter().chain([value]).map(HeaderValue::as_bytes);
    for part in values.filter(|part| !part.is_empty()) {
        list.extend_from_slice(if list.is_empty() { b"" } else { b", " });
        list.extend_from_slice(part);
    }
    headers.insert(name, HeaderValue::from_maybe_shared(list).unwrap_or_else(|_| value.clone()));
}

/// Keeps a single valid value; otherwise replaces it by the gateway's, or removes it.
fn keep_single(
    headers: &mut HeaderMap,
    name: HeaderName,
    ours: Option<&HeaderValue>,
    is_valid: fn(&[u8]) -> bool,
) {
    if single_value(headers, name.clone()).is_some_and(is_valid) {
        return;
    }
    match ours {
        Some(ours) => headers.insert(name, ours.clone()),
        None => headers.remove(name),
    };
}
