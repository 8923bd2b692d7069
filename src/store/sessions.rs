//! Sessions, invitations and identities in memory, for the admin listener and the writer. The engine keeps
//! them over a restart, with a last use that may be a minute late.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use super::{
    ReadError, Store,
    engine::Engine,
    model::{IdentityRecord, InvitationRecord, SessionRecord},
    record::Record,
    replica::{Staged, Table},
};
use crate::authz::{secret::Digest, time::Timestamp};

/// Seconds after which an unused session ends.
pub const IDLE: i64 = 30 * 60;
/// Seconds after which a session ends, even if it is in use.
pub const ABSOLUTE: i64 = 12 * 3600;
/// Seconds by which the engine's last use may be late: a crash shortens a session by no more.
const PERSIST_INTERVAL: i64 = 60;

/// A record that is looked up by a digest, in memory.
pub(crate) trait KeyedByDigest: Record {
    const TABLE: Table;
    fn key(&self) -> Digest;
}

impl KeyedByDigest for SessionRecord {
    const TABLE: Table = Table::Sessions;
    fn key(&self) -> Digest {
        self.digest
    }
}

impl KeyedByDigest for InvitationRecord {
    const TABLE: Table = Table::Invitations;
    fn key(&self) -> Digest {
        self.digest
    }
}

impl KeyedByDigest for IdentityRecord {
    const TABLE: Table = Table::IdentityCache;
    fn key(&self) -> Digest {
        Self::digest(&self.issuer, &self.subject)
    }
}

/// The records of a kind that a batch changes, as the batch leaves them.
pub(crate) fn changes<R: KeyedByDigest>(staged: &Staged) -> impl Iterator<Item = (Digest, Option<R>)> {
    staged.changes(R::TABLE).filter_map(|(key, row)| {
        let digest = Digest::from_bytes(key.try_into().ok()?);
        // The record was encoded a moment ago, so it decodes.
        Some((digest, row.and_then(|row| R::decode(row).ok())))
    })
}

fn replace<R: KeyedByDigest>(records: &mut HashMap<Digest, R>, staged: &Staged) {
    for (digest, record) in changes(staged) {
        match record {
            Some(record) => records.insert(digest, record),
            None => records.remove(&digest),
        };
    }
}

#[derive(Default)]
pub(crate) struct Sessions(RwLock<Tables>);

#[derive(Default)]
struct Tables {
    sessions: HashMap<Digest, CachedSession>,
    invitations: HashMap<Digest, InvitationRecord>,
    identities: HashMap<Digest, IdentityRecord>,
}

struct CachedSession {
    record: SessionRecord,
    /// The last use that the engine has, or is about to get.
    persisted_at: Timestamp,
}

impl Store {
    /// A session that is valid now.
    pub fn session(&self, digest: &Digest) -> Option<SessionRecord> {
        let now = (self.shared.clock)();
        self.shared.sessions.session(digest).filter(|session| session.is_valid(now))
    }

    /// Records a use of a session in memory, and says whether it must be written as well.
    pub fn touch_session(&self, digest: &Digest) -> SessionTouch {
        let now = (self.shared.clock)();
        if self.shared.sessions.touch(digest, now) { SessionTouch::Due(now) } else { SessionTouch::Recorded }
    }

    /// A user's sessions that are valid now, newest first.
    pub fn sessions_of(&self, user: &str) -> Vec<SessionRecord> {
        let now = (self.shared.clock)();
        let mut sessions = self.shared.sessions.of_user(user);
        sessions.retain(|session| session.is_valid(now));
        sessions.sort_by_key(|session| std::cmp::Reverse(session.created_at));
        sessions
    }

    /// The identities at providers with which a user signs in, sorted.
    pub fn identities_of(&self, user: &str) -> Vec<IdentityRecord> {
        let mut identities = self.shared.sessions.identities_of(user);
        identities.sort_by(|a, b| (&a.issuer, &a.subject).cmp(&(&b.issuer, &b.subject)));
        identities
    }

    /// An invitation that is valid now.
    pub fn invitation(&self, digest: &Digest) -> Option<InvitationRecord> {
        let now = (self.shared.clock)();
        self.shared.sessions.invitation(digest).filter(|invitation| now < invitation.expires_at)
    }
}

/// Whether a use must be written by [`Store::record_session`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionTouch {
    Recorded,
    Due(Timestamp),
}

impl SessionRecord {
    pub fn is_valid(&self, now: Timestamp) -> bool {
        now < self.idle_until().min(self.ends_at())
    }

    /// When it ends if it is not used before.
    pub fn idle_until(&self) -> Timestamp {
        self.last_seen_at.plus_seconds(IDLE)
    }

    /// When it ends, however often it is used.
    pub fn ends_at(&self) -> Timestamp {
        self.created_at.plus_seconds(ABSOLUTE)
    }
}

impl Sessions {
    pub(crate) fn load(engine: &Engine) -> Result<Self, ReadError> {
        let sessions = engine.sessions()?.into_iter();
        let sessions = sessions
            .map(|record| (record.digest, CachedSession { persisted_at: record.last_seen_at, record }));
        let invitations = engine.invitations()?.into_iter().map(|record| (record.key(), record));
        let identities = engine.identities()?.into_iter().map(|record| (record.key(), record));
        Ok(Self(RwLock::new(Tables {
            sessions: sessions.collect(),
            invitations: invitations.collect(),
            identities: identities.collect(),
        })))
    }

    pub(crate) fn session(&self, digest: &Digest) -> Option<SessionRecord> {
        self.read().sessions.get(digest).map(|held| held.record.clone())
    }

    pub(crate) fn invitation(&self, digest: &Digest) -> Option<InvitationRecord> {
        self.read().invitations.get(digest).cloned()
    }

    pub(crate) fn of_user(&self, user: &str) -> Vec<SessionRecord> {
        let held = &self.read().sessions;
        held.values().filter(|held| held.record.user == user).map(|held| held.record.clone()).collect()
    }

    pub(crate) fn invitations(&self, fits: impl Fn(&InvitationRecord) -> bool) -> Vec<InvitationRecord> {
        self.read().invitations.values().filter(|record| fits(record)).cloned().collect()
    }

    /// Records a use; returns whether it must be written.
    fn touch(&self, digest: &Digest, now: Timestamp) -> bool {
        let mut tables = self.write();
        let Some(held) = tables.sessions.get_mut(digest) else { return false };
        held.record.last_seen_at = held.record.last_seen_at.max(now);
        let due = held.persisted_at.plus_seconds(PERSIST_INTERVAL) <= now;
        if due {
            held.persisted_at = now;
        }
        due
    }

    /// Applies a durable batch; a later use in memory is kept.
    pub(crate) fn apply(&self, staged: &Staged) {
        let mut tables = self.write();
        for (digest, record) in changes::<SessionRecord>(staged) {
            match record {
                Some(mut record) => {
                    let persisted_at = record.last_seen_at;
                    let seen =
                        tables.sessions.get(&digest).map_or(persisted_at, |held| held.record.last_seen_at);
                    record.last_seen_at = persisted_at.max(seen);
                    tables.sessions.insert(digest, CachedSession { record, persisted_at });
                }
                None => drop(tables.sessions.remove(&digest)),
            }
        }
        replace(&mut tables.invitations, staged);
        replace(&mut tables.identities, staged);
    }

    /// The identity with this key.
    pub(crate) fn identity(&self, key: &Digest) -> Option<IdentityRecord> {
        self.read().identities.get(key).cloned()
    }

    pub(crate) fn identities_of(&self, user: &str) -> Vec<IdentityRecord> {
        self.read().identities.values().filter(|record| record.user == user).cloned().collect()
    }

    /// The sessions and invitations that have expired.
    pub(crate) fn expired(&self, now: Timestamp) -> (Vec<Digest>, Vec<Digest>) {
        let tables = self.read();
        let sessions = tables.sessions.values().filter(|held| !held.record.is_valid(now));
        let invitations = tables.invitations.values().filter(|record| record.expires_at <= now);
        (sessions.map(|held| held.record.digest).collect(), invitations.map(|record| record.digest).collect())
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
