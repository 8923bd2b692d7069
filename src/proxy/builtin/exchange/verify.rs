//! Whether a token of another issuer is sound, and what it says.

use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::AlgorithmParameters};
use serde_json::{Map, Value};

use super::IssuerKeys;
use crate::settings::ExchangeRule;

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("{0}")]
    Unaccepted(&'static str),
    /// 503: nothing is said about the token.
    #[error("{0}")]
    Unavailable(String),
}

/// In bytes; a token that lists many groups has several thousand.
const LONGEST: usize = 32 << 10;
/// Two clocks differ by so much, in seconds.
const LEEWAY: u64 = 60;
/// In seconds. That a token was exchanged is remembered for longer.
const LONGEST_LIFE: u64 = 23 * 3600;

/// What a public key verifies; never a shared secret.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

impl IssuerKeys {
    /// The claims of a token that one of the rules' issuers has signed for its audience.
    pub async fn verified(
        &self,
        token: &str,
        rules: &[Arc<ExchangeRule>],
    ) -> Result<Map<String, Value>, VerifyError> {
        let unaccepted = |why| VerifyError::Unaccepted(why);
        if token.len() > LONGEST {
            return Err(unaccepted("The token is too long"));
        }
        let header = decode_header(token).map_err(|_| unaccepted("The token is malformed"))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(unaccepted("The token is signed by an algorithm that is not accepted"));
        }
        // Not believed until it is verified by a key of this very issuer.
        let named: Map<String, Value> = jsonwebtoken::dangerous::insecure_decode_claims(token)
            .map_err(|_| unaccepted("The token is malformed"))?;
        let issuer = named.get("iss").and_then(Value::as_str).unwrap_or_default();
        let of_issuer = || rules.iter().filter(|rule| rule.issuer == issuer);
        let rule = of_issuer().next().ok_or(unaccepted("No rule names the issuer of the token"))?;
        let key = self.key(header.kid.as_deref(), rule, rules).await.map_err(VerifyError::Unavailable)?;
        let key = key.ok_or(unaccepted("The token is signed by a key that its issuer does not publish"))?;
        if matches!(key.algorithm, AlgorithmParameters::OctetKey(_)) {
            return Err(unaccepted("The token is signed by a shared secret"));
        }
        let key = DecodingKey::from_jwk(&key).map_err(|_| unaccepted("The issuer's key cannot be used"))?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_issuer(&[issuer]);
        validation.set_audience(&of_issuer().map(|rule| &rule.audience).collect::<Vec<_>>());
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let claims: Map<String, Value> =
            decode(token, &key, &validation).map_err(|error| unaccepted(told(&error)))?.claims;
        let now = jsonwebtoken::get_current_timestamp();
        let number = |name: &str| claims.get(name).and_then(Value::as_f64);
        if number("exp").is_none_or(|exp| exp > (now + LONGEST_LIFE) as f64) {
            return Err(unaccepted("The token lives longer than a day"));
        }
        if number("iat").is_some_and(|iat| iat > (now + LEEWAY) as f64) {
            return Err(unaccepted("The token was issued in the future"));
        }
        Ok(claims)
    }
}

fn told(error: &jsonwebtoken::errors::Error) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;
    match error.kind() {
        ErrorKind::ExpiredSignature => "The token has expired",
        ErrorKind::ImmatureSignature => "The token is not valid yet",
        ErrorKind::InvalidAudience => "No rule names the audience of the token",
        ErrorKind::MissingRequiredClaim(_) => "The token lacks exp, iss or aud",
        ErrorKind::InvalidSignature => "The signature of the token does not fit",
        _ => "The token is malformed",
    }
}

/// Whether verified claims are those that a rule names, each exactly.
pub fn fits(claims: &Map<String, Value>, rule: &ExchangeRule) -> bool {
    let says = |name: &str, value: &str| match claims.get(name) {
        Some(Value::String(text)) => text == value,
        Some(Value::Bool(flag)) => flag.to_string() == value,
        Some(Value::Number(number)) => number.to_string() == value,
        _ => false,
    };
    let is_meant = match claims.get("aud") {
        Some(Value::String(one)) => *one == rule.audience,
        Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(&rule.audience)),
        _ => false,
    };
    is_meant && says("iss", &rule.issuer) && rule.claims.iter().all(|(name, value)| says(name, value))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::authz::subject::Access;

    #[test]
    fn every_claim_of_a_rule_is_exact() {
        let rule = |claims: &[(&str, &str)]| ExchangeRule {
            name: "ci".into(),
            issuer: "https://id.example".into(),
            audience: "gate".into(),
            claims: claims.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            account: "ci".into(),
            scope: vec![("tracker".into(), Access::Full)],
            lifetime: Duration::from_secs(60),
            max_tokens: 1,
            tls: None,
        };
        let check = |row: &str, more: Value, named: &[(&str, &str)], expected: bool| {
            let mut claims =
                json!({"iss": "https://id.example", "aud": ["other", "gate"], "repository": "a/b"});
            claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            assert_eq!(fits(claims.as_object().unwrap(), &rule(named)), expected, "{row}");
        };
        let named = [("repository", "a/b")];
        check("exact", json!({}), &named, true);
        check("another", json!({"repository": "a/bc"}), &named, false);
        check("another case", json!({"repository": "A/b"}), &named, false);
        check("a list", json!({"repository": ["a/b"]}), &named, false);
        check("absent", json!({}), &[("ref", "main")], false);
        check("both", json!({"ref": "main"}), &[("repository", "a/b"), ("ref", "main")], true);
        check("a flag", json!({"ref_protected": true}), &[("ref_protected", "true")], true);
        check("a number", json!({"run": 7}), &[("run", "7")], true);
        check("another audience", json!({"aud": "other"}), &named, false);
        check("another issuer", json!({"iss": "https://evil.example"}), &named, false);
    }
}
