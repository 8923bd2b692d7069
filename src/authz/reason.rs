//! Maps a reason to the client's response: status, `error`, description, challenge. The proxy, the admin
//! listener and forward-auth all use this map.

use std::borrow::Cow;

use http::StatusCode;
use strum::{IntoStaticStr, VariantArray};

use table::{Challenge, Row};

mod table;

/// Why a request was or was not forwarded. The code appears in log, metrics and audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Reason {
    Ok,
    OkAnonymous,
    /// The gateway itself responded.
    Answered,
    MethodNotSupported,
    /// 501: an extended CONNECT (RFC 8441) for a protocol other than WebSocket.
    UnknownProtocol,
    BadPath,
    AmbiguousPath,
    /// 400: a WebDAV `Destination` that cannot be judged.
    BadDestination,
    /// 400: a trusted proxy describes the client or the host in ways that contradict each other.
    BadForwarded,
    TokenInUrl,
    AmbiguousAuthorization,
    /// 400: two credentials that differ, or a carrier that is repeated or in a folded spelling.
    AmbiguousCredential,
    MissingCredentials,
    UnsupportedScheme,
    MalformedAuthorization,
    /// 400: in a carrier other than `Authorization`.
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
    /// 401: a valid token in a carrier that this service does not accept.
    WrongCarrier,
    ReadServiceDenied,
    ScopeDenied,
    ReadOnlyScope,
    /// 403: the caller of forward-auth is not a trusted proxy.
    ProxyNotTrusted,
    /// 403: the owner may not change their tokens, or this token cannot be rotated.
    RotationDenied,
    /// 400: a token of another issuer that matches no exchange rule.
    ExchangeRefused,
    /// 403: the caller of forward-auth does not report exactly one original request.
    OriginalUnclear,
    /// 405 with Allow: a method outside the service's `methods`.
    MethodNotAllowed,
    /// 400: a problem with framing or `Host`, or a field that cannot be forwarded safely.
    BadRequest,
    /// 400: the client's body was cut short or malformed.
    BadBody,
    /// 408.
    RequestTimeout,
    /// 413.
    BodyTooLarge,
    /// 414.
    TargetTooLong,
    /// 421: the target's authority or `Host` does not match the connection.
    Misdirected,
    /// 429.
    TooManyBadTokens,
    /// 429: a rate limit or a quota.
    RateLimited,
    /// 429: a limit of concurrent requests.
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
    /// 502: none of the upstream's URLs is up.
    UpstreamUnavailable,
    /// 503: too many requests are in flight to the upstream, and too many are queued.
    UpstreamOverloaded,
    /// 503: a limit of the whole process is used up.
    OverBudget,
    /// 503, never 401 or 403.
    StoreUnavailable,
    /// 503: the request could not be signed for the upstream.
    AssertionFailed,
    /// 503: the gateway is draining.
    ShuttingDown,
    /// The client closed the connection; no response.
    ClientClosed,
    /// The client read nothing of its response for `write_timeout`; no response.
    ClientTooSlow,
    /// The upstream was told of a login or a group that it would not be told of now; no response.
    IdentityChanged,
    /// An administrator cut this request; no response.
    CutByAdmin,
    /// A tunnel was idle for too long; its response was 101.
    TunnelIdle,
}

/// The response to the client, apart from its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorDetails {
    pub status: StatusCode,
    pub error: &'static str,
    pub description: String,
    /// The `WWW-Authenticate` value.
    pub challenge: Option<String>,
    /// The `Allow` value of a 405.
    pub allow: Option<String>,
}

impl Reason {
    /// Every reason. Metrics resolve their handles from it before the first request.
    pub const ALL: &'static [Reason] = Reason::VARIANTS;

    /// The word in log, metrics and audit, such as `scope_denied`.
    pub const fn code(self) -> &'static str {
        self.into_str()
    }

    pub fn status(self) -> StatusCode {
        Row::for_reason(self).status
    }

    /// Returns the label `outcome` of a request. `denied` and `rejected` are for the client to look into,
    /// `failed` for the operator.
    pub fn outcome(self) -> &'static str {
        let row = Row::for_reason(self);
        match (self, row.status.as_u16()) {
            (Reason::Answered, _) => "answered",
            (_, 200) => "forwarded",
            (Reason::NoService | Reason::ExchangeRefused, _) => "denied",
            (Reason::IdentityChanged | Reason::CutByAdmin, _) => "denied",
            (Reason::OriginalUnclear | Reason::UnknownProtocol, _) => "rejected",
            (_, 401 | 403 | 429) => "denied",
            (_, 400) if row.has_challenge() => "denied",
            (_, 500..) => "failed",
            _ => "rejected",
        }
    }

    /// Whether the response asks for a credential, or for another one.
    pub fn has_challenge(self) -> bool {
        Row::for_reason(self).has_challenge()
    }

    /// Returns the details. `service` is the key for `scope="..."` and the description's advice; only the two
    /// reasons that may name it use it. The details of some reasons, such as `Ok` and `ClientClosed`, are
    /// never sent.
    pub fn details(self, service: Option<&str>) -> ErrorDetails {
        let row = Row::for_reason(self);
        let challenge = match row.challenge {
            Challenge::None => None,
            Challenge::Bare => Some(format!("Bearer realm=\"{REALM}\"")),
            Challenge::Error => Some(challenge(&row)),
            Challenge::Scope => Some(match service {
                Some(key) => challenge(&row) + ", scope=\"" + key + "\"",
                None => challenge(&row),
            }),
        };
        // Braces enclose only a service, and only in the text for a missing scope.
        let advice = match row.challenge {
            Challenge::Scope => row.advice.replace("{service}", service.unwrap_or(SERVICE)).into(),
            _ => Cow::Borrowed(row.advice),
        };
        let description = [row.text, if advice.is_empty() { "" } else { ". " }, &*advice].concat();
        let allow = (self == Reason::MethodNotSupported).then(|| ALLOW.to_owned());
        ErrorDetails { status: row.status, error: row.error, description, challenge, allow }
    }
}

const REALM: &str = "permgate";

/// The `Allow` value of row 1: every common method except TRACE and CONNECT.
const ALLOW: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// The text in place of an unknown service.
const SERVICE: &str = "the service's key";

/// Concatenates, because formatting would cost more than the decision.
fn challenge(row: &Row) -> String {
    ["Bearer realm=\"", REALM, "\", error=\"", row.error, "\", error_description=\"", row.text, "\""].concat()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_reason_has_a_code_of_its_own_and_a_lawful_response() {
        let codes: HashSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        for &reason in Reason::ALL {
            let details = reason.details(Some("youtrack"));
            assert_eq!(
                details.status == 401,
                details.error == "unauthorized" || details.error == "invalid_token"
            );
            assert_eq!(details.status == 405, details.error == "method_not_allowed", "{reason:?}");
            assert!(details.status != 401 || details.challenge.is_some(), "{reason:?}");
            assert!(!details.description.contains('{'), "{reason:?}");
        }
    }

    #[test]
    fn the_service_is_named_only_to_who_may_read_it() {
        for &reason in Reason::ALL {
            let named = format!("{:?}", reason.details(Some("sekrit"))).contains("sekrit");
            assert_eq!(named, matches!(reason, Reason::ScopeDenied | Reason::ReadOnlyScope), "{reason:?}");
        }
    }

    #[test]
    fn the_body_starts_with_what_the_challenge_says() {
        for &reason in Reason::ALL {
            let details = reason.details(Some("hub"));
            if let Some((_, text)) =
                details.challenge.as_deref().and_then(|c| c.split_once("error_description=\""))
            {
                let text = text.split('"').next().unwrap();
                assert!(details.description.starts_with(text), "{reason:?}");
            }
        }
    }

    #[test]
    fn what_may_not_be_told_apart_is_not() {
        let same = |a: Reason, b: Reason| assert_eq!(a.details(None), b.details(None));
        same(Reason::UnknownToken, Reason::OwnerDeleted);
        same(Reason::UnknownToken, Reason::IpNotAllowed);
        same(Reason::MalformedToken, Reason::ChecksumMismatch);
    }
}
