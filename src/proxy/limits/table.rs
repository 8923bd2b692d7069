//! A bounded table of counts, sharded so that workers rarely contend. Keys that find a
//! shard full share one count.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    authz::{rules::ServiceId, secret::TokenId, subject::UserIx},
    net::Throttle,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CountKey {
    Token(TokenId),
    User(UserIx),
    Address(IpAddr),
    Service(ServiceId),
    /// The keys that found no room, by shard.
    Others(usize),
}

#[derive(Debug)]
pub struct Table<V> {
    parts: Box<[Mutex<Shard<V>>]>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Shard<V> {
    counts: HashMap<CountKey, V>,
    /// Number of counts at which idle ones are removed.
    sweep_at: usize,
    /// Searches of a full shard for idle counts.
    searches: Throttle,
}

const SHARDS: usize = 16;
/// The most counts per shard: 262,144 in all, about 16 MB.
const MAX_COUNTS_PER_SHARD: usize = 16_384;
const FIRST_SWEEP_SIZE: usize = 64;
/// The time between two searches of a full table. Without it, each new key would cost a search while an
/// attacker keeps the table full.
const SEARCH_INTERVAL: Duration = Duration::from_millis(100);

impl<V: Copy + Default> Table<V> {
    /// Changes one count. `change` gets the count (or the default) and returns the new one, if it changes,
    /// and a result. `idle` says whether a count may be forgotten. Returns the key that was counted and the
    /// result. `now` is read only if the key's shard is full.
    pub fn update<R>(
        &self,
        key: CountKey,
        now: impl FnOnce() -> Instant,
        idle: impl Fn(V) -> bool,
        change: impl FnOnce(V) -> (Option<V>, R),
    ) -> (CountKey, R) {
        let at = match key {
            CountKey::Others(part) => part,
            key => (self.hasher.hash_one(key) % SHARDS as u64) as usize,
        };
        let mut part = self.parts[at].lock();
        let mut key = key;
        if !part.counts.contains_key(&key) {
            if part.counts.len() >= part.sweep_at {
                part.sweep(now, &idle);
            }
            if part.counts.len() >= MAX_COUNTS_PER_SHARD {
                key = CountKey::Others(at);
            }
        }
        let present = part.counts.get(&key).copied().unwrap_or_default();
        let (count, result) = change(present);
        if let Some(count) = count {
            if idle(count) {
                part.counts.remove(&key);
            } else {
                part.counts.insert(key, count);
            }
        }
        (key, result)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.lock().counts.len()).sum()
    }
}

impl<V: Copy> Shard<V> {
    fn sweep(&mut self, now: impl FnOnce() -> Instant, idle: impl Fn(V) -> bool) {
        if self.counts.len() >= MAX_COUNTS_PER_SHARD && !self.searches.is_due(now(), SEARCH_INTERVAL) {
            return;
        }
        self.counts.retain(|_, count| !idle(*count));
        self.sweep_at = (self.counts.len() * 2).clamp(FIRST_SWEEP_SIZE, MAX_COUNTS_PER_SHARD);
    }
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        let part = || {
            Mutex::new(Shard {
                counts: HashMap::new(),
                sweep_at: FIRST_SWEEP_SIZE,
                searches: Throttle::default(),
            })
        };
        Self { parts: (0..SHARDS).map(|_| part()).collect(), hasher: RandomState::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, net::Ipv4Addr};

    use super::*;

    #[test]
    fn a_full_table_is_searched_now_and_then() {
        let (table, start, judged) = (Table::<u64>::default(), Instant::now(), Cell::new(0_usize));
        let ends_at = |key: u32, now: u64, ends: u64| {
            let key = CountKey::Address(Ipv4Addr::from(key).into());
            let idle = |ends: u64| {
                judged.set(judged.get() + 1);
                ends <= now
            };
            table.update(key, || start + Duration::from_secs(now), idle, |_| (Some(ends), ())).0
        };
        let room = SHARDS * MAX_COUNTS_PER_SHARD;
        let all = u32::try_from(room * 5 / 4).unwrap();
        for key in 0..all {
            ends_at(key, 0, 10);
        }
        assert!((room..=room + SHARDS).contains(&table.len()), "{}", table.len());
        judged.set(0);
        for key in all..all + 10_000 {
            assert!(matches!(ends_at(key, 0, 10), CountKey::Others(_)), "{key}");
        }
        assert!(judged.get() <= 2 * 10_000, "{} counts were judged for 10,000 keys", judged.get());
        for key in all..all + 1_000 {
            assert!(matches!(ends_at(key, 10, 20), CountKey::Address(_)), "{key}");
        }
        assert!(table.len() <= 1_000 + SHARDS, "{}", table.len());
    }
}
