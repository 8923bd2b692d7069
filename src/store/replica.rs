//! The state as of a position in the log, in sled: tokens by digest, and small tables for everything else.
//! It can be rebuilt from a checkpoint and the log at any time, so no change is synced here. One writer
//! calls [`Replica::commit`]; any thread may read.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};

use super::{
    ReadError,
    log::{Failure, Head, StoreId},
    record::{DecodeError, Record, TokenHead},
};
use crate::authz::secret::Digest;

mod copy;
pub(super) mod keys;
mod open;
mod read;
mod shared_prefixes;
mod stage;
mod tables;
mod token_lists;
mod verify;

pub(crate) use open::{guard_sled, open_sled_at};
pub(crate) use read::StagedView;
pub(crate) use stage::{StageError, Staged};
pub(crate) use tables::{ReplicaState, Table};
pub(crate) use token_lists::Counts;

use copy::CopyProgress;
use shared_prefixes::SharedPrefixes;
use token_lists::TokenLists;

pub(crate) struct Replica {
    path: PathBuf,
    /// `None` once closed.
    trees: RwLock<Option<Trees>>,
    /// Until this is set, what a crash leaves does not open as a replica.
    finished: AtomicBool,
    /// As of the last batch.
    state: Mutex<ReplicaState>,
    /// `None` until they are needed.
    lists: RwLock<Option<TokenLists>>,
    shared_prefixes: SharedPrefixes,
    copying: Mutex<Vec<CopyProgress>>,
    marked_damaged: AtomicBool,
}

/// sled's trees in the order of [`Table::ALL`].
struct Trees {
    trees: Vec<sled::Tree>,
    db: sled::Db,
}

/// What is wrong with data that was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplicaError {
    #[error(transparent)]
    Sled(#[from] sled::Error),
    /// Nothing is wrong with the data: it was not read.
    #[error("the thread that reads the tokens cannot be started: {0}")]
    Thread(io::Error),
    #[error(transparent)]
    Record(#[from] DecodeError),
    #[error("a key in {0} is malformed")]
    Key(&'static str),
    #[error("{0} does not have the rows that were written")]
    Sum(&'static str),
    #[error("two tokens have the same id")]
    Ids,
    #[error("the audit log does not end with the last event that was written")]
    AuditEnd,
}

/// Why a batch was not applied to the replica.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("the replica panicked")]
    Panic,
    #[error("the replica cannot be written: {0}")]
    Sled(#[from] sled::Error),
    #[error("the replica is closed")]
    Closed,
    #[error("the replica's state cannot be written: {0}")]
    State(#[from] super::record::EncodeError),
    #[error(transparent)]
    Io(#[from] Failure),
}

impl Replica {
    /// Its head in the log.
    pub(crate) fn head(&self) -> Head {
        self.state().head
    }

    pub(crate) fn state(&self) -> ReplicaState {
        self.state.lock().clone()
    }

    /// Writes what was staged; the replica is then at `head`. After a crash, all of it or nothing is found.
    /// The caller must be the only one that stages and commits.
    pub(crate) fn commit(&self, staged: &Staged, head: Head) -> Result<(), ApplyError> {
        let mut state = self.state();
        staged.add_to(&mut state);
        state.head = head;
        let trees = self.trees.read();
        let trees = trees.as_ref().ok_or(ApplyError::Closed)?;
        let mut copying = self.copying.lock();
        let state_row = if self.finished.load(Ordering::Acquire) { Some(state.encode()?) } else { None };
        let work = || {
            copying.iter_mut().for_each(|copying| copying.keep(&staged.rows));
            // Nobody reads a replica that is being filled, and after a crash it is filled anew.
            if state_row.is_none() || stage::is_large(&staged.rows) {
                trees.write_large(&staged.rows, state_row)
            } else {
                trees.write(&staged.rows, state_row.as_deref())
            }
        };
        catch_unwind(AssertUnwindSafe(work)).map_err(|_| ApplyError::Panic)??;
        if let Some(lists) = &mut *self.lists.write() {
            lists.apply(&staged.lists);
        }
        // The lock on `copying` is still held: a copy that begins next sees both or neither.
        *self.state.lock() = state;
        drop(copying);
        Ok(())
    }

    /// Visits every token once, in the order of digests. Compares the rows with their sum, and makes the lists.
    pub(crate) fn load(&self, visit: &mut dyn FnMut(Digest, TokenHead<'_>)) -> Result<(), super::OpenError> {
        Ok(self.guarded(|trees| self.load_from(trees, visit))??)
    }

    fn load_from(
        &self,
        trees: &Trees,
        visit: &mut dyn FnMut(Digest, TokenHead<'_>),
    ) -> Result<(), ReplicaError> {
        // Two of them at once would take twice the memory.
        *self.lists.write() = None;
        let expected = self.state().sum(Table::Tokens);
        let mut lists = TokenLists::with_capacity(usize::try_from(expected.rows).unwrap_or(0));
        let scanned = trees.scan_tokens(expected, &mut |digest, token| {
            lists.load(&digest, &token);
            visit(digest, token);
        });
        let listed = lists.finish_load();
        // Also after an error: verification then still says what fits.
        *self.lists.write() = Some(lists);
        scanned.and(listed)
    }

    /// The lists of what is stored. Loads them first if nothing has: a replica that catches up with the log
    /// may need them before the start loads it.
    fn lists(&self, trees: &Trees) -> Result<MappedRwLockReadGuard<'_, TokenLists>, ReplicaError> {
        loop {
            if let Ok(lists) = RwLockReadGuard::try_map(self.lists.read(), Option::as_ref) {
                return Ok(lists);
            }
            self.load_from(trees, &mut |_, _| {})?;
        }
    }

    /// Finishes a replica that was created and filled, which is then at `head`.
    pub(crate) fn finish(&self, head: Head) -> Result<(), ApplyError> {
        self.flush()?;
        self.finished.store(true, Ordering::Release);
        self.commit(&Staged::default(), head)?;
        self.flush()
    }

    /// Makes everything durable.
    pub(crate) fn flush(&self) -> Result<(), ApplyError> {
        self.guarded(|trees| trees.db.flush().map(drop)).map_err(|_| ApplyError::Panic)??;
        Ok(open::sync(&self.path)?)
    }

    /// Closes sled; later reads and commits fail. Idempotent.
    pub(crate) fn close(&self) {
        let trees = self.trees.write().take();
        // sled flushes and stops its threads when its last handle is dropped. A panic of sled must not
        // spread now that everything is durable.
        drop(catch_unwind(AssertUnwindSafe(|| drop(trees))));
    }

    fn read<T>(&self, read: impl FnOnce(&Trees) -> Result<T, ReplicaError>) -> Result<T, ReadError> {
        self.guarded(read)?.map_err(|damage| {
            self.mark_damaged_by(&damage);
            ReadError(damage.to_string())
        })
    }

    /// Has the next start rebuild the replica, since the sums that a start verifies need not show the
    /// damage.
    pub(crate) fn mark_damaged(&self, why: &str) {
        if self.marked_damaged.swap(true, Ordering::AcqRel) {
            return;
        }
        let replica = self.path.display().to_string();
        tracing::error!(
            replica,
            why,
            "the replica is damaged: this start rebuilds it from the journal, or, if permgate serves, the next one"
        );
        if let Err(error) = open::mark_damaged(&self.path, why) {
            tracing::error!(replica, %error, "it could not be marked as damaged: remove it before the next start");
        }
    }

    /// Condemns the replica, unless the error may pass: a disk that cannot be read now may be readable
    /// later, and a thread may start.
    fn mark_damaged_by(&self, damage: &ReplicaError) {
        let lasting = match damage {
            ReplicaError::Thread(_) => false,
            ReplicaError::Sled(error) => !matches!(error, sled::Error::Io(_)),
            ReplicaError::Record(error) => !matches!(error, DecodeError::Newer { .. }),
            ReplicaError::Key(_) | ReplicaError::Sum(_) | ReplicaError::Ids | ReplicaError::AuditEnd => true,
        };
        if lasting {
            self.mark_damaged(&damage.to_string());
        }
    }

    /// Runs `work`; a panic of sled, which some damage causes, becomes an error.
    fn guarded<T>(&self, work: impl FnOnce(&Trees) -> T) -> Result<T, ReadError> {
        let trees = self.trees.read();
        let trees = trees.as_ref().ok_or_else(|| ReadError("it is closed".to_owned()))?;
        catch_unwind(AssertUnwindSafe(|| work(trees))).map_err(|_| {
            const SLED_PANICKED: &str = "the storage engine panicked";
            self.mark_damaged(SLED_PANICKED);
            ReadError(SLED_PANICKED.to_owned())
        })
    }
}

impl Trees {
    fn tree(&self, table: Table) -> &sled::Tree {
        &self.trees[table as usize]
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<sled::IVec>, ReplicaError> {
        Ok(self.tree(table).get(key)?)
    }

    fn state(&self, store: StoreId) -> Result<Option<ReplicaState>, ReplicaError> {
        let Some(row) = self.get(Table::Meta, tables::STATE)? else { return Ok(None) };
        Ok(Some(ReplicaState::decode(&row)?).filter(|state| state.store == store))
    }

    /// Writes in one transaction over the tables that change, so that a crash leaves all of it or nothing.
    fn write(&self, rows: &[stage::Rows; Table::ALL.len()], state: Option<&[u8]>) -> Result<(), sled::Error> {
        let mut trees = Vec::new();
        let mut batches = Vec::new();
        for (table, rows) in Table::ALL.into_iter().zip(rows) {
            let mut batch = sled::Batch::default();
            let changes = !rows.is_empty() || (table == Table::Meta && state.is_some());
            for (key, row) in rows {
                match &row.after {
                    Some(row) => batch.insert(key.as_slice(), row),
                    None => batch.remove(key.as_slice()),
                }
            }
            if let Some(state) = state.filter(|_| table == Table::Meta) {
                batch.insert(tables::STATE, state);
            }
            if changes {
                trees.push(self.tree(table).clone());
                batches.push(batch);
            }
        }
        if trees.is_empty() {
            return Ok(());
        }
        let written = sled::Transactional::transaction(trees.as_slice(), |trees| {
            trees.iter().zip(&batches).try_for_each(|(tree, batch)| Ok(tree.apply_batch(batch)?))
        });
        written.map_err(|error: sled::transaction::TransactionError<()>| match error {
            sled::transaction::TransactionError::Storage(error) => error,
            sled::transaction::TransactionError::Abort(()) => {
                sled::Error::ReportableBug("a transaction that never aborts was aborted".to_owned())
            }
        })
    }

    /// Writes row by row in the order of keys, so that each of sled's nodes is changed once and then
    /// released. A transaction would read every row first, and write in no order. What a crash interrupts
    /// has no state row, and is rebuilt.
    fn write_large(
        &self,
        rows: &[stage::Rows; Table::ALL.len()],
        state: Option<Vec<u8>>,
    ) -> Result<(), sled::Error> {
        if self.tree(Table::Meta).remove(tables::STATE)?.is_some() {
            self.db.flush()?;
        }
        for (table, rows) in Table::ALL.into_iter().zip(rows) {
            let tree = self.tree(table);
            for (key, row) in rows {
                let before = match &row.after {
                    Some(row) => tree.insert(key, row)?,
                    None => tree.remove(key)?,
                };
                debug_assert_eq!(before, row.before, "a row of {} was staged over another one", table.name());
            }
        }
        if let Some(state) = state {
            self.tree(Table::Meta).insert(tables::STATE, state)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
