//! The log in memory, for tests. Handles share it as writers share a log over a network, and faults can be
//! injected.

use std::{io, path::PathBuf, sync::Arc};

use parking_lot::Mutex;

use super::{AppendError, Entry, Failure, Head, Log, MAX_OPERATIONS, ReadError, StoreId, TrimError, entry};

/// One writer's handle. Every handle sees all appends.
pub struct MemoryLog {
    shared: Arc<Mutex<Shared>>,
    failed: Option<Failure>,
}

/// A fault of the next append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is appended, and the writer learns so.
    NotWritten,
    /// Nothing is appended, but the writer does not learn so.
    Lost,
    /// The entry is appended, but the writer does not learn so.
    Unanswered,
}

struct Shared {
    store: StoreId,
    /// The head that the oldest entry follows.
    after: Head,
    entries: Vec<Entry>,
    fault: Option<Fault>,
}

impl MemoryLog {
    /// An empty log whose first entry follows `after`.
    pub fn new(store: StoreId, after: Head) -> Self {
        let shared = Shared { store, after, entries: Vec::new(), fault: None };
        Self { shared: Arc::new(Mutex::new(shared)), failed: None }
    }

    /// Another handle to the same log, as a restarted writer would open it.
    pub fn reopen(&self) -> Self {
        Self { shared: self.shared.clone(), failed: None }
    }

    /// Makes the next append of any handle fail.
    pub fn inject(&self, fault: Fault) {
        self.shared.lock().fault = Some(fault);
    }

    /// Takes back a fault that no append has met.
    pub fn heal(&self) {
        self.shared.lock().fault = None;
    }
}

impl Shared {
    fn head(&self) -> Head {
        self.entries.last().map_or(self.after, Entry::head)
    }

    fn push(&mut self, operations: &[u8]) -> Head {
        let Head { position, hash: previous } = self.head();
        let position = position + 1;
        let hash = entry::encode(self.store, position, previous, operations, &mut Vec::new());
        self.entries.push(Entry { position, previous, hash, operations: operations.to_vec() });
        self.head()
    }
}

impl Log for MemoryLog {
    fn store(&self) -> StoreId {
        self.shared.lock().store
    }

    fn first(&self) -> Result<u64, ReadError> {
        Ok(self.shared.lock().after.next())
    }

    fn head(&self) -> Result<Head, ReadError> {
        Ok(self.shared.lock().head())
    }

    fn read(&self, from: u64, bytes: usize) -> Result<Vec<Entry>, ReadError> {
        let shared = self.shared.lock();
        let (first, head) = (shared.after.next(), shared.head());
        if from < first {
            return Err(ReadError::Trimmed { from, first });
        }
        if from > head.next() {
            return Err(ReadError::Ahead { from, head: head.position });
        }
        let mut entries = Vec::new();
        let mut left = bytes;
        for entry in shared.entries.iter().filter(|entry| entry.position >= from) {
            let size = entry::HEADER + entry.operations.len();
            if size > left && !entries.is_empty() {
                break;
            }
            left = left.saturating_sub(size);
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn append(&mut self, expected: Head, operations: &[u8]) -> Result<Head, AppendError> {
        if let Some(failure) = &self.failed {
            return Err(AppendError::Stopped(failure.clone()));
        }
        let mut shared = self.shared.lock();
        let head = shared.head();
        if expected != head {
            return Err(AppendError::Conflict { head });
        }
        if operations.len() > MAX_OPERATIONS {
            return Err(AppendError::TooLarge { bytes: operations.len(), largest: MAX_OPERATIONS });
        }
        let fault = shared.fault.take();
        let failure = |reason| Failure::new("append to", PathBuf::from("memory"), io::Error::other(reason));
        match fault {
            None => return Ok(shared.push(operations)),
            Some(Fault::NotWritten) => return Err(AppendError::NotWritten(failure("injected: not written"))),
            Some(Fault::Lost) => {}
            Some(Fault::Unanswered) => drop(shared.push(operations)),
        }
        drop(shared);
        let failure = failure("injected: no answer");
        self.failed = Some(failure.clone());
        Err(AppendError::UnknownOutcome(failure))
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn trim(&mut self, below: u64) -> Result<(), TrimError> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone().into());
        }
        let mut shared = self.shared.lock();
        let head = shared.head();
        if below > head.next() {
            return Err(TrimError::Ahead { below, head: head.position });
        }
        let gone = shared.entries.partition_point(|entry| entry.position < below);
        if gone > 0 {
            shared.after = shared.entries[gone - 1].head();
            shared.entries.drain(..gone);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Failure> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn failure(&self) -> Option<Failure> {
        self.failed.clone()
    }
}
