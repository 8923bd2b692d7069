//! Follows the end of the log: reads up to the head, then watches from that revision on. Entries that are
//! missing, duplicate or out of order are detected by their positions and read again.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tonic::Streaming;

use super::{connection::Connection, fetch::PageSize, keys::Key, wire::WatchResponse};
use crate::store::{
    cluster::{Follower, Fork, SequenceCheck},
    log::{Entry, Head, ReadError, StoreId},
};

/// Follows the log from a position on.
pub struct Tail {
    connection: Arc<Connection>,
    store: StoreId,
    follower: Follower,
    watch: Option<Streaming<WatchResponse>>,
    size: PageSize,
}

/// What was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TailEvent {
    /// The next entry.
    Entry(Entry),
    /// A node's acknowledgement, as encoded by the node.
    Acknowledgement { node: String, value: Vec<u8> },
}

/// Why the log cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    #[error(transparent)]
    Fork(#[from] Fork),
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Pause before a watch that failed is opened again.
const PAUSE: Duration = Duration::from_millis(100);

impl Tail {
    /// Begins after `head`, which the caller has applied.
    pub fn new(connection: Arc<Connection>, store: StoreId, head: Head) -> Self {
        Self { connection, store, follower: Follower::new(head), watch: None, size: PageSize::default() }
    }

    /// The head of what was followed.
    pub fn head(&self) -> Head {
        self.follower.head()
    }

    /// Reads again instead of waiting for the watch, since a probe has shown that entries are missing.
    pub fn reread(&mut self) {
        self.watch = None;
    }

    /// Waits for what comes next. After an error, the caller may call again, except for a fork and trimmed
    /// entries. If the future is dropped, what it has received may be lost: [`head`](Self::head) says up to
    /// where.
    pub async fn next(&mut self) -> Result<Vec<TailEvent>, TailError> {
        loop {
            let heard = match &mut self.watch {
                None => self.read().await?,
                Some(watch) => match watch.message().await {
                    Ok(Some(response)) if !response.canceled && response.compact_revision == 0 => {
                        self.on_response(response).await?
                    }
                    Ok(Some(response)) => self.watch_ended(&response.cancel_reason).await,
                    Ok(None) => self.watch_ended("etcd has closed it").await,
                    Err(status) => self.watch_ended(status.message()).await,
                },
            };
            if !heard.is_empty() {
                return Ok(heard);
            }
        }
    }

    /// Reads a page; opens the watch once the head is reached.
    async fn read(&mut self) -> Result<Vec<TailEvent>, TailError> {
        let page = match self.connection.page(self.head().next(), &mut self.size).await {
            Ok(page) => page,
            Err(ReadError::Ahead { head, .. }) => return Err(Fork { position: head }.into()),
            Err(error) => return Err(error.into()),
        };
        let mut heard = Vec::with_capacity(page.entries.len());
        for entry in page.entries {
            if self.follower.follow(&entry)? == SequenceCheck::Next {
                heard.push(TailEvent::Entry(entry));
            }
        }
        let behind = self.follower.missing_from(page.head.head, self.head())?;
        if behind.is_none() {
            let watched = self.connection.keys.watch_range();
            match self.connection.client.watch(watched, page.revision + 1).await {
                Ok(watch) => {
                    self.watch = Some(watch);
                    // The acknowledgements written before the watch began.
                    let acks = self.connection.acknowledgements().await.unwrap_or_default();
                    let acks =
                        acks.into_iter().map(|(node, value)| TailEvent::Acknowledgement { node, value });
                    heard.extend(acks);
                }
                Err(error) => {
                    tracing::debug!(%error, "the log cannot be watched yet");
                    sleep(PAUSE).await;
                }
            }
        }
        Ok(heard)
    }

    async fn on_response(&mut self, response: WatchResponse) -> Result<Vec<TailEvent>, TailError> {
        let mut heard = Vec::new();
        let put = response.events.into_iter().filter(|event| event.kind == 0);
        for kv in put.filter_map(|event| event.kv) {
            match self.connection.keys.parse(&kv.key) {
                Key::Ack(node) => {
                    heard.push(TailEvent::Acknowledgement { node: node.to_owned(), value: kv.value.clone() });
                }
                Key::Log(position) if position > self.head().position => {
                    let entry = self.connection.decode(&kv, self.store).await?.entry;
                    match self.follower.follow(&entry)? {
                        SequenceCheck::Next => {
                            self.connection.recent().add(entry.clone());
                            heard.push(TailEvent::Entry(entry));
                        }
                        SequenceCheck::Duplicate => {}
                        SequenceCheck::Gap { from } => {
                            tracing::warn!(from, position, "the watch has missed entries: reading them");
                            self.watch = None;
                            return Ok(heard);
                        }
                    }
                }
                Key::Head => {
                    if let Ok(head) = self.connection.parse_head(Some(&kv))
                        && head.record.store == self.store
                    {
                        self.connection.recent().learn(head);
                    }
                }
                Key::Log(_) | Key::Other => {}
            }
        }
        Ok(heard)
    }

    async fn watch_ended(&mut self, why: &str) -> Vec<TailEvent> {
        tracing::info!(why, "the watch of the log has ended: starting another one");
        self.watch = None;
        self.connection.client.next_endpoint();
        sleep(PAUSE).await;
        Vec::new()
    }
}
