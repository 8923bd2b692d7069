//! Reads the batches of one file in order, and verifies each one and that it follows the one before.

use std::path::Path;

use super::layout::{BLOCK, ENTRIES, Header, blocks};
use crate::store::log::{
    Entry, Failure, Head, LogCorruption, ReadError, StoreId,
    entry::{self, DecodeError},
    files::File,
};

/// Holds one batch in memory at a time.
pub(super) struct Scan<'a> {
    pub(super) file: &'a dyn File,
    pub(super) path: &'a Path,
    pub(super) store: StoreId,
    /// Where the next batch begins.
    pub(super) offset: u64,
    /// The head that the next batch must follow.
    pub(super) head: Head,
    pub(super) size: u64,
    buffer: Vec<u8>,
    /// Bytes of the buffer that the last batch takes.
    length: usize,
}

impl<'a> Scan<'a> {
    /// Begins at the first batch of the file.
    pub(super) fn new(file: &'a dyn File, path: &'a Path, header: &Header) -> Result<Self, Failure> {
        let size = file.size().map_err(|e| Failure::new("read the size of", path, e))?;
        let Header { store, after: head, .. } = *header;
        Ok(Self { file, path, store, offset: ENTRIES, head, size, buffer: Vec::new(), length: 0 })
    }

    /// Reads the next batch. If it does not verify, the scan does not advance.
    pub(super) fn next(&mut self) -> Result<Entry, ScanError> {
        let (offset, follows, store) = (self.offset, self.head, self.store);
        let damage = |what: String| LogCorruption { file: self.path.to_owned(), offset, what };
        let position = follows.next();
        let loaded = load(self.file, self.path, offset, self.size, &mut self.buffer)?;
        let decoded = loaded.and_then(|batch| Ok((batch.len(), entry::decode(batch)?)));
        let (length, (of, entry)) =
            decoded.map_err(|e| damage(format!("position {position} cannot be read: {e}")))?;
        if of != store {
            return Err(damage(format!("the entry belongs to the store {of}, not to {store}")).into());
        }
        if entry.position != position || entry.previous != follows.hash {
            return Err(damage(format!(
                "the entry at position {} does not follow the one at {}",
                entry.position, follows.position
            ))
            .into());
        }
        self.offset += length as u64;
        self.length = length;
        self.head = entry.head();
        Ok(entry)
    }

    /// The batch that [`next`](Scan::next) returned last, in whole blocks.
    pub(super) fn batch(&self) -> &[u8] {
        &self.buffer[..self.length]
    }

    /// Searches everything after the last batch that verified.
    pub(super) fn remainder(&mut self) -> Result<Remainder, Failure> {
        let mut remainder = Remainder { written: false, later: None };
        let mut block = [0; BLOCK];
        for offset in (self.offset..self.size).step_by(BLOCK) {
            let length = usize::try_from(self.size - offset).map_or(BLOCK, |left| left.min(BLOCK));
            let block = &mut block[..length];
            self.file.read_exact_at(block, offset).map_err(|e| Failure::new("read", self.path, e))?;
            if *block == [0; BLOCK][..length] {
                continue;
            }
            remainder.written = true;
            if entry::encoded_length(block).is_err() {
                continue;
            }
            let loaded = load(self.file, self.path, offset, self.size, &mut self.buffer)?;
            let found = loaded.and_then(entry::decode).ok();
            if found.is_some_and(|(of, entry)| of != self.store || entry.position > self.head.position) {
                remainder.later = Some(offset);
                break;
            }
        }
        Ok(remainder)
    }
}

/// Why a scan cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    #[error(transparent)]
    Damaged(#[from] LogCorruption),
    #[error(transparent)]
    Io(#[from] Failure),
}

impl From<ScanError> for ReadError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Damaged(damage) => Self::Damaged(damage),
            ScanError::Io(failure) => Self::Io(failure),
        }
    }
}

/// What follows the last batch that verified.
pub(super) struct Remainder {
    /// Whether there is anything but zeros.
    pub(super) written: bool,
    /// The offset of another batch that verifies.
    pub(super) later: Option<u64>,
}

/// Reads the batch at `offset`, in whole blocks. The buffer never shrinks.
fn load<'b>(
    file: &dyn File,
    path: &Path,
    offset: u64,
    size: u64,
    buffer: &'b mut Vec<u8>,
) -> Result<Result<&'b [u8], DecodeError>, Failure> {
    let fill = |buffer: &mut Vec<u8>, from: usize, to: usize| {
        if buffer.len() < to {
            buffer.resize(to, 0);
        }
        let read = file.read_exact_at(&mut buffer[from..to], offset + from as u64);
        read.map_err(|e| Failure::new("read", path, e))
    };
    if offset + BLOCK as u64 > size {
        return Ok(Err(DecodeError::CutOff));
    }
    fill(buffer, 0, BLOCK)?;
    let length = match entry::encoded_length(buffer) {
        Ok(length) => blocks(length),
        Err(e) => return Ok(Err(e)),
    };
    if offset + length as u64 > size {
        return Ok(Err(DecodeError::CutOff));
    }
    if length > BLOCK {
        fill(buffer, BLOCK, length)?;
    }
    Ok(Ok(&buffer[..length]))
}
