//! The log as files in one directory, for one process. Files are filled with zeros before use, and never
//! reused. Each batch takes fresh blocks of 4 KiB, so that no write touches an acknowledged one.
//!
//! A commit writes the batch, calls `fdatasync`, writes the position into one of two alternating slots, and
//! returns. The sync of the next batch makes the slot durable. When the journal is opened, a batch that
//! does not verify was torn by a crash only if no slot covers it and no valid later batch follows it. Such
//! a batch is dropped whole, and reported. Anything else that does not verify is damage, and the journal
//! does not open.
//!
//! One case cannot be told apart: damage to the very last acknowledged batch, together with a power cut
//! that lost the slot covering it, looks like a torn batch.

use std::path::PathBuf;

use super::{
    AppendError, Entry, Failure, Head, Log, MAX_OPERATIONS, ReadError, StoreId, TrimError, entry,
    files::{Directory, File},
};
use create::{CreateError, NewFile};
use layout::{ENTRIES, Header, SLOTS, Slot, blocks};
use scan::Scan;

mod create;
mod inventory;
mod layout;
mod open;
mod scan;

pub use inventory::{EntryVisitor, Inventory};
pub use open::{Dropped, OpenError, Recovery};

/// Bytes of one file: about four thousand small batches, seconds of full load between two rotations, each of
/// which takes a few hundredths of a second.
pub const FILE_SIZE: u64 = 16 << 20;

/// A log in local files. The caller must ensure that no other process opens the directory.
pub struct Journal {
    directory: Box<dyn Directory>,
    /// Bytes of one file. A batch that does not fit into one gets a larger file.
    file_size: u64,
    store: StoreId,
    /// Files that accept no more batches, oldest first.
    full: Vec<Header>,
    active: ActiveFile,
    head: Head,
    failed: Option<Failure>,
    /// The batch that is being written; kept for its allocation.
    buffer: Vec<u8>,
}

/// The newest file.
struct ActiveFile {
    header: Header,
    file: Box<dyn File>,
    path: PathBuf,
    /// Where the next batch begins.
    end: u64,
    /// The slot that is written next.
    slot: usize,
}

impl Journal {
    /// Starts the next file, with room for a batch of `length` bytes.
    fn rotate(&mut self, length: usize) -> Result<(), AppendError> {
        let capacity = create::capacity(self.file_size, length as u64);
        let sequence = self.active.header.sequence + 1;
        let header = Header { store: self.store, sequence, after: self.head, capacity };
        let new = NewFile { directory: &*self.directory, header, slot: self.slot(self.head) };
        let next = match new.create(&mut create::empty) {
            Ok(next) => next,
            Err(CreateError::NotWritten(failure)) => return Err(AppendError::NotWritten(failure)),
            Err(CreateError::Unsynced(failure)) => return Err(self.stop(failure)),
        };
        let slot = Slot { full: true, ..self.slot(self.head) };
        if let Err(failure) = self.active.write_slot(slot).and_then(|()| self.active.sync()) {
            return Err(self.stop(failure));
        }
        let old = std::mem::replace(&mut self.active, next);
        if old.end > ENTRIES {
            self.full.push(old.header);
            return Ok(());
        }
        // The new file begins at the same position as the empty one, and replaces it.
        self.directory
            .remove_file(&layout::file_name(old.header.sequence))
            .and_then(|()| self.directory.sync_names())
            .map_err(|failure| self.stop(failure))
    }

    /// Rejects all appends from now on; the current one has written nothing.
    fn stop(&mut self, failure: Failure) -> AppendError {
        self.failed = Some(failure.clone());
        AppendError::Stopped(failure)
    }

    fn slot(&self, head: Head) -> Slot {
        Slot { store: self.store, head, oldest: self.oldest(), full: false }
    }

    fn oldest(&self) -> u64 {
        self.full.first().unwrap_or(&self.active.header).after.next()
    }

    /// Reads the entries of one file from position `from` to `last`, as many as fit into `left` bytes.
    fn read_file(
        &self,
        header: &Header,
        from: u64,
        last: u64,
        left: &mut usize,
        entries: &mut Vec<Entry>,
    ) -> Result<(), ReadError> {
        let name = layout::file_name(header.sequence);
        let path = self.directory.path().join(&name);
        let file = self.directory.open(&name).map_err(|e| Failure::new("open", &path, e))?;
        let mut scan = Scan::new(&*file, &path, header)?;
        while scan.head.position < last {
            let entry = scan.next()?;
            if entry.position < from {
                continue;
            }
            let size = entry::HEADER + entry.operations.len();
            if size > *left && !entries.is_empty() {
                *left = 0;
                break;
            }
            *left = left.saturating_sub(size);
            entries.push(entry);
        }
        Ok(())
    }
}

impl ActiveFile {
    /// Returns once the batch is durable.
    fn commit(&mut self, batch: &[u8], slot: Slot) -> Result<(), Failure> {
        self.file.write_all_at(batch, self.end).map_err(|e| Failure::new("write to", &self.path, e))?;
        self.sync()?;
        self.write_slot(slot)?;
        self.end += batch.len() as u64;
        Ok(())
    }

    fn write_slot(&mut self, slot: Slot) -> Result<(), Failure> {
        let written = self.file.write_all_at(&slot.encode(), SLOTS[self.slot]);
        written.map_err(|e| Failure::new("write to", &self.path, e))?;
        self.slot = 1 - self.slot;
        Ok(())
    }

    fn sync(&self) -> Result<(), Failure> {
        self.file.sync_data().map_err(|e| Failure::new("sync", &self.path, e))
    }
}

impl Log for Journal {
    fn store(&self) -> StoreId {
        self.store
    }

    fn first(&self) -> Result<u64, ReadError> {
        Ok(self.oldest())
    }

    fn head(&self) -> Result<Head, ReadError> {
        Ok(self.head)
    }

    fn read(&self, from: u64, bytes: usize) -> Result<Vec<Entry>, ReadError> {
        let first = self.oldest();
        if from < first {
            return Err(ReadError::Trimmed { from, first });
        }
        if from > self.head.next() {
            return Err(ReadError::Ahead { from, head: self.head.position });
        }
        let mut entries = Vec::new();
        let mut left = bytes;
        let mut files = self.full.iter().chain([&self.active.header]).peekable();
        while let Some(header) = files.next() {
            let last = files.peek().map_or(self.head, |next| next.after).position;
            let from = from.max(header.after.next());
            if from <= last && (left > 0 || entries.is_empty()) {
                self.read_file(header, from, last, &mut left, &mut entries)?;
            }
        }
        Ok(entries)
    }

    fn append(&mut self, expected: Head, operations: &[u8]) -> Result<Head, AppendError> {
        if let Some(failure) = &self.failed {
            return Err(AppendError::Stopped(failure.clone()));
        }
        if expected != self.head {
            return Err(AppendError::Conflict { head: self.head });
        }
        if operations.len() > MAX_OPERATIONS {
            return Err(AppendError::TooLarge { bytes: operations.len(), largest: MAX_OPERATIONS });
        }
        let length = blocks(entry::HEADER + operations.len());
        if self.active.end + length as u64 > self.active.header.capacity {
            self.rotate(length)?;
        }
        self.buffer.clear();
        let position = self.head.next();
        let hash = entry::encode(self.store, position, self.head.hash, operations, &mut self.buffer);
        self.buffer.resize(length, 0);
        let head = Head { position, hash };
        let slot = self.slot(head);
        let committed = self.active.commit(&self.buffer, slot);
        let committed = committed.inspect_err(|failure| self.failed = Some(failure.clone()));
        committed.map_err(AppendError::UnknownOutcome)?;
        self.head = head;
        Ok(head)
    }

    fn trim(&mut self, below: u64) -> Result<(), TrimError> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone().into());
        }
        if below > self.head.next() {
            return Err(TrimError::Ahead { below, head: self.head.position });
        }
        let nexts = self.full.iter().skip(1).chain([&self.active.header]);
        let all_before = |(_, next): &(&Header, &Header)| next.after.next() <= below;
        let count = self.full.iter().zip(nexts).take_while(all_before).count();
        if count == 0 {
            return Ok(());
        }
        let gone: Vec<Header> = self.full.drain(..count).collect();
        let slot = self.slot(self.head);
        // Both slots must not be in flight at once. Once this one is durable, it does not matter which
        // removals a crash undoes.
        let noted = self.active.sync().and_then(|()| self.active.write_slot(slot));
        let noted = noted.and_then(|()| self.active.sync());
        noted.inspect_err(|failure| self.failed = Some(failure.clone()))?;
        gone.iter().try_for_each(|file| self.directory.remove_file(&layout::file_name(file.sequence)))?;
        Ok(self.directory.sync_names().inspect_err(|failure| self.failed = Some(failure.clone()))?)
    }

    /// Makes the slot of the last batch durable, so that damage to that batch is found even after a power
    /// cut. Without it, nothing acknowledged is lost.
    fn sync(&mut self) -> Result<(), Failure> {
        match &self.failed {
            Some(failure) => Err(failure.clone()),
            None => self.active.sync().inspect_err(|failure| self.failed = Some(failure.clone())),
        }
    }

    fn failure(&self) -> Option<Failure> {
        self.failed.clone()
    }
}
