//! A bounded table of counts, sharded so that workers rarely contend. Keys that find a
//! shard full share one count.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
};

use parking_lot::Mutex;

use crate::authz::{rules::ServiceId, secret::TokenId, subject::UserIx};

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
}

const SHARDS: usize = 16;
/// The most counts per shard: 262,144 in all, about 16 MB.
const MAX_COUNTS_PER_SHARD: usize = 16_384;
const FIRST_SWEEP_SIZE: usize = 64;

impl<V: Copy + Default> Table<V> {
    /// Changes one count. `change` gets the count (or the default) and returns the new one, if it changes,
    /// and a result. `idle` says whether a count may be forgotten. Returns the key that was counted and the
    /// result.
    pub fn update<R>(
        &self,
        key: CountKey,
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
                part.counts.retain(|_, count| !idle(*count));
                part.sweep_at = (part.counts.len() * 2).clamp(FIRST_SWEEP_SIZE, MAX_COUNTS_PER_SHARD);
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

impl<V> Default for Table<V> {
    fn default() -> Self {
        let part = || Mutex::new(Shard { counts: HashMap::new(), sweep_at: FIRST_SWEEP_SIZE });
        Self { parts: (0..SHARDS).map(|_| part()).collect(), hasher: RandomState::new() }
    }
}
