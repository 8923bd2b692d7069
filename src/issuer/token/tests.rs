use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
        RsaKeyPair,
    },
};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::issuer::Keys;

/// A signer, and its public key as a provider publishes it.
struct Signer {
    sign: Box<dyn Fn(&[u8]) -> Vec<u8>>,
    jwk: Value,
}

fn ec(curve: &str, algorithm: &'static EcdsaSigningAlgorithm) -> Signer {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let point = pair.public_key().as_ref()[1..].to_vec();
    let (x, y) = point.split_at(point.len() / 2);
    let jwk = json!({"kty": "EC", "crv": curve, "kid": curve, "x": BASE64_URL_SAFE_NO_PAD.encode(x), "y": BASE64_URL_SAFE_NO_PAD.encode(y)});
    let sign = move |input: &[u8]| pair.sign(&SystemRandom::new(), input).unwrap().as_ref().to_vec();
    Signer { sign: Box::new(sign), jwk }
}

fn ed25519() -> Signer {
    let pair = Ed25519KeyPair::generate().unwrap();
    let x = BASE64_URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": x});
    Signer { sign: Box::new(move |input| pair.sign(input).as_ref().to_vec()), jwk }
}

fn rsa(encoding: &'static dyn RsaEncoding) -> Signer {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    assert!(!pair.public_key().as_der().unwrap().as_ref().is_empty());
    let public = pair.public_key();
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let jwk = json!({
        "kty": "RSA", "kid": "rsa", "use": "sig",
        "n": part(public.modulus().big_endian_without_leading_zero()),
        "e": part(public.exponent().big_endian_without_leading_zero()),
    });
    let sign = move |input: &[u8]| {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &SystemRandom::new(), input, &mut signature).unwrap();
        signature
    };
    Signer { sign: Box::new(sign), jwk }
}

impl Signer {
    fn token(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string().as_bytes());
        let input = format!("{}.{}", part(header), part(claims));
        format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode((self.sign)(input.as_bytes())))
    }
}

fn outcome(token: &str, set: &Value) -> Result<Claims, TokenError> {
    let token = SignedToken::parse(token)?;
    Keys::parse(set).unwrap().verify(&token).map(|()| token.claims)
}

#[test]
fn token_is_valid_only_with_its_signing_key() {
    let check = |algorithm: &str, signer: Signer, other: Signer| {
        let kid = signer.jwk["kid"].clone();
        let token = signer.token(&json!({"alg": algorithm, "kid": kid}), &json!({"sub": "1"}));
        let set = json!({"keys": [{"kty": "EC", "crv": "P-521", "kid": "x"}, signer.jwk]});
        assert_eq!(outcome(&token, &set).unwrap()["sub"], "1", "{algorithm}");
        let unnamed = signer.token(&json!({"alg": algorithm}), &json!({"sub": "1"}));
        assert!(outcome(&unnamed, &json!({"keys": [other.jwk, signer.jwk]})).is_ok(), "{algorithm}, no kid");
        let replaced = json!({"keys": [other.jwk]});
        assert_eq!(outcome(&token, &replaced), Err(TokenError::Signature), "{algorithm}, another key");
        let (head, tail) = token.split_once('.').unwrap();
        let (_, signature) = tail.rsplit_once('.').unwrap();
        let forged = format!("{head}.{}.{signature}", BASE64_URL_SAFE_NO_PAD.encode(b"{\"sub\":\"2\"}"));
        assert_eq!(outcome(&forged, &set), Err(TokenError::Signature), "{algorithm}, other claims");
        let mut renamed = signer.jwk.clone();
        renamed["kid"] = "next".into();
        assert_eq!(outcome(&token, &json!({"keys": [renamed]})), Err(TokenError::UnknownKey), "{algorithm}");
    };
    check(
        "ES256",
        ec("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
        ec("P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
    );
    check(
        "ES384",
        ec("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
        ec("P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
    );
    check("EdDSA", ed25519(), ed25519());
    check("RS256", rsa(&RSA_PKCS1_SHA256), rsa(&RSA_PKCS1_SHA256));
    check("PS256", rsa(&RSA_PSS_SHA256), rsa(&RSA_PSS_SHA256));
}

#[test]
fn unlisted_algorithms_are_refused() {
    let signer = ed25519();
    let set = json!({"keys": [signer.jwk]});
    let check = |name: &str, header: Value, expected: TokenError| {
        let token = signer.token(&header, &json!({"sub": "1"}));
        assert_eq!(outcome(&token, &set), Err(expected), "{name}");
    };
    check("none", json!({"alg": "none", "kid": "ed"}), TokenError::Algorithm);
    check("no word", json!({"kid": "ed"}), TokenError::Algorithm);
    check("a shared secret", json!({"alg": "HS256", "kid": "ed"}), TokenError::Algorithm);
    check("of another kind of key", json!({"alg": "RS256", "kid": "ed"}), TokenError::UnknownKey);
    check("critical", json!({"alg": "EdDSA", "kid": "ed", "crit": ["exp"]}), TokenError::Malformed);
    check("a strange kid", json!({"alg": "EdDSA", "kid": 1}), TokenError::Malformed);
    let sound = signer.token(&json!({"alg": "EdDSA", "kid": "ed"}), &json!({"sub": "1"}));
    let pinned = |field: &str, value: Value| {
        let mut jwk = signer.jwk.clone();
        jwk[field] = value;
        outcome(&sound, &json!({"keys": [jwk]}))
    };
    assert!(pinned("alg", json!("EdDSA")).is_ok());
    assert_eq!(pinned("alg", json!("ES256")), Err(TokenError::UnknownKey), "the key is for another one");
    assert_eq!(pinned("use", json!("enc")), Err(TokenError::UnknownKey), "it does not sign");
    assert_eq!(pinned("key_ops", json!(["sign"])), Err(TokenError::UnknownKey));
}

proptest! {
    #[test]
    fn arbitrary_input_never_panics(token in "[A-Za-z0-9_.=-]{0,80}", json in "[]{}:,\"a-z0-9]{0,60}") {
        let keys = Keys::parse(&json!({"keys": [ed25519().jwk]})).unwrap();
        let part = BASE64_URL_SAFE_NO_PAD.encode(json.as_bytes());
        for text in [token.clone(), format!("{part}.{part}.{token}"), format!("eyJhbGciOiJFZERTQSJ9.e30.{token}")] {
            prop_assert!(SignedToken::parse(&text).and_then(|token| keys.verify(&token)).is_err());
        }
    }
}

#[test]
fn non_tokens_are_malformed() {
    let check = |name: &str, token: &str| {
        assert_eq!(SignedToken::parse(token).err(), Some(TokenError::Malformed), "{name}");
    };
    check("empty", "");
    check("one part", "e30");
    check("two parts", "e30.e30");
    check("four parts", "e30.e30.e30.e30");
    check("a list", "W10.e30.e30");
    check("not base64", "e30.e 0.e30");
    check("endless", &"e30.".repeat(40_000));
}
