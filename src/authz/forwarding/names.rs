//! Which field names cross the gateway. Names are folded for comparison: everything but letters and digits
//! becomes `-`, because CGI and similar interfaces confuse `_` and `-`, and some servers confuse every other
//! byte too.

use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;

use super::dropped::{self, DropReason, FieldPolicy};
use crate::authz::destination;

/// The direction and kind of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldSection {
    Request,
    /// From a trusted proxy: its fields about the client are kept.
    TrustedRequest,
    RequestTrailers,
    Response,
    ResponseTrailers,
}

/// Whether a field crosses the gateway. `Authorization`, `Destination` and cookies are left to the caller.
pub fn is_forwarded(name: &[u8], section: FieldSection, policy: &FieldPolicy) -> bool {
    if is_hop_by_hop(name) || section.is_trailers() && is_never_a_trailer(name) {
        return false;
    }
    match section {
        FieldSection::Request | FieldSection::TrustedRequest => {
            name != b"expect"
                && name != destination::NAME.as_str().as_bytes()
                && !policy.drops(name, section == FieldSection::TrustedRequest)
        }
        // `pass` does not apply to trailers.
        FieldSection::RequestTrailers => !policy.lists(name),
        // The gateway sets its own id. Alt-Svc (RFC 7838) would lead clients past the gateway, with their tokens.
        FieldSection::Response => !matches!(name, b"x-request-id" | b"alt-svc"),
        FieldSection::ResponseTrailers => !folds_to(name, "x-request-id") && name != b"alt-svc",
    }
}

/// Whether this is a hop-by-hop field (RFC 9110, 7.6.1), or folds onto one or onto `Content-Length`.
fn is_hop_by_hop(name: &[u8]) -> bool {
    match name.first() {
        Some(b'c') => name == b"connection" || name != b"content-length" && folds_to(name, "content-length"),
        Some(b'h') => folds_to(name, "http2-settings"),
        Some(b'k') => folds_to(name, "keep-alive"),
        Some(b'p') => starts_folded(name, "proxy-auth") || folds_to(name, "proxy-connection"),
        Some(b't') => name == b"te" || folds_to(name, "transfer-encoding"),
        Some(b'u') => name == b"upgrade",
        _ => false,
    }
}

/// Whether a field is dropped if `Connection` lists it. Fields that frame or route the message are not, nor what a
/// trusted proxy tells about its client: some proxies forward the `Connection` of their clients.
pub fn is_dropped_if_listed(name: &[u8], section: FieldSection, policy: &FieldPolicy) -> bool {
    let is_request = matches!(section, FieldSection::Request | FieldSection::TrustedRequest);
    let tells_of_client = is_request && policy.lists(name);
    !tells_of_client && !matches!(name, b"close" | b"keep-alive" | b"upgrade" | b"host" | b"content-length")
}

/// Whether a field's name folds onto a framing field without being it. Answered with 400, since a server
/// behind the gateway may take it for the framing field.
pub fn has_framing_alias(headers: &HeaderMap) -> bool {
    // No other name folds onto Host, Connection or Authorization: they have no `-`.
    const FRAMING: [&str; 2] = ["transfer-encoding", "content-length"];
    names(headers).any(|name| FRAMING.iter().any(|framing| folds_to(name, framing)) && has_alias_byte(name))
}

/// Whether a field asks the upstream to use another method than the judged one.
pub fn method_override(headers: &HeaderMap) -> bool {
    const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];
    names(headers).any(|name| name.starts_with(b"x") && OVERRIDES.iter().any(|field| folds_to(name, field)))
}

/// Whether the query asks for another method: by `_method` in frameworks for PHP, which also reads it from
/// names such as `.method` and ignores what follows a NUL, and for Node.js, which also reads it from
/// `[_method]`; or by the name of the header field in ASP.NET. Most of them read it from a POST only, but
/// WordPress and Apache CXF from a GET, too.
pub fn has_method_parameter(query: &str) -> bool {
    const FRAMEWORKS: [&[u8]; 4] = [b"_method", b".method", b"[method", b"[_method]"];
    query.split('&').any(|pair| {
        let name = percent_decode_str(pair.split('=').next().unwrap_or_default());
        let name = name.skip_while(|byte| matches!(byte, b' ' | b'+')).take_while(|byte| *byte != 0);
        FRAMEWORKS.iter().any(|one| name.clone().eq(one.iter().copied()))
            || name.map(|byte| byte.to_ascii_lowercase()).eq(*b"x-http-method-override")
    })
}

/// Whether a request has a field that forwarding would drop, but a forward-auth proxy sends on, and that
/// gives the upstream another identity or target. `own` are the fields that the proxy sets itself.
pub fn has_spoofing_field(headers: &HeaderMap, own: &[&str]) -> bool {
    names(headers).any(|name| {
        let is_spoofing = match dropped::drop_reason(name) {
            None => false,
            // The gateway sets its own.
            Some(DropReason::Ours) => name != b"x-request-id",
            Some(DropReason::Identity | DropReason::Reroute) => true,
            Some(DropReason::Hop) => has_alias_byte(name) || name == b"x-forwarded-prefix",
        };
        is_spoofing && !own.iter().any(|own| own.as_bytes() == name)
    })
}

fn names(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.keys().map(|name| name.as_str().as_bytes())
}

/// Whether a field may not be a trailer (RFC 9110, 6.5.1): it frames, routes, authenticates or describes the
/// message.
fn is_never_a_trailer(name: &[u8]) -> bool {
    const NEVER: &str = "transfer-encoding content-length host trailer expect authorization \
                         sec-websocket-protocol destination www-authenticate cookie set-cookie forwarded \
                         content-encoding content-type content-range cache-control max-forwards range location";
    NEVER.split(' ').any(|field| folds_to(name, field))
        || starts_folded(name, "x-http-method")
        || folds_to(name, "x-method-override")
}

/// Whether folding changes the name, so that it can only be an alias of a listed name.
pub(super) fn has_alias_byte(name: &[u8]) -> bool {
    name.iter().any(|b| *b != b'-' && !b.is_ascii_alphanumeric())
}

/// Whether the name is that of the field, or folds onto it.
pub fn folds_onto(name: &HeaderName, field: &str) -> bool {
    folds_to(name.as_str().as_bytes(), field)
}

/// Whether a field never reaches an upstream as the client sent it, frames or describes the message,
/// overrides its method, or names a second target.
pub fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    dropped::drop_reason(name).is_some()
        || !is_forwarded(name, FieldSection::Request, &FieldPolicy::default())
        || is_never_a_trailer(name)
        || matches!(name, b"content-length" | b"trailer" | b"via")
}

pub(super) fn folds_to(name: &[u8], field: &str) -> bool {
    name.len() == field.len() && starts_folded(name, field)
}

pub(super) fn starts_folded(name: &[u8], start: &str) -> bool {
    let fold = |b: &u8| if b.is_ascii_alphanumeric() { *b } else { b'-' };
    name.len() >= start.len() && name.iter().map(fold).zip(start.bytes()).all(|(sent, ours)| sent == ours)
}

impl FieldSection {
    pub fn is_trailers(self) -> bool {
        matches!(self, FieldSection::RequestTrailers | FieldSection::ResponseTrailers)
    }

    /// The side on which the trailers of this message cross.
    pub fn trailers(self) -> FieldSection {
        match self {
            FieldSection::Response | FieldSection::ResponseTrailers => FieldSection::ResponseTrailers,
            FieldSection::Request | FieldSection::TrustedRequest | FieldSection::RequestTrailers => {
                FieldSection::RequestTrailers
            }
        }
    }
}
