//! The layout of a journal file: a header block, two position slots of one block each, then batches, each
//! on blocks of its own. All numbers are little-endian.

use crate::store::log::{EntryHash, Head, StoreId, entry::array};

/// Bytes of a block. Every write covers whole blocks, so that it shares no sector with an earlier one.
pub(super) const BLOCK: usize = 4096;
pub(super) const SLOTS: [u64; 2] = [BLOCK as u64, 2 * BLOCK as u64];
/// Where the first batch begins.
pub(super) const ENTRIES: u64 = 3 * BLOCK as u64;

const HEADER_MAGIC: [u8; 8] = *b"pgjournl";
const SLOT_MAGIC: [u8; 8] = *b"pgjrslot";
/// Raised when an older permgate can no longer read what this one writes.
pub(super) const VERSION: u32 = 1;
const PREFIX: &str = "journal-";
/// Suffix of an unfinished file.
const UNFINISHED: &str = ".new";

pub(super) fn file_name(sequence: u64) -> String {
    format!("{PREFIX}{sequence:010}")
}

pub(super) fn unfinished_name(sequence: u64) -> String {
    file_name(sequence) + UNFINISHED
}

/// What a name in the journal's directory stands for.
pub(super) enum FileName {
    File(u64),
    Unfinished,
}

impl FileName {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let whole = name.strip_suffix(UNFINISHED);
        let sequence = whole.unwrap_or(name).strip_prefix(PREFIX)?.parse().ok()?;
        if file_name(sequence) != whole.unwrap_or(name) {
            return None;
        }
        Some(if whole.is_some() { Self::Unfinished } else { Self::File(sequence) })
    }
}

/// Rounds up to whole blocks.
pub(super) const fn blocks(bytes: usize) -> usize {
    bytes.div_ceil(BLOCK) * BLOCK
}

/// The first block of a file. It is never rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) store: StoreId,
    /// The number in the file's name.
    pub(super) sequence: u64,
    /// The head that the first entry in the file follows.
    pub(super) after: Head,
    /// Bytes of the file, all of which are written before the file gets its name.
    pub(super) capacity: u64,
}

impl Header {
    const CHECKSUM: usize = 84;

    pub(super) fn encode(&self) -> [u8; BLOCK] {
        let Self { store, sequence, after: Head { position, hash }, capacity } = self;
        let (version, sequence) = (VERSION.to_le_bytes(), sequence.to_le_bytes());
        let (position, capacity) = (position.to_le_bytes(), capacity.to_le_bytes());
        seal(&[&HEADER_MAGIC[..], &version, &store.0, &sequence, &position, &hash.0, &capacity].concat())
    }

    /// `Err(Some(version))` if another version wrote it.
    pub(super) fn decode(block: &[u8; BLOCK]) -> Result<Self, Option<u32>> {
        if block[..8] != HEADER_MAGIC || !is_sealed(block, Self::CHECKSUM) {
            return Err(None);
        }
        // The version is checked last, once the block verifies. The checksum's place never changes.
        let version = u32::from_le_bytes(array(block, 8));
        if version != VERSION {
            return Err(Some(version));
        }
        Ok(Self {
            store: StoreId(array(block, 12)),
            sequence: u64::from_le_bytes(array(block, 28)),
            after: Head { position: u64::from_le_bytes(array(block, 36)), hash: EntryHash(array(block, 44)) },
            capacity: u64::from_le_bytes(array(block, 76)),
        })
    }
}

/// The acknowledged head, as stored in one of two alternating blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) store: StoreId,
    pub(super) head: Head,
    /// Entries before this position were trimmed. A crash may bring their files back.
    pub(super) oldest: u64,
    /// Another file follows; this one accepts no more batches.
    pub(super) full: bool,
}

impl Slot {
    const CHECKSUM: usize = 73;

    pub(super) fn encode(&self) -> [u8; BLOCK] {
        let Self { store, head: Head { position, hash }, oldest, full } = self;
        let (position, oldest) = (position.to_le_bytes(), oldest.to_le_bytes());
        seal(&[&SLOT_MAGIC[..], &store.0, &position, &hash.0, &oldest, &[u8::from(*full)]].concat())
    }

    /// Returns `None` if the block does not verify.
    pub(super) fn decode(block: &[u8; BLOCK]) -> Option<Self> {
        if block[..8] != SLOT_MAGIC || !is_sealed(block, Self::CHECKSUM) {
            return None;
        }
        Some(Self {
            store: StoreId(array(block, 8)),
            head: Head { position: u64::from_le_bytes(array(block, 24)), hash: EntryHash(array(block, 32)) },
            oldest: u64::from_le_bytes(array(block, 64)),
            full: block[72] != 0,
        })
    }
}

/// A block of these fields, followed by their checksum.
fn seal(fields: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let (start, rest) = block.split_at_mut(fields.len());
    start.copy_from_slice(fields);
    rest[..32].copy_from_slice(blake3::hash(fields).as_bytes());
    block
}

fn is_sealed(block: &[u8; BLOCK], at: usize) -> bool {
    blake3::hash(&block[..at]) == array(block, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Head = Head { position: 41, hash: EntryHash([3; 32]) };

    #[test]
    fn headers_and_slots_read_back() {
        let header = Header { store: StoreId([1; 16]), sequence: 7, after: HEAD, capacity: 65_536 };
        assert!(matches!(Header::decode(&header.encode()), Ok(read) if read == header));
        let slot = Slot { store: StoreId([1; 16]), head: HEAD, oldest: 3, full: true };
        assert_eq!(Slot::decode(&slot.encode()), Some(slot));
        assert_eq!(Slot::decode(&[0; BLOCK]), None);
    }

    #[test]
    fn names_are_read_strictly() {
        assert!(matches!(FileName::parse(&file_name(12)), Some(FileName::File(12))));
        assert!(matches!(FileName::parse(&unfinished_name(12)), Some(FileName::Unfinished)));
        for other in ["journal-12", "journal-0000000012.bak", "journal-+000000012", "lost+found", "sled"] {
            assert!(FileName::parse(other).is_none(), "{other}");
        }
    }
}
