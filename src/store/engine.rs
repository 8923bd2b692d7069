//! The storage engine: a log in front, which makes changes durable, and a replica behind it, which serves
//! reads. One writer calls [`Engine::commit`]; any thread may read. It checks no domain rules.

use std::{
    ops::Deref,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use parking_lot::{Mutex, MutexGuard};

use super::{
    OpenError,
    log::{AppendError, Head, Log, StoreId},
    op::{self, BatchError, BatchReader, Op},
    replica::{ApplyError, Replica, Staged},
};

pub(super) mod checkpoint;
mod directory;
mod open;
mod verify;

pub(crate) use directory::StoreDirectory;
pub(crate) use open::Generation;
pub use verify::verify_closed;

/// A store that this process has opened. Dereferences to the replica for reads.
pub(crate) struct Engine {
    /// Locked until the engine is closed.
    pub(crate) directory: Option<StoreDirectory>,
    /// The directory of checkpoints, journal and replica, within STORE.
    pub(crate) generation: PathBuf,
    /// The store's id; a restore keeps it.
    pub(crate) store: StoreId,
    replica: Arc<Replica>,
    log: Arc<Mutex<LogState>>,
    /// Tells the checkpoint thread to stop.
    closing: Arc<AtomicBool>,
    checkpoint: Mutex<Option<JoinHandle<()>>>,
    #[cfg(test)]
    broken: AtomicBool,
}

/// The log and its head.
struct LogState {
    log: Box<dyn Log>,
    head: Head,
    /// Why no changes are accepted any more.
    failed: Option<String>,
    /// Approximate bytes appended since the newest checkpoint.
    since_checkpoint: u64,
}

/// Why a batch was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// Nothing changed, and the next batch may succeed.
    #[error("{0}")]
    Refused(String),
    /// Entries of other nodes came first, up to this position; `None`: the log has lost entries. Nothing
    /// changed: follow the log and plan again.
    #[error("another entry of the log came first")]
    Conflict(Option<u64>),
    /// The log in etcd cannot be written. Nothing changed; the next batch may succeed.
    #[error("{0}")]
    Unavailable(String),
    /// etcd did not answer: the batch may still turn up in the log. The next batch may succeed.
    #[error("{0}")]
    UnknownOutcome(String),
    /// Whether the batch is durable is unknown. Every later commit fails with this error until a restart.
    #[error("{0}")]
    Failed(String),
}

/// Bytes of a block of the log; a batch takes whole blocks.
const BLOCK: u64 = 4096;

impl Engine {
    /// Commits a batch without updating any state in memory: for the first changes of a store, for a restore of
    /// one that is not being served, and for tests.
    pub(crate) fn commit(&self, ops: &[Op]) -> Result<(), CommitError> {
        drop(self.lock_open_log()?);
        let mut staged = Staged::default();
        for op in ops {
            let staged = self.replica.stage(&mut staged, op);
            staged.map_err(|error| CommitError::Refused(error.to_string()))?;
        }
        self.append(ops, &staged)
    }

    /// Makes a batch durable, then applies its staged rows. An empty batch changes nothing.
    pub(crate) fn append(&self, ops: &[Op], staged: &Staged) -> Result<(), CommitError> {
        let mut log = self.lock_open_log()?;
        if ops.is_empty() {
            return Ok(());
        }
        #[cfg(test)]
        if self.broken.load(Ordering::Relaxed) {
            return Err(log.fail("injected fault".to_owned()));
        }
        let largest = log.log.max_operations();
        let entries =
            op::encode_batch(ops, largest).map_err(|error| CommitError::Refused(error.to_string()))?;
        if entries.len() > 1 && log.log.is_shared() {
            // Another node's entry could come between them.
            return Err(CommitError::Refused(format!("a change is larger than {largest} bytes")));
        }
        for entry in &entries {
            log.append(entry)?;
        }
        let head = log.head;
        let applied = self.replica.commit(staged, head);
        applied.map_err(|error: ApplyError| {
            log.fail(format!("the change is durable, but not visible until a restart: {error}"))
        })?;
        drop(log);
        self.checkpoint_when_due();
        Ok(())
    }

    /// Whether other nodes append to the log, too.
    pub(crate) fn is_shared(&self) -> bool {
        self.log.lock().log.is_shared()
    }

    /// The newest position known to be in the log, if it is beyond what is applied here.
    pub(crate) fn latest_known(&self) -> Option<u64> {
        let log = self.log.lock();
        log.log.latest_known().filter(|&heard| heard > log.head.position)
    }

    /// Reads the next batches that other nodes have appended, each with its position; empty at the end.
    pub(crate) fn next_batches(&self, reader: &mut BatchReader) -> Result<Vec<(Vec<Op>, Head)>, BatchError> {
        let log = self.log.lock();
        reader.next(&*log.log)
    }

    /// Applies the staged rows of a batch that is already in the log.
    pub(crate) fn follow(&self, staged: &Staged, head: Head) -> Result<(), CommitError> {
        // Under one lock, so that no reader finds the replica behind the acknowledged head.
        let mut log = self.log.lock();
        log.head = head;
        let applied = self.replica.commit(staged, head);
        applied.map_err(|why| log.fail(format!("position {} of the log: {why}", head.position)))
    }

    /// Locks the log; fails once changes are no longer accepted.
    fn lock_open_log(&self) -> Result<MutexGuard<'_, LogState>, CommitError> {
        let log = self.log.lock();
        match &log.failed {
            Some(reason) => Err(CommitError::Failed(reason.clone())),
            None => Ok(log),
        }
    }

    pub(crate) fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Flushes and releases the lock; later reads and commits fail. Idempotent.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        let checkpoint = self.checkpoint.lock().take();
        if let Some(thread) = checkpoint {
            // A panic of the thread has been logged already.
            drop(thread.join());
        }
        let mut log = self.log.lock();
        if log.failed.is_none() {
            if let Err(error) = log.log.sync() {
                tracing::warn!(%error, "the journal could not be synced again");
            }
            log.failed = Some("the store was closed".to_owned());
        }
        drop(log);
        self.replica.close();
        if let Some(directory) = &self.directory {
            directory.unlock();
        }
    }

    /// Makes every sync fail from now on, as on a broken disk.
    #[cfg(test)]
    pub(crate) fn break_sync(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Lets syncs succeed again.
    #[cfg(test)]
    fn restore_sync(&self) {
        self.broken.store(false, Ordering::Relaxed);
    }
}

impl Deref for Engine {
    type Target = Replica;

    fn deref(&self) -> &Replica {
        &self.replica
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

impl LogState {
    fn append(&mut self, entry: &[u8]) -> Result<(), CommitError> {
        let shared = self.log.is_shared();
        if shared
            && let Some(failure) = self.log.failure()
            && !self.log.reopen()
        {
            return Err(CommitError::Unavailable(failure.to_string()));
        }
        match self.log.append(self.head, entry) {
            Ok(head) => {
                self.head = head;
                self.since_checkpoint += (entry.len() as u64).next_multiple_of(BLOCK);
                Ok(())
            }
            Err(AppendError::Conflict { head }) => Err(CommitError::Conflict(
                Some(head.position).filter(|&position| position > self.head.position),
            )),
            Err(AppendError::UnknownOutcome(failure)) if shared => {
                Err(CommitError::UnknownOutcome(failure.to_string()))
            }
            Err(error @ (AppendError::NotWritten(_) | AppendError::Stopped(_))) if shared => {
                Err(CommitError::Unavailable(error.to_string()))
            }
            Err(error @ (AppendError::NotWritten(_) | AppendError::TooLarge { .. })) => {
                Err(CommitError::Refused(error.to_string()))
            }
            Err(error) => Err(self.fail(error.to_string())),
        }
    }

    fn fail(&mut self, reason: String) -> CommitError {
        tracing::error!(reason, "the store is no longer durable and accepts no changes until a restart");
        CommitError::Failed(self.failed.get_or_insert(reason).clone())
    }
}

#[cfg(test)]
mod tests;
