//! From a reason to what the client is told: status, `error`, description, challenge. The one map,
//! for the proxy, the admin listener and (later) forward-auth.

use http::StatusCode;

use told::{Challenge, Told};

mod told;

/// Why a request was not forwarded, or that it was. The code goes to log, metrics and audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Ok,
    OkAnonymous,
    /// The gateway itself answered.
    Answered,
    MethodNotSupported,
    /// 501: an extended CONNECT for something else than a WebSocket.
    UnknownProtocol,
    BadPath,
    AmbiguousPath,
    /// 400: a WebDAV `Destination` that cannot be judged.
    BadDestination,
    TokenInUrl,
    AmbiguousAuthorization,
    /// 400: more than one carrier, or one in a folded spelling.
    AmbiguousCredential,
    MissingCredentials,
    UnsupportedScheme,
    MalformedAuthorization,
    /// 400: a carrier other than Authorization.
    MalformedCredential,
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
    /// 401: the token is valid and stands where this service does not look for one.
    WrongCarrier,
    ReadServiceDenied,
    ScopeDenied,
    ReadOnlyScope,
    /// 403: the address that asks for a decision is no trusted proxy's.
    ProxyNotTrusted,
    /// 403: the proxy that asks does not tell exactly one original request.
    OriginalUnclear,
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
    /// 429: a rate limit or a quota.
    RateLimited,
    /// 429: a cap on requests at one time.
    ConcurrencyLimited,
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
    /// 502: no url of it is up.
    UpstreamUnavailable,
    /// 503: too many requests are under way, and too many wait.
    UpstreamOverloaded,
    /// 503, never 401 or 403.
    StoreUnavailable,
    /// 503: the request could not be signed for the upstream.
    AssertionFailed,
    /// 503: draining.
    ShuttingDown,
    /// The client went away first; no answer.
    ClientClosed,
    /// The client took nothing of its answer for `write_timeout`; no answer.
    ClientTooSlow,
    /// An administrator cut this one request; no answer.
    CutByAdmin,
    /// Nothing passed through a tunnel for too long; its answer was 101.
    TunnelIdle,
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
    pub const ALL: [Reason; 57] = [
        Reason::Ok,
        Reason::OkAnonymous,
        Reason::Answered,
        Reason::MethodNotSupported,
        Reason::UnknownProtocol,
        Reason::BadPath,
        Reason::AmbiguousPath,
        Reason::BadDestination,
        Reason::TokenInUrl,
        Reason::AmbiguousAuthorization,
        Reason::AmbiguousCredential,
        Reason::MissingCredentials,
        Reason::UnsupportedScheme,
        Reason::MalformedAuthorization,
        Reason::MalformedCredential,
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
        Reason::WrongCarrier,
        Reason::ReadServiceDenied,
        Reason::ScopeDenied,
        Reason::ReadOnlyScope,
        Reason::ProxyNotTrusted,
        Reason::OriginalUnclear,
        Reason::MethodNotAllowed,
        Reason::BadRequest,
        Reason::BadBody,
        Reason::RequestTimeout,
        Reason::BodyTooLarge,
        Reason::TargetTooLong,
        Reason::Misdirected,
        Reason::TooManyBadTokens,
        Reason::RateLimited,
        Reason::ConcurrencyLimited,
        Reason::HeadTooLarge,
        Reason::IdentityTooLarge,
        Reason::UpstreamConnect,
        Reason::UpstreamReset,
        Reason::UpstreamInvalid,
        Reason::UpstreamTimeout,
        Reason::UpstreamUnavailable,
        Reason::UpstreamOverloaded,
        Reason::StoreUnavailable,
        Reason::AssertionFailed,
        Reason::ShuttingDown,
        Reason::ClientClosed,
        Reason::ClientTooSlow,
        Reason::CutByAdmin,
        Reason::TunnelIdle,
    ];

    /// The word in log, metrics and audit: `scope_denied`.
    pub const fn code(self) -> &'static str {
        match self {
            Reason::Ok => "ok",
            Reason::OkAnonymous => "ok_anonymous",
            Reason::Answered => "answered",
            Reason::MethodNotSupported => "method_not_supported",
            Reason::UnknownProtocol => "unknown_protocol",
            Reason::BadPath => "bad_path",
            Reason::AmbiguousPath => "ambiguous_path",
            Reason::BadDestination => "bad_destination",
            Reason::TokenInUrl => "token_in_url",
            Reason::AmbiguousAuthorization => "ambiguous_authorization",
            Reason::AmbiguousCredential => "ambiguous_credential",
            Reason::MissingCredentials => "missing_credentials",
            Reason::UnsupportedScheme => "unsupported_scheme",
            Reason::MalformedAuthorization => "malformed_authorization",
            Reason::MalformedCredential => "malformed_credential",
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
            Reason::WrongCarrier => "wrong_carrier",
            Reason::ReadServiceDenied => "read_service_denied",
            Reason::ScopeDenied => "scope_denied",
            Reason::ReadOnlyScope => "read_only_scope",
            Reason::ProxyNotTrusted => "proxy_not_trusted",
            Reason::OriginalUnclear => "original_unclear",
            Reason::MethodNotAllowed => "method_not_allowed",
            Reason::BadRequest => "bad_request",
            Reason::BadBody => "bad_body",
            Reason::RequestTimeout => "request_timeout",
            Reason::BodyTooLarge => "body_too_large",
            Reason::TargetTooLong => "target_too_long",
            Reason::Misdirected => "misdirected",
            Reason::TooManyBadTokens => "too_many_bad_tokens",
            Reason::RateLimited => "rate_limited",
            Reason::ConcurrencyLimited => "concurrency_limited",
            Reason::HeadTooLarge => "head_too_large",
            Reason::IdentityTooLarge => "identity_too_large",
            Reason::UpstreamConnect => "upstream_connect",
            Reason::UpstreamReset => "upstream_reset",
            Reason::UpstreamInvalid => "upstream_invalid",
            Reason::UpstreamTimeout => "upstream_timeout",
            Reason::UpstreamUnavailable => "upstream_unavailable",
            Reason::UpstreamOverloaded => "upstream_overloaded",
            Reason::StoreUnavailable => "store_unavailable",
            Reason::AssertionFailed => "assertion_failed",
            Reason::ShuttingDown => "shutting_down",
            Reason::ClientClosed => "client_closed",
            Reason::ClientTooSlow => "client_too_slow",
            Reason::CutByAdmin => "cut_by_admin",
            Reason::TunnelIdle => "tunnel_idle",
        }
    }

    /// The answer. `service` is the key told in `scope="..."` and in the description's advice; only
    /// the two reasons that may name it do. The two `Ok`s, `Answered`, `ClientClosed` and
    /// `ClientTooSlow` are never sent.
    pub fn answer(self, service: Option<&str>) -> Answer {
        let told = Told::of(self);
        let challenge = match told.challenge {
            Challenge::None => None,
            Challenge::Bare => Some(format!("Bearer realm=\"{REALM}\"")),
            Challenge::Error => Some(challenge(&told)),
            Challenge::Scope => Some(match service {
                Some(key) => challenge(&told) + ", scope=\"" + key + "\"",
                None => challenge(&told),
            }),
        };
        let mut description = String::with_capacity(told.text.len() + told.advice.len() + SERVICE.len());
        description.push_str(told.text);
        if !told.advice.is_empty() {
            description.push_str(". ");
            let mut advice = told.advice;
            // Only a service stands in braces, and only where a scope is missing.
            if matches!(told.challenge, Challenge::Scope) {
                while let Some((before, behind)) = advice.split_once('{') {
                    description.push_str(before);
                    description.push_str(service.unwrap_or(SERVICE));
                    advice = behind.split_once('}').map_or("", |(_, after)| after);
                }
            }
            description.push_str(advice);
        }
        let allow = (self == Reason::MethodNotSupported).then(|| ALLOW.to_owned());
        Answer { status: told.status, error: told.error, description, challenge, allow }
    }
}

const REALM: &str = "permgate";

/// What row 1 of the decision allows: every method in common use but TRACE and CONNECT.
const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What stands for a service that nobody named.
const SERVICE: &str = "the service's key";

/// Joined, since formatting costs a refusal more than its decision.
fn challenge(told: &Told) -> String {
    ["Bearer realm=\"", REALM, "\", error=\"", told.error, "\", error_description=\"", told.text, "\""]
        .concat()
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
