//! Counts the live exchanged tokens of each rule. This quota is separate from that of
//! tokens that people create.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{authz::time::Timestamp, settings::ExchangeRule};

/// Kept in memory and rebuilt from the store at start.
#[derive(Debug, Default)]
pub struct LiveTokens(Mutex<HashMap<String, VecDeque<Timestamp>>>);

/// A reservation for one token. Dropping it without [`Reservation::keep`] releases it.
pub struct Reservation<'a> {
    tokens: &'a LiveTokens,
    rule: String,
    ends: Timestamp,
    kept: bool,
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
    pub fn reserve(&self, rule: &Arc<ExchangeRule>, now: Timestamp) -> Option<Reservation<'_>> {
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
        Some(Reservation { tokens: self, rule: name, ends, kept: false })
    }
}

impl Reservation<'_> {
    /// Keeps the reservation until the token expires, because the token was created.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut rules = self.tokens.0.lock();
        if let Some(live) = rules.get_mut(&self.rule)
            && let Some(at) = live.iter().rposition(|ends| *ends == self.ends)
        {
            live.remove(at);
        }
    }
}
