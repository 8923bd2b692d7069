//! The encoding of an entry: a header, a BLAKE3 checksum over header and operations, and the operations.
//! The checksum is the entry's hash, which the next entry contains. All numbers are little-endian.

use super::{EntryHash, Head, MAX_OPERATIONS, StoreId};

const MAGIC: [u8; 4] = *b"pgen";
/// The entry format. Raised when an older permgate can no longer read what this one writes.
const VERSION: u32 = 1;
const STORE: usize = 12;
const POSITION: usize = 28;
const PREVIOUS: usize = 36;
const CHECKSUM: usize = 68;

/// Bytes before the operations.
pub const HEADER: usize = 100;

/// One batch of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Counted from 1, without gaps.
    pub position: u64,
    /// The hash of the entry before.
    pub previous: EntryHash,
    pub hash: EntryHash,
    /// As the caller of `append` encoded them.
    pub operations: Vec<u8>,
}

impl Entry {
    /// This entry as the head of the log.
    pub fn head(&self) -> Head {
        Head { position: self.position, hash: self.hash }
    }
}

/// Why bytes are not an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("no entry begins here")]
    NoEntry,
    #[error("the entry has version {0}, this permgate reads {VERSION}")]
    Version(u32),
    #[error("the entry's length of {0} bytes is more than an entry can have")]
    Length(usize),
    #[error("the entry is cut off")]
    CutOff,
    #[error("the checksum of the entry does not match")]
    Checksum,
}

/// Appends an entry's bytes to `out` and returns its hash.
pub fn encode(
    store: StoreId,
    position: u64,
    previous: EntryHash,
    operations: &[u8],
    out: &mut Vec<u8>,
) -> EntryHash {
    let start = out.len();
    let length = u32::try_from(operations.len()).expect("append bounds the operations");
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&store.0);
    out.extend_from_slice(&position.to_le_bytes());
    out.extend_from_slice(&previous.0);
    let hash = checksum(&out[start..], operations);
    out.extend_from_slice(&hash.0);
    out.extend_from_slice(operations);
    hash
}

/// The encoded length, in bytes, of the entry that begins with `header`, of at least [`HEADER`] bytes. Only
/// magic, version and maximum length are checked.
pub fn encoded_length(header: &[u8]) -> Result<usize, DecodeError> {
    encoded_length_within(header, MAX_OPERATIONS)
}

/// [`encoded_length`] for a log with up to `largest` bytes of operations per entry.
pub(super) fn encoded_length_within(header: &[u8], largest: usize) -> Result<usize, DecodeError> {
    if header.len() < HEADER {
        return Err(DecodeError::CutOff);
    }
    if header[..4] != MAGIC {
        return Err(DecodeError::NoEntry);
    }
    let version = u32::from_le_bytes(array(header, 4));
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let length = u32::from_le_bytes(array(header, 8)) as usize;
    if length > largest {
        return Err(DecodeError::Length(length));
    }
    Ok(HEADER + length)
}

/// Verifies the entry at the start of `bytes` and ignores what follows it. Returns it with its store; the
/// caller must check that it follows the entry before it.
pub fn decode(bytes: &[u8]) -> Result<(StoreId, Entry), DecodeError> {
    decode_within(bytes, MAX_OPERATIONS)
}

/// [`decode`] for a log with up to `largest` bytes of operations per entry.
pub(super) fn decode_within(bytes: &[u8], largest: usize) -> Result<(StoreId, Entry), DecodeError> {
    let length = encoded_length_within(bytes, largest)?;
    let operations = bytes.get(HEADER..length).ok_or(DecodeError::CutOff)?;
    let hash = EntryHash(array(bytes, CHECKSUM));
    if checksum(&bytes[..CHECKSUM], operations) != hash {
        return Err(DecodeError::Checksum);
    }
    let entry = Entry {
        position: u64::from_le_bytes(array(bytes, POSITION)),
        previous: EntryHash(array(bytes, PREVIOUS)),
        hash,
        operations: operations.to_vec(),
    };
    Ok((StoreId(array(bytes, STORE)), entry))
}

fn checksum(header: &[u8], operations: &[u8]) -> EntryHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header).update(operations);
    EntryHash(*hasher.finalize().as_bytes())
}

/// `N` bytes at `offset`, which the caller has checked to be there.
pub(super) fn array<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    bytes[offset..offset + N].try_into().expect("a slice of N bytes is an array of N")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE_ID: StoreId = StoreId([7; 16]);

    #[test]
    fn what_is_encoded_decodes() {
        let mut bytes = Vec::new();
        let hash = encode(STORE_ID, 5, EntryHash([9; 32]), b"operations", &mut bytes);
        assert_eq!(encoded_length(&bytes), Ok(bytes.len()));
        bytes.extend_from_slice(b"behind");
        let expected =
            Entry { position: 5, previous: EntryHash([9; 32]), hash, operations: b"operations".to_vec() };
        assert_eq!(decode(&bytes).unwrap(), (STORE_ID, expected));
    }

    /// A store on a disk outlives the binary that wrote it.
    #[test]
    fn the_format_stays_as_it_is() {
        let mut bytes = Vec::new();
        let hash = encode(STORE_ID, 5, EntryHash([9; 32]), b"operations", &mut bytes);
        assert_eq!(hash.to_string(), "99825664a70eccc3f8837b7a2e6826ca564467dee63bd1864c35d0cb4dda6171");
        assert_eq!(
            blake3::hash(&bytes).to_string(),
            "3fa72aea0836c14a30e8ef26912649725cc6c0cc175dbd8e53e7bb2ae5b20f41"
        );
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_found() {
        let mut bytes = Vec::new();
        encode(STORE_ID, 1, EntryHash::NONE, b"some operations", &mut bytes);
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&changed).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn a_claimed_length_is_bounded() {
        let mut bytes = Vec::new();
        encode(STORE_ID, 1, EntryHash::NONE, b"", &mut bytes);
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&bytes).unwrap_err(), DecodeError::Length(u32::MAX as usize));
    }
}
