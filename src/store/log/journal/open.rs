//! Opens a journal: verifies everything, then copies the newest file into a new one and syncs it, before
//! anything is served. After a failed sync, the page cache may have what the disk lacks; the copy is the
//! same in both.

use std::path::PathBuf;

use super::{
    Journal,
    create::{self, CreateError, NewFile},
    inventory::{self, Inventory},
    layout::{self, ENTRIES, Header, Slot},
    scan::ScanError,
};
use crate::store::log::{Failure, Head, LogCorruption, StoreId, files::Directory};

/// Why a journal cannot be opened or created. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("there is no journal in {directory}")]
    Absent { directory: PathBuf },
    #[error("there is already a journal in {directory}")]
    Exists { directory: PathBuf },
    #[error(
        "{file} has version {found}, this permgate reads {}; run the newer permgate that wrote it",
        layout::VERSION
    )]
    Newer { file: PathBuf, found: u32 },
    #[error("{file} belongs to the store {found}, not to {expected}; move the files of the other store away")]
    OtherStore { file: PathBuf, found: StoreId, expected: StoreId },
    #[error(transparent)]
    Damaged(#[from] LogCorruption),
    #[error(transparent)]
    Io(#[from] Failure),
}

/// The findings of opening a journal that an operator may want to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The batch that was torn by a crash.
    pub dropped: Option<Dropped>,
    /// A file with a position slot that does not verify: a power cut interrupted its write, or it was
    /// damaged. Nothing was lost.
    pub unreadable_slot: Option<PathBuf>,
}

impl Recovery {
    /// The findings as text.
    pub fn notes(&self) -> Vec<String> {
        let dropped = self.dropped.iter().map(|Dropped { file, offset, position }| {
            let file = file.display();
            format!(
                "{file}: a change that was being written at byte {offset}, as position {position}, was cut off, and was not acknowledged"
            )
        });
        let unreadable = self.unreadable_slot.iter();
        let unreadable = unreadable
            .map(|file| format!("{}: one of the two position slots cannot be read", file.display()));
        dropped.chain(unreadable).collect()
    }
}

/// A batch that was dropped whole. It was not acknowledged, unless damage and a power cut coincided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    pub file: PathBuf,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// The position that it would have had. The next entry gets it.
    pub position: u64,
}

impl Journal {
    /// Creates a journal whose first entry follows `after`: [`Head::EMPTY`] for a new store.
    pub fn create(
        directory: Box<dyn Directory>,
        store: StoreId,
        after: Head,
        file_size: u64,
    ) -> Result<Self, OpenError> {
        if !inventory::list(&*directory)?.0.is_empty() {
            return Err(OpenError::Exists { directory: directory.path().to_owned() });
        }
        let header = Header { store, sequence: 1, after, capacity: create::capacity(file_size, 0) };
        let slot = Slot { store, head: after, oldest: after.next(), full: false };
        let new = NewFile { directory: &*directory, header, slot };
        let active = new.create(&mut create::empty).map_err(OpenError::from)?;
        Ok(Self {
            directory,
            file_size,
            store,
            full: Vec::new(),
            active,
            head: after,
            failed: None,
            buffer: Vec::new(),
        })
    }

    /// Opens the journal of `store` and reads all of it.
    pub fn open(
        directory: Box<dyn Directory>,
        store: StoreId,
        file_size: u64,
    ) -> Result<(Self, Recovery), OpenError> {
        let mut inventory = Inventory::read(&*directory, store)?;
        let (head, end) = inventory.verify(None, &mut |_| {})?;
        let Inventory { full, last, oldest, resurrected, unfinished, recovery, .. } = inventory;

        let sequence = last.header.sequence + 1;
        let capacity = create::capacity(file_size, end - ENTRIES);
        let header = Header { store, sequence, after: last.header.after, capacity };
        let slot = Slot { store, head, oldest, full: false };
        let new = NewFile { directory: &*directory, header, slot };
        let active = new.create(&mut |file| last.copy(head, file))?;
        for sequence in resurrected.into_iter().chain([last.header.sequence]) {
            directory.remove_file(&layout::file_name(sequence))?;
        }
        for name in unfinished.iter().filter(|name| **name != layout::unfinished_name(sequence)) {
            directory.remove_file(name)?;
        }
        directory.sync_names()?;
        let full = full.into_iter().map(|file| file.header).collect();
        let journal =
            Self { directory, file_size, store, full, active, head, failed: None, buffer: Vec::new() };
        Ok((journal, recovery))
    }
}

impl From<CreateError> for OpenError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::NotWritten(failure) | CreateError::Unsynced(failure) => Self::Io(failure),
        }
    }
}

impl From<ScanError> for OpenError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Damaged(damage) => Self::Damaged(damage),
            ScanError::Io(failure) => Self::Io(failure),
        }
    }
}
