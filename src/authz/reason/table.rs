//! Status, error, challenge and texts of every reason: those of the decision, and the gateway's own.

use http::StatusCode;

use super::Reason;

/// One row of the table.
pub struct Row {
    pub status: StatusCode,
    pub error: &'static str,
    pub challenge: Challenge,
    /// The description in the challenge; also the start of the body's description.
    pub text: &'static str,
    /// The rest of the body's description.
    pub advice: &'static str,
}

pub enum Challenge {
    None,
    /// RFC 6750, 3.1: no `error` attribute if no credential was sent.
    Bare,
    Error,
    Scope,
}

impl Row {
    pub fn has_challenge(&self) -> bool {
        !matches!(self.challenge, Challenge::None)
    }

    pub fn for_reason(reason: Reason) -> Row {
        use Challenge::{Bare, Error, None, Scope};
        use StatusCode as S;
        let row = |status, error, challenge, text, advice| Row { status, error, challenge, text, advice };
        let bad_request = |text, advice| row(S::BAD_REQUEST, "invalid_request", None, text, advice);
        let bad_field = |text, advice| row(S::BAD_REQUEST, "invalid_request", Error, text, advice);
        let unauthorized = |text, advice| row(S::UNAUTHORIZED, "unauthorized", Bare, text, advice);
        let bad_token = |text, advice| row(S::UNAUTHORIZED, "invalid_token", Error, text, advice);
        let denied =
            |challenge, text, advice| row(S::FORBIDDEN, "insufficient_scope", challenge, text, advice);
        let plain = |status, error, text, advice| row(status, error, None, text, advice);
        let forbidden = |text, advice| plain(S::FORBIDDEN, "forbidden", text, advice);
        let too_many = |text, advice| plain(S::TOO_MANY_REQUESTS, "too_many_requests", text, advice);
        let bad_gateway = |text, advice| plain(S::BAD_GATEWAY, "bad_gateway", text, advice);
        let unavailable = |text, advice| plain(S::SERVICE_UNAVAILABLE, "service_unavailable", text, advice);
        match reason {
            Reason::Ok | Reason::OkAnonymous => plain(S::OK, "ok", "The request was forwarded", ""),
            Reason::Answered => plain(S::OK, "ok", "The gateway itself answered", ""),
            Reason::MethodNotSupported => {
                plain(S::METHOD_NOT_ALLOWED, "method_not_allowed", "TRACE and CONNECT are not forwarded", "")
            }
            Reason::BadPath => bad_request(
                "The path is not acceptable",
                "Send it without \"..\" segments, control characters, malformed escapes or characters that \
                 must be percent-encoded",
            ),
            Reason::AmbiguousPath => bad_request(
                "Servers may read this path in different ways that lead to different services",
                "Send it in its plain form: the right letter case, no empty segments, no needless escapes, \
                 no encoded slashes",
            ),
            Reason::BadDestination => bad_request(
                "The Destination header field is not acceptable",
                "Send one Destination: an absolute path on this host, or its URL, in its plain form and behind \
                 the same upstream",
            ),
            Reason::BadForwarded => bad_request(
                "The proxy in front describes the client or the host in ways that contradict each other",
                "Operators: have it overwrite the Forwarded and X-Forwarded-* fields of its clients",
            ),
            Reason::TokenInUrl => bad_field(
                "Access tokens must not be sent in the URL",
                "Send it as \"Authorization: Bearer\". Servers may have logged this token: replace it",
            ),
            Reason::AmbiguousAuthorization => bad_field(
                "More than one Authorization header field was sent",
                "Send exactly one \"Authorization: Bearer\" field",
            ),
            Reason::AmbiguousCredential => bad_field(
                "More than one credential was sent",
                "Send the token once, in one of the ways that the service accepts",
            ),
            Reason::MissingCredentials => unauthorized(
                "No access token was sent",
                "Send \"Authorization: Bearer\" and a permanent token; in a pipeline, check that the \
                 secret variable is set for this job",
            ),
            Reason::UnsupportedScheme => unauthorized(
                "The Authorization header field is not of the Bearer scheme",
                "Send \"Authorization: Bearer\" and a permanent token",
            ),
            Reason::MalformedAuthorization => bad_field(
                "The Authorization header field is malformed",
                "Send \"Bearer\", one space and the token; check that the variable with the token is not \
                 empty and has one line",
            ),
            Reason::MalformedCredential => bad_field(
                "The field that holds the access token is malformed",
                "Send only the token in it; as a WebSocket protocol, with at least one other protocol",
            ),
            Reason::MalformedToken | Reason::ChecksumMismatch => bad_token(
                "The access token is malformed",
                "Check that it was copied completely: a token has 66 characters and starts with pgt_",
            ),
            Reason::UnknownToken | Reason::OwnerDeleted | Reason::IpNotAllowed => bad_token(
                "The access token is invalid",
                "Create a new token and store it in place of this one",
            ),
            Reason::TokenRevoked => bad_token(
                "The access token was revoked",
                "Create a new token and store it in place of this one",
            ),
            Reason::TokenRotated => bad_token(
                "The access token was replaced by a newer one",
                "Store the newer one in place of this one",
            ),
            Reason::TokenExpired => {
                bad_token("The access token expired", "Create a new token and store it in place of this one")
            }
            Reason::TokenNotYetValid => bad_token(
                "The access token is not valid yet",
                "Wait until it becomes valid, or create another token",
            ),
            Reason::OwnerBanned => bad_token(
                "The account that owns the access token is disabled",
                "Ask an administrator to enable it, or use a token of another account",
            ),
            Reason::NoService => plain(
                S::NOT_FOUND,
                "not_found",
                "No service has this path",
                "Check the host and the beginning of the path; letter case counts",
            ),
            Reason::WrongCarrier => bad_token(
                "The service does not accept an access token in this form",
                "Send it in a form that the service accepts: the operator lists them in its `credentials`",
            ),
            Reason::ReadServiceDenied => denied(
                Error,
                "The account may not read this service",
                "Ask an administrator for the Read Service permission or for membership in a group that may read it",
            ),
            Reason::ScopeDenied => denied(
                Scope,
                "The access token is not granted for this service",
                "Create a token with \"{service}\" in its scope",
            ),
            Reason::ReadOnlyScope => denied(
                Scope,
                "The access token is read-only for this service",
                "Create a token with full access to \"{service}\"",
            ),
            Reason::ProxyNotTrusted => forbidden(
                "Only trusted proxies may ask for decisions",
                "Add the proxy's address to server.trusted_proxies",
            ),
            Reason::RotationDenied => plain(
                S::FORBIDDEN,
                "permission_denied",
                "The access token cannot be rotated",
                "Ask an administrator for the permission Update Self, or create a new token",
            ),
            Reason::ExchangeRefused => bad_request(
                "The token is not exchanged",
                "Check that its issuer, audience and claims match an exchange rule, and send each token only once",
            ),
            Reason::OriginalUnclear => forbidden(
                "The proxy does not describe exactly one original request",
                "Send no fields that only the proxy sets. Operators: compare the proxy's configuration \
                 with the one that comes with permgate",
            ),
            Reason::MethodNotAllowed => plain(
                S::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "The service does not allow this method",
                "Send one that the Allow header field lists, without a method override",
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
            Reason::TooManyBadTokens => too_many(
                "Too many bad access tokens came from this address",
                "Wait as long as Retry-After says, and send a valid token",
            ),
            Reason::RateLimited => too_many(
                "More requests were sent than a limit allows",
                "Wait as long as Retry-After says; RateLimit-Policy lists the limits",
            ),
            Reason::ConcurrencyLimited => too_many(
                "More requests are in flight than a limit allows",
                "Wait until one of them has ended",
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
                "Ask the operator to list fewer identity_groups for this service",
            ),
            Reason::UpstreamConnect => bad_gateway("The service cannot be reached", "Try again later"),
            Reason::UpstreamReset => bad_gateway(
                "The service closed the connection before its response was complete",
                "Try again later",
            ),
            Reason::UpstreamInvalid => bad_gateway("The service sent an invalid response", ""),
            Reason::UpstreamTimeout => plain(
                S::GATEWAY_TIMEOUT,
                "gateway_timeout",
                "The service did not respond in time",
                "Try again later",
            ),
            Reason::UpstreamUnavailable => bad_gateway("The service is unavailable", "Try again later"),
            Reason::UpstreamOverloaded => {
                unavailable("The service is overloaded", "Wait as long as Retry-After says")
            }
            Reason::OverBudget => {
                unavailable("The gateway is overloaded", "Wait as long as Retry-After says")
            }
            Reason::StoreUnavailable => unavailable(
                "Access cannot be decided at the moment",
                "This does not mean that the token is invalid: try again later",
            ),
            Reason::AssertionFailed => unavailable(
                "The gateway cannot sign the user's identity at the moment",
                "This does not mean that the token is invalid: try again later",
            ),
            Reason::ShuttingDown => unavailable("The gateway is shutting down", "Try again"),
            Reason::UnknownProtocol => plain(
                S::NOT_IMPLEMENTED,
                "not_implemented",
                "The gateway does not open tunnels for this protocol",
                "Use extended CONNECT (RFC 8441) only for WebSockets, with :protocol websocket",
            ),
            Reason::ClientClosed => bad_request("The client closed the connection", ""),
            Reason::ClientTooSlow => bad_request("The client read nothing of the response for too long", ""),
            Reason::TunnelIdle => plain(S::OK, "ok", "The tunnel was idle for too long", ""),
            Reason::IdentityChanged => {
                bad_request("The identity that the service was told of has changed", "")
            }
            Reason::CutByAdmin => bad_request("An administrator cut the request", ""),
        }
    }
}
