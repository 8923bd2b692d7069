//! The thread on which the client's connections live, and the single questions that nodes ask.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{runtime::Handle, sync::oneshot, time::sleep};

use super::{
    client::{CallError, Client, Settings},
    keys::{HeadRecord, Keys},
    recent::Recent,
    wire::{
        Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RequestOp, TxnRequest, UnaryRequest,
        revision,
    },
};
use crate::store::log::{Failure, Head, StoreId};

/// The way to etcd, shared by whatever a node does there. Its methods that wait are for any runtime.
pub struct Connection {
    pub(super) client: Client,
    pub(super) keys: Keys,
    recent: Mutex<Recent>,
    handle: Handle,
    /// Ends the thread when it is dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Why etcd was asked in vain.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Unreachable {
    reason: String,
    answered: bool,
}

impl Unreachable {
    /// It may answer another time.
    pub(super) fn silent(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), answered: false }
    }

    pub(super) fn answered(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), answered: true }
    }

    /// Whether etcd has answered, so that asking again is of no use.
    pub fn is_final(&self) -> bool {
        self.answered
    }
}

/// The head with the revision that it was put by.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownHead {
    pub record: HeadRecord,
    pub revision: i64,
}

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

impl Connection {
    /// Starts the thread; nothing is connected yet.
    pub fn start(settings: Settings) -> io::Result<Arc<Self>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            // An error is the sender's end, which is meant.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        };
        let thread = thread::Builder::new().name("permgate-etcd".to_owned()).spawn(run)?;
        Ok(Arc::new(Self {
            keys: Keys::new(&settings.etcd.prefix),
            client: Client::new(settings),
            recent: Mutex::default(),
            handle,
            stop: Some(stop),
            thread: Some(thread),
        }))
    }

    /// Makes a log whose first entry follows `after`, unless there is one under the prefix.
    pub fn create(&self, store: StoreId, after: Head) -> Result<(), CreateError> {
        let record = HeadRecord { head: after, store, first: after.next() };
        let key = self.keys.head();
        let create = TxnRequest {
            compare: vec![Compare::last_changed_by(key.clone(), 0)],
            success: vec![RequestOp::put(key.clone(), record.encode())],
            failure: vec![RequestOp::get(key)],
        };
        let response = self.block(self.insist(create))?;
        if response.succeeded {
            return Ok(());
        }
        match self.parse_head(response.found())?.record {
            // By an earlier try whose answer was lost.
            found if found == record => Ok(()),
            found => Err(CreateError::Exists { store: found.store, prefix: self.keys.prefix().to_owned() }),
        }
    }

    /// Puts the head to where a node's copy is, of which the log has lost a part. What the log has beyond
    /// that is dropped.
    pub fn reset(&self, store: StoreId, head: Head) -> Result<(), Unreachable> {
        let record = HeadRecord { head, store, first: head.next() };
        self.block(async {
            self.insist(PutRequest { key: self.keys.head(), value: record.encode() }).await?;
            let (key, range_end) = (self.keys.log(0), self.keys.log(u64::MAX));
            self.insist(DeleteRangeRequest { key, range_end }).await.map(drop)
        })
    }

    /// The head as of a moment after this call began: a delete of what is never there is ordered among the
    /// commits, and what is read then must be as new, even where a member that was left behind answers. Not in
    /// one transaction, which etcd 3.5 refuses when it is full.
    pub async fn probe(&self) -> Result<Head, Unreachable> {
        let nothing = DeleteRangeRequest { key: self.keys.absent(), range_end: Vec::new() };
        let deleted = self.client.call(nothing).await.map_err(|e| self.unreachable(&e))?;
        let found = self.client.call(self.get_head()).await.map_err(|e| self.unreachable(&e))?;
        if revision(found.header.as_ref()) < revision(deleted.header.as_ref()) {
            return Err(Unreachable::silent("a member of etcd answers that was left behind"));
        }
        Ok(self.parse_head(found.kvs.first())?.record.head)
    }

    /// Writes what a node says of itself.
    pub async fn put_acknowledgement(&self, node: &str, value: Vec<u8>) -> Result<(), Unreachable> {
        let put = PutRequest { key: self.keys.ack(node), value };
        self.client.call(put).await.map(drop).map_err(|e| self.unreachable(&e))
    }

    /// What every node says of itself, as of a moment after this call began.
    pub async fn acknowledgements(&self) -> Result<Vec<(String, Vec<u8>)>, Unreachable> {
        let (key, range_end) = self.keys.acks();
        let all = RangeRequest { key, range_end, ..RangeRequest::default() };
        let found = self.client.call(all).await.map_err(|e| self.unreachable(&e))?;
        let named = found.kvs.into_iter().filter_map(|kv| match self.keys.parse(&kv.key) {
            super::keys::Key::Ack(node) => Some((node.to_owned(), kv.value)),
            _ => None,
        });
        Ok(named.collect())
    }

    /// Removes what a node that is gone has said. Blocks.
    pub fn forget(&self, node: &str) -> Result<(), Unreachable> {
        let delete = DeleteRangeRequest { key: self.keys.ack(node), range_end: Vec::new() };
        self.block(self.insist(delete)).map(drop)
    }

    pub(super) async fn head(&self) -> Result<KnownHead, Unreachable> {
        self.parse_head(self.insist(self.get_head()).await?.kvs.first())
    }

    /// Asks once.
    pub(super) async fn head_once(&self) -> Result<KnownHead, Unreachable> {
        let answer = self.client.call(self.get_head()).await;
        self.parse_head(answer.map_err(|e| self.unreachable(&e))?.kvs.first())
    }

    pub(super) fn get_head(&self) -> RangeRequest {
        RangeRequest::of(self.keys.head())
    }

    /// Asks again until the patience is over. For calls that may be carried out twice.
    pub(super) async fn insist<Q: UnaryRequest>(&self, message: Q) -> Result<Q::Answer, Unreachable> {
        let end = tokio::time::Instant::now() + self.client.settings().patience;
        loop {
            match self.client.call(message.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(CallError::NoAnswer(_)) if tokio::time::Instant::now() < end => sleep(PAUSE).await,
                Err(error) => return Err(self.unreachable(&error)),
            }
        }
    }

    pub(super) fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs on the connection's thread until that ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(task));
    }

    /// Waits for what runs on the connection's thread. Never within a runtime.
    pub(super) fn block<T>(&self, future: impl Future<Output = T>) -> T {
        self.handle.block_on(future)
    }

    pub(super) fn parse_head(&self, found: Option<&KeyValue>) -> Result<KnownHead, Unreachable> {
        let wrong = |what: String| {
            Unreachable::answered(format!("`{}head` in etcd cannot be used: {what}", self.keys.prefix()))
        };
        let kv = found.ok_or_else(|| wrong("there is none; `permgate cluster init` makes one".to_owned()))?;
        let record = HeadRecord::decode(&kv.value).map_err(wrong)?;
        Ok(KnownHead { record, revision: kv.mod_revision })
    }

    pub(super) fn unreachable(&self, error: &CallError) -> Unreachable {
        let reason = format!("{error} ({})", self.client.settings().etcd.endpoints.join(", "));
        match error {
            CallError::NoAnswer(_) => Unreachable::silent(reason),
            CallError::Refused(_) | CallError::TooLarge => Unreachable::answered(reason),
        }
    }

    pub(super) fn failure(&self, action: &'static str, reason: impl Into<String>) -> Failure {
        Failure::new(action, format!("etcd:{}", self.keys.prefix()), io::Error::other(reason.into()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) =
            self.thread.take().filter(|thread| thread.thread().id() != thread::current().id())
        {
            // It has nothing to say.
            drop(thread.join());
        }
    }
}

/// Why no log was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error("etcd has the log of store {store} under {prefix} already: join it, or choose another prefix")]
    Exists { store: StoreId, prefix: String },
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}
