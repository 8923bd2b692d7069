//! Field names: which ones do not cross the gateway, compared after folding `_` and `.` to `-`
//! (a `HeaderName` is in lower case already).

use http::HeaderMap;

/// Which way fields go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Request,
    /// From a trusted proxy: what it says about the client stays.
    TrustedRequest,
    RequestTrailers,
    Response,
    ResponseTrailers,
}

/// Whether a field crosses the gateway. `Authorization` is for the caller.
pub fn crosses(name: &[u8], side: Side) -> bool {
    match name {
        // The one of them that nearly every message has.
        b"content-length" if !side.is_trailers() => true,
        b"connection" | b"proxy-authorization" | b"te" | b"transfer-encoding" | b"upgrade" => false,
        b"keep-alive" | b"proxy-connection" | b"http2-settings" => false,
        // Set anew.
        b"x-request-id" => false,
        b"destination" => matches!(side, Side::Response | Side::ResponseTrailers),
        b"expect" if matches!(side, Side::Request | Side::TrustedRequest) => false,
        b"forwarded" if side == Side::Request => false,
        [b'n', ..] if folds_to(name, "new-uri") => matches!(side, Side::Response | Side::ResponseTrailers),
        _ if side.is_trailers() && is_never_a_trailer(name) => false,
        [b'x', ..] if side != Side::Response && is_ours(name, side) => false,
        [b't', b'r', b'u', ..] if is_client_address(name, side) => false,
        [b't' | b'c' | b'p' | b'k' | b'f' | b'h', ..] if has_alias_byte(name) && is_alias(name) => false,
        _ => true,
    }
}

/// Whether `Connection` may have a field dropped: not what frames or routes the message, nor what a
/// trusted proxy says. Our own fields are set afterwards, and what goes anyway is of no interest.
pub fn may_be_listed(name: &[u8]) -> bool {
    !matches!(name, b"close" | b"keep-alive" | b"upgrade" | b"host" | b"content-length" | b"forwarded")
        && !starts_folded(name, "x-forwarded")
}

/// Whether a field's name folds (`_` and `.` to `-`) onto a framing field without being it:
/// answered with 400, since a server behind may take it for the real one.
pub fn framing_alias(headers: &HeaderMap) -> bool {
    // Host, Connection and Authorization have nothing to fold: no other name folds onto them.
    const FRAMING: [&str; 2] = ["transfer-encoding", "content-length"];
    names(headers).any(|name| has_alias_byte(name) && FRAMING.iter().any(|framing| folds_to(name, framing)))
}

/// Whether a field asks the upstream to take another method than the one that was judged.
pub fn method_override(headers: &HeaderMap) -> bool {
    const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];
    names(headers).any(|name| name.starts_with(b"x") && OVERRIDES.iter().any(|field| folds_to(name, field)))
}

/// Whether a field is there that forwarding would drop and a proxy that only asks for a decision
/// sends on: it would tell the upstream of another identity or another target. `told` are those
/// that this proxy sets itself.
pub fn misleads(headers: &HeaderMap, told: &[&str]) -> bool {
    const ORIGINAL: [&str; 2] = ["x-original-method", "x-original-upgrade"];
    const SAID: [&[u8]; 3] = [b"x-forwarded-server", b"x-forwarded-scheme", b"x-forwarded-ssl"];
    names(headers).any(|name| {
        let ours = is_ours(name, Side::TrustedRequest) && !SAID.contains(&name);
        (ours || folds_to(name, "new-uri") || ORIGINAL.iter().any(|original| folds_to(name, original)))
            && !told.iter().any(|told| told.as_bytes() == name)
    })
}

fn names(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.keys().map(|name| name.as_str().as_bytes())
}

/// Fields that only the gateway may set, and those that re-route an upstream behind the decision.
fn is_ours(name: &[u8], side: Side) -> bool {
    const REROUTING: [&str; 7] = [
        "x-original-url",
        "x-original-uri",
        "x-original-host",
        "x-rewrite-url",
        "x-request-id",
        "x-host",
        "x-http-host-override",
    ];
    const SAID_BY_PROXIES: [&[u8]; 4] =
        [b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port"];
    if side == Side::ResponseTrailers {
        return folds_to(name, "x-request-id");
    }
    if name == b"x-request-id" {
        // As a header it is set anew.
        return side == Side::RequestTrailers;
    }
    match name.get(2) {
        Some(b'p') => starts_folded(name, "x-permgate"),
        Some(b'f') => {
            starts_folded(name, "x-forwarded")
                && !(side == Side::TrustedRequest && SAID_BY_PROXIES.contains(&name))
        }
        Some(b'o' | b'r' | b'h') if REROUTING.iter().any(|field| folds_to(name, field)) => true,
        Some(b'h') if starts_folded(name, "x-http-destination") => true,
        Some(b'r' | b'c') => is_client_address(name, side),
        _ => false,
    }
}

/// Other names for the client's address: as `Forwarded`, a trusted proxy's word alone.
fn is_client_address(name: &[u8], side: Side) -> bool {
    const ADDRESSES: [&str; 4] = ["x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip"];
    match side {
        Side::Request | Side::RequestTrailers => ADDRESSES.iter().any(|field| folds_to(name, field)),
        // Under an alias it is nobody's word.
        Side::TrustedRequest => has_alias_byte(name) && ADDRESSES.iter().any(|field| folds_to(name, field)),
        Side::Response | Side::ResponseTrailers => false,
    }
}

/// RFC 9110, 6.5.1: what frames, routes, authenticates or describes the message cannot come after it.
fn is_never_a_trailer(name: &[u8]) -> bool {
    const NEVER: [&str; 19] = [
        "transfer-encoding",
        "content-length",
        "host",
        "trailer",
        "expect",
        "authorization",
        "proxy-authenticate",
        "www-authenticate",
        "cookie",
        "set-cookie",
        "forwarded",
        "content-encoding",
        "content-type",
        "content-range",
        "cache-control",
        "max-forwards",
        "range",
        "location",
        "te",
    ];
    NEVER.iter().any(|field| folds_to(name, field))
        || starts_folded(name, "x-http-method")
        || folds_to(name, "x-method-override")
}

/// Names that fold onto a field with a fate of its own.
fn is_alias(name: &[u8]) -> bool {
    const ALIASED: [&str; 6] = [
        "transfer-encoding",
        "content-length",
        "proxy-authorization",
        "proxy-connection",
        "keep-alive",
        "http2-settings",
    ];
    ALIASED.iter().any(|field| folds_to(name, field))
}

/// Of a name that folds onto another one: whether it is not that name itself.
fn has_alias_byte(name: &[u8]) -> bool {
    name.iter().any(|b| matches!(b, b'_' | b'.'))
}

fn folds_to(name: &[u8], field: &str) -> bool {
    name.len() == field.len() && starts_folded(name, field)
}

fn starts_folded(name: &[u8], start: &str) -> bool {
    let fold = |b: &u8| if matches!(b, b'_' | b'.') { b'-' } else { *b };
    name.len() >= start.len() && name.iter().map(fold).zip(start.bytes()).all(|(sent, ours)| sent == ours)
}

impl Side {
    pub fn is_trailers(self) -> bool {
        matches!(self, Side::RequestTrailers | Side::ResponseTrailers)
    }

    /// Where the trailers of this side's message go.
    pub fn trailers(self) -> Side {
        match self {
            Side::Request | Side::TrustedRequest | Side::RequestTrailers => Side::RequestTrailers,
            Side::Response | Side::ResponseTrailers => Side::ResponseTrailers,
        }
    }
}
