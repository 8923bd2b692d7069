//! Issuers of signed tokens, such as OpenID Connect providers and CI systems. Discovers and caches their
//! metadata and public keys, and verifies that a token is theirs. What the claims other than the times mean
//! is up to the caller.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey,
    crypto::verify,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde_json::Value;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_rustls::TlsConnector;

use self::token::algorithm;
use crate::net;

mod token;

pub use token::{Claims, SignedToken, TokenError, audiences, check_times};

/// One issuer, and what it has published.
pub struct Issuer {
    /// Exactly as in its metadata and in each of its tokens.
    url: String,
    known: ArcSwapOption<Published>,
    /// When it was last requested in vain, or in search of a key. One task requests at a time; the others
    /// wait for its result.
    last_fetch: Arc<Mutex<LastFetch>>,
}

type LastFetch = Option<Instant>;

/// What an issuer publishes.
pub struct Published {
    /// The metadata (OpenID Connect Discovery 1.0, 3).
    pub metadata: Value,
    keys: Keys,
    since: Instant,
}

/// After this time, what is known is used only while nothing newer can be fetched.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// Between two requests that a stranger's token could cause.
const FETCH_PAUSE: Duration = Duration::from_secs(5);

impl Issuer {
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), known: ArcSwapOption::empty(), last_fetch: Arc::default() }
    }

    /// Returns the claims of a token that this issuer has signed. A key that is unknown or does not fit may
    /// have been replaced, so the keys are then fetched again, but not more often than `FETCH_PAUSE`. Without
    /// `tls`, the issuer is reached in clear text.
    pub async fn verify(
        self: &Arc<Self>,
        token: &SignedToken<'_>,
        tls: Option<&TlsConnector>,
    ) -> Result<Claims, TokenError> {
        let known = self.published(tls).await.map_err(TokenError::Unavailable)?;
        match known.keys.verify(token) {
            Err(TokenError::UnknownKey | TokenError::Signature) => {
                self.refetch(&known, tls).await.keys.verify(token)?;
            }
            verified => verified?,
        }
        Ok(token.claims.clone())
    }

    /// Returns what the issuer publishes: at most an hour old, or older if it cannot be fetched. The error
    /// says why there is nothing.
    pub async fn published(self: &Arc<Self>, tls: Option<&TlsConnector>) -> Result<Arc<Published>, String> {
        let fresh = || self.known.load_full().filter(|known| known.since.elapsed() < MAX_AGE);
        if let Some(known) = fresh() {
            return Ok(known);
        }
        let last_fetch = self.last_fetch.clone().lock_owned().await;
        if let Some(known) = fresh() {
            return Ok(known);
        }
        let failed = match last_fetch.is_some_and(|at| at.elapsed() < FETCH_PAUSE) {
            true => format!("{}: a request failed a moment ago", self.url),
            false => match self.fetch(last_fetch, tls).await {
                Ok(known) => return Ok(known),
                Err(why) => why,
            },
        };
        // Old keys are better than none, because nothing shows that they were withdrawn.
        self.known.load_full().ok_or(failed)
    }

    /// Returns what is published now instead of `old`. Returns `old` if the issuer was just requested or
    /// fails.
    async fn refetch(self: &Arc<Self>, old: &Arc<Published>, tls: Option<&TlsConnector>) -> Arc<Published> {
        let mut last_fetch = self.last_fetch.clone().lock_owned().await;
        if let Some(known) = self.known.load_full().filter(|known| !Arc::ptr_eq(known, old)) {
            return known;
        }
        if last_fetch.is_some_and(|at| at.elapsed() < FETCH_PAUSE) {
            return old.clone();
        }
        *last_fetch = Some(Instant::now());
        self.fetch(last_fetch, tls).await.unwrap_or_else(|why| {
            tracing::warn!("cannot fetch an issuer's keys, the previous ones stay in use: {why}");
            old.clone()
        })
    }

    /// Fetches in a task of its own, since a client that goes away must not end what the others wait for.
    async fn fetch(
        self: &Arc<Self>,
        mut last_fetch: OwnedMutexGuard<LastFetch>,
        tls: Option<&TlsConnector>,
    ) -> Result<Arc<Published>, String> {
        let (issuer, tls) = (self.clone(), tls.cloned());
        let fetched = tokio::spawn(async move {
            let fetched = issuer.fetch_keys(tls.as_ref()).await;
            if fetched.is_err() {
                *last_fetch = Some(Instant::now());
            }
            fetched
        });
        fetched.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    /// Fetches metadata and keys (OpenID Connect Discovery 1.0, 4).
    async fn fetch_keys(&self, tls: Option<&TlsConnector>) -> Result<Arc<Published>, String> {
        let url = format!("{}/.well-known/openid-configuration", self.url.trim_end_matches('/'));
        let metadata = fetch_json(&url, tls).await?;
        let at = self.keys_url(&metadata).map_err(|why| format!("{url}: {why}"))?;
        let keys = Keys::parse(&fetch_json(at, tls).await?).ok_or_else(|| format!("{at}: it has no keys"))?;
        let known = Arc::new(Published { metadata, keys, since: Instant::now() });
        self.known.store(Some(known.clone()));
        Ok(known)
    }

    /// Returns the URL of the keys. Fails if the metadata is another issuer's.
    fn keys_url<'m>(&self, metadata: &'m Value) -> Result<&'m str, String> {
        if metadata["issuer"].as_str() != Some(&self.url) {
            return Err(format!("it is the metadata of another issuer, {}", metadata["issuer"]));
        }
        let keys = metadata["jwks_uri"].as_str().ok_or("it names no jwks_uri")?;
        match self.is_secure_enough(keys) {
            true => Ok(keys),
            false => Err(format!("{keys:?} is less protected than the issuer's URL: it must be https://")),
        }
    }

    /// Whether the endpoint is reached over TLS. Clear text is allowed only on this machine, for an issuer in
    /// clear text.
    pub fn is_secure_enough(&self, endpoint: &str) -> bool {
        let Ok(uri) = endpoint.parse::<Uri>() else { return false };
        match uri.scheme_str() {
            Some("https") => uri.host().is_some(),
            Some("http") => self.url.starts_with("http://") && uri.host().is_some_and(is_loopback_host),
            _ => false,
        }
    }
}

/// Whether the host is this machine, so that connections to it need no TLS.
pub fn is_loopback_host(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn fetch_json(url: &str, tls: Option<&TlsConnector>) -> Result<Value, String> {
    let failed = |why: String| format!("{url}: {why}");
    let request =
        Request::get(url).body(Full::<Bytes>::default()).map_err(|error| failed(error.to_string()))?;
    let (status, body) = net::fetch(request, tls).await.map_err(failed)?;
    if status != StatusCode::OK {
        return Err(failed(format!("the response has status {status}")));
    }
    serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))
}

struct Keys(Vec<Key>);

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
    fn parse(set: &Value) -> Option<Self> {
        Some(Self(set["keys"].as_array()?.iter().filter_map(Key::parse).take(MAX_KEYS).collect()))
    }

    /// Verifies with the key that the token names, or with any that fits if it names none.
    fn verify(&self, token: &SignedToken<'_>) -> Result<(), TokenError> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// Serves the metadata at once, and the key set after a pause.
    async fn start_server() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let metadata = json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string();
        tokio::spawn(async move {
            let mut head = [0; 4096];
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let read = socket.read(&mut head).await.unwrap();
                let body = if head[..read].starts_with(b"GET /keys ") {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    r#"{"keys": []}"#
                } else {
                    &metadata
                };
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        url
    }

    #[tokio::test]
    async fn client_that_goes_away_does_not_end_a_search_for_keys() {
        let issuer = Arc::new(Issuer::new(&start_server().await));
        let old = issuer.published(None).await.unwrap();
        let pause = Duration::from_millis(50);
        assert!(tokio::time::timeout(pause, issuer.refetch(&old, None)).await.is_err());
        assert!(!Arc::ptr_eq(&issuer.refetch(&old, None).await, &old), "the search went on");
    }

    #[test]
    fn keys_url_comes_from_the_issuers_own_metadata() {
        let issuer = Issuer::new("https://id.example/realm");
        let check = |name: &str, field: &str, value: Value, fits: bool| {
            let mut metadata =
                json!({"issuer": "https://id.example/realm", "jwks_uri": "https://keys.example/jwks"});
            metadata[field] = value;
            assert_eq!(issuer.keys_url(&metadata).is_ok(), fits, "{name}");
        };
        check("sound", "more", json!(1), true);
        check("another issuer", "issuer", json!("https://id.example/realm/"), false);
        check("no issuer", "issuer", json!(null), false);
        check("no address", "jwks_uri", json!("/jwks"), false);
        check("nowhere", "jwks_uri", json!(null), false);
        check("in clear text", "jwks_uri", json!("http://127.0.0.1/jwks"), false);
    }
}
