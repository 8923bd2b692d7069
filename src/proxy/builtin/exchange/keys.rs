//! The keys of issuers: found by discovery, kept for an hour, and fetched again when a token names one that
//! is not among them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex as SyncMutex, PoisonError},
    time::{Duration, Instant},
};

use http::{Request, StatusCode};
use http_body_util::Full;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use serde_json::Value;
use tokio::sync::Mutex;

use super::live::LiveTokens;
use crate::{
    authz::time::Timestamp,
    net,
    settings::{ExchangeRule, HttpVersion},
};

/// What the process knows of issuers, over all workers.
#[derive(Default)]
pub struct IssuerKeys {
    /// By issuer: those of the rules in force alone.
    issuers: SyncMutex<HashMap<String, Arc<Mutex<Known>>>>,
    pub(super) live: LiveTokens,
}

#[derive(Default)]
struct Known {
    keys: Option<Arc<JwkSet>>,
    since: Option<Instant>,
    /// The last attempt, whatever came of it: a stranger must not be able to make us ask and ask.
    asked: Option<Instant>,
}

const FRESH: Duration = Duration::from_secs(3600);
const PAUSE: Duration = Duration::from_secs(5);
/// An issuer signs with one or two and announces the next.
const MOST_KEYS: usize = 100;

impl IssuerKeys {
    /// `exchanged`: rule and end of each token that was given before the process began.
    pub fn knowing(exchanged: Vec<(String, Timestamp)>) -> Self {
        Self { live: LiveTokens::of(exchanged), ..Self::default() }
    }

    /// The key of this name; without a name, the only one. `Ok(None)`: the issuer has no such key.
    pub(super) async fn key(
        &self,
        kid: Option<&str>,
        rule: &ExchangeRule,
        rules: &[Arc<ExchangeRule>],
    ) -> Result<Option<Jwk>, String> {
        let known = self.of(rule, rules);
        // One asks at a time; the others wait for what it gets.
        let mut known = known.lock().await;
        let is_fresh = known.since.is_some_and(|since| since.elapsed() < FRESH);
        let found = known.keys.as_deref().and_then(|keys| find(keys, kid));
        if let Some(found) = found.filter(|_| is_fresh) {
            return Ok(Some(found));
        }
        if known.asked.is_none_or(|asked| asked.elapsed() >= PAUSE) {
            known.asked = Some(Instant::now());
            match fetched(rule).await {
                Ok(keys) => (known.keys, known.since) = (Some(Arc::new(keys)), Some(Instant::now())),
                Err(why) if known.keys.is_none() => return Err(why),
                // Old keys are better than none: who can say that they were withdrawn?
                Err(why) => tracing::warn!("the keys of an issuer stay as they were: {why}"),
            }
        }
        match &known.keys {
            Some(keys) => Ok(find(keys, kid)),
            None => Err(format!("{}: asked a moment ago, in vain", rule.issuer)),
        }
    }

    fn of(&self, rule: &ExchangeRule, rules: &[Arc<ExchangeRule>]) -> Arc<Mutex<Known>> {
        let mut issuers = self.issuers.lock().unwrap_or_else(PoisonError::into_inner);
        if !issuers.contains_key(&rule.issuer) {
            issuers.retain(|issuer, _| rules.iter().any(|rule| rule.issuer == *issuer));
        }
        Arc::clone(issuers.entry(rule.issuer.clone()).or_default())
    }
}

fn find(keys: &JwkSet, kid: Option<&str>) -> Option<Jwk> {
    match (kid, keys.keys.as_slice()) {
        (Some(kid), _) => keys.find(kid).cloned(),
        (None, [only]) => Some(only.clone()),
        (None, _) => None,
    }
}

/// OpenID Connect Discovery 1.0, 4.
async fn fetched(rule: &ExchangeRule) -> Result<JwkSet, String> {
    let url = format!("{}/.well-known/openid-configuration", rule.issuer.trim_end_matches('/'));
    let metadata = document(&url, rule).await?;
    if metadata["issuer"].as_str() != Some(rule.issuer.as_str()) {
        return Err(format!("{url}: it is the metadata of another issuer"));
    }
    let at = metadata["jwks_uri"].as_str().ok_or_else(|| format!("{url}: it names no jwks_uri"))?;
    let keys = document(at, rule).await?;
    let keys = keys["keys"].as_array().ok_or_else(|| format!("{at}: it has no keys"))?;
    // Keys that cannot be used here are for others.
    let usable = |key: &Value| serde_json::from_value::<Jwk>(key.clone()).ok();
    Ok(JwkSet { keys: keys.iter().filter_map(usable).take(MOST_KEYS).collect() })
}

async fn document(url: &str, rule: &ExchangeRule) -> Result<Value, String> {
    let failed = |why: String| format!("{url}: {why}");
    let request = Request::get(url).body(Full::default()).map_err(|error| failed(error.to_string()))?;
    let tls = rule.tls.as_ref().map(|tls| tls.connector(HttpVersion::Http1));
    let (status, body) = net::fetch(request, tls.as_ref()).await.map_err(failed)?;
    if status != StatusCode::OK {
        return Err(failed(format!("the answer is {status}")));
    }
    serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))
}
