//! Keeps tokens in carriers from reaching the upstream, and shared caches from giving the response to other
//! callers.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{Carried, Carrier, CarrierKind, Carriers, read::token_entry};
use crate::authz::{
    decide::Credential,
    forwarding::{folds_onto, list_elements},
    secret::{BearerForm, Digest, contains_token},
};

/// Removes every carrier of a service from a request's fields. With `in_authorization`, also `Authorization`,
/// if it has a form that the service accepts or contains a permgate token.
pub fn strip(headers: &mut HeaderMap, carriers: &Carriers, in_authorization: bool) {
    let is_carrier = |value: &HeaderValue| {
        carriers.accept_authorization(value) || contains_token(&String::from_utf8_lossy(value.as_bytes()))
    };
    if in_authorization && headers.get_all(header::AUTHORIZATION).iter().any(is_carrier) {
        headers.remove(header::AUTHORIZATION);
    }
    for name in &carriers.headers {
        headers.remove(name);
    }
    if carriers.websocket {
        strip_protocol(headers);
    }
}

/// Removes tokens in carriers that this service does not accept: its upstream must not get them. Other texts
/// there belong to the application and stay. `is_known` returns whether some token has the digest.
pub fn strip_others(
    headers: &mut HeaderMap,
    carried: &[Carried],
    accepted: &Carriers,
    is_known: impl Fn(&Digest) -> bool,
) {
    for Carried { carrier, credential, .. } in carried.iter().filter(|one| !accepted.accepts(&one.carrier)) {
        let is_token = match credential {
            Credential::Carried { form: BearerForm::Foreign, digest, .. } => {
                digest.as_ref().is_some_and(&is_known)
            }
            Credential::Carried { .. } => true,
            _ => false,
        };
        let holds_token =
            |value: &HeaderValue| is_token || contains_token(&String::from_utf8_lossy(value.as_bytes()));
        match carrier {
            Carrier::Header(name) => {
                let spelt = |other: &&HeaderName| folds_onto(other, name.as_str());
                let spellings: Vec<_> = headers.keys().filter(spelt).cloned().collect();
                for spelling in spellings {
                    if headers.get_all(&spelling).iter().any(holds_token) {
                        headers.remove(spelling);
                    }
                }
            }
            Carrier::Websocket => strip_protocol(headers),
            Carrier::Bearer | Carrier::Basic | Carrier::Raw if is_token => {
                headers.remove(header::AUTHORIZATION);
            }
            Carrier::Bearer | Carrier::Basic | Carrier::Raw => {}
        }
    }
}

/// Keeps shared caches from giving a response to another caller: it varies by the fields that may hold a
/// token, and is private if one other than `Authorization` did.
pub fn restrict_caching(headers: &mut HeaderMap, carriers: &Carriers, used: Option<CarrierKind>) {
    // Some caches, such as nginx, ignore RFC 9111, 3.5, and need `Authorization` in `Vary`.
    let authorization =
        (*carriers != Carriers::BEARER && carriers.accepts_authorization()).then_some(header::AUTHORIZATION);
    let websocket = carriers.websocket.then_some(header::SEC_WEBSOCKET_PROTOCOL);
    let names: Vec<_> =
        authorization.iter().chain(&carriers.headers).chain(&websocket).map(HeaderName::as_str).collect();
    if !names.is_empty() && !list_elements(headers, header::VARY).any(|name| name == b"*") {
        // In a single field: nginx before 1.23 reads only the last one.
        let vary = list_elements(headers, header::VARY).chain(names.iter().map(|name| name.as_bytes()));
        let vary = vary.collect::<Vec<_>>().join(&b", "[..]);
        if let Ok(value) = HeaderValue::from_bytes(&vary) {
            headers.insert(header::VARY, value);
        }
    }
    if used.is_none_or(CarrierKind::is_authorization) {
        return;
    }
    let mut kept = Vec::new();
    for directive in list_elements(headers, header::CACHE_CONTROL) {
        let name = directive.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        let shares = [&b"public"[..], b"private", b"s-maxage"];
        if !shares.iter().any(|other| name.eq_ignore_ascii_case(other)) {
            kept.extend_from_slice(directive);
            kept.extend_from_slice(b", ");
        }
    }
    kept.extend_from_slice(b"private");
    if let Ok(value) = HeaderValue::from_bytes(&kept) {
        headers.insert(header::CACHE_CONTROL, value);
    }
    for name in FOR_SHARED_CACHES {
        headers.remove(name);
    }
}

/// Fields by which an upstream lets shared caches store a response, whatever `Cache-Control` says (RFC 9213;
/// nginx; Varnish and others).
const FOR_SHARED_CACHES: [HeaderName; 4] = [
    HeaderName::from_static("cdn-cache-control"),
    HeaderName::from_static("cloudflare-cdn-cache-control"),
    HeaderName::from_static("surrogate-control"),
    HeaderName::from_static("x-accel-expires"),
];

fn strip_protocol(headers: &mut HeaderMap) {
    const NAME: HeaderName = header::SEC_WEBSOCKET_PROTOCOL;
    if !list_elements(headers, NAME).any(|entry| token_entry(entry).is_some()) {
        return;
    }
    match other_protocols(headers) {
        Some(kept) => headers.insert(NAME, kept),
        None => headers.remove(NAME),
    };
}

/// The entries of `Sec-WebSocket-Protocol` that hold no token, in one field value.
pub fn other_protocols(headers: &HeaderMap) -> Option<HeaderValue> {
    let entries = list_elements(headers, header::SEC_WEBSOCKET_PROTOCOL);
    let kept: Vec<_> = entries.filter(|entry| token_entry(entry).is_none()).collect();
    HeaderValue::from_bytes(&kept.join(&b", "[..])).ok().filter(|value| !value.is_empty())
}
