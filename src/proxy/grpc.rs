//! Refusals for gRPC clients: a trailers-only response with the matching gRPC status and the same
//! description. Log and metrics keep the HTTP status.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::authz::reason::Reason;

/// Characters that `grpc-message` percent-encodes: all but space and visible ASCII, and `%`.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// Whether the client speaks gRPC, which needs HTTP/2 because the status is a trailer.
pub fn is_grpc_request(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_2
        && headers.get(header::CONTENT_TYPE).is_some_and(|kind| is_grpc_media_type(kind.as_bytes()))
}

/// Converts a refusal to gRPC. Other header fields stay.
pub fn refusal(reason: Reason, description: &str, http: Response<Bytes>) -> Response<Bytes> {
    let (mut parts, _) = http.into_parts();
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    parts.headers.remove(header::CONTENT_LENGTH);
    set_status(&mut parts.headers, code(reason, parts.status), description);
    parts.status = StatusCode::OK;
    Response::from_parts(parts, Bytes::new())
}

fn set_status(headers: &mut HeaderMap, code: u16, description: &str) {
    headers.insert("grpc-status", HeaderValue::from(code));
    let message = utf8_percent_encode(description, ENCODED).to_string();
    if let Ok(message) = HeaderValue::try_from(message) {
        headers.insert("grpc-message", message);
    }
}

/// The trailers of a call that breaks off for this reason. If the upstream caused it: UNAVAILABLE (14), which
/// a direct client gets when its connection breaks, and after which a call may be repeated.
pub fn trailers(reason: Reason) -> HeaderMap {
    const UNAVAILABLE: u16 = 14;
    let details = reason.details(None);
    let upstream = matches!(reason, Reason::UpstreamReset | Reason::UpstreamTimeout);
    let mut trailers = HeaderMap::new();
    set_status(
        &mut trailers,
        if upstream { UNAVAILABLE } else { code(reason, details.status) },
        &details.description,
    );
    trailers
}

/// Whether a content type is `application/grpc`, also with `+proto` or parameters. `grpc-web` is not.
pub fn is_grpc_media_type(kind: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let Some((start, rest)) = kind.split_at_checked(GRPC.len()) else { return false };
    start.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// The gRPC status code of a refusal: by its reason, else by gRPC's mapping of HTTP statuses.
fn code(reason: Reason, status: StatusCode) -> u16 {
    const INVALID_ARGUMENT: u16 = 3;
    const DEADLINE_EXCEEDED: u16 = 4;
    const NOT_FOUND: u16 = 5;
    const PERMISSION_DENIED: u16 = 7;
    const RESOURCE_EXHAUSTED: u16 = 8;
    const UNIMPLEMENTED: u16 = 12;
    const INTERNAL: u16 = 13;
    const UNAVAILABLE: u16 = 14;
    const UNAUTHENTICATED: u16 = 16;
    match (reason, status.as_u16()) {
        // As a gRPC server without that service or method answers.
        (Reason::NoService, _) => UNIMPLEMENTED,
        // Malformed requests are INVALID_ARGUMENT, except for malformed credentials.
        (_, 401) => UNAUTHENTICATED,
        (_, 400) if reason.has_challenge() => UNAUTHENTICATED,
        (_, 403) => PERMISSION_DENIED,
        (_, 404) => NOT_FOUND,
        (_, 405) => UNIMPLEMENTED,
        (_, 408 | 504) => DEADLINE_EXCEEDED,
        (_, 413 | 429 | 431) => RESOURCE_EXHAUSTED,
        (_, 502 | 503) => UNAVAILABLE,
        (_, 400..=499) => INVALID_ARGUMENT,
        _ => INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grpc_media_types_are_recognized() {
        let check =
            |kind: &str, expected: bool| assert_eq!(is_grpc_media_type(kind.as_bytes()), expected, "{kind}");
        check("application/grpc", true);
        check("Application/gRPC+proto", true);
        check("application/grpc;charset=utf-8", true);
        check("application/grpc-web", false);
        check("application/grpc-web+proto", false);
        check("application/json", false);
        check("", false);
    }

    #[test]
    fn call_that_breaks_off_says_whether_to_repeat_it() {
        let check = |reason: Reason, expected: &str| {
            let trailers = trailers(reason);
            assert_eq!(trailers["grpc-status"], expected, "{reason:?}");
            assert!(trailers.contains_key("grpc-message") && trailers.len() == 2, "{trailers:?}");
        };
        check(Reason::UpstreamReset, "14");
        check(Reason::UpstreamTimeout, "14");
        check(Reason::BodyTooLarge, "8");
        check(Reason::BadBody, "3");
    }

    #[test]
    fn every_refusal_has_a_grpc_status() {
        let check = |reason: Reason, expected: u16| {
            let details = reason.details(None);
            let mut http = Response::new(Bytes::from_static(b"text"));
            *http.status_mut() = details.status;
            http.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            let response = refusal(reason, "100 % sure\nö", http);
            assert_eq!(response.status(), 200);
            let field = |name: &str| response.headers()[name].to_str().expect("visible ASCII").to_owned();
            assert_eq!(field("grpc-status"), expected.to_string(), "{reason:?}");
            assert_eq!(field("grpc-message"), "100 %25 sure%0A%C3%B6");
            assert_eq!(field("www-authenticate"), "Bearer");
            assert!(response.body().is_empty());
        };
        check(Reason::MissingCredentials, 16);
        check(Reason::TokenRevoked, 16);
        check(Reason::MalformedAuthorization, 16);
        check(Reason::ScopeDenied, 7);
        check(Reason::ReadServiceDenied, 7);
        check(Reason::NoService, 12);
        check(Reason::MethodNotAllowed, 12);
        check(Reason::BadPath, 3);
        check(Reason::RequestTimeout, 4);
        check(Reason::UpstreamTimeout, 4);
        check(Reason::BodyTooLarge, 8);
        check(Reason::TooManyBadTokens, 8);
        check(Reason::IdentityTooLarge, 13);
        check(Reason::UpstreamConnect, 14);
        check(Reason::StoreUnavailable, 14);
        check(Reason::ShuttingDown, 14);
        for &reason in Reason::ALL {
            let status = reason.details(None).status;
            assert!(status.as_u16() < 400 || code(reason, status) > 0, "{reason:?}");
        }
    }
}
