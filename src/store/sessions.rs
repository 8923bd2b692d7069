//! Sessions, invitations and identities in memory, for the admin listener and the writer. The engine keeps
//! them over a restart, with a last use that may be a minute late.

use std::collections::HashMap;

use parking_lot::RwLock;

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
pub(crate) trait KeyedByDigest: Record + Clone {
    const TABLE: Table;
    fn key(&self) -> Digest;
    fn all(records: &CachedRecords) -> &HashMap<Digest, Self>;
    fn stored(engine: &Engine) -> Result<Vec<Self>, ReadError>;
}

macro_rules! keyed_by_digest {
    ($record:ident, $table:ident, $all:ident, |$it:ident| $key:expr) => {
        impl KeyedByDigest for $record {
            const TABLE: Table = Table::$table;
            fn key(&self) -> Digest {
                let $it = self;
                $key
            }
            fn all(records: &CachedRecords) -> &HashMap<Digest, Self> {
                &records.$all
            }
            fn stored(engine: &Engine) -> Result<Vec<Self>, ReadError> {
                engine.$all()
            }
        }
    };
}

keyed_by_digest!(SessionRecord, Sessions, sessions, |it| it.digest);
keyed_by_digest!(InvitationRecord, Invitations, invitations, |it| it.digest);
keyed_by_digest!(IdentityRecord, IdentityCache, identities, |it| Self::digest(&it.issuer, &it.subject));

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
pub(crate) struct Sessions(RwLock<CachedRecords>);

#[derive(Default)]
pub(crate) struct CachedRecords {
    sessions: HashMap<Digest, SessionRecord>,
    /// The last use of each session that the engine has, or is about to get.
    persisted: HashMap<Digest, Timestamp>,
    invitations: HashMap<Digest, InvitationRecord>,
    identities: HashMap<Digest, IdentityRecord>,
}

impl Store {
    /// A session that is valid now.
    pub fn session(&self, digest: &Digest) -> Option<SessionRecord> {
        let now = (self.shared.clock)();
        self.shared.sessions.get(digest).filter(|session: &SessionRecord| session.is_valid(now))
    }

    /// Records a use of a session in memory. Returns its time if [`Store::record_session`] must write it, too.
    pub fn touch_session(&self, digest: &Digest) -> Option<Timestamp> {
        let now = (self.shared.clock)();
        self.shared.sessions.touch(digest, now).then_some(now)
    }

    /// A user's sessions that are valid now, newest first.
    pub fn sessions_of(&self, user: &str) -> Vec<SessionRecord> {
        let now = (self.shared.clock)();
        let is_theirs = |session: &SessionRecord| session.user == user && session.is_valid(now);
        let mut sessions = self.shared.sessions.find(is_theirs);
        sessions.sort_by_key(|session| std::cmp::Reverse(session.created_at));
        sessions
    }

    /// The identities at providers with which a user signs in, sorted.
    pub fn identities_of(&self, user: &str) -> Vec<IdentityRecord> {
        let mut identities = self.shared.sessions.find(|identity: &IdentityRecord| identity.user == user);
        identities.sort_by(|a, b| (&a.issuer, &a.subject).cmp(&(&b.issuer, &b.subject)));
        identities
    }

    /// An invitation that is valid now.
    pub fn invitation(&self, digest: &Digest) -> Option<InvitationRecord> {
        let now = (self.shared.clock)();
        self.shared.sessions.get(digest).filter(|invitation: &InvitationRecord| now < invitation.expires_at)
    }
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
        fn by_key<R: KeyedByDigest>(records: Vec<R>) -> HashMap<Digest, R> {
            records.into_iter().map(|record| (record.key(), record)).collect()
        }
        let sessions = by_key(engine.sessions()?);
        Ok(Self(RwLock::new(CachedRecords {
            persisted: sessions.iter().map(|(digest, session)| (*digest, session.last_seen_at)).collect(),
            sessions,
            invitations: by_key(engine.invitations()?),
            identities: by_key(engine.identities()?),
        })))
    }

    pub(crate) fn get<R: KeyedByDigest>(&self, key: &Digest) -> Option<R> {
        R::all(&self.0.read()).get(key).cloned()
    }

    pub(crate) fn find<R: KeyedByDigest>(&self, fits: impl Fn(&R) -> bool) -> Vec<R> {
        R::all(&self.0.read()).values().filter(|record| fits(record)).cloned().collect()
    }

    /// Records a use; returns whether it must be written.
    fn touch(&self, digest: &Digest, now: Timestamp) -> bool {
        let mut records = self.0.write();
        let Some(session) = records.sessions.get_mut(digest) else { return false };
        session.last_seen_at = session.last_seen_at.max(now);
        let persisted_at = records.persisted.entry(*digest).or_insert(now);
        let due = persisted_at.plus_seconds(PERSIST_INTERVAL) <= now;
        if due {
            *persisted_at = now;
        }
        due
    }

    /// Applies a durable batch; a later use in memory is kept.
    pub(crate) fn apply(&self, staged: &Staged) {
        let mut records = self.0.write();
        let CachedRecords { sessions, persisted, invitations, identities } = &mut *records;
        for (digest, record) in changes::<SessionRecord>(staged) {
            match record {
                Some(mut record) => {
                    persisted.insert(digest, record.last_seen_at);
                    if let Some(held) = sessions.get(&digest) {
                        record.last_seen_at = record.last_seen_at.max(held.last_seen_at);
                    }
                    sessions.insert(digest, record);
                }
                None => {
                    persisted.remove(&digest);
                    sessions.remove(&digest);
                }
            }
        }
        replace(invitations, staged);
        replace(identities, staged);
    }
}
