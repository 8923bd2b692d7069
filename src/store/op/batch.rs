//! Encodes batches as the entries of a log, and decodes them.

use super::{Op, OpError};
use crate::store::{
    log::{self, Head, Log},
    record::DecodeError,
};

/// The entry format, the newest one that this permgate reads. A batch that is too large for one entry takes
/// several; only the last one makes it valid.
pub(crate) const FORMAT: u8 = 1;
const CONTINUES: u8 = 1;
const UNFINISHED: u8 = 2;
const LENGTH: usize = size_of::<u32>();

/// Encodes a batch as the operations of entries of up to `largest` bytes. Usually one entry suffices.
pub(crate) fn encode_batch(ops: &[Op], largest: usize) -> Result<Vec<Vec<u8>>, OpError> {
    let mut entries = Vec::new();
    let mut entry = vec![FORMAT, 0];
    let mut bytes = Vec::new();
    for op in ops {
        bytes.clear();
        op.encode(&mut bytes)?;
        if entry.len() + LENGTH + bytes.len() > largest {
            entry[1] |= UNFINISHED;
            entries.push(std::mem::replace(&mut entry, vec![FORMAT, CONTINUES]));
        }
        let length = u32::try_from(bytes.len()).expect("a record is far smaller");
        entry.extend_from_slice(&length.to_le_bytes());
        entry.extend_from_slice(&bytes);
    }
    entries.push(entry);
    Ok(entries)
}

/// Reassembles batches from the entries of a log.
#[derive(Default)]
pub(crate) struct Batches {
    /// The operations of a batch that is not complete.
    ops: Vec<Op>,
    open: bool,
}

impl Batches {
    /// Returns the batch that ends with this entry. A batch without its last entry was never made, and is
    /// dropped.
    pub(crate) fn entry(&mut self, operations: &[u8]) -> Result<Option<Vec<Op>>, DecodeError> {
        const ENTRY: &str = "journal entry";
        let malformed = DecodeError::Malformed(ENTRY);
        let (flags, mut rest) = match operations {
            [FORMAT, flags, rest @ ..] => (*flags, rest),
            [0, ..] | [] | [FORMAT] => return Err(malformed),
            [version, ..] => return Err(DecodeError::Newer { kind: ENTRY, version: *version }),
        };
        if flags & CONTINUES == 0 {
            self.ops.clear();
        } else if !self.open {
            return Err(malformed);
        }
        while !rest.is_empty() {
            let (length, behind) = rest.split_first_chunk().ok_or(malformed)?;
            let length = u32::from_le_bytes(*length) as usize;
            let (op, behind) = behind.split_at_checked(length).ok_or(malformed)?;
            self.ops.push(Op::decode(op)?);
            rest = behind;
        }
        self.open = flags & UNFINISHED != 0;
        Ok(if self.open { None } else { Some(std::mem::take(&mut self.ops)) })
    }
}

/// Reads a log batch by batch, starting after a position.
pub(crate) struct BatchReader {
    /// Everything up to here was read.
    pub at: Head,
    batches: Batches,
}

/// Why batches could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchError {
    #[error(transparent)]
    Log(#[from] log::ReadError),
    #[error("the replica has a different history than the log at position {0}")]
    History(u64),
    #[error("position {position} of the log cannot be read: {error}")]
    Entry { position: u64, error: DecodeError },
}

impl BatchReader {
    /// Maximum bytes of operations that one read returns.
    const BYTES: usize = 4 << 20;

    pub(crate) fn new(at: Head) -> Self {
        Self { at, batches: Batches::default() }
    }

    /// Returns the next complete batches, each with its position; empty at the end of the log.
    pub(crate) fn next(&mut self, log: &dyn Log) -> Result<Vec<(Vec<Op>, Head)>, BatchError> {
        let mut found = Vec::new();
        while found.is_empty() {
            let entries = log.read(self.at.next(), Self::BYTES)?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                if entry.previous != self.at.hash {
                    return Err(BatchError::History(self.at.position));
                }
                self.at = entry.head();
                let position = entry.position;
                let batch = self.batches.entry(&entry.operations);
                let batch = batch.map_err(|error| BatchError::Entry { position, error })?;
                found.extend(batch.map(|ops| (ops, self.at)));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{conformance::token, log::MAX_OPERATIONS};

    #[test]
    fn a_large_batch_takes_several_entries_and_is_made_by_the_last() {
        let ops: Vec<Op> = (0..20_000).map(|number| Op::PutToken(token(number, "ann"))).collect();
        let entries = encode_batch(&ops, MAX_OPERATIONS).unwrap();
        assert!(entries.len() > 1 && entries.iter().all(|entry| entry.len() <= MAX_OPERATIONS));
        let mut batches = Batches::default();
        // A batch that was cut off comes first.
        assert_eq!(batches.entry(&entries[0]).unwrap(), None);
        let (last, first) = entries.split_last().unwrap();
        for entry in first {
            assert_eq!(batches.entry(entry).unwrap(), None);
        }
        assert_eq!(batches.entry(last).unwrap(), Some(ops));
        assert!(batches.entry(last).is_err(), "it continues nothing");
    }
}
