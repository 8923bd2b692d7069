//! The log in etcd, shared by several nodes. An append compares the head, so of two that were planned on
//! the same state, one succeeds. After a lost answer, the attempt stored with the entry says whose it is.
//! Positions put in order what a watch or a range returns; deletes carry no meaning.

use std::{io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::{AppendError, Entry, Failure, Head, Log, ReadError, StoreId, TrimError, entry, random_id};
use crate::store::cluster::{Answer, AttemptId, CommitAttempt, Step};

mod client;
mod connection;
mod fetch;
mod keys;
mod recent;
mod snapshot;
mod tail;
#[cfg(test)]
mod tests;
mod wire;

pub use client::{EtcdError, Settings};
pub use connection::Connection;
pub use snapshot::UploadedSnapshot;
pub use tail::{Tail, TailError, TailEvent};

use connection::KnownHead;
use fetch::{Encoded, LARGEST, PageSize};
use keys::HeadRecord;
use wire::{Compare, PutRequest, RequestOp, TxnRequest, revision};

/// One writer's handle.
pub struct EtcdLog {
    connection: Arc<Connection>,
    store: StoreId,
    /// As of the last answer; the next append compares the head with it.
    known: Mutex<KnownHead>,
    failed: Option<Failure>,
    #[cfg(test)]
    fault: Option<super::memory::Fault>,
}

/// Pause between the tries of one append.
const PAUSE: Duration = Duration::from_millis(20);

/// Stands for the revision of a head that was never read; nothing in etcd has it.
const UNKNOWN_REVISION: i64 = -1;

/// Positions that one request deletes.
const SLICE: u64 = 1000;

impl EtcdLog {
    /// Opens the log under the connection's prefix. Blocks, as every call does, so it must not run in a
    /// runtime.
    pub fn open(connection: Arc<Connection>) -> Result<Self, EtcdError> {
        let known = connection.block(connection.head())?;
        Ok(Self::at(connection, known))
    }

    /// The log as a copy at `head` knows it, while etcd does not answer. The first append compares with a
    /// revision that does not exist, and so learns the real head.
    pub fn with_unknown_revision(connection: Arc<Connection>, store: StoreId, head: Head) -> Self {
        let record = HeadRecord { head, store, first: 0 };
        Self::at(connection, KnownHead { record, revision: UNKNOWN_REVISION })
    }

    fn at(connection: Arc<Connection>, known: KnownHead) -> Self {
        Self {
            connection,
            store: known.record.store,
            known: Mutex::new(known),
            failed: None,
            #[cfg(test)]
            fault: None,
        }
    }

    /// Like [`open`](Self::open); `None` if the prefix has no log.
    pub fn find(connection: Arc<Connection>) -> Result<Option<Self>, EtcdError> {
        match Self::open(connection) {
            Err(EtcdError::NoLog { .. }) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// The revision that last put the head.
    pub fn head_revision(&self) -> i64 {
        self.known().revision
    }

    /// The head as of the last answer, or of what the watch has received since.
    pub fn known_head(&self) -> Head {
        self.known().record.head
    }

    fn known(&self) -> KnownHead {
        let known = *self.known.lock();
        let heard = self.connection.recent().head().filter(|heard| heard.revision > known.revision);
        heard.map_or(known, |heard| self.learn(heard))
    }

    fn learn(&self, known: KnownHead) -> KnownHead {
        *self.known.lock() = known;
        known
    }

    async fn refresh(&self) -> Result<KnownHead, Failure> {
        let known = self.connection.head().await;
        Ok(self.learn(known.map_err(|e| self.connection.failure("read", e))?))
    }

    async fn commit(&self, expected: Head, operations: &[u8]) -> Result<Head, AppendError> {
        let mut known = self.known();
        if known.record.head.position <= expected.position && known.record.head != expected {
            known = self.refresh().await.map_err(AppendError::NotWritten)?;
        }
        if known.record.head != expected {
            return Err(AppendError::Conflict { head: known.record.head });
        }
        if operations.len() > LARGEST {
            return Err(AppendError::TooLarge { bytes: operations.len(), largest: LARGEST });
        }
        let id = random_id().map(AttemptId);
        let id = id.map_err(|e| AppendError::NotWritten(self.connection.failure("append to", e)))?;
        let encoded = fetch::encode(self.store, expected, operations, id);
        self.put_pieces(expected.next(), id, &encoded).await?;
        self.resend_until_known(CommitAttempt::new(id, expected), &encoded).await
    }

    /// Sends the attempt until its outcome is known or the patience is over.
    async fn resend_until_known(
        &self,
        mut attempt: CommitAttempt,
        encoded: &Encoded,
    ) -> Result<Head, AppendError> {
        let end = Instant::now() + self.connection.client.settings.patience;
        let head = Head { position: attempt.position(), hash: encoded.hash };
        let mut answer = self.send(&attempt, encoded).await?;
        loop {
            let step = attempt.on_answer(answer);
            if Instant::now() >= end && matches!(step, Step::SendAgain | Step::ReadWinner) {
                let failure = self.connection.failure("append to", "it does not respond");
                return Err(if attempt.is_unclear() {
                    AppendError::UnknownOutcome(failure)
                } else {
                    AppendError::NotWritten(failure)
                });
            }
            answer = match step {
                Step::Committed => return Ok(head),
                Step::Lost => return Err(AppendError::Conflict { head: self.known().record.head }),
                Step::LogLostEntries { head } => return Err(AppendError::Conflict { head }),
                Step::SendAgain => {
                    sleep(PAUSE).await;
                    self.send(&attempt, encoded).await?
                }
                Step::ReadWinner => match self.connection.entry_at(attempt.position(), self.store).await {
                    Ok(Some(fetched)) => Answer::Written(fetched.attempt),
                    // The entry was trimmed since, which takes far longer than any patience.
                    Ok(None) => {
                        let failure = self.connection.failure("append to", "its outcome was trimmed");
                        return Err(AppendError::UnknownOutcome(failure));
                    }
                    Err(_) => Answer::None,
                },
            };
        }
    }

    /// Sends the attempt once. A trim may have put the compared head again since it was read.
    async fn send(&self, attempt: &CommitAttempt, encoded: &Encoded) -> Result<Answer, AppendError> {
        let known = self.known();
        if known.record.head != attempt.expected() {
            // Comparing with the newer revision would overwrite that head.
            return Ok(Answer::Conflict { head: known.record.head });
        }
        let head = Head { position: attempt.position(), hash: encoded.hash };
        let record = HeadRecord { head, ..known.record };
        let (keys, key) = (&self.connection.keys, self.connection.keys.head());
        let commit = TxnRequest {
            compare: vec![Compare::last_changed_by(key.clone(), known.revision)],
            success: vec![
                RequestOp::put(keys.log(head.position), encoded.value.clone()),
                RequestOp::put(key.clone(), record.encode()),
            ],
            // The loser applies the entries that came first.
            failure: vec![RequestOp::get(key), RequestOp::range(self.connection.entries(head.position))],
        };
        match self.call(commit).await {
            Ok(response) if response.succeeded => {
                self.learn(KnownHead { record, revision: revision(response.header.as_ref()) });
                Ok(Answer::Committed)
            }
            Ok(response) => {
                let parsed = self.connection.parse_head(response.found());
                let gone = |e: EtcdError| self.connection.failure("append to", e);
                let known = self.learn(parsed.map_err(|e| AppendError::UnknownOutcome(gone(e)))?);
                for kv in response.ranges().skip(1).flat_map(|range| &range.kvs) {
                    // An entry that cannot be decoded is read again, which then reports it.
                    if let Ok(fetched) = self.connection.decode(kv, self.store).await {
                        self.connection.recent().add(fetched.entry);
                    }
                }
                Ok(Answer::Conflict { head: known.record.head })
            }
            // Unless an earlier send may have succeeded.
            Err(EtcdError::Refused(reason) | EtcdError::SignedOut(reason)) if !attempt.is_unclear() => {
                Err(AppendError::NotWritten(self.connection.failure("append to", reason)))
            }
            Err(error) => {
                tracing::debug!(%error, position = head.position, "an append has no response yet");
                Ok(Answer::None)
            }
        }
    }

    async fn call(&self, commit: TxnRequest) -> Result<wire::TxnResponse, EtcdError> {
        #[cfg(test)]
        if let Some(fault) = self.fault {
            if fault == super::memory::Fault::Unanswered {
                drop(self.connection.client.call(commit).await);
            }
            return Err(EtcdError::NoAnswer("injected".to_owned()));
        }
        self.connection.client.call(commit).await
    }

    /// Puts the pieces, before the entry that makes them valid.
    async fn put_pieces(&self, position: u64, id: AttemptId, encoded: &Encoded) -> Result<(), AppendError> {
        for (piece, number) in encoded.pieces.iter().zip(0..) {
            let key = self.connection.keys.part(position, id.0, number);
            let put = self.connection.call_with_retries(PutRequest { key, value: piece.clone() }).await;
            put.map_err(|e| AppendError::NotWritten(self.connection.failure("append to", e)))?;
        }
        Ok(())
    }

    async fn trim_entries(&self, below: u64) -> Result<(), TrimError> {
        let connection = &self.connection;
        let failure = |e: EtcdError| connection.failure("trim", e);
        let mut known = self.refresh().await?;
        let before = known.record.first;
        loop {
            let HeadRecord { head, first, .. } = known.record;
            if below > head.next() {
                return Err(TrimError::Ahead { below, head: head.position });
            }
            if below <= first {
                break;
            }
            let record = HeadRecord { first: below, ..known.record };
            let put = connection.put_if_unchanged(connection.keys.head(), known.revision, record.encode());
            let found = put.await.map_err(failure)?;
            known = self.learn(connection.parse_head(found.as_ref()).map_err(failure)?);
        }
        // Deletes what an earlier trim has left behind, too.
        let (mut from, mut to) = (0, before);
        while from < below {
            to = (to + SLICE).min(below);
            for (key, range_end) in [
                (connection.keys.log(from), connection.keys.log(to)),
                (connection.keys.parts(from), connection.keys.parts(to)),
            ] {
                connection.delete(key, range_end).await.map_err(failure)?;
            }
            from = to;
        }
        Ok(())
    }

    async fn read_pages(&self, from: u64, bytes: usize) -> Result<Vec<Entry>, ReadError> {
        let mut size = PageSize::default();
        let mut entries: Vec<Entry> = Vec::new();
        let mut left = bytes;
        let mut next = from;
        loop {
            let page = self.connection.page(next, &mut size).await?;
            for entry in page.entries {
                let size = entry::HEADER + entry.operations.len();
                if size > left && !entries.is_empty() {
                    return Ok(entries);
                }
                left = left.saturating_sub(size);
                next = entry.position + 1;
                entries.push(entry);
            }
            if next > page.head.head.position {
                return Ok(entries);
            }
        }
    }
}

impl Log for EtcdLog {
    fn store(&self) -> StoreId {
        self.store
    }

    fn first(&self) -> Result<u64, ReadError> {
        Ok(self.connection.block(self.refresh())?.record.first)
    }

    fn head(&self) -> Result<Head, ReadError> {
        let known = self.known();
        if known.revision == UNKNOWN_REVISION {
            return Ok(known.record.head);
        }
        Ok(self.connection.block(self.refresh())?.record.head)
    }

    fn read(&self, from: u64, bytes: usize) -> Result<Vec<Entry>, ReadError> {
        let heard = self.connection.recent().from(from, bytes);
        if !heard.is_empty() {
            return Ok(heard);
        }
        self.connection.block(self.read_pages(from, bytes))
    }

    fn append(&mut self, expected: Head, operations: &[u8]) -> Result<Head, AppendError> {
        if let Some(failure) = &self.failed {
            return Err(AppendError::Stopped(failure.clone()));
        }
        let appended = self.connection.block(self.commit(expected, operations));
        if let Err(AppendError::UnknownOutcome(failure)) = &appended {
            self.failed = Some(failure.clone());
        }
        #[cfg(test)]
        let _ = self.fault.take();
        appended
    }

    fn trim(&mut self, below: u64) -> Result<(), TrimError> {
        if let Some(failure) = &self.failed {
            return Err(failure.clone().into());
        }
        self.connection.block(self.trim_entries(below))
    }

    fn sync(&mut self) -> Result<(), Failure> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn max_operations(&self) -> usize {
        LARGEST
    }

    fn failure(&self) -> Option<Failure> {
        self.failed.clone()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn latest_known(&self) -> Option<u64> {
        Some(self.known_head().position)
    }

    fn reopen(&mut self) -> bool {
        let reached =
            self.connection.block(self.connection.head_once()).map(|known| self.learn(known)).is_ok();
        if reached {
            self.failed = None;
        }
        reached
    }

    fn snapshot(&self, out: &mut dyn io::Write) -> io::Result<Option<u64>> {
        let Some(snapshot) = self.connection.snapshot().map_err(io::Error::other)? else { return Ok(None) };
        self.connection.download(&snapshot, out)?;
        Ok(Some(snapshot.position))
    }
}
