//! An issuer's public keys (RFC 7517).

use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    crypto::verify,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde_json::Value;

use super::token::{SignedToken, TokenError, algorithm};

pub(super) struct Keys(Vec<Key>);

struct Key {
    id: Option<String>,
    /// The algorithms with which it may have signed.
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// The most keys that are kept. An issuer signs with one or two and announces the next.
const MAX_KEYS: usize = 100;
/// The most keys that are tried for a token that names none.
const MAX_TRIED_KEYS: usize = 10;

impl Keys {
    /// Parses a key set. Keys that cannot be used here have other purposes and are left out. `None`: it is
    /// not a key set.
    pub(super) fn parse(set: &Value) -> Option<Self> {
        Some(Self(set["keys"].as_array()?.iter().filter_map(Key::parse).take(MAX_KEYS).collect()))
    }

    /// Verifies with the key that the token names, or with any that fits if it names none.
    pub(super) fn verify(&self, token: &SignedToken<'_>) -> Result<(), TokenError> {
        let named = |key: &&Key| token.key_id.is_none() || key.id == token.key_id;
        let fitting = |key: &&Key| key.algorithms.contains(&token.algorithm);
        let mut keys = self.0.iter().filter(named).filter(fitting).take(MAX_TRIED_KEYS).peekable();
        if keys.peek().is_none() {
            return Err(TokenError::UnknownKey);
        }
        let (signed, signature) = token.parts;
        let fits =
            |key: &Key| matches!(verify(signature, signed.as_bytes(), &key.key, token.algorithm), Ok(true));
        if keys.any(fits) { Ok(()) } else { Err(TokenError::Signature) }
    }
}

impl Key {
    fn parse(value: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature)
            || jwk.common.key_operations.as_ref().is_some_and(|uses| !uses.contains(&KeyOperations::Verify))
        {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms().to_vec(),
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                vec![Algorithm::ES256]
            }
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => {
                vec![Algorithm::ES384]
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                vec![Algorithm::EdDSA]
            }
            // Includes shared secrets.
            _ => return None,
        };
        if let Some(name) = value["alg"].as_str() {
            algorithms.retain(|known| algorithm(name) == Some(*known));
        }
        Some(Self { id: jwk.common.key_id.clone(), algorithms, key: DecodingKey::from_jwk(&jwk).ok()? })
    }
}
