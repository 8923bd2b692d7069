//! The thread that drives the client's connections, and the single requests of a node.

use std::{
    error::Error,
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{runtime::Handle, sync::oneshot, time::sleep};

use super::{
    client::{Client, EtcdError, Settings},
    keys::{HeadRecord, Keys},
    recent::Recent,
    snapshot::UploadedSnapshot,
    wire::{
        Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RequestOp, TxnRequest, UnaryRequest,
        revision,
    },
};
use crate::store::log::{Failure, Head, StoreId};

/// The connection to etcd, shared by all of a node's tasks. Its async methods work in any runtime.
pub struct Connection {
    pub(super) client: Client,
    pub(super) keys: Keys,
    recent: Mutex<Recent>,
    handle: Handle,
    /// Ends the thread when it is dropped.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The head, with the revision that last put it.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownHead {
    pub record: HeadRecord,
    pub revision: i64,
}

/// Pause between tries.
const PAUSE: Duration = Duration::from_millis(50);

impl Connection {
    /// Starts the thread. The first call connects.
    pub fn start(settings: Settings) -> io::Result<Arc<Self>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let run = move || {
            // An error means that the sender was dropped, which ends the thread.
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

    /// Creates a log whose first entry follows `after`, with the snapshot of the state there, unless the
    /// prefix has a log.
    pub fn create(
        &self,
        store: StoreId,
        after: Head,
        snapshot: Option<&UploadedSnapshot>,
    ) -> Result<(), EtcdError> {
        match self.begin(store, after, 0, snapshot)? {
            None => Ok(()),
            Some(other) => Err(self.taken(other)),
        }
    }

    /// The error of a log that cannot be created, since the prefix has that of this store.
    pub(crate) fn taken(&self, store: StoreId) -> EtcdError {
        let prefix = self.keys.prefix();
        EtcdError::Unusable(format!(
            "etcd already has the log of store {store} under {prefix}: join it, or choose another prefix"
        ))
    }

    /// Begins the log anew after the head of a node's copy, with its snapshot, after it has lost entries.
    /// Those that it has are deleted. `revision`: of the head that has lost them; 0: it has none.
    pub fn reset(
        &self,
        store: StoreId,
        head: Head,
        revision: i64,
        snapshot: Option<&UploadedSnapshot>,
    ) -> Result<(), EtcdError> {
        match self.begin(store, head, revision, snapshot)? {
            None => Ok(()),
            Some(_) => {
                Err(EtcdError::Unusable("the log in etcd was changed in the meantime: try again".to_owned()))
            }
        }
    }

    /// Returns the store of the log that was found instead, if the head was changed since `revision`.
    fn begin(
        &self,
        store: StoreId,
        after: Head,
        revision: i64,
        snapshot: Option<&UploadedSnapshot>,
    ) -> Result<Option<StoreId>, EtcdError> {
        let record = HeadRecord { head: after, store, first: after.next() };
        let key = self.keys.head();
        // All at once: as soon as the head is there, another node may append to it.
        let mut success = vec![
            RequestOp::put(key.clone(), record.encode()),
            RequestOp::delete(self.keys.log(0), self.keys.log(u64::MAX)),
            RequestOp::get(key.clone()),
        ];
        success.extend(snapshot.map(|snapshot| snapshot.put(&self.keys)));
        let begin = TxnRequest {
            compare: vec![Compare::last_changed_by(key.clone(), revision)],
            success,
            failure: vec![RequestOp::get(key)],
        };
        let found = self.block(self.call_with_retries(begin))?;
        let found = self.parse_head(found.found())?.record;
        Ok(Some(found.store).filter(|_| found != record))
    }

    /// The head as of a moment after this call began. A delete of an absent key is ordered among the
    /// commits. The read after it must be at least as new; otherwise a stale member has answered. These are
    /// two requests, since etcd 3.5 refuses them as one transaction when it is full.
    pub async fn probe(&self) -> Result<Head, EtcdError> {
        let nothing = DeleteRangeRequest { key: self.keys.absent_key(), range_end: Vec::new() };
        let deleted = self.client.call(nothing).await?;
        let found = self.client.call(self.get_head()).await?;
        if revision(found.header.as_ref()) < revision(deleted.header.as_ref()) {
            return Err(EtcdError::Stale);
        }
        Ok(self.parse_head(found.kvs.first())?.record.head)
    }

    /// Writes a node's acknowledgement.
    pub async fn put_acknowledgement(&self, node: &str, value: Vec<u8>) -> Result<(), EtcdError> {
        let put = PutRequest { key: self.keys.ack(node), value };
        self.client.call(put).await
    }

    /// Every node's acknowledgement, as of a moment after this call began.
    pub async fn acknowledgements(&self) -> Result<Vec<(String, Vec<u8>)>, EtcdError> {
        let (key, range_end) = self.keys.acks();
        let all = RangeRequest { key, range_end, ..RangeRequest::default() };
        let found = self.client.call(all).await?;
        let named = found.kvs.into_iter().filter_map(|kv| match self.keys.parse(&kv.key) {
            super::keys::Key::Ack(node) => Some((node.to_owned(), kv.value)),
            _ => None,
        });
        Ok(named.collect())
    }

    /// Removes the acknowledgement of a node that has left. Blocks.
    pub fn forget(&self, node: &str) -> Result<(), EtcdError> {
        self.block(self.delete(self.keys.ack(node), Vec::new()))
    }

    pub(super) async fn head(&self) -> Result<KnownHead, EtcdError> {
        self.parse_head(self.get(self.keys.head()).await?.as_ref())
    }

    /// Reads the head without retries.
    pub(super) async fn head_once(&self) -> Result<KnownHead, EtcdError> {
        self.parse_head(self.client.call(self.get_head()).await?.kvs.first())
    }

    pub(super) fn get_head(&self) -> RangeRequest {
        RangeRequest::of(self.keys.head())
    }

    /// Reads a single key.
    pub(super) async fn get(&self, key: Vec<u8>) -> Result<Option<KeyValue>, EtcdError> {
        Ok(self.call_with_retries(RangeRequest::of(key)).await?.kvs.pop())
    }

    /// Deletes a range of keys; an empty end stands for the key alone.
    pub(super) async fn delete(&self, key: Vec<u8>, range_end: Vec<u8>) -> Result<(), EtcdError> {
        self.call_with_retries(DeleteRangeRequest { key, range_end }).await.map(drop)
    }

    /// Puts a value, unless the key was changed since `revision` (0: it did not exist). Returns what the key
    /// has then: the value also if an earlier try has put it, and its answer was lost.
    pub(super) async fn put_if_unchanged(
        &self,
        key: Vec<u8>,
        revision: i64,
        value: Vec<u8>,
    ) -> Result<Option<KeyValue>, EtcdError> {
        let get = RequestOp::get(key.clone());
        let put = TxnRequest {
            compare: vec![Compare::last_changed_by(key.clone(), revision)],
            success: vec![RequestOp::put(key, value), get.clone()],
            failure: vec![get],
        };
        Ok(self.call_with_retries(put).await?.found().cloned())
    }

    /// Retries until the patience is over. Only for calls that may be carried out twice.
    pub(super) async fn call_with_retries<Q: UnaryRequest>(
        &self,
        message: Q,
    ) -> Result<Q::Answer, EtcdError> {
        let end = tokio::time::Instant::now() + self.client.settings.patience;
        loop {
            match self.client.call(message.clone()).await {
                Err(EtcdError::NoAnswer(_)) if tokio::time::Instant::now() < end => sleep(PAUSE).await,
                answer => return answer,
            }
        }
    }

    pub(super) fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock()
    }

    /// Runs a task on the connection's thread until the thread ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(task));
    }

    /// Waits for a future. Must not be called in a runtime.
    pub(super) fn block<T>(&self, future: impl Future<Output = T>) -> T {
        self.handle.block_on(future)
    }

    pub(super) fn parse_head(&self, found: Option<&KeyValue>) -> Result<KnownHead, EtcdError> {
        let wrong = |what: String| {
            EtcdError::Unusable(format!("`{}head` in etcd cannot be used: {what}", self.keys.prefix()))
        };
        let kv = found.ok_or_else(|| EtcdError::NoLog { prefix: self.keys.prefix().to_owned() })?;
        let record = HeadRecord::decode(&kv.value).map_err(wrong)?;
        Ok(KnownHead { record, revision: kv.mod_revision })
    }

    pub(super) fn failure(
        &self,
        action: &'static str,
        reason: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Failure {
        Failure::new(action, format!("etcd:{}", self.keys.prefix()), io::Error::other(reason))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) =
            self.thread.take().filter(|thread| thread.thread().id() != thread::current().id())
        {
            drop(thread.join());
        }
    }
}
