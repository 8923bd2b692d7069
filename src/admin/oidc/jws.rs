//! Signed tokens (RFC 7515) and the keys that sign them (RFC 7517): public-key signatures alone, with
//! the algorithm that fits the key.

use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde_json::Value;

use super::claims::Claims;

/// A compact token, read but not believed.
pub(super) struct Signed<'a> {
    /// What is signed.
    input: &'a str,
    signature: Vec<u8>,
    algorithm: Algorithm,
    kid: Option<String>,
    claims: Claims,
}

/// Public keys of a provider.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Key>);

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    /// It signs with this one alone.
    algorithm: Option<Algorithm>,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256([u8; 65]),
    P384([u8; 97]),
    Ed25519([u8; 32]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::admin) enum TokenError {
    #[error("it is malformed")]
    Malformed,
    /// `none` and shared secrets among them.
    #[error("it is signed by an algorithm that is not taken")]
    Algorithm,
    #[error("it is signed with a key that the provider does not publish")]
    UnknownKey,
    #[error("the signature does not fit")]
    Signature,
    #[error("the provider's keys cannot be read")]
    Keys,
}

/// A token with a picture in it is not an ID token.
const LONGEST: usize = 64 << 10;

impl<'a> Signed<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > LONGEST {
            return Err(TokenError::Malformed);
        }
        let (input, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = input.split_once('.').ok_or(TokenError::Malformed)?;
        let object = |part: &str| match BASE64_URL_SAFE_NO_PAD
            .decode(part)
            .map(|bytes| serde_json::from_slice(&bytes))
        {
            Ok(Ok(Value::Object(object))) => Ok(object),
            _ => Err(TokenError::Malformed),
        };
        let (header, claims) = (object(header)?, object(payload)?);
        // RFC 7515, 4.1.11: what is critical and not understood is refused; nothing is understood.
        if header.contains_key("crit") {
            return Err(TokenError::Malformed);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::from_name);
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(TokenError::Malformed),
        };
        Ok(Self {
            input,
            signature: BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?,
            algorithm: algorithm.ok_or(TokenError::Algorithm)?,
            kid,
            claims,
        })
    }

    /// The claims, by a key that is named, or by any that fits where none is.
    pub(super) fn verified(&self, keys: &Keys) -> Result<Claims, TokenError> {
        let named = |key: &&Key| self.kid.is_none() || key.kid == self.kid;
        let mut fitting = keys.0.iter().filter(named).filter(|key| key.fits(self.algorithm)).peekable();
        if fitting.peek().is_none() {
            return Err(TokenError::UnknownKey);
        }
        let verified = fitting.any(|key| key.verify(self.algorithm, self.input, &self.signature));
        if verified { Ok(self.claims.clone()) } else { Err(TokenError::Signature) }
    }
}

impl Keys {
    /// Keys that cannot be used here are none; other people use the same set.
    pub(super) fn parse(set: &Value) -> Result<Self, TokenError> {
        let keys = set["keys"].as_array().ok_or(TokenError::Keys)?;
        Ok(Self(keys.iter().filter_map(Key::parse).collect()))
    }
}

impl Key {
    fn parse(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk[name].as_str();
        if text("use").is_some_and(|usage| usage != "sig") {
            return None;
        }
        if jwk["key_ops"].as_array().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
            return None;
        }
        let bytes = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => Material::Rsa { n: bytes("n")?, e: bytes("e")? },
            ("EC", Some("P-256")) => Material::P256(point(&bytes("x")?, &bytes("y")?)?),
            ("EC", Some("P-384")) => Material::P384(point(&bytes("x")?, &bytes("y")?)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x")?.try_into().ok()?),
            _ => return None,
        };
        let algorithm = match text("alg") {
            None => None,
            Some(name) => Some(Algorithm::from_name(name)?),
        };
        Some(Self { kid: text("kid").map(str::to_owned), algorithm, material })
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        use Algorithm::{EdDsa, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
        let kind = match self.material {
            Material::Rsa { .. } => matches!(algorithm, Rs256 | Rs384 | Rs512 | Ps256 | Ps384 | Ps512),
            Material::P256(_) => algorithm == Es256,
            Material::P384(_) => algorithm == Es384,
            Material::Ed25519(_) => algorithm == EdDsa,
        };
        kind && self.algorithm.is_none_or(|own| own == algorithm)
    }

    fn verify(&self, algorithm: Algorithm, input: &str, sent: &[u8]) -> bool {
        let input = input.as_bytes();
        match &self.material {
            Material::Rsa { n, e } => {
                let how = match algorithm {
                    Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
                    Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
                    Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
                    Algorithm::Es256 | Algorithm::Es384 | Algorithm::EdDsa => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(how, input, sent).is_ok()
            }
            Material::P256(point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point).verify(input, sent).is_ok()
            }
            Material::P384(point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point).verify(input, sent).is_ok()
            }
            Material::Ed25519(key) => {
                UnparsedPublicKey::new(&signature::ED25519, key).verify(input, sent).is_ok()
            }
        }
    }
}

impl Algorithm {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            // RFC 9864 calls the same thing by its curve.
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// Uncompressed (SEC 1, 2.3.3): `N` is one and twice the length of a coordinate.
fn point<const N: usize>(x: &[u8], y: &[u8]) -> Option<[u8; N]> {
    let half = N / 2;
    if x.len() != half || y.len() != half {
        return None;
    }
    let mut point = [4; N];
    point[1..=half].copy_from_slice(x);
    point[half + 1..].copy_from_slice(y);
    Some(point)
}

#[cfg(test)]
mod tests;
