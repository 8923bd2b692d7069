//! A signed token (RFC 7519), parsed but not trusted until a key of its issuer verifies it.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jsonwebtoken::{Algorithm, AlgorithmFamily, dangerous::insecure_decode_claims};
use serde_json::{Map, Value};

use crate::authz::time::Timestamp;

pub type Claims = Map<String, Value>;

pub struct SignedToken<'t> {
    /// The signed text, and the signature.
    pub(super) parts: (&'t str, &'t str),
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    pub(super) claims: Claims,
}

/// Why a token is refused, in words for its sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("The token is malformed")]
    Malformed,
    /// Includes `none` and shared secrets.
    #[error("The token is signed by an algorithm that is not accepted")]
    Algorithm,
    #[error("The token is signed by a key that its issuer does not publish")]
    UnknownKey,
    #[error("The signature of the token is wrong")]
    Signature,
    #[error("The token lacks exp, iss or aud")]
    MissingClaim,
    #[error("The token has expired")]
    Expired,
    #[error("The token is not valid yet")]
    NotYet,
    #[error("The token was issued in the future")]
    Future,
    /// The issuer's keys are unavailable, so the token cannot be judged.
    #[error("{0}")]
    Unavailable(String),
}

/// In bytes; a token that lists many groups has several thousand.
const MAX_TOKEN: usize = 64 << 10;
/// The difference between two clocks that is tolerated, in seconds.
const LEEWAY: f64 = 60.0;

impl<'t> SignedToken<'t> {
    pub fn parse(text: &'t str) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, _) = signed.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let claims = insecure_decode_claims(text).map_err(|_| TokenError::Malformed)?;
        let header = BASE64_URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Malformed)?;
        let header: Map<String, Value> =
            serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)?;
        // RFC 7515, 4.1.11: critical extensions must be understood, and none is understood here.
        if signature.is_empty() || header.contains_key("crit") {
            return Err(TokenError::Malformed);
        }
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(TokenError::Malformed),
        };
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(algorithm);
        let algorithm = algorithm.ok_or(TokenError::Algorithm)?;
        Ok(Self { parts: (signed, signature), algorithm, key_id, claims })
    }

    /// Returns the issuer that the token claims to have.
    pub fn issuer(&self) -> &str {
        self.claims.get("iss").and_then(Value::as_str).unwrap_or_default()
    }
}

/// Parses the name of an algorithm with a public key; never one with a shared secret.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    // RFC 9864 names it by its curve.
    let name = if name == "Ed25519" { "EdDSA" } else { name };
    name.parse().ok().filter(|algorithm: &Algorithm| algorithm.family() != AlgorithmFamily::Hmac)
}

/// Checks the times of verified claims, and returns for how many more seconds they are valid. `exp` is
/// required; `nbf` and `iat` are checked if present.
pub fn check_times(claims: &Claims, now: Timestamp) -> Result<f64, TokenError> {
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
    let now = now.as_millis().div_euclid(1000) as f64;
    let end = claims.get("exp").and_then(Value::as_f64).ok_or(TokenError::MissingClaim)?;
    // A value that is not a number counts as later.
    let is_later = |value: &Value| value.as_f64().is_none_or(|begin| begin > now + LEEWAY);
    if end + LEEWAY <= now {
        Err(TokenError::Expired)
    } else if claims.get("nbf").is_some_and(is_later) {
        Err(TokenError::NotYet)
    } else if claims.get("iat").is_some_and(is_later) {
        Err(TokenError::Future)
    } else {
        Ok(end - now)
    }
}

/// Returns the audiences of a token: one string, or a list.
pub fn audiences(claims: &Claims) -> Vec<&str> {
    match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
