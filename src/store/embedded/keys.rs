//! The keys of the one sled tree: a byte for the table, then the row. One tree, so that one batch is
//! atomic over all tables.

use crate::authz::{secret::Digest, time::Timestamp};

pub(super) const META: &[u8] = b"s";
pub(super) const CHECKPOINT: &[u8] = b"c";
pub(super) const BLOCKS: &[u8] = b"b";
pub(super) const USERS: &[u8] = b"u";
pub(super) const GROUPS: &[u8] = b"g";
pub(super) const MEMBERS: &[u8] = b"m";
pub(super) const ROLES: &[u8] = b"r";
pub(super) const GRANTS: &[u8] = b"n";
pub(super) const AUDIT: &[u8] = b"a";
pub(super) const IDEMPOTENCY: &[u8] = b"i";
pub(super) const IDEMPOTENCY_AT: &[u8] = b"j";
pub(super) const USES: &[u8] = b"l";
pub(super) const SESSIONS: &[u8] = b"e";
pub(super) const INVITATIONS: &[u8] = b"v";
pub(super) const IDENTITIES: &[u8] = b"p";

/// Stands between the parts of a key; no part contains it.
const SEPARATOR: u8 = 0;

pub(super) type Key = Vec<u8>;

pub(super) fn block(number: u32) -> Key {
    [BLOCKS, &number.to_be_bytes()].concat()
}

pub(super) fn uses(block: u32) -> Key {
    [USES, &block.to_be_bytes()].concat()
}

/// The number in the key of a block.
pub(super) fn block_number(key: &[u8]) -> Option<u32> {
    key.strip_prefix(BLOCKS)?.try_into().ok().map(u32::from_be_bytes)
}

pub(super) fn audit(seq: u64) -> Key {
    [AUDIT, &seq.to_be_bytes()].concat()
}

/// By digest: what a client chose as its key need not be fit for one.
pub(super) fn idempotency(key: &str) -> Key {
    [IDEMPOTENCY, blake3::hash(key.as_bytes()).as_bytes()].concat()
}

/// The value behind it is the key itself.
pub(super) fn idempotency_at(at: Timestamp, key: &str) -> Key {
    [&idempotency_before(at), blake3::hash(key.as_bytes()).as_bytes().as_slice()].concat()
}

/// Sorts behind every key of an earlier time.
pub(super) fn idempotency_before(at: Timestamp) -> Key {
    // The sign bit flipped: negative times sort first.
    let ordered = at.as_millis().cast_unsigned() ^ (1 << 63);
    [IDEMPOTENCY_AT, &ordered.to_be_bytes()].concat()
}

pub(super) fn digest(table: &[u8], digest: &Digest) -> Key {
    [table, digest.as_bytes().as_slice()].concat()
}

/// `None` when a part is empty, holds the separator, or is too long to be a key.
pub(super) fn named(table: &[u8], parts: &[&str]) -> Option<Key> {
    let mut key = table.to_vec();
    for (at, part) in parts.iter().enumerate() {
        if part.is_empty() || part.len() > 512 || part.as_bytes().contains(&SEPARATOR) {
            return None;
        }
        if at > 0 {
            key.push(SEPARATOR);
        }
        key.extend_from_slice(part.as_bytes());
    }
    Some(key)
}

/// The two parts of a key made of two.
pub(super) fn pair(table: &[u8], key: &[u8]) -> Option<(String, String)> {
    let text = std::str::from_utf8(key.strip_prefix(table)?).ok()?;
    let (first, second) = text.split_once('\0')?;
    Some((first.to_owned(), second.to_owned()))
}
