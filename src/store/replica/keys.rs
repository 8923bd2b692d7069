//! The keys of rows. The parts of a key are separated by a byte that no part contains.

use crate::store::op::OpError;

pub(super) type Key = Vec<u8>;

const SEPARATOR: u8 = 0;
const LONGEST_PART: usize = 512;

/// Fails if the part is empty, contains the separator, or is too long.
pub(super) fn single(part: &str) -> Result<Key, OpError> {
    if part.is_empty() || part.len() > LONGEST_PART || part.as_bytes().contains(&SEPARATOR) {
        return Err(OpError::Key(part.to_owned()));
    }
    Ok(part.as_bytes().to_vec())
}

pub(crate) fn pair(first: &str, second: &str) -> Result<Key, OpError> {
    Ok([single(first)?.as_slice(), &[SEPARATOR], &single(second)?].concat())
}

/// The two parts of a key made by [`pair`].
pub(crate) fn parts(key: &[u8]) -> Option<(String, String)> {
    let (first, second) = std::str::from_utf8(key).ok()?.split_once(char::from(SEPARATOR))?;
    Some((first.to_owned(), second.to_owned()))
}

pub(super) fn audit(seq: u64) -> Key {
    seq.to_be_bytes().to_vec()
}

/// A digest, since a client's key may contain anything.
pub(super) fn idempotency(key: &str) -> Key {
    blake3::hash(key.as_bytes()).as_bytes().to_vec()
}

const MEMBER: &[u8] = b"member ";
const DEPARTED: &[u8] = b"departed ";

/// The key of a cluster's member, in [`Table::Meta`](super::Table::Meta).
pub(crate) fn member(node: &str) -> Key {
    [MEMBER, node.as_bytes()].concat()
}

/// The key of a node's run that was dropped and may still forward.
pub(crate) fn departed(node: &str, incarnation: &[u8; 16]) -> Key {
    [DEPARTED, node.as_bytes(), &[0], incarnation].concat()
}

pub(super) fn is_node(key: &[u8]) -> bool {
    key.starts_with(MEMBER) || key.starts_with(DEPARTED)
}
