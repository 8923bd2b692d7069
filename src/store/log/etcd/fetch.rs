//! Entries as stored in etcd: `log/<n>` holds the entry as the journal does, followed by its attempt. For a
//! large entry, it holds only the header, and the operations are stored as pieces of their own.

use super::{
    client::EtcdError,
    connection::{Connection, KnownHead},
    keys::{HeadRecord, Key},
    wire::{KeyValue, RangeRequest, revision},
};
use crate::store::{
    cluster::AttemptId,
    log::{
        Entry, EntryHash, Head, MAX_OPERATIONS, ReadError, StoreId,
        entry::{self, HEADER},
    },
};

/// Maximum bytes of operations in one entry of this log.
pub(super) const LARGEST: usize = 16 << 20;

/// Bytes of a piece of a large entry. etcd accepts up to 1.5 MiB per request.
const PIECE: usize = 512 << 10;

/// Entries to request while their size is unknown: three of the largest fit into an answer.
const MIN_PAGE: i64 = 3;
const MAX_PAGE: i64 = 512;
/// Bytes that an answer should have.
const PAGE: usize = 2 << 20;

const ATTEMPT_LENGTH: usize = 16;

/// An entry ready to be put.
pub(super) struct Encoded {
    pub hash: EntryHash,
    pub value: Vec<u8>,
    pub pieces: Vec<Vec<u8>>,
}

pub(super) fn encode(store: StoreId, expected: Head, operations: &[u8], attempt: AttemptId) -> Encoded {
    let mut value = Vec::with_capacity(HEADER + operations.len() + ATTEMPT_LENGTH);
    let hash = entry::encode(store, expected.next(), expected.hash, operations, &mut value);
    let mut pieces = Vec::new();
    if operations.len() > MAX_OPERATIONS {
        value.truncate(HEADER);
        pieces = operations.chunks(PIECE).map(<[u8]>::to_vec).collect();
    }
    value.extend_from_slice(&attempt.0);
    Encoded { hash, value, pieces }
}

/// An entry and the attempt that wrote it.
pub(super) struct Fetched {
    pub entry: Entry,
    pub attempt: AttemptId,
}

/// A page of the log, as of one revision.
pub(super) struct Page {
    pub entries: Vec<Entry>,
    pub head: HeadRecord,
    /// A watch that begins at the next revision misses nothing.
    pub revision: i64,
}

/// The number of entries to request.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageSize(i64);

impl Default for PageSize {
    fn default() -> Self {
        Self(MIN_PAGE)
    }
}

impl PageSize {
    fn learn(&mut self, kvs: &[KeyValue]) {
        let bytes: usize = kvs.iter().map(|kv| kv.value.len()).sum();
        let fit = PAGE / (bytes / kvs.len().max(1)).max(1);
        self.0 = i64::try_from(fit).unwrap_or(MAX_PAGE).clamp(MIN_PAGE, MAX_PAGE.min(self.0 * 4));
    }
}

impl Connection {
    /// A request for the few entries that fit into an answer whatever their size.
    pub(super) fn entries(&self, from: u64) -> RangeRequest {
        let (key, range_end) = (self.keys.log(from), self.keys.log(u64::MAX));
        RangeRequest { key, range_end, limit: MIN_PAGE, ..RangeRequest::default() }
    }

    /// Reads one page of entries, from position `from` on.
    pub(super) async fn page(&self, from: u64, size: &mut PageSize) -> Result<Page, ReadError> {
        let failure = |e: EtcdError| self.failure("read", e);
        let found = self.call_with_retries(self.get_head()).await.map_err(failure)?;
        let revision = revision(found.header.as_ref());
        let known = self.parse_head(found.kvs.first()).map_err(failure)?;
        let head = known.record;
        if from < head.first {
            return Err(ReadError::Trimmed { from, first: head.first });
        }
        if from > head.head.next() {
            return Err(ReadError::Ahead { from, head: head.head.position });
        }
        if from > head.head.position {
            return Ok(Page { entries: Vec::new(), head, revision });
        }
        // At that revision, which the member that answered has. Two requests, as in `probe`.
        let kvs = loop {
            let read = RangeRequest { limit: size.0, revision, serializable: true, ..self.entries(from) };
            match self.client.call(read.clone()).await {
                Ok(found) => break found.kvs,
                Err(EtcdError::TooLarge(_)) if size.0 > MIN_PAGE => *size = PageSize::default(),
                // Another member may not have that revision yet.
                Err(_) => {
                    let answer = self.call_with_retries(RangeRequest { serializable: false, ..read }).await;
                    break answer.map_err(failure)?.kvs;
                }
            }
        };
        size.learn(&kvs);
        let mut entries: Vec<Entry> = Vec::with_capacity(kvs.len());
        for kv in kvs {
            let entry = self.decode(&kv, head.store).await?.entry;
            let expected = from + entries.len() as u64;
            let follows = entries.last().is_none_or(|before| entry.previous == before.hash);
            if entry.position != expected || !follows {
                return Err(self.damaged(expected, "it does not follow the entry before it"));
            }
            entries.push(entry);
        }
        if entries.is_empty() {
            return Err(self.damaged(from, "it is missing"));
        }
        if let Some(last) = entries.last().filter(|last| last.position == head.head.position)
            && last.hash != head.head.hash
        {
            return Err(self.damaged(last.position, "it is not the one that the head names"));
        }
        Ok(Page { entries, head, revision })
    }

    /// The entry at a position and its attempt; `None` if there is none.
    pub(super) async fn entry_at(&self, position: u64, store: StoreId) -> Result<Option<Fetched>, ReadError> {
        match self.get(self.keys.log(position)).await.map_err(|e| self.failure("read", e))? {
            Some(kv) => Ok(Some(self.decode(&kv, store).await?)),
            None => Ok(None),
        }
    }

    /// Decodes an entry, and fetches its pieces if it has any.
    pub(super) async fn decode(&self, kv: &KeyValue, store: StoreId) -> Result<Fetched, ReadError> {
        let Key::Log(position) = self.keys.parse(&kv.key) else {
            return Err(self.failure("read", "a key of the log is malformed").into());
        };
        let broken = |what: &str| self.damaged(position, what);
        let (bytes, attempt) = kv
            .value
            .split_last_chunk::<ATTEMPT_LENGTH>()
            .filter(|(bytes, _)| bytes.len() >= HEADER)
            .ok_or_else(|| broken("it is too short"))?;
        let attempt = AttemptId(*attempt);
        let length = entry::encoded_length_within(bytes, LARGEST).map_err(|e| broken(&e.to_string()))?;
        let mut whole = Vec::new();
        let bytes = if bytes.len() == HEADER && length > HEADER + MAX_OPERATIONS {
            whole.extend_from_slice(bytes);
            let mut number = 0;
            while whole.len() < length {
                let key = self.keys.part(position, attempt.0, number);
                match self.get(key).await.map_err(|e| self.failure("read", e))? {
                    Some(piece) if !piece.value.is_empty() => whole.extend_from_slice(&piece.value),
                    _ => return Err(self.piece_missing(position).await),
                }
                number += 1;
            }
            &whole
        } else {
            bytes
        };
        if bytes.len() != length {
            return Err(broken("its length is wrong"));
        }
        let (of, entry) = entry::decode_within(bytes, LARGEST).map_err(|e| broken(&e.to_string()))?;
        if of != store || entry.position != position {
            return Err(broken("it belongs to another key"));
        }
        Ok(Fetched { entry, attempt })
    }

    /// The error for a missing piece, which may have been trimmed since the entry was read.
    async fn piece_missing(&self, from: u64) -> ReadError {
        match self.head().await {
            Ok(KnownHead { record, .. }) if record.first > from => {
                ReadError::Trimmed { from, first: record.first }
            }
            Ok(_) => self.damaged(from, "one of its pieces is missing"),
            Err(error) => self.failure("read", error).into(),
        }
    }

    fn damaged(&self, position: u64, what: &str) -> ReadError {
        self.failure("use", format!("the entry at position {position} is damaged: {what}")).into()
    }
}
