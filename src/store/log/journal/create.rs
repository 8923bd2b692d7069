//! Creates a journal file: writes and syncs it under another name, then gives it its own.

use super::{
    ActiveFile,
    layout::{self, BLOCK, ENTRIES, Header, SLOTS, Slot},
};
use crate::store::log::{
    Failure,
    files::{Directory, File},
};

const ZEROS: usize = 256 << 10;

/// A file to create.
pub(super) struct NewFile<'a> {
    pub directory: &'a dyn Directory,
    pub header: Header,
    /// The initial content of both slots.
    pub slot: Slot,
}

pub(super) enum CreateError {
    /// No file was created.
    NotWritten(Failure),
    /// The state of the disk is unknown.
    Unsynced(Failure),
}

/// Writes the batches that a new file begins with and returns where they end.
pub(super) type Fill<'f, E> = dyn FnMut(&dyn File) -> Result<u64, E> + 'f;

impl NewFile<'_> {
    /// Creates the file; returns once it would survive a power cut.
    pub(super) fn create<E: From<CreateError>>(&self, fill: &mut Fill<'_, E>) -> Result<ActiveFile, E> {
        let sequence = self.header.sequence;
        let (name, unfinished) = (layout::file_name(sequence), layout::unfinished_name(sequence));
        let (directory, path) = (self.directory, self.directory.path().join(&name));
        // A crash or a full disk may have left an unfinished file.
        drop(directory.remove(&unfinished));
        let file = directory
            .create(&unfinished)
            .map_err(|e| CreateError::NotWritten(Failure::new("create", &path, e)))?;
        let end = self.write(&*file, fill).inspect_err(|_| drop(directory.remove(&unfinished)))?;
        let unsynced = |action, e| CreateError::Unsynced(Failure::new(action, &path, e));
        file.sync_all().map_err(|e| unsynced("sync", e))?;
        directory.rename(&unfinished, &name).map_err(|e| unsynced("rename to", e))?;
        directory.sync().map_err(|e| unsynced("sync the directory of", e))?;
        Ok(ActiveFile { header: self.header, file, path, end, slot: 0 })
    }

    fn write<E: From<CreateError>>(&self, file: &dyn File, fill: &mut Fill<'_, E>) -> Result<u64, E> {
        let write = |bytes: &[u8], offset| {
            file.write_all_at(bytes, offset).map_err(|e| {
                let path = self.directory.path().join(layout::unfinished_name(self.header.sequence));
                CreateError::NotWritten(Failure::new("write to", path, e))
            })
        };
        write(&self.header.encode(), 0)?;
        for offset in SLOTS {
            write(&self.slot.encode(), offset)?;
        }
        let end = fill(file)?;
        // The space is written, not only reserved. A batch then changes only its own blocks, and its sync
        // waits for nothing else.
        let zeros = vec![0; ZEROS];
        let mut offset = end;
        while offset < self.header.capacity {
            let left = self.header.capacity - offset;
            let length = usize::try_from(left).map_or(ZEROS, |left| left.min(ZEROS));
            write(&zeros[..length], offset)?;
            offset += length as u64;
        }
        Ok(end)
    }
}

/// For a file that begins without batches.
pub(super) fn empty(_: &dyn File) -> Result<u64, CreateError> {
    Ok(ENTRIES)
}

/// Bytes of a file with room for `batches` bytes of batches, in whole blocks.
pub(super) fn capacity(file_size: u64, batches: u64) -> u64 {
    file_size.max(ENTRIES + batches).next_multiple_of(BLOCK as u64)
}
