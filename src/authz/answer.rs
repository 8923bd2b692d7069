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
        todo!()
    }

    /// The answer. `service` is the key told in `scope="..."` and in the description's advice.
    pub fn answer(self, _service: Option<&str>) -> Answer {
        todo!()
    }
}
