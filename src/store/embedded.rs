//! The engine on sled: one directory, one process, one writer. Tokens lie in blocks by owner, all
//! else in rows; one tree, so that one batch is atomic over everything.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError, RwLock},
};

use crate::{
    authz::time::Timestamp,
    store::{
        ReadError, Settings,
        durability::Durability,
        engine::{Checkpoint, CommitError, IdempotencyRecord, Op},
        model::{
            AuditEvent, GrantRecord, GroupRecord, IdentityRecord, InvitationRecord, RoleRecord,
            SessionRecord, UserId, UserRecord,
        },
        record::{DecodeError, Record},
    },
};

mod copy;
mod directory;
mod draft;
mod fill;
mod keys;
mod locator;
mod marker;
mod open;
mod tokens;

#[cfg(test)]
use crate::store::durability::Fault;

pub use directory::OpenError;
pub(crate) use fill::{FillError, Filling};

use copy::Copying;
use directory::Directory;
use draft::Draft;
use locator::Locator;
use marker::Marker;

/// sled behind one writer: batch, flush, sync of our own descriptor.
pub(crate) struct Embedded {
    directory: Directory,
    durability: Durability,
    /// `None` once closed.
    db: RwLock<Option<sled::Db>>,
    locator: RwLock<Locator>,
    writer: Mutex<Writer>,
    copying: Mutex<Option<Copying>>,
}

/// What only the writer needs.
struct Writer {
    marker: Marker,
    revision: u64,
}

/// The marker follows every so many commits: it costs two syncs of its own.
const MARK_EVERY: u64 = 1024;

impl Embedded {
    /// Takes the lock first.
    pub(crate) fn open(settings: &Settings) -> Result<Self, OpenError> {
        let engine = Self::open_unlocated(settings)?;
        engine.locate(None)?;
        Ok(engine)
    }

    /// [`Embedded::locate`] has to follow before anything about tokens.
    pub(crate) fn open_unlocated(settings: &Settings) -> Result<Self, OpenError> {
        open::open(&settings.path, settings.ballast)
    }

    pub(crate) fn commit(&self, ops: &[Op]) -> Result<(), CommitError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let db = self.db().map_err(|e| CommitError::Failed(e.0))?;
        let revision = writer.revision + 1;
        let changes = {
            let locator = self.locator.read().unwrap_or_else(PoisonError::into_inner);
            let mut draft = Draft::new(&db, &locator, ops.len());
            ops.iter().try_for_each(|op| draft.apply(op)).map_err(|e| CommitError::Refused(e.to_string()))?;
            let changes = draft.finish(&writer.marker.store, revision);
            changes.map_err(|e| CommitError::Refused(e.to_string()))?
        };
        let mut batch = sled::Batch::default();
        let mut copying = self.copying.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copying) = copying.as_mut() {
            copying.keep(&db, changes.rows.keys()).map_err(|e| CommitError::Refused(e.to_string()))?;
        }
        for (key, row) in changes.rows {
            match row {
                Some(row) => batch.insert(key, row),
                None => batch.remove(key),
            }
        }
        self.durability.commit(&db, batch)?;
        drop(copying);
        writer.revision = revision;
        let mut locator = self.locator.write().unwrap_or_else(PoisonError::into_inner);
        changes.moves.into_iter().for_each(|one| one.apply(&mut locator));
        drop(locator);
        if revision.is_multiple_of(MARK_EVERY) {
            self.mark(&mut writer);
        }
        Ok(())
    }

    pub(crate) fn users(&self) -> Result<Vec<UserRecord>, ReadError> {
        self.rows(keys::USERS)
    }

    pub(crate) fn groups(&self) -> Result<Vec<GroupRecord>, ReadError> {
        self.rows(keys::GROUPS)
    }

    pub(crate) fn members(&self) -> Result<Vec<(String, UserId)>, ReadError> {
        self.read(|db| {
            let rows = db.scan_prefix(keys::MEMBERS).keys();
            rows.map(|key| keys::pair(keys::MEMBERS, &key?).ok_or(Damage::Key("member"))).collect()
        })
    }

    pub(crate) fn roles(&self) -> Result<Vec<RoleRecord>, ReadError> {
        self.rows(keys::ROLES)
    }

    pub(crate) fn grants(&self) -> Result<Vec<GrantRecord>, ReadError> {
        self.rows(keys::GRANTS)
    }

    pub(crate) fn sessions(&self) -> Result<Vec<SessionRecord>, ReadError> {
        self.rows(keys::SESSIONS)
    }

    pub(crate) fn invitations(&self) -> Result<Vec<InvitationRecord>, ReadError> {
        self.rows(keys::INVITATIONS)
    }

    pub(crate) fn identities(&self) -> Result<Vec<IdentityRecord>, ReadError> {
        self.rows(keys::IDENTITIES)
    }

    pub(crate) fn audit_before(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<AuditEvent>, ReadError> {
        self.read(|db| {
            let rows = match before {
                Some(before) => db.range(keys::audit(0)..keys::audit(before)),
                None => db.range(keys::audit(0)..=keys::audit(u64::MAX)),
            };
            rows.rev().take(limit).map(|row| Ok(AuditEvent::decode(&row?.1)?)).collect()
        })
    }

    pub(crate) fn audit_from(&self, seq: u64, limit: usize) -> Result<Vec<AuditEvent>, ReadError> {
        self.read(|db| {
            let rows = db.range(keys::audit(seq)..=keys::audit(u64::MAX));
            rows.take(limit).map(|row| Ok(AuditEvent::decode(&row?.1)?)).collect()
        })
    }

    pub(crate) fn checkpoint(&self) -> Result<Option<Checkpoint>, ReadError> {
        self.read(|db| db.get(keys::CHECKPOINT)?.map(|row| Ok(Checkpoint::decode(&row)?)).transpose())
    }

    pub(crate) fn idempotency(&self, key: &str) -> Result<Option<IdempotencyRecord>, ReadError> {
        self.read(|db| {
            db.get(keys::idempotency(key))?.map(|row| Ok(IdempotencyRecord::decode(&row)?)).transpose()
        })
    }

    pub(crate) fn idempotency_before(&self, at: Timestamp, limit: usize) -> Result<Vec<String>, ReadError> {
        self.read(|db| {
            let rows = db.range(keys::IDEMPOTENCY_AT.to_vec()..keys::idempotency_before(at)).values();
            let key = |key: sled::IVec| std::str::from_utf8(&key).map(str::to_owned);
            rows.take(limit).map(|row| key(row?).map_err(|_| Damage::Key("idempotency"))).collect()
        })
    }

    /// Which store this is; a restored one keeps it.
    pub(crate) fn store_id(&self) -> String {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).marker.store.clone()
    }

    /// How many changes it has taken.
    pub(crate) fn revision(&self) -> u64 {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).revision
    }

    /// Idempotent. What was acknowledged is durable already; this spares the next start some work.
    pub(crate) fn close(&self) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(db) = self.db.write().unwrap_or_else(PoisonError::into_inner).take() else { return };
        self.mark(&mut writer);
        // sled flushes and stops its threads when its last handle goes; a panic of its own must
        // not become ours now that everything is said and done.
        drop(catch_unwind(AssertUnwindSafe(|| drop(db))));
        self.directory.unlock();
    }

    /// From here on this step of every commit fails.
    #[cfg(test)]
    pub(crate) fn inject(&self, fault: Fault) {
        self.durability.inject(fault);
    }

    /// From here on every sync fails, as on a broken disk.
    #[cfg(test)]
    pub(crate) fn break_sync(&self) {
        self.inject(Fault::Sync);
    }

    /// How many times changes have reached the disk.
    #[cfg(test)]
    pub(crate) fn syncs(&self) -> u64 {
        self.durability.syncs()
    }

    /// The marker is a lower bound, so that a failure here costs nothing but sharpness.
    fn mark(&self, writer: &mut Writer) {
        writer.marker.revision = writer.revision;
        if let Err(error) = self.directory.write_marker(&writer.marker) {
            tracing::warn!(%error, "cannot note how far the store has come");
        }
    }

    fn db(&self) -> Result<sled::Db, ReadError> {
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        db.clone().ok_or_else(|| ReadError("it is closed".to_owned()))
    }

    fn rows<R: Record>(&self, table: &[u8]) -> Result<Vec<R>, ReadError> {
        self.read(|db| db.scan_prefix(table).values().map(|row| Ok(R::decode(&row?)?)).collect())
    }

    /// sled panics on some damage; here that is an error like any other.
    fn read<T>(&self, read: impl FnOnce(&sled::Db) -> Result<T, Damage>) -> Result<T, ReadError> {
        let db = self.db()?;
        match catch_unwind(AssertUnwindSafe(|| read(&db))) {
            Ok(outcome) => outcome.map_err(|e| ReadError(e.to_string())),
            Err(_) => Err(ReadError("the storage engine panicked".to_owned())),
        }
    }
}

/// What is wrong with what was read.
#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error(transparent)]
    Sled(#[from] sled::Error),
    #[error(transparent)]
    Record(#[from] DecodeError),
    #[error("a {0} key is malformed")]
    Key(&'static str),
}

#[cfg(test)]
mod tests;
