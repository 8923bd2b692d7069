//! A signed token (RFC 7519), read but not believed until a key of its issuer fits.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use jsonwebtoken::{Algorithm, AlgorithmFamily, dangerous::insecure_decode_claims};
use serde_json::{Map, Value};

use crate::authz::time::Timestamp;

pub type Claims = Map<String, Value>;

pub struct SignedToken<'t> {
    /// What is signed, and the signature.
    pub(super) parts: (&'t str, &'t str),
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    pub(super) claims: Claims,
}

/// Why a token is refused, in words for whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("The token is malformed")]
    Malformed,
    /// `none` and shared secrets among them.
    #[error("The token is signed by an algorithm that is not accepted")]
    Algorithm,
    #[error("The token is signed by a key that its issuer does not publish")]
    UnknownKey,
    #[error("The signature of the token does not fit")]
    Signature,
    #[error("The token lacks exp, iss or aud")]
    MissingClaim,
    #[error("The token has expired")]
    Expired,
    #[error("The token is not valid yet")]
    NotYet,
    #[error("The token was issued in the future")]
    Future,
    /// Nothing is said about the token: the issuer's keys cannot be had.
    #[error("{0}")]
    Unavailable(String),
}

/// In bytes; a token that lists many groups has several thousand.
const LONGEST: usize = 64 << 10;
/// Two clocks differ by so much, in seconds.
const LEEWAY: f64 = 60.0;

impl<'t> SignedToken<'t> {
    pub fn parse(text: &'t str) -> Result<Self, TokenError> {
        if text.len() > LONGEST {
            return Err(TokenError::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, _) = signed.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let claims = insecure_decode_claims(text).map_err(|_| TokenError::Malformed)?;
        let header = BASE64_URL_SAFE_NO_PAD.decode(header).map_err(|_| TokenError::Malformed)?;
        let header: Map<String, Value> =
            serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)?;
        // RFC 7515, 4.1.11: what is critical and not understood is refused; nothing is understood.
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

    /// Whose it says that it is.
    pub fn issuer(&self) -> &str {
        self.claims.get("iss").and_then(Value::as_str).unwrap_or_default()
    }
}

/// What a public key verifies; never a shared secret.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    // RFC 9864 calls it by its curve.
    let name = if name == "Ed25519" { "EdDSA" } else { name };
    name.parse().ok().filter(|algorithm: &Algorithm| algorithm.family() != AlgorithmFamily::Hmac)
}

/// Whether verified claims are of now; if so, for how many seconds more. `exp` has to be there, `nbf` and `iat`
/// are judged where they are.
pub fn check_times(claims: &Claims, now: Timestamp) -> Result<f64, TokenError> {
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
    let now = now.as_millis().div_euclid(1000) as f64;
    let end = claims.get("exp").and_then(Value::as_f64).ok_or(TokenError::MissingClaim)?;
    // In words, it is no time at all.
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

/// Whom a token is meant for: a text, or a list of them.
pub fn audiences(claims: &Claims) -> Vec<&str> {
    match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
