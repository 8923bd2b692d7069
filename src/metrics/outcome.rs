//! Groups reasons by who has to look into them.

use crate::authz::reason::Reason;

/// Returns the label `outcome` of a request. `denied` and `rejected` are for the client to look into,
/// `failed` for the operator.
pub fn outcome(reason: Reason) -> &'static str {
    match reason {
        Reason::Ok | Reason::OkAnonymous | Reason::TunnelIdle => "forwarded",
        Reason::Answered => "answered",
        Reason::MissingCredentials
        | Reason::UnsupportedScheme
        | Reason::TokenInUrl
        | Reason::AmbiguousAuthorization
        | Reason::AmbiguousCredential
        | Reason::MalformedAuthorization
        | Reason::MalformedCredential
        | Reason::MalformedToken
        | Reason::ChecksumMismatch
        | Reason::UnknownToken
        | Reason::OwnerDeleted
        | Reason::TokenRevoked
        | Reason::TokenRotated
        | Reason::TokenExpired
        | Reason::TokenNotYetValid
        | Reason::OwnerBanned
        | Reason::IpNotAllowed
        | Reason::NoService
        | Reason::WrongCarrier
        | Reason::ReadServiceDenied
        | Reason::ScopeDenied
        | Reason::ReadOnlyScope
        | Reason::ProxyNotTrusted
        | Reason::RotationDenied
        | Reason::ExchangeRefused
        | Reason::TooManyBadTokens
        | Reason::RateLimited
        | Reason::ConcurrencyLimited
        | Reason::CutByAdmin => "denied",
        Reason::MethodNotSupported
        | Reason::UnknownProtocol
        | Reason::BadPath
        | Reason::BadDestination
        | Reason::AmbiguousPath
        | Reason::OriginalUnclear
        | Reason::MethodNotAllowed
        | Reason::BadRequest
        | Reason::BadBody
        | Reason::RequestTimeout
        | Reason::BodyTooLarge
        | Reason::TargetTooLong
        | Reason::Misdirected
        | Reason::HeadTooLarge
        | Reason::ClientClosed
        | Reason::ClientTooSlow => "rejected",
        Reason::IdentityTooLarge
        | Reason::UpstreamConnect
        | Reason::UpstreamReset
        | Reason::UpstreamInvalid
        | Reason::UpstreamTimeout
        | Reason::UpstreamUnavailable
        | Reason::UpstreamOverloaded
        | Reason::OverBudget
        | Reason::StoreUnavailable
        | Reason::AssertionFailed
        | Reason::ShuttingDown => "failed",
    }
}
