//! The one way a batch becomes durable: apply, `flush`, `sync_data` on our own descriptor. sled's
//! flush alone is `sync_file_range`, which survives a killed process but not a power cut.

use std::{
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

pub(crate) mod ballast;

use crate::store::engine::CommitError;

/// The data file as we opened it before sled did: the kernel tells every descriptor of a failed
/// write-back once, so ours learns of those that sled's own flusher swallows.
pub(crate) struct Durability {
    data: File,
    fault: AtomicU8,
    syncs: AtomicU64,
    /// Why nothing is durable any more.
    failed: OnceLock<String>,
}

/// What can be made to fail, so that what must happen then can be tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    None,
    /// As a disk that refuses the write.
    Apply,
    /// As a disk that loses what it took.
    Sync,
}

impl Durability {
    /// Creates the file when it is missing.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Self {
            data: options.open(path)?,
            fault: AtomicU8::new(Fault::None as u8),
            syncs: AtomicU64::new(0),
            failed: OnceLock::new(),
        })
    }

    /// After the first failure nothing is applied any more: what the disk holds is unknown, and a
    /// second sync would report success without having written what the first one lost.
    pub(crate) fn commit(&self, db: &sled::Db, batch: sled::Batch) -> Result<(), CommitError> {
        if let Some(reason) = self.failed.get() {
            return Err(CommitError::Failed(reason.clone()));
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| self.write(db, batch)));
        outcome.unwrap_or_else(|_| Err("the storage engine panicked".to_owned())).map_err(|reason| {
            tracing::error!(reason, "the store is no longer durable and takes no changes until a restart");
            CommitError::Failed(self.failed.get_or_init(|| reason).clone())
        })
    }

    fn write(&self, db: &sled::Db, batch: sled::Batch) -> Result<(), String> {
        self.step(Fault::Apply).map_err(|e| format!("cannot write: {e}"))?;
        db.apply_batch(batch).map_err(|e| format!("cannot write: {e}"))?;
        db.flush().map_err(|e| format!("cannot flush: {e}"))?;
        self.sync().map_err(|e| format!("cannot sync: {e}"))
    }

    fn sync(&self) -> io::Result<()> {
        self.step(Fault::Sync)?;
        self.data.sync_data()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// How many times the data has reached the disk.
    #[cfg(test)]
    pub(crate) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn inject(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::Relaxed);
    }

    fn step(&self, step: Fault) -> io::Result<()> {
        if self.fault.load(Ordering::Relaxed) == step as u8 {
            return Err(io::Error::other("injected fault"));
        }
        Ok(())
    }
}
