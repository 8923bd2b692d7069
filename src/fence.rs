//! The fence: a change completes only when every participant decides by it and has cut what it forbids.
//! Contains no domain logic: what an entry is and how it is reauthorized is up to its owner.
//!
//! The publisher calls [`Fence::raise`] after a change has become visible. Each [`Registry`] applies the
//! change on its own thread. [`Completion::wait`] returns when all of them have.

use std::{net::IpAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use crate::authz::{
    secret::{Digest, TokenId},
    subject::UserIx,
};

mod registry;

pub use registry::{Registration, Registry, Revocable};

/// How long a participant may take to acknowledge a change (docs/architecture.md, "Threads").
pub const ACKNOWLEDGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Shared by the publisher, which raises it, and the participants, which acknowledge.
pub struct Fence {
    timeout: Duration,
    participants: Mutex<Participants>,
    broken: watch::Sender<bool>,
}

/// The entries that a change may forbid. A sweep skips all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affected {
    /// Only entries of this token.
    Token(Digest),
    /// Only entries of this user's tokens.
    User(UserIx),
    /// Any entry: groups, roles, grants or the configuration have changed.
    All,
}

/// How many in-flight requests, streams and tunnels a change has cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut(pub u64);

/// A participant has not acknowledged in time. The change is durable, but not every worker decides by it yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a worker has not applied the change within {:?}", .0)]
pub struct FenceIncomplete(pub Duration);

/// A change that participants are still acknowledging.
#[must_use = "a change may be acknowledged only after `wait` has returned"]
pub struct Completion {
    fence: Arc<Fence>,
    done: oneshot::Receiver<Cut>,
}

/// A participant of the fence, from which a [`Registry`] is made. Dropping it leaves the fence.
pub struct Participant {
    fence: Arc<Fence>,
    number: usize,
    commands: mpsc::UnboundedReceiver<Command>,
}

/// An in-flight request as `GET /v1/live` lists it.
#[derive(Clone, Debug)]
pub struct LiveRow {
    /// Unique in the process: `<participant>-<number>`, the argument of [`Fence::cut`]. Set by the registry.
    pub id: String,
    pub request_id: String,
    pub token: Option<TokenId>,
    pub user: Option<UserIx>,
    pub service: String,
    pub method: String,
    /// Redacted, without the query.
    pub path: String,
    pub client: IpAddr,
    pub age: Duration,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

enum Command {
    Change { epoch: u64, affected: Affected },
    List(oneshot::Sender<Vec<LiveRow>>),
    Cut { number: u64, done: oneshot::Sender<bool> },
}

#[derive(Default)]
struct Participants {
    epoch: u64,
    taken: Vec<Option<mpsc::UnboundedSender<Command>>>,
    pending: Vec<PendingEpoch>,
}

/// A change that some participant has yet to acknowledge.
struct PendingEpoch {
    epoch: u64,
    /// Participants that have yet to acknowledge.
    waiting: Vec<usize>,
    cut: u64,
    done: Option<oneshot::Sender<Cut>>,
}

impl Fence {
    pub fn new(timeout: Duration) -> Arc<Self> {
        Arc::new(Self { timeout, participants: Mutex::default(), broken: watch::Sender::new(false) })
    }

    /// Adds a participant. From now on no change completes before this participant has acknowledged it.
    pub fn join(self: &Arc<Self>) -> Participant {
        let (sender, commands) = mpsc::unbounded_channel();
        let mut participants = self.participants.lock();
        participants.taken.push(Some(sender));
        Participant { fence: self.clone(), number: participants.taken.len() - 1, commands }
    }

    /// Notifies every participant of a change that is already visible. Never blocks.
    pub fn raise(self: &Arc<Self>, affected: Affected) -> Completion {
        let (sender, done) = oneshot::channel();
        let mut participants = self.participants.lock();
        participants.epoch += 1;
        let epoch = participants.epoch;
        let change = || Command::Change { epoch, affected };
        let sent =
            |slot: &usize| participants.taken[*slot].as_ref().is_some_and(|s| s.send(change()).is_ok());
        let waiting: Vec<usize> = (0..participants.taken.len()).filter(sent).collect();
        participants.pending.push(PendingEpoch { epoch, waiting, cut: 0, done: Some(sender) });
        participants.settle();
        Completion { fence: self.clone(), done }
    }

    /// Returns every live entry of every participant. A participant that does not respond in time is left
    /// out.
    pub async fn list(&self) -> Vec<LiveRow> {
        let mut rows = Vec::new();
        let channels: Vec<_> = self.participants.lock().taken.iter().flatten().cloned().collect();
        for slot in channels {
            let (sender, answer) = oneshot::channel();
            if slot.send(Command::List(sender)).is_ok()
                && let Ok(Ok(mut part)) = tokio::time::timeout(self.timeout, answer).await
            {
                rows.append(&mut part);
            }
        }
        rows
    }

    /// Cuts one entry by the ID of its row. Returns false if there is no such entry. Fails, and breaks the
    /// fence, if the participant does not respond in time.
    pub async fn cut(&self, id: &str) -> Result<bool, FenceIncomplete> {
        let Some((slot, number)) = id.split_once('-') else { return Ok(false) };
        let (Ok(slot), Ok(number)) = (slot.parse::<usize>(), number.parse()) else { return Ok(false) };
        let Some(sender) = self.participants.lock().taken.get(slot).cloned().flatten() else {
            return Ok(false);
        };
        let (done, answer) = oneshot::channel();
        if sender.send(Command::Cut { number, done }).is_err() {
            return Ok(false);
        }
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => Ok(answer.unwrap_or(false)),
            Err(_) => Err(self.mark_broken()),
        }
    }

    /// Waits until a participant has failed to acknowledge. The process is then no longer sound and exits, so
    /// that its supervisor starts another one.
    pub async fn wait_until_broken(&self) {
        // Fails only once the fence is gone.
        let _ = self.broken.subscribe().wait_for(|broken| *broken).await;
    }

    pub fn is_broken(&self) -> bool {
        *self.broken.borrow()
    }

    fn mark_broken(&self) -> FenceIncomplete {
        self.broken.send_replace(true);
        FenceIncomplete(self.timeout)
    }

    fn acknowledge(&self, slot: usize, cuts: impl IntoIterator<Item = (u64, u64)>) {
        let mut participants = self.participants.lock();
        for (epoch, cut) in cuts {
            if let Some(pending) = participants.pending.iter_mut().find(|r| r.epoch == epoch) {
                pending.waiting.retain(|s| s != &slot);
                pending.cut += cut;
            }
        }
        participants.settle();
    }

    fn deregister(&self, slot: usize) {
        let mut participants = self.participants.lock();
        participants.taken[slot] = None;
        for pending in &mut participants.pending {
            pending.waiting.retain(|s| s != &slot);
        }
        participants.settle();
    }
}

impl Participants {
    /// Completes the changes that every participant has acknowledged.
    fn settle(&mut self) {
        self.pending.retain_mut(|pending| {
            if !pending.waiting.is_empty() {
                return true;
            }
            if let Some(done) = pending.done.take() {
                // The caller may be gone. The change is in force all the same.
                let _ = done.send(Cut(pending.cut));
            }
            false
        });
    }
}

impl Completion {
    /// Returns the number of entries cut, once every participant has acknowledged. Fails, and breaks the
    /// fence, if one does not in time.
    pub async fn wait(self) -> Result<Cut, FenceIncomplete> {
        match tokio::time::timeout(self.fence.timeout, self.done).await {
            Ok(Ok(cut)) => Ok(cut),
            Ok(Err(_)) | Err(_) => Err(self.fence.mark_broken()),
        }
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.fence.deregister(self.number);
    }
}

#[cfg(test)]
mod tests;
