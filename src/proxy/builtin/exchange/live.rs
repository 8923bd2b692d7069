//! How many exchanged tokens are live for each rule. Their own quota: they do not count among those that
//! people make.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{authz::time::Timestamp, settings::ExchangeRule};

/// In memory, and begun anew with what the store has.
#[derive(Debug, Default)]
pub struct LiveTokens(Mutex<HashMap<String, VecDeque<Timestamp>>>);

/// Room for one token. Dropping it gives it back.
pub struct Reserved<'a> {
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

    /// `None`: the rule has as many as it may.
    pub fn reserve(&self, rule: &Arc<ExchangeRule>, now: Timestamp) -> Option<Reserved<'_>> {
        let name = rule.author();
        let ends = now.plus_seconds(i64::try_from(rule.lifetime.as_secs()).unwrap_or(i64::MAX));
        let mut rules = self.lock();
        rules.retain(|_, ends| ends.back().is_some_and(|last| *last > now));
        let live = rules.entry(name.clone()).or_default();
        while live.front().is_some_and(|end| *end <= now) {
            live.pop_front();
        }
        if live.len() >= rule.max_tokens {
            return None;
        }
        live.push_back(ends);
        Some(Reserved { tokens: self, rule: name, ends, kept: false })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, VecDeque<Timestamp>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reserved<'_> {
    /// The token was made.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let mut rules = self.tokens.lock();
        if let Some(live) = rules.get_mut(&self.rule)
            && let Some(at) = live.iter().rposition(|ends| *ends == self.ends)
        {
            live.remove(at);
        }
    }
}
