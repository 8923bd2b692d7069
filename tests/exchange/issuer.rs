//! An OpenID Connect issuer of job tokens, like that of a CI system.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use serde_json::{Value, json};

use crate::support::upstream::{self, Upstream};

/// An issuer whose keys can be replaced.
pub struct Issuer {
    pub url: String,
    pub keys: Arc<Mutex<Vec<Jwk>>>,
    key: EncodingKey,
    pub fetched: Arc<AtomicUsize>,
    _server: Upstream,
}

pub fn key(kid: &str) -> (EncodingKey, Jwk) {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let key = EncodingKey::from_ec_der(&pair.serialize_der());
    let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
    public.common.key_id = Some(kid.to_owned());
    (key, public)
}

impl Issuer {
    pub fn start() -> Self {
        let (key, public) = key("one");
        let (keys, fetched) = (Arc::new(Mutex::new(vec![public])), Arc::new(AtomicUsize::new(0)));
        let (shown, counted) = (keys.clone(), fetched.clone());
        let server = Upstream::start(move |seen, socket| {
            let host = seen.head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
            let answer = if seen.head.starts_with("GET /.well-known/openid-configuration ") {
                json!({"issuer": format!("http://{host}"), "jwks_uri": format!("http://{host}/keys")})
            } else {
                counted.fetch_add(1, Ordering::SeqCst);
                json!({"keys": *shown.lock().unwrap()})
            };
            upstream::json(socket, &answer.to_string())
        });
        Self { url: format!("http://{}", server.address), keys, key, fetched, _server: server }
    }

    pub fn claims(&self, jti: &str) -> Value {
        let now = now();
        json!({
            "iss": self.url, "aud": "https://gate.example", "sub": "repo:acme/app:ref:refs/heads/main",
            "repository": "acme/app", "ref_protected": true, "jti": jti, "iat": now, "nbf": now, "exp": now + 300,
        })
    }

    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(claims, "one", &self.key)
    }

    pub fn sign_as(&self, claims: &Value, kid: &str, key: &EncodingKey) -> String {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, key).unwrap()
    }
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
