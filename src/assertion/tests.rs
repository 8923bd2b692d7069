use std::{collections::HashSet, os::unix::fs::PermissionsExt as _, path::Path};

use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use serde_json::Value;

use super::*;
use crate::authz::secret::TokenId;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_500);

fn claims() -> Claims<'static> {
    Claims {
        service: "tracker",
        user_id: "0190a000-0000-7000-8000-000000000001",
        login: "alice",
        groups: vec!["developers", "Büro \"3\", \\ Ost"],
        token: TokenId::parse("A1iceYt00001").unwrap(),
    }
}

fn bound(at: Timestamp) -> RequestBinding<'static> {
    RequestBinding { method: "GET", path: "/api/a%2Fb", request_id: "r-1", at }
}

fn generated(file: &Path, algorithm: Algorithm) -> Settings {
    let seconds = std::time::Duration::from_secs;
    let (rotate, publish_ahead) = (seconds(1000), seconds(100));
    let source = KeySource::Generated { file: file.to_owned(), algorithm, rotate, publish_ahead };
    Settings { issuer: "permgate".into(), lifetime: seconds(30), source }
}

/// Verifies an assertion with the published keys, except the times in its claims.
fn verify(assertion: &HeaderValue, jwks: &Jwks) -> Result<Value, String> {
    let text = assertion.to_str().unwrap();
    let header = decode_header(text).map_err(|e| e.to_string())?;
    let set: JwkSet = serde_json::from_slice(&jwks.body).unwrap();
    let kid = header.kid.ok_or("no kid")?;
    let jwk = set.find(&kid).ok_or("a key that is not published")?;
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&["tracker"]);
    validation.set_issuer(&["permgate"]);
    validation.set_required_spec_claims(&["exp", "nbf", "iss", "aud", "sub"]);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    let key = DecodingKey::from_jwk(jwk).map_err(|e| e.to_string())?;
    decode::<Value>(text, &key, &validation).map(|data| data.claims).map_err(|e| e.to_string())
}

#[test]
fn assertion_is_signed_and_bound_to_one_request() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256] {
        let directory = tempfile::tempdir().unwrap();
        let keyring = Keyring::default();
        assert_eq!(keyring.sign(&claims(), &bound(NOW)), Err(SigningFailed), "no key, no assertion");
        assert!(keyring.jwks().is_none());
        keyring.update_keys(&generated(&directory.path().join("keys"), algorithm), NOW).unwrap();
        let assertion = keyring.sign(&claims(), &bound(NOW)).unwrap();
        assert!(assertion.is_sensitive());
        let payload = verify(&assertion, &keyring.jwks().unwrap()).unwrap();
        let expected = serde_json::json!({
            "iss": "permgate",
            "aud": "tracker",
            "sub": "0190a000-0000-7000-8000-000000000001",
            "login": "alice",
            "groups": ["developers", "Büro \"3\", \\ Ost"],
            "token_id": "A1iceYt00001",
            "htm": "GET",
            // printf %s /api/a%2Fb | openssl dgst -sha256 -binary | basenc --base64url
            "path_sha256": "4sLrwNZxGO7sdDS3ztM_UKhh-nKcgU1_QNrivOX3yuk",
            // A verifier's clock may be behind.
            "iat": 1_799_999_995,
            "nbf": 1_799_999_995,
            "exp": 1_800_000_025,
            "jti": "r-1",
        });
        assert_eq!(payload, expected, "{algorithm:?}");

        let text = assertion.to_str().unwrap();
        let (signed, signature) = text.rsplit_once('.').unwrap();
        let (header, payload) = signed.split_once('.').unwrap();
        let other = keyring.sign(&claims(), &RequestBinding { path: "/api/c", ..bound(NOW) }).unwrap();
        let other = other.to_str().unwrap().split('.').nth(1).unwrap().to_owned();
        assert_ne!(payload, other);
        let forged = HeaderValue::try_from(format!("{header}.{other}.{signature}")).unwrap();
        assert!(verify(&forged, &keyring.jwks().unwrap()).is_err(), "{algorithm:?}: another path's claims");
    }
}

#[test]
fn assertion_is_valid_for_30_seconds_with_clock_skew() {
    let directory = tempfile::tempdir().unwrap();
    for lifetime in [1, 5, 24, 25, 26, 30] {
        let keyring = Keyring::default();
        let seconds = std::time::Duration::from_secs(lifetime);
        let settings =
            Settings { lifetime: seconds, ..generated(&directory.path().join("keys"), Algorithm::EdDsa) };
        keyring.update_keys(&settings, NOW).unwrap();
        let assertion = keyring.sign(&claims(), &bound(NOW)).unwrap();
        let payload = verify(&assertion, &keyring.jwks().unwrap()).unwrap();
        let claim = |name: &str| payload[name].as_i64().unwrap() - 1_800_000_000;
        assert!(claim("nbf") <= -2 && claim("iat") == claim("nbf"), "{lifetime}: {payload}");
        assert!(claim("exp") > 0 && claim("exp") - claim("nbf") <= 30, "{lifetime}: {payload}");
        assert!(claim("exp") <= lifetime as i64, "{lifetime}: {payload}");
    }
}

#[test]
fn keys_are_published_before_and_after_they_sign() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    let keyring = Keyring::default();
    let mut signers = HashSet::new();
    let mut signed: Vec<(i64, HeaderValue)> = Vec::new();
    // A verifier that caches the keys for as long as it may.
    let mut cached: Option<(i64, Jwks)> = None;
    for second in 0..4000 {
        let now = NOW.plus_seconds(second);
        if second == 0 || keyring.is_due(now) {
            keyring.update_keys(&generated(&file, Algorithm::EdDsa), now).unwrap();
        }
        let jwks = keyring.jwks().unwrap();
        let caching = jwks.caching.to_str().unwrap().rsplit('=').next().unwrap().parse::<i64>().unwrap();
        assert_eq!(caching, 50);
        if cached.as_ref().is_none_or(|(until, _)| second >= *until) {
            cached = Some((second + caching, jwks));
        }
        let assertion = keyring.sign(&claims(), &bound(now)).unwrap();
        let header = decode_header(assertion.to_str().unwrap()).unwrap();
        signers.insert(header.kid.unwrap());
        signed.push((second, assertion));
        signed.retain(|(at, _)| *at > second - 30);
        for (at, assertion) in &signed {
            verify(assertion, &cached.as_ref().unwrap().1)
                .unwrap_or_else(|e| panic!("{at} at {second}: {e}"));
        }
    }
    assert_eq!(signers.len(), 4, "four thousand seconds, a key for each thousand");
    let published: Value = serde_json::from_slice(&keyring.jwks().unwrap().body).unwrap();
    assert_eq!(published["keys"].as_array().unwrap().len(), 2, "the fourth and the fifth");

    let again = Keyring::default();
    again.update_keys(&generated(&file, Algorithm::EdDsa), NOW.plus_seconds(4000)).unwrap();
    assert_eq!(again.jwks().unwrap().body, keyring.jwks().unwrap().body, "a restart finds the same keys");
}

#[test]
fn keys_follow_changes_of_algorithm_clock_and_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys");
    let keyring = Keyring::default();
    let signer = |at: i64| {
        let assertion = keyring.sign(&claims(), &bound(NOW.plus_seconds(at))).unwrap();
        verify(&assertion, &keyring.jwks().unwrap()).unwrap();
        let header = decode_header(assertion.to_str().unwrap()).unwrap();
        (header.alg, header.kid.unwrap())
    };
    let update_keys =
        |algorithm, at: i64| keyring.update_keys(&generated(&file, algorithm), NOW.plus_seconds(at));
    update_keys(Algorithm::EdDsa, 0).unwrap();
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let first = signer(0);

    update_keys(Algorithm::Es256, 10).unwrap();
    assert_eq!(signer(109), first, "another algorithm is published first, too");
    let second = signer(110);
    assert_eq!(second.0, jsonwebtoken::Algorithm::ES256);
    update_keys(Algorithm::Es256, 205).unwrap();
    let published = keyring.jwks().unwrap().body;
    assert!(!String::from_utf8_lossy(&published).contains(&first.1), "retired");

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    update_keys(Algorithm::Es256, 206).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    update_keys(Algorithm::Es256, -5000).unwrap();
    assert_eq!(signer(-5000), second, "the clock was set back");
    assert!(keyring.is_due(NOW.plus_seconds(-4100)), "and the next key comes in time by it");

    // Its successor was made by the wrong clock, too.
    std::fs::remove_file(&file).unwrap();
    update_keys(Algorithm::Es256, 0).unwrap();
    update_keys(Algorithm::Es256, 90_000).unwrap();
    assert!(keyring.is_due(NOW), "the clock was set back");
    update_keys(Algorithm::Es256, 0).unwrap();
    let second = signer(0);
    assert_ne!(signer(1_000), second, "a period later");
    assert!(!keyring.is_due(NOW.plus_seconds(1)) && keyring.is_due(NOW.plus_seconds(1_900)));

    std::fs::write(&file, "{\"version\": 1, \"keys\": [\"sekrit\"]}").unwrap();
    let error = update_keys(Algorithm::Es256, 300).unwrap_err();
    assert!(
        error.to_string().ends_with("it is damaged; remove it and reload, and permgate creates new keys"),
        "{error}"
    );
    assert_eq!(signer(300), second, "those in use stay");
    std::fs::remove_file(&file).unwrap();
    update_keys(Algorithm::Es256, 301).unwrap();
    assert_ne!(signer(301), second, "a removed file gives new keys at once");
}

#[test]
fn first_configured_key_signs_and_all_are_published() {
    let pem = |algorithm| Key::generate(algorithm).unwrap().to_pem();
    let text = [pem(Algorithm::Es256).as_str(), pem(Algorithm::EdDsa).as_str()].concat();
    let keys: std::sync::Arc<[_]> =
        read_pem(text.as_bytes()).unwrap().into_iter().map(std::sync::Arc::new).collect();
    let keyring = Keyring::default();
    let source = KeySource::Configured(keys);
    let settings = Settings { source, ..generated(Path::new(""), Algorithm::EdDsa) };
    keyring.update_keys(&settings, NOW).unwrap();
    assert!(!keyring.is_due(NOW.plus_seconds(1 << 40)));
    let jwks = keyring.jwks().unwrap();
    let assertion = keyring.sign(&claims(), &bound(NOW)).unwrap();
    verify(&assertion, &jwks).unwrap();
    let header = decode_header(assertion.to_str().unwrap()).unwrap();
    assert_eq!(header.alg, jsonwebtoken::Algorithm::ES256, "the first one signs");
    let published: Value = serde_json::from_slice(&jwks.body).unwrap();
    assert_eq!(published["keys"].as_array().unwrap().len(), 2);
    assert!(!String::from_utf8_lossy(&jwks.body).contains("\"d\""), "no private half");

    let check =
        |pem: &str, expected: &str| assert_eq!(read_pem(pem.as_bytes()).unwrap_err().to_string(), expected);
    check("", "it has no private key: a PEM section \"PRIVATE KEY\" (PKCS#8) is expected");
    check(&super::key::pem_of("PRIVATE KEY", b"nonsense"), "it has a key that is neither Ed25519 nor P-256");
    check("-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----\n", "failed to read PEM");
}
