//! A provider's metadata (OpenID Connect Discovery), and the errors of a sign-in.

use serde::Deserialize;
use serde_json::Value;

use crate::issuer::{Issuer, TokenError};

/// Validated metadata: the fields that permgate uses.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    pub authorization_endpoint: String,
    pub token_endpoint: String,
    pub userinfo_endpoint: Option<String>,
    /// RFC 9207: its authorization responses carry `iss`.
    #[serde(default, rename = "authorization_response_iss_parameter_supported")]
    pub sends_issuer: bool,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    code_challenge_methods_supported: Option<Vec<String>>,
}

/// Why a sign-in failed. For the log; the browser is told less.
#[derive(Debug, thiserror::Error)]
pub(in crate::admin) enum ProviderError {
    #[error("the provider cannot be reached: {0}")]
    Unreachable(String),
    #[error("the provider's metadata cannot be used: {0}")]
    Metadata(String),
    #[error("the response names another provider, or none (RFC 9207)")]
    OtherIssuer,
    /// Declined by the user, or by the provider's policy.
    #[error("the provider says {0:?}")]
    Refused(String),
    #[error("too many codes are being redeemed")]
    Busy,
    #[error("the ID token is refused: {0}")]
    Token(TokenError),
    #[error("the claims are refused: {0}")]
    Claims(&'static str),
    #[error("the claim {0:?}, which is the login, is missing")]
    NoLogin(String),
}

impl From<TokenError> for ProviderError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Unavailable(why) => Self::Unreachable(why),
            error => Self::Token(error),
        }
    }
}

impl Metadata {
    /// Validates what the issuer published.
    pub(super) fn parse(value: &Value, issuer: &Issuer) -> Result<Self, ProviderError> {
        let wrong = |what: String| ProviderError::Metadata(what);
        let metadata = Self::deserialize(value).map_err(|error| wrong(error.to_string()))?;
        if !takes(metadata.code_challenge_methods_supported.as_deref(), "S256") {
            return Err(wrong("it does not take code_challenge_method S256".to_owned()));
        }
        let endpoints = [&metadata.authorization_endpoint, &metadata.token_endpoint];
        for endpoint in endpoints.into_iter().chain(&metadata.userinfo_endpoint) {
            if !issuer.is_secure_enough(endpoint) {
                return Err(wrong(format!("{endpoint:?} is not reached as safely as the issuer")));
            }
        }
        Ok(metadata)
    }

    /// Whether it accepts the client's secret in the form only, not as `Authorization: Basic`.
    pub(super) fn has_secret_in_form(&self) -> bool {
        let methods = self.token_endpoint_auth_methods_supported.as_deref();
        !takes(methods, "client_secret_basic") && takes(methods, "client_secret_post")
    }
}

/// Without a list, a provider takes everything.
fn takes(listed: Option<&[String]>, word: &str) -> bool {
    listed.is_none_or(|listed| listed.iter().any(|one| one == word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_is_judged() {
        let issuer = Issuer::new("https://id.example/realm");
        let sound = || {
            json!({
                "authorization_endpoint": "https://id.example/auth",
                "token_endpoint": "https://id.example/token",
            })
        };
        let check = |name: &str, field: &str, value: Value, fits: bool| {
            let mut metadata = sound();
            metadata[field] = value;
            assert_eq!(Metadata::parse(&metadata, &issuer).is_ok(), fits, "{name}");
        };
        check("sound", "more", json!(1), true);
        check("a token endpoint in plain text", "token_endpoint", json!("http://id.example/token"), false);
        check("on this machine in plain text", "token_endpoint", json!("http://127.0.0.1/token"), false);
        check("no address", "token_endpoint", json!("/token"), false);
        check("a script", "authorization_endpoint", json!("javascript:alert(1)"), false);
        check("PKCE", "code_challenge_methods_supported", json!(["plain", "S256"]), true);
        check("no sound PKCE", "code_challenge_methods_supported", json!(["plain"]), false);
        let methods = |methods: Value| {
            let mut metadata = sound();
            metadata["token_endpoint_auth_methods_supported"] = methods;
            Metadata::parse(&metadata, &issuer).unwrap().has_secret_in_form()
        };
        assert!(!methods(json!(null)) && !methods(json!(["client_secret_post", "client_secret_basic"])));
        assert!(methods(json!(["client_secret_post"])));
    }
}
