//! Where a connection is in its life, and the request that is under way on it with its answer.

use std::{
    cell::{Cell, RefCell},
    task::{Context, Waker},
    time::Instant,
};

use tokio::sync::oneshot;

use super::set_waker;
use crate::net::{RequestError, Upgraded, body::SharedIncoming};

/// Where a connection is in its life, which decides the deadline that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Handshake,
    /// No byte has come yet.
    Fresh,
    /// Between requests; over HTTP/2, without an open stream.
    Idle,
    /// Bytes of a head have come.
    Head,
    /// A request or its answer is under way.
    Serving,
    /// The answer is a 101, which is on its way.
    Switching,
    /// What passes is no longer HTTP.
    Tunnel,
    /// The last answer is out; what the client still sends is thrown away.
    Closing,
}

/// What a connection's task is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionCommand {
    /// Reset the connection.
    Abort,
    /// Close; nothing is lost by it.
    Close,
    /// Answer with this error, then close.
    Reject(RequestError),
}

/// Why this end has aborted a connection on its own, where no caller of `abort` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The time of a drain was over.
    Drained,
    /// The client took nothing of an answer for `write_timeout`.
    WriteTimeout,
    /// A budget of the process was used up, and this connection had the most of it, or made room.
    OverBudget,
    /// An HTTP/2 client with open streams answered no ping.
    PingTimeout,
    /// A stream's reset could not be written, so the connection carries nothing any more.
    ResetBlocked,
}

#[derive(Default)]
pub struct Exchange {
    body: Cell<BodyState>,
    wait: Cell<BodyWait>,
    /// Who waits for the body, or relays the tunnel.
    body_task: RefCell<Option<Waker>>,
    /// The request's body, for an abort to drop.
    incoming: RefCell<Option<SharedIncoming>>,
    answer: Cell<AnswerState>,
    upgrade: RefCell<Option<oneshot::Sender<Upgraded>>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum BodyState {
    /// All of it was read, or there is none.
    #[default]
    Read,
    /// The service holds it.
    Open,
    /// The service dropped it before its end.
    Abandoned,
}

/// The deadline of a request's body.
#[derive(Clone, Copy, Default)]
enum BodyWait {
    #[default]
    Idle,
    /// The service has wanted more since then, and nothing came.
    Since(Instant),
    Expired,
    Disarmed,
}

/// How far the current answer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnswerState {
    #[default]
    Open,
    /// hyper has all of it.
    Ended,
    /// The kernel has all of it.
    Flushed,
}

impl Exchange {
    pub(super) fn begin(&self, incoming: Option<SharedIncoming>) {
        self.body.set(if incoming.is_some() { BodyState::Open } else { BodyState::Read });
        self.wait.set(BodyWait::Idle);
        self.incoming.replace(incoming);
        self.answer.set(AnswerState::Open);
        self.upgrade.take();
    }

    /// Drops everything that would keep the exchange alive, and wakes whoever waits for it.
    pub(super) fn abort(&self) {
        // h2 sends a reset only once nobody holds the stream's body any more.
        let incoming = self.incoming.borrow().as_ref().and_then(|incoming| incoming.borrow_mut().take());
        drop(incoming);
        drop(self.upgrade.take());
        self.wake_body();
    }

    pub(super) fn set_upgrade(&self, sender: oneshot::Sender<Upgraded>) {
        self.upgrade.replace(Some(sender));
    }

    pub(in crate::net) fn take_upgrade(&self) -> Option<oneshot::Sender<Upgraded>> {
        self.upgrade.take()
    }

    /// Whether nobody has read the end of the request.
    pub(in crate::net) fn is_unread(&self) -> bool {
        self.body.get() != BodyState::Read
    }

    /// Whether nobody will read the end of the request: the connection cannot go on after it.
    pub(in crate::net) fn is_abandoned(&self) -> bool {
        self.body.get() == BodyState::Abandoned
    }

    /// The service no longer holds the body; `whole`: it has read all of it.
    pub(super) fn close_body(&self, whole: bool) {
        if self.body.get() == BodyState::Open {
            self.body.set(if whole { BodyState::Read } else { BodyState::Abandoned });
            drop(self.incoming.take());
        }
        self.end_wait();
    }

    /// The service wants more of the body than is there. True: it has waited for too long.
    pub(in crate::net) fn await_body(&self, cx: &Context<'_>, now: Instant) -> bool {
        match self.wait.get() {
            BodyWait::Expired => return true,
            BodyWait::Idle => self.wait.set(BodyWait::Since(now)),
            BodyWait::Since(_) | BodyWait::Disarmed => {}
        }
        self.watch_body(cx);
        false
    }

    /// Makes an abort wake this task.
    pub(in crate::net) fn watch_body(&self, cx: &Context<'_>) {
        set_waker(&self.body_task, cx);
    }

    /// Bytes came, if not enough for the service yet.
    pub(super) fn received(&self, now: Instant) {
        if let BodyWait::Since(_) = self.wait.get() {
            self.wait.set(BodyWait::Since(now));
        }
    }

    pub(in crate::net) fn end_wait(&self) {
        if let BodyWait::Since(_) = self.wait.get() {
            self.wait.set(BodyWait::Idle);
        }
    }

    pub(super) fn disarm_body_timeout(&self) {
        if !matches!(self.wait.get(), BodyWait::Expired) {
            self.wait.set(BodyWait::Disarmed);
        }
    }

    /// Since when the service has waited for the body.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        if let BodyWait::Since(since) = self.wait.get() { Some(since) } else { None }
    }

    pub(super) fn expire_body(&self) {
        self.wait.set(BodyWait::Expired);
        self.wake_body();
    }

    fn wake_body(&self) {
        let waker = self.body_task.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(in crate::net) fn answer(&self) -> AnswerState {
        self.answer.get()
    }

    pub(in crate::net) fn end_answer(&self) {
        self.answer.set(AnswerState::Ended);
    }

    /// The kernel has everything that hyper wrote.
    pub(super) fn flushed(&self) {
        if self.answer.get() == AnswerState::Ended {
            self.answer.set(AnswerState::Flushed);
        }
    }

    /// Whether the answer is sent and the request was read to its end.
    pub(super) fn is_over(&self) -> bool {
        self.answer.get() == AnswerState::Flushed && self.body.get() == BodyState::Read
    }
}
