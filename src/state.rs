//! The state that workers read: the snapshot (rules, users, groups, grants, the proxy's settings) and the
//! token index. Only one publisher writes it, the store's writer thread. Also whether this node may forward
//! at all, and until when.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use rustix::time::{ClockId, clock_gettime};

use crate::{
    authz::{
        rules::Rules,
        secret::Digest,
        subject::{Directory, Token},
    },
    settings::ProxySettings,
};

/// One consistent view of everything but tokens. Read it before the index.
#[derive(Clone)]
pub struct Snapshot {
    pub rules: Arc<Rules>,
    pub directory: Arc<Directory>,
    pub proxy: Arc<ProxySettings>,
}

/// The state that workers share. Nothing in it is written per request.
pub struct State {
    snapshot: ArcSwap<Snapshot>,
    /// Increases with every published snapshot. A worker compares it with the version of its cached copy.
    version: AtomicU64,
    index: TokenIndex,
    permission: ForwardPermission,
}

/// A lock-free map from digest to token. Digests are uniform, but an importer may choose an imported token's
/// digest. If many of them had the same position, papaya's table would grow without end, so a hash with
/// secret random keys spreads them.
pub struct TokenIndex {
    tokens: papaya::HashMap<Digest, Token, RandomState>,
    hash: RandomState,
    imported: AtomicU64,
}

/// How many tokens are sorted at a time before they go into a new index.
const SORT_BATCH: usize = 1 << 15;

impl State {
    pub fn new(snapshot: Snapshot) -> Arc<Self> {
        Arc::new(Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            version: AtomicU64::new(0),
            index: TokenIndex::default(),
            permission: ForwardPermission::default(),
        })
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Returns the version. Cheap enough for every request: it loads a cache line that only changes write.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub fn index(&self) -> &TokenIndex {
        &self.index
    }

    /// Whether this node may forward at all.
    pub fn permission(&self) -> &ForwardPermission {
        &self.permission
    }

    /// Publishes a snapshot: it becomes visible first, then its version. Only for the publisher.
    pub fn publish(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        self.version.fetch_add(1, Ordering::Release);
    }
}

impl TokenIndex {
    /// Runs `read` with the token of this digest. Never keep the guard inside across an await, because it
    /// stalls reclamation.
    pub fn with<R>(&self, digest: &Digest, read: impl FnOnce(Option<&Token>) -> R) -> R {
        let guard = self.tokens.guard();
        read(self.tokens.get(digest, &guard))
    }

    /// Inserts every token that `fill` passes to its argument. Reserves space for `expected_count` tokens
    /// first, so that filling a new index moves none. Only for the publisher.
    pub fn fill<R>(&self, expected_count: usize, fill: impl FnOnce(&mut dyn FnMut(Digest, Token)) -> R) -> R {
        let tokens = self.tokens.pin();
        tokens.reserve(expected_count);
        let mask = expected_count.next_power_of_two() as u64 - 1;
        // In the order of their positions, which suits the processor's caches best.
        let insert = |batch: &mut Vec<(Digest, Token)>| {
            batch.sort_by_cached_key(|(digest, _)| self.hash.hash_one(digest) & mask);
            for (digest, token) in batch.drain(..) {
                tokens.insert(digest, token);
            }
        };
        let mut batch = Vec::with_capacity(SORT_BATCH.min(expected_count));
        let filled = fill(&mut |digest, token| {
            batch.push((digest, token));
            if batch.len() == SORT_BATCH {
                insert(&mut batch);
            }
        });
        insert(&mut batch);
        filled
    }

    /// Only for the publisher.
    pub fn put(&self, digest: Digest, token: Token) {
        self.tokens.pin().insert(digest, token);
    }

    /// Only for the publisher.
    pub fn remove(&self, digest: &Digest) {
        self.tokens.pin().remove(digest);
    }

    /// Returns the digests of the tokens for which `matches` is true. Visits every token.
    pub fn find(&self, matches: impl Fn(&Token) -> bool) -> Vec<Digest> {
        let tokens = self.tokens.pin();
        tokens.iter().filter(|(_, token)| matches(token)).map(|(digest, _)| *digest).collect()
    }

    /// Returns the number of imported tokens. While there are none, a text that is not in permgate's form is
    /// refused without a lookup.
    pub fn imported(&self) -> u64 {
        self.imported.load(Ordering::Acquire)
    }

    pub fn set_imported(&self, count: u64) {
        self.imported.store(count, Ordering::Release);
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }
}

impl Default for TokenIndex {
    fn default() -> Self {
        let hash = RandomState::new();
        Self { tokens: papaya::HashMap::with_hasher(hash.clone()), hash, imported: AtomicU64::new(0) }
    }
}

/// Time since the machine booted, including suspends (CLOCK_BOOTTIME). Never compared between machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(Duration);

impl BootTime {
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        // Counted from boot, so neither is negative.
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Self(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
    }

    #[cfg(test)]
    pub const fn from_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    pub const fn since_start(self) -> Duration {
        self.0
    }
}

impl std::ops::Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// The end of the permission to forward, read for every request: a node of a cluster must not serve by a state
/// that the other nodes have left behind. Without a cluster it never ends, and the clock is never read.
pub struct ForwardPermission {
    /// Nanoseconds since the machine booted.
    until: AtomicU64,
}

const FOREVER: u64 = u64::MAX;

impl Default for ForwardPermission {
    /// For a node without a cluster.
    fn default() -> Self {
        Self { until: AtomicU64::new(FOREVER) }
    }
}

impl ForwardPermission {
    pub fn is_valid(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until == FOREVER || nanoseconds(BootTime::now()) < until
    }

    /// Sets the first moment at which nothing may be forwarded; `None`: nothing may be forwarded at all.
    pub fn set_until(&self, until: Option<BootTime>) {
        let until = until.map_or(0, |until| nanoseconds(until).min(FOREVER - 1));
        self.until.store(until, Ordering::Release);
    }
}

fn nanoseconds(time: BootTime) -> u64 {
    u64::try_from(time.0.as_nanos()).unwrap_or(FOREVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::{
        rules::ServiceId,
        secret::TokenId,
        subject::{Access, Restrictions, Scope, UserIx},
    };

    /// A gateway may have millions of them.
    #[test]
    fn a_token_takes_eighty_bytes() {
        assert_eq!(size_of::<(Digest, Token)>(), 80);
    }

    #[test]
    fn chosen_digests_do_not_degrade_the_index() {
        let token = Token {
            id: TokenId::parse("abcdefghijkl").unwrap(),
            owner: UserIx(0),
            scope: Scope::new([(ServiceId(0), Access::Full)]).unwrap(),
            expires_at: None,
            restrictions: Restrictions::NONE,
        };
        // Two bytes differ, at any offset: more digests than papaya probes positions for one.
        for at in (0..31).step_by(3) {
            let index = TokenIndex::default();
            let digests = (0..1_000_u16).map(|number| {
                let mut digest = [0; 32];
                digest[at..at + 2].copy_from_slice(&number.to_le_bytes());
                Digest::from_bytes(digest)
            });
            digests.clone().for_each(|digest| index.put(digest, token.clone()));
            assert_eq!(index.find(|_| true).len(), 1_000, "at {at}");
            assert!(digests.clone().all(|digest| index.with(&digest, |found| found.is_some())), "at {at}");
        }
    }

    #[test]
    fn permission_expires_and_can_be_extended() {
        let permission = ForwardPermission::default();
        assert!(permission.is_valid(), "alone");
        permission.set_until(None);
        assert!(!permission.is_valid(), "none yet");
        permission.set_until(Some(BootTime::now() + Duration::from_secs(60)));
        assert!(permission.is_valid());
        permission.set_until(Some(BootTime::now()));
        assert!(!permission.is_valid(), "over");
        permission.set_until(Some(BootTime::from_start(Duration::MAX)));
        assert!(permission.is_valid());
    }
}
