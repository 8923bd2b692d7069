//! One key pair: generated or read, identified by its thumbprint, published as a JWK.

use std::fmt;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, Signature},
};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use strum::{EnumString, IntoStaticStr, VariantNames};
use zeroize::Zeroizing;

use super::SigningFailed;

/// By the names of RFC 7518, 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(const_into_str)]
pub enum Algorithm {
    /// RFC 8037, with Ed25519.
    #[strum(serialize = "EdDSA")]
    EdDsa,
    /// RFC 7518, with P-256.
    #[strum(serialize = "ES256")]
    Es256,
}

/// A private key, which is never displayed.
pub struct Key {
    pair: SigningKey,
    id: String,
    /// The encoded header, the first part of every assertion.
    header: String,
    pkcs8: Zeroizing<Vec<u8>>,
}

enum SigningKey {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("failed to make a key")]
    Generate,
    #[error("it has no private key: a PEM section \"PRIVATE KEY\" (PKCS#8) is expected")]
    None,
    #[error("failed to read PEM")]
    Pem(#[source] rustls_pki_types::pem::Error),
    #[error("it has a key that is neither Ed25519 nor P-256")]
    Kind,
}

/// Returns every key of a PEM text, in order. Fails if there is none.
pub fn read_pem(pem: &[u8]) -> Result<Vec<Key>, KeyError> {
    let keys = PrivatePkcs8KeyDer::pem_slice_iter(pem)
        .map(|der| Key::from_pkcs8(der.map_err(KeyError::Pem)?.secret_pkcs8_der()))
        .collect::<Result<Vec<Key>, KeyError>>()?;
    if keys.is_empty() { Err(KeyError::None) } else { Ok(keys) }
}

impl Key {
    pub fn generate(algorithm: Algorithm) -> Result<Self, KeyError> {
        let document = match algorithm {
            Algorithm::EdDsa => Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1()),
            Algorithm::Es256 => {
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).and_then(|pair| pair.to_pkcs8v1())
            }
        };
        Self::from_pkcs8(document.map_err(|_| KeyError::Generate)?.as_ref())
    }

    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map(SigningKey::Ed25519)
            .or_else(|_| {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map(SigningKey::P256)
            })
            .map_err(|_| KeyError::Kind)?;
        let id = thumbprint(&pair);
        let header = json!({"alg": pair.algorithm().into_str(), "kid": id, "typ": "JWT"}).to_string();
        Ok(Self {
            header: BASE64_URL_SAFE_NO_PAD.encode(header),
            id,
            pair,
            pkcs8: Zeroizing::new(der.to_vec()),
        })
    }

    /// Returns the RFC 7638 thumbprint.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn algorithm(&self) -> Algorithm {
        self.pair.algorithm()
    }

    /// Returns the public half as a JWK (RFC 7517).
    pub fn jwk(&self) -> Value {
        let mut jwk = self.pair.public();
        jwk["kid"] = self.id.as_str().into();
        jwk["alg"] = self.algorithm().into_str().into();
        jwk["use"] = "sig".into();
        jwk
    }

    /// Only for the file of keys.
    pub(super) fn to_pem(&self) -> Zeroizing<String> {
        pem_of("PRIVATE KEY", &self.pkcs8)
    }

    pub(super) fn header(&self) -> &str {
        &self.header
    }

    pub(super) fn sign(&self, text: &[u8]) -> Result<Signature, SigningFailed> {
        match &self.pair {
            SigningKey::Ed25519(pair) => pair.try_sign(text),
            SigningKey::P256(pair) => pair.sign(&SystemRandom::new(), text),
        }
        .map_err(|_| SigningFailed)
    }
}

impl SigningKey {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed25519(_) => Algorithm::EdDsa,
            Self::P256(_) => Algorithm::Es256,
        }
    }

    /// Returns the members that identify the key, and no others.
    fn public(&self) -> Value {
        match self {
            Self::Ed25519(pair) => {
                let x = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key());
                json!({"crv": "Ed25519", "kty": "OKP", "x": x})
            }
            Self::P256(pair) => {
                // An uncompressed point: the byte 4, then both coordinates.
                let point = pair.public_key().as_ref();
                let (x, y) = point[1..].split_at(32);
                let [x, y] = [x, y].map(|coordinate| BASE64_URL_SAFE_NO_PAD.encode(coordinate));
                json!({"crv": "P-256", "kty": "EC", "x": x, "y": y})
            }
        }
    }
}

/// Returns the RFC 7638 thumbprint: the digest of the required members in the order of their names, in which
/// they are serialized.
fn thumbprint(pair: &SigningKey) -> String {
    let members = pair.public().to_string();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, members.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(digest)
}

/// Encodes a section of a PEM file (RFC 7468).
pub(super) fn pem_of(label: &str, der: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(BASE64_STANDARD.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(body.len() * 66 / 64 + 2 * label.len() + 64));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for line in body.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.id).finish()
    }
}
