//! Plain words for codes.

/// The reason of a refusal, as a phrase within a sentence.
pub fn reason(code: &str) -> &str {
    match code {
        "method_not_supported" => "method that is never forwarded",
        "unknown_protocol" => "unknown protocol in an extended CONNECT",
        "bad_path" => "path that is not acceptable",
        "ambiguous_path" => "path that servers read in different ways",
        "bad_destination" => "WebDAV destination that cannot be judged",
        "bad_forwarded" => "contradictory Forwarded and X-Forwarded-* fields",
        "token_in_url" => "access token in the URL",
        "ambiguous_authorization" => "more than one Authorization header",
        "ambiguous_credential" => "more than one token, or in a doubtful place",
        "missing_credentials" => "no token was sent",
        "unsupported_scheme" => "not a Bearer token",
        "malformed_authorization" => "malformed Authorization header",
        "malformed_credential" => "malformed field for the token",
        "malformed_token" => "text that is not a token",
        "checksum_mismatch" => "mistyped token",
        "unknown_token" => "unknown token",
        "owner_deleted" => "the owner's account was deleted",
        "token_revoked" => "revoked token",
        "token_rotated" => "token was replaced and its grace period is over",
        "token_expired" => "expired token",
        "token_not_yet_valid" => "token is not valid yet",
        "owner_banned" => "the owner's account is disabled",
        "ip_not_allowed" => "address is not on the token's list",
        "no_service" => "no service owns the path",
        "wrong_carrier" => "token in a field that the service does not read",
        "read_service_denied" => "the account may not read the service",
        "scope_denied" => "the token's scope lacks the service",
        "read_only_scope" => "the token is read-only for the service",
        "proxy_not_trusted" => "forward-auth from a proxy that is not trusted",
        "rotation_denied" => "the token may not replace itself",
        "exchange_refused" => "token of another issuer that no rule accepts",
        "original_unclear" => "forward-auth without exactly one original request",
        "method_not_allowed" => "method that the service does not take",
        "bad_request" => "malformed request",
        "bad_body" => "request body is incomplete",
        "request_timeout" => "request was too slow",
        "body_too_large" => "request body is too large",
        "target_too_long" => "URL is too long",
        "misdirected" => "wrong host name",
        "too_many_bad_tokens" => "too many bad tokens from the address",
        "rate_limited" => "rate limit",
        "concurrency_limited" => "too many requests at once",
        "head_too_large" => "headers are too large",
        "identity_too_large" => "the user's groups do not fit into a header",
        "upstream_connect" => "upstream could not be reached",
        "upstream_reset" => "upstream closed the connection",
        "upstream_invalid" => "upstream sent an invalid response",
        "upstream_timeout" => "upstream did not answer in time",
        "upstream_unavailable" => "no URL of the upstream is up",
        "upstream_overloaded" => "upstream queue is full",
        "over_budget" => "a limit of the whole gateway is used up",
        "store_unavailable" => "the store is not available",
        "assertion_failed" => "the assertion could not be signed",
        "shutting_down" => "the gateway was stopping",
        "client_closed" => "the client closed the connection",
        "client_too_slow" => "the client stopped reading",
        "cut_by_admin" => "cut by an administrator",
        "tunnel_idle" => "the tunnel was silent for too long",
        other => other,
    }
}

/// The colour of a state's chip.
pub fn state_tone(state: &str) -> &'static str {
    match state {
        "active" => "good",
        "pending" => "info",
        "rotating" => "warn",
        _ => "bad",
    }
}

/// `1 token`, `2 tokens`.
pub fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use strum::VariantArray as _;

    use crate::authz::reason::Reason;

    #[test]
    fn every_reason_of_a_refusal_has_words() {
        let fine = [Reason::Ok, Reason::OkAnonymous, Reason::Answered];
        for reason in Reason::VARIANTS.iter().filter(|reason| !fine.contains(reason)) {
            assert_ne!(super::reason(reason.code()), reason.code());
        }
    }
}
