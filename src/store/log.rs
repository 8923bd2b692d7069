//! The ordered log in front of the store: every change becomes an entry here first. [`journal`] keeps the
//! log in local files, `etcd` (a feature) in etcd for several nodes, and `memory` in memory for tests. The
//! log does not interpret an entry's operations.

use std::{fmt, io, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod conformance;
pub mod entry;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod files;
pub mod journal;
#[cfg(test)]
pub mod memory;
#[cfg(test)]
pub(crate) mod tests;

pub use entry::Entry;

/// Maximum bytes of operations in one entry, unless a log has its own [limit](Log::max_operations).
pub const MAX_OPERATIONS: usize = 1 << 20;

/// Entries in one order, each bound to the one before by its hash. One entry is one batch: operations that
/// are to share a sync go into one batch.
///
/// Calls block until the disk or the network has answered. Several writers may share a log: an
/// [`append`](Log::append) succeeds only if it expects the current head.
pub trait Log: Send {
    /// The store that every entry belongs to.
    fn store(&self) -> StoreId;

    /// The position of the oldest entry that can still be read; if there is none, one more than the head's.
    fn first(&self) -> Result<u64, ReadError>;

    /// The newest entry that was acknowledged. Position 0 stands for an empty log.
    fn head(&self) -> Result<Head, ReadError>;

    /// Reads verified entries in order, from position `from` up to the head: as many as fit into `bytes` of
    /// operations, but at least one. Empty if `from` is one more than the head's position.
    fn read(&self, from: u64, bytes: usize) -> Result<Vec<Entry>, ReadError>;

    /// Appends one entry after `expected` and returns the new head once the entry is durable.
    fn append(&mut self, expected: Head, operations: &[u8]) -> Result<Head, AppendError>;

    /// Frees the space of entries before position `below`. Some of them may stay readable.
    fn trim(&mut self, below: u64) -> Result<(), TrimError>;

    /// Makes durable what the log keeps besides the entries, which are durable already.
    fn sync(&mut self) -> Result<(), Failure>;

    /// Maximum bytes of operations in one entry.
    fn max_operations(&self) -> usize {
        MAX_OPERATIONS
    }

    /// Whether other nodes append to it, too. A checkpoint of one node does not trim such a log.
    fn is_shared(&self) -> bool {
        false
    }

    /// The newest position known without a request; `None` if no other node appends.
    fn latest_known(&self) -> Option<u64> {
        None
    }

    /// Accepts appends again after one whose outcome was unclear. Returns `false` if only opening the log
    /// again helps, or if it is still too early.
    fn reopen(&mut self) -> bool {
        false
    }

    /// Writes a backup stream to `out`. Together with the entries that can still be read, it yields the
    /// state. Returns its position; `None` if the log has no snapshot.
    fn snapshot(&self, _out: &mut dyn io::Write) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// Why no append is accepted any more; `None` while appends are accepted. Only opening the log again
    /// helps. Reads still work.
    fn failure(&self) -> Option<Failure>;
}

/// The id of a store: 16 random bytes, chosen when the store is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StoreId(pub [u8; 16]);

/// 16 random bytes. Fails if the operating system has no randomness.
pub(crate) fn random_id() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(bytes)
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

/// BLAKE3 over an entry, which includes the hash of the entry before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EntryHash(pub [u8; 32]);

impl EntryHash {
    /// The previous hash of a store's first entry.
    pub const NONE: Self = Self([0; 32]);
}

impl fmt::Display for EntryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// A point in the log: an entry's position, counted from 1, and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub position: u64,
    pub hash: EntryHash,
}

impl Head {
    /// Before the first entry.
    pub const EMPTY: Self = Self { position: 0, hash: EntryHash::NONE };

    /// The position after this one.
    pub fn next(self) -> u64 {
        self.position.saturating_add(1)
    }
}

/// A system call that failed, and the reason.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {action} {path}: {reason}")]
pub struct Failure {
    /// A verb phrase that continues "cannot".
    pub action: &'static str,
    pub path: PathBuf,
    pub reason: Arc<io::Error>,
}

impl Failure {
    /// `action` is a verb phrase that continues "cannot".
    pub fn new(action: &'static str, path: impl Into<PathBuf>, reason: io::Error) -> Self {
        Self { action, path: path.into(), reason: Arc::new(reason) }
    }
}

/// Bytes that do not verify although they were acknowledged, or that no interrupted append can have left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{file} is damaged at byte {offset}: {what}; nothing was changed. Copy the store directory and check the disk, then restore the newest backup with `permgate store restore`"
)]
pub struct LogCorruption {
    pub file: PathBuf,
    /// Bytes from the start of the file.
    pub offset: u64,
    pub what: String,
}

/// Why an entry was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another entry came first. Nothing was appended: apply the entries after the expected head and plan
    /// again.
    #[error("the log's head is at position {}, not at the expected one", head.position)]
    Conflict { head: Head },
    #[error("a batch has {bytes} bytes, more than the log's limit of {largest}")]
    TooLarge { bytes: usize, largest: usize },
    /// Nothing was appended, and the log is unchanged: the same append may succeed later, once the disk has
    /// space.
    #[error("nothing was written: {0}")]
    NotWritten(Failure),
    /// The log may contain the entry when it is opened again. Until then, no append is accepted.
    #[error("the change may or may not have been made, and no other is accepted until a restart: {0}")]
    UnknownOutcome(Failure),
    /// Nothing was appended, since an earlier call failed. No append is accepted until the log is opened
    /// again.
    #[error("no change is accepted until a restart: {0}")]
    Stopped(Failure),
}

/// Why entries could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("position {from} was trimmed; the log begins at {first}")]
    Trimmed { from: u64, first: u64 },
    #[error("position {from} is beyond the head of the log, {head}")]
    Ahead { from: u64, head: u64 },
    #[error(transparent)]
    Damaged(#[from] LogCorruption),
    #[error(transparent)]
    Io(#[from] Failure),
}

/// Why entries were not trimmed.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    #[error("cannot trim up to position {below}: the head of the log is {head}")]
    Ahead { below: u64, head: u64 },
    /// Some of the entries may be gone.
    #[error(transparent)]
    Io(#[from] Failure),
}
