//! Verifies tokens of OpenID Connect issuers, matches their claims against the exchange rules, and counts the
//! live exchanged tokens of each rule. This quota is separate from that of tokens that people create.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use serde_json::Value;

use crate::{
    authz::time::Timestamp,
    issuer::{Claims, Issuer, SignedToken, TokenError, audiences, check_times},
    settings::{ExchangeRule, HttpVersion},
};

/// The issuers' cached keys and the live exchanged tokens, shared by all workers.
#[derive(Default)]
pub struct Issuers {
    /// By URL. Issuers that no rule names are removed.
    known: Mutex<HashMap<String, Arc<Issuer>>>,
    pub(super) live: LiveTokens,
}

/// Why a token is not exchanged.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("{0}")]
    Token(#[from] TokenError),
    #[error("No rule names the issuer of the token")]
    Issuer,
    #[error("No rule names the audience of the token")]
    Audience,
    #[error("The token is valid for longer than a day")]
    LongLived,
}

/// The longest remaining lifetime in seconds. Exchanged ids are remembered for longer, so none is reused.
const MAX_LIFETIME_SECONDS: f64 = 23.0 * 3600.0;

impl Issuers {
    /// `exchanged`: the rule and expiry of each token that was exchanged before the process started.
    pub fn with_exchanged(exchanged: Vec<(String, Timestamp)>) -> Self {
        Self { live: LiveTokens::of(exchanged), ..Self::default() }
    }

    /// Returns the claims of a token that an issuer of the rules has signed for a rule's audience. `now` is
    /// asked once the issuer's keys are there.
    pub async fn verify(
        &self,
        token: &str,
        rules: &[Arc<ExchangeRule>],
        now: impl FnOnce() -> Timestamp,
    ) -> Result<Claims, VerifyError> {
        let token = SignedToken::parse(token)?;
        let of_issuer = || rules.iter().filter(|rule| rule.issuer == token.issuer());
        let rule = of_issuer().next().ok_or(VerifyError::Issuer)?;
        let tls = rule.tls.as_ref().map(|tls| tls.connector(HttpVersion::Http1));
        let claims = self.issuer(rule, rules).verify(&token, tls.as_ref()).await?;
        let left = check_times(&claims, now())?;
        if !of_issuer().any(|rule| audiences(&claims).contains(&rule.audience.as_str())) {
            return Err(VerifyError::Audience);
        }
        if left > MAX_LIFETIME_SECONDS { Err(VerifyError::LongLived) } else { Ok(claims) }
    }

    fn issuer(&self, rule: &ExchangeRule, rules: &[Arc<ExchangeRule>]) -> Arc<Issuer> {
        let mut known = self.known.lock();
        if !known.contains_key(&rule.issuer) {
            known.retain(|url, _| rules.iter().any(|rule| rule.issuer == *url));
        }
        Arc::clone(known.entry(rule.issuer.clone()).or_insert_with(|| Arc::new(Issuer::new(&rule.issuer))))
    }
}

/// Whether verified claims match a rule: every claim that it names must be equal.
pub fn matches_rule(claims: &Claims, rule: &ExchangeRule) -> bool {
    let says = |name: &str, value: &str| match claims.get(name) {
        Some(Value::String(text)) => text == value,
        Some(Value::Bool(flag)) => flag.to_string() == value,
        Some(Value::Number(number)) => number.to_string() == value,
        _ => false,
    };
    audiences(claims).contains(&rule.audience.as_str())
        && says("iss", &rule.issuer)
        && rule.claims.iter().all(|(name, value)| says(name, value))
}

/// Kept in memory and rebuilt from the store at start.
#[derive(Debug, Default)]
pub struct LiveTokens(Mutex<HashMap<String, VecDeque<Timestamp>>>);

/// A reservation for one token. It lasts as long as the token, unless it is released.
#[derive(Debug)]
pub struct Reservation {
    rule: String,
    ends: Timestamp,
}

impl LiveTokens {
    pub fn of(mut exchanged: Vec<(String, Timestamp)>) -> Self {
        exchanged.sort_by_key(|(_, ends)| *ends);
        let mut rules: HashMap<String, VecDeque<Timestamp>> = HashMap::new();
        for (rule, ends) in exchanged {
            rules.entry(rule).or_default().push_back(ends);
        }
        Self(Mutex::new(rules))
    }

    /// Reserves one token. `None`: the rule has reached `max_tokens`.
    pub fn reserve(&self, rule: &Arc<ExchangeRule>, now: Timestamp) -> Option<Reservation> {
        let name = rule.author();
        let ends = now.plus_seconds(i64::try_from(rule.lifetime.as_secs()).unwrap_or(i64::MAX));
        let mut rules = self.0.lock();
        rules.retain(|_, ends| ends.back().is_some_and(|last| *last > now));
        let live = rules.entry(name.clone()).or_default();
        while live.front().is_some_and(|end| *end <= now) {
            live.pop_front();
        }
        if live.len() >= rule.max_tokens {
            return None;
        }
        live.push_back(ends);
        Some(Reservation { rule: name, ends })
    }

    /// Takes a reservation back, because no token was created.
    pub fn release(&self, reservation: &Reservation) {
        let mut rules = self.0.lock();
        if let Some(live) = rules.get_mut(&reservation.rule)
            && let Some(at) = live.iter().rposition(|ends| *ends == reservation.ends)
        {
            live.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::authz::subject::Access;

    #[test]
    fn every_claim_of_a_rule_must_match_exactly() {
        let rule = |claims: &[(&str, &str)]| ExchangeRule {
            name: "ci".into(),
            issuer: "https://id.example".into(),
            audience: "gate".into(),
            claims: claims.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            account: "ci".into(),
            scope: vec![("tracker".into(), Access::Full)],
            lifetime: Duration::from_secs(60),
            max_tokens: 1,
            tls: None,
        };
        let check = |row: &str, more: Value, named: &[(&str, &str)], expected: bool| {
            let mut claims =
                json!({"iss": "https://id.example", "aud": ["other", "gate"], "repository": "a/b"});
            claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            assert_eq!(matches_rule(claims.as_object().unwrap(), &rule(named)), expected, "{row}");
        };
        let named = [("repository", "a/b")];
        check("exact", json!({}), &named, true);
        check("another", json!({"repository": "a/bc"}), &named, false);
        check("another case", json!({"repository": "A/b"}), &named, false);
        check("a list", json!({"repository": ["a/b"]}), &named, false);
        check("absent", json!({}), &[("ref", "main")], false);
        check("both", json!({"ref": "main"}), &[("repository", "a/b"), ("ref", "main")], true);
        check("a flag", json!({"ref_protected": true}), &[("ref_protected", "true")], true);
        check("a number", json!({"run": 7}), &[("run", "7")], true);
        check("another audience", json!({"aud": "other"}), &named, false);
        check("another issuer", json!({"iss": "https://evil.example"}), &named, false);
    }
}
