//! From a reason to what the client is told: status, `error`, description, challenge. The one map,
//! for the proxy, the admin listener and (later) forward-auth.

use http::StatusCode;

/// Why a request was not forwarded, or that it was. The code goes to log, metrics and audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Ok,
    OkAnonymous,
    MethodNotSupported,
    BadPath,
    AmbiguousPath,
    TokenInUrl,
    AmbiguousAuthorization,
    MissingCredentials,
    UnsupportedScheme,
    MalformedAuthorization,
    MalformedToken,
    ChecksumMismatch,
    UnknownToken,
    OwnerDeleted,
    TokenRevoked,
    TokenRotated,
    TokenExpired,
    TokenNotYetValid,
    OwnerBanned,
    IpNotAllowed,
    NoService,
    ReadServiceDenied,
    ScopeDenied,
    ReadOnlyScope,
    /// 405 with Allow: a method outside the service's `methods`.
    MethodNotAllowed,
    /// 400: framing, Host, or a field that cannot be forwarded safely.
    BadRequest,
    /// 400: the client's body broke off or was malformed.
    BadBody,
    /// 408.
    RequestTimeout,
    /// 413.
    BodyTooLarge,
    /// 414.
    TargetTooLong,
    /// 421: the target's authority and Host disagree with the connection.
    Misdirected,
    /// 429.
    TooManyBadTokens,
    /// 431.
    HeadTooLarge,
    /// 500.
    IdentityTooLarge,
    /// 502.
    UpstreamConnect,
    UpstreamReset,
    UpstreamInvalid,
    /// 504.
    UpstreamTimeout,
    /// 503.
    UpstreamUnavailable,
    /// 503, never 401 or 403.
    StoreUnavailable,
    /// 503: draining.
    ShuttingDown,
    /// The client went away first; no answer.
    ClientClosed,
    /// An administrator cut this one request; no answer.
    CutByAdmin,
}

/// What the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub error: &'static str,
    pub description: String,
    /// The `WWW-Authenticate` value.
    pub challenge: Option<String>,
    /// The `Allow` value of a 405.
    pub allow: Option<String>,
}

impl Reason {
    /// Every reason, for metrics that resolve their handles before the first request.
    pub const ALL: [Reason; 43] = [
        Reason::Ok,
        Reason::OkAnonymous,
        Reason::MethodNotSupported,
        Reason::BadPath,
        Reason::AmbiguousPath,
        Reason::TokenInUrl,
        Reason::AmbiguousAuthorization,
        Reason::MissingCredentials,
        Reason::UnsupportedScheme,
        Reason::MalformedAuthorization,
        Reason::MalformedToken,
        Reason::ChecksumMismatch,
        Reason::UnknownToken,
        Reason::OwnerDeleted,
        Reason::TokenRevoked,
        Reason::TokenRotated,
        Reason::TokenExpired,
        Reason::TokenNotYetValid,
        Reason::OwnerBanned,
        Reason::IpNotAllowed,
        Reason::NoService,
        Reason::ReadServiceDenied,
        Reason::ScopeDenied,
        Reason::ReadOnlyScope,
        Reason::MethodNotAllowed,
        Reason::BadRequest,
        Reason::BadBody,
        Reason::RequestTimeout,
        Reason::BodyTooLarge,
        Reason::TargetTooLong,
        Reason::Misdirected,
        Reason::TooManyBadTokens,
        Reason::HeadTooLarge,
        Reason::IdentityTooLarge,
        Reason::UpstreamConnect,
        Reason::UpstreamReset,
        Reason::UpstreamInvalid,
        Reason::UpstreamTimeout,
        Reason::UpstreamUnavailable,
        Reason::StoreUnavailable,
        Reason::ShuttingDown,
        Reason::ClientClosed,
        Reason::CutByAdmin,
    ];

    /// The word in log, metrics and audit: `scope_denied`.
    pub const fn code(self) -> &'static str {
        match self {
            Reason::Ok => "ok",
            Reason::OkAnonymous => "ok_anonymous",
            Reason::MethodNotSupported => "method_not_supported",
            Reason::BadPath => "bad_path",
            Reason::AmbiguousPath => "ambiguous_path",
            Reason::TokenInUrl => "token_in_url",
            Reason::AmbiguousAuthorization => "ambiguous_authorization",
            Reason::MissingCredentials => "missing_credentials",
            Reason::UnsupportedScheme => "unsupported_scheme",
            Reason::MalformedAuthorization => "malformed_authorization",
            Reason::MalformedToken => "malformed_token",
            Reason::ChecksumMismatch => "checksum_mismatch",
            Reason::UnknownToken => "unknown_token",
            Reason::OwnerDeleted => "owner_deleted",
            Reason::TokenRevoked => "token_revoked",
            Reason::TokenRotated => "token_rotated",
            Reason::TokenExpired => "token_expired",
            Reason::TokenNotYetValid => "token_not_yet_valid",
            Reason::OwnerBanned => "owner_banned",
            Reason::IpNotAllowed => "ip_not_allowed",
            Reason::NoService => "no_service",
            Reason::ReadServiceDenied => "read_service_denied",
            Reason::ScopeDenied => "scope_denied",
            Reason::ReadOnlyScope => "read_only_scope",
            Reason::MethodNotAllowed => "method_not_allowed",
            Reason::BadRequest => "bad_request",
            Reason::BadBody => "bad_body",
            Reason::RequestTimeout => "request_timeout",
            Reason::BodyTooLarge => "body_too_large",
            Reason::TargetTooLong => "target_too_long",
            Reason::Misdirected => "misdirected",
            Reason::TooManyBadTokens => "too_many_bad_tokens",
            Reason::HeadTooLarge => "head_too_large",
            Reason::IdentityTooLarge => "identity_too_large",
            Reason::UpstreamConnect => "upstream_connect",
            Reason::UpstreamReset => "upstream_reset",
            Reason::UpstreamInvalid => "upstream_invalid",
            Reason::UpstreamTimeout => "upstream_timeout",
            Reason::UpstreamUnavailable => "upstream_unavailable",
            Reason::StoreUnavailable => "store_unavailable",
            Reason::ShuttingDown => "shutting_down",
            Reason::ClientClosed => "client_closed",
        }
    }

    /// The answer. `service` is the key told in `scope="..."` and in the description's advice; only
    /// the two reasons that may name it do. The two `Ok`s and `ClientClosed` are never sent.
    pub fn answer(self, service: Option<&str>) -> Answer {
        let told = self.told();
        let challenge = match told.challenge {
            Challenge::None => None,
            Challenge::Bare => Some(format!("Bearer realm=\"{REALM}\"")),
            Challenge::Error => Some(challenge(&told)),
            Challenge::Scope => Some(match service {
                Some(key) => format!("{}, scope=\"{key}\"", challenge(&told)),
                None => challenge(&told),
            }),
        };
        let mut description = String::from(told.text);
        if !told.advice.is_empty() {
            description.push_str(". ");
            description.push_str(&told.advice.replace("{service}", service.unwrap_or("the service's key")));
        }
        let allow = (self == Reason::MethodNotSupported).then(|| ALLOW.to_owned());
        Answer { status: told.status, error: told.error, description, challenge, allow }
    }

    fn told(self) -> Told {
        use Challenge::{Bare, Error, None, Scope};
        use StatusCode as S;
        let told = |status, error, challenge, text, advice| Told { status, error, challenge, text, advice };
        let bad_request = |text, advice| told(S::BAD_REQUEST, "invalid_request", None, text, advice);
        let bad_field = |text, advice| told(S::BAD_REQUEST, "invalid_request", Error, text, advice);
        let unauthorized = |text, advice| told(S::UNAUTHORIZED, "unauthorized", Bare, text, advice);
        let bad_token = |text, advice| told(S::UNAUTHORIZED, "invalid_token", Error, text, advice);
        let denied =
            |challenge, text, advice| told(S::FORBIDDEN, "insufficient_scope", challenge, text, advice);
        let plain = |status, error, text, advice| told(status, error, None, text, advice);
        match self {
            Reason::Ok | Reason::OkAnonymous => plain(S::OK, "ok", "The request was forwarded", ""),
            Reason::MethodNotSupported => {
                plain(S::METHOD_NOT_ALLOWED, "method_not_allowed", "TRACE and CONNECT are not forwarded", "")
            }
            Reason::BadPath => bad_request(
                "The path is not acceptable",
                "Send it without \".\" and \"..\" segments, control characters, malformed escapes, and \
                 characters that must be percent-encoded",
            ),
            Reason::AmbiguousPath => bad_request(
                "Servers may read this path in different ways that lead to different services",
                "Send it in its plain form: the right letter case, no empty segments, no needless escapes, \
                 no encoded slashes",
            ),
            Reason::TokenInUrl => bad_field(
                "Access tokens must not be sent in the URL",
                "Send it as \"Authorization: Bearer\". This token may have been logged on its way: replace it",
            ),
            Reason::AmbiguousAuthorization => bad_field(
                "More than one Authorization header field was sent",
                "Send exactly one \"Authorization: Bearer\" field",
            ),
            Reason::MissingCredentials => unauthorized(
                "No access token was sent",
                "Send \"Authorization: Bearer\" and a permanent token; in a pipeline, see that the secret \
                 variable is set for this job",
            ),
            Reason::UnsupportedScheme => unauthorized(
                "The Authorization header field is not of the Bearer scheme",
                "Send \"Authorization: Bearer\" and a permanent token",
            ),
            Reason::MalformedAuthorization => bad_field(
                "The Authorization header field is malformed",
                "Send \"Bearer\", one space and the token; see that the variable that holds it is neither \
                 empty nor broken over two lines",
            ),
            Reason::MalformedToken | Reason::ChecksumMismatch => bad_token(
                "The access token is malformed",
                "See that it was copied whole: a token has 66 characters and starts with pgt_",
            ),
            Reason::UnknownToken | Reason::OwnerDeleted | Reason::IpNotAllowed => bad_token(
                "The access token is invalid",
                "Make a new token and store it where this one was read",
            ),
            Reason::TokenRevoked => bad_token(
                "The access token was revoked",
                "Make a new token and store it where this one was read",
            ),
            Reason::TokenRotated => bad_token(
                "The access token was replaced by a newer one",
                "Store the newer one where this one was read",
            ),
            Reason::TokenExpired => {
                bad_token("The access token expired", "Make a new token and store it where this one was read")
            }
            Reason::TokenNotYetValid => {
                bad_token("The access token is not valid yet", "Wait for its start, or make another token")
            }
            Reason::OwnerBanned => bad_token(
                "The account that owns the access token is disabled",
                "Ask an administrator to enable it, or use a token of another account",
            ),
            Reason::NoService => plain(
                S::NOT_FOUND,
                "not_found",
                "No service answers at this path",
                "See that the host and the beginning of the path are right; letter case counts",
            ),
            Reason::ReadServiceDenied => denied(
                Error,
                "The account may not read this service",
                "Ask an administrator for the Read Service permission or for a group with access",
            ),
            Reason::ScopeDenied => denied(
                Scope,
                "The access token is not granted for this service",
                "Make a token with \"{service}\" in its scope",
            ),
            Reason::ReadOnlyScope => denied(
                Scope,
                "The access token is read-only for this service",
                "Make a token with full access to \"{service}\"",
            ),
            Reason::MethodNotAllowed => plain(
                S::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "The service does not take this method",
                "The Allow header field lists those that it takes",
            ),
            Reason::BadRequest => bad_request("The request is malformed", ""),
            Reason::BadBody => bad_request("The request body is malformed or incomplete", ""),
            Reason::RequestTimeout => plain(
                S::REQUEST_TIMEOUT,
                "request_timeout",
                "The request did not arrive in time",
                "Send it again",
            ),
            Reason::BodyTooLarge => {
                plain(S::PAYLOAD_TOO_LARGE, "content_too_large", "The request body is too large", "")
            }
            Reason::TargetTooLong => {
                plain(S::URI_TOO_LONG, "uri_too_long", "The request target is too long", "")
            }
            Reason::Misdirected => plain(
                S::MISDIRECTED_REQUEST,
                "misdirected_request",
                "The host is not served on this connection",
                "Open a connection for this host",
            ),
            Reason::TooManyBadTokens => plain(
                S::TOO_MANY_REQUESTS,
                "too_many_requests",
                "Too many bad access tokens came from this address",
                "Wait as long as Retry-After says, and send a sound token",
            ),
            Reason::HeadTooLarge => plain(
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "header_fields_too_large",
                "The request header fields are too large",
                "",
            ),
            Reason::IdentityTooLarge => plain(
                S::INTERNAL_SERVER_ERROR,
                "identity_too_large",
                "The groups of the account do not fit into a header field",
                "Ask an administrator to shorten the identity groups of this service",
            ),
            Reason::UpstreamConnect => {
                plain(S::BAD_GATEWAY, "bad_gateway", "The service cannot be reached", "Try again later")
            }
            Reason::UpstreamReset => plain(
                S::BAD_GATEWAY,
                "bad_gateway",
                "The service broke off the connection",
                "Try again later",
            ),
            Reason::UpstreamInvalid => {
                plain(S::BAD_GATEWAY, "bad_gateway", "The service gave an invalid answer", "")
            }
            Reason::UpstreamTimeout => plain(
                S::GATEWAY_TIMEOUT,
                "gateway_timeout",
                "The service did not answer in time",
                "Try again later",
            ),
            Reason::UpstreamUnavailable => plain(
                S::SERVICE_UNAVAILABLE,
                "service_unavailable",
                "The service is unavailable",
                "Try again later",
            ),
            Reason::StoreUnavailable => plain(
                S::SERVICE_UNAVAILABLE,
                "service_unavailable",
                "Access cannot be decided at present",
                "Nothing is said about the token: try again later",
            ),
            Reason::ShuttingDown => plain(
                S::SERVICE_UNAVAILABLE,
                "service_unavailable",
                "The gateway is shutting down",
                "Try again",
            ),
            Reason::ClientClosed => bad_request("The client closed the connection", ""),
        }
    }
}

const REALM: &str = "permgate";

/// What row 1 of the decision allows: every method in common use but TRACE and CONNECT.
const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// One line of the map.
struct Told {
    status: StatusCode,
    error: &'static str,
    challenge: Challenge,
    /// The description in the challenge, and the beginning of the body's.
    text: &'static str,
    /// What the body's description says beyond it.
    advice: &'static str,
}

enum Challenge {
    None,
    /// RFC 6750, 3.1: no error attribute where no credential was sent.
    Bare,
    Error,
    Scope,
}

fn challenge(told: &Told) -> String {
    format!("Bearer realm=\"{REALM}\", error=\"{}\", error_description=\"{}\"", told.error, told.text)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_a_code_of_its_own_and_a_lawful_answer() {
        let codes: HashSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            let answer = reason.answer(Some("youtrack"));
            assert_eq!(
                answer.status == 401,
                answer.error == "unauthorized" || answer.error == "invalid_token"
            );
            assert_eq!(answer.status == 405, answer.error == "method_not_allowed", "{reason:?}");
            assert!(answer.status != 401 || answer.challenge.is_some(), "{reason:?}");
            assert!(!answer.description.contains('{'), "{reason:?}");
        }
    }

    #[test]
    fn the_service_is_named_only_to_who_may_read_it() {
        for reason in Reason::ALL {
            let named = format!("{:?}", reason.answer(Some("sekrit"))).contains("sekrit");
            assert_eq!(named, matches!(reason, Reason::ScopeDenied | Reason::ReadOnlyScope), "{reason:?}");
        }
    }

    #[test]
    fn the_body_starts_with_what_the_challenge_says() {
        for reason in Reason::ALL {
            let answer = reason.answer(Some("hub"));
            if let Some((_, text)) =
                answer.challenge.as_deref().and_then(|c| c.split_once("error_description=\""))
            {
                let text = text.split('"').next().unwrap();
                assert!(answer.description.starts_with(text), "{reason:?}");
            }
        }
    }

    #[test]
    fn what_may_not_be_told_apart_is_not() {
        let same = |a: Reason, b: Reason| assert_eq!(a.answer(None), b.answer(None));
        same(Reason::UnknownToken, Reason::OwnerDeleted);
        same(Reason::UnknownToken, Reason::IpNotAllowed);
        same(Reason::MalformedToken, Reason::ChecksumMismatch);
    }
}
