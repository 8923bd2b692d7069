//! The phase of a connection, and the state of its current request and response.

use std::{
    cell::{Cell, RefCell},
    task::{Context, Waker},
    time::Instant,
};

use tokio::sync::oneshot;

use super::set_waker;
use crate::net::{RequestError, Upgraded, body::SharedIncoming};

/// The phase of a connection, which decides the deadline that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Handshake,
    /// No byte has arrived yet.
    Fresh,
    /// Between requests; over HTTP/2, without an open stream.
    Idle,
    /// Bytes of a head have arrived.
    Head,
    /// A request or its response is in progress.
    Serving,
    /// A 101 response is being sent.
    Switching,
    /// The connection no longer carries HTTP.
    Tunnel,
    /// The last response is sent; what the client still sends is discarded.
    Closing,
}

/// A command to a connection's task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionCommand {
    /// Reset the connection.
    Abort,
    /// Close; no response is pending.
    Close,
    /// Close at once, because another connection needs the slot. No response is pending.
    MakeRoom,
    /// Respond with this error, then close.
    Reject(RequestError),
}

/// Why this process aborted a connection, where no caller of `abort` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The drain's deadline has passed.
    Drained,
    /// The client took no bytes of a response for `write_timeout`, or too few while memory is short.
    WriteTimeout,
    /// A budget of the process was used up, and this connection had the most of it or was closed to make
    /// room.
    OverBudget,
    /// An HTTP/2 client with open streams did not answer a ping.
    PingTimeout,
    /// A stream's reset could not be written, so the whole connection was closed.
    ResetBlocked,
}

/// The state of the current request and its response.
#[derive(Default)]
pub struct ExchangeState {
    body: Cell<BodyState>,
    wait: Cell<BodyWait>,
    /// The task that waits for the body or relays the tunnel.
    body_task: RefCell<Option<Waker>>,
    /// The request's body, so that an abort can drop it.
    incoming: RefCell<Option<SharedIncoming>>,
    response: Cell<ResponseState>,
    upgrade: RefCell<Option<oneshot::Sender<Upgraded>>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum BodyState {
    /// The body was read to its end, or there is none.
    #[default]
    Read,
    /// The service holds it.
    Open,
    /// The service dropped it before its end.
    Abandoned,
}

/// The timeout of a request's body.
#[derive(Clone, Copy, Default)]
enum BodyWait {
    #[default]
    Idle,
    /// The service has waited since then, and nothing has arrived.
    Since(Instant),
    Expired,
    Disarmed,
}

/// The progress of the current response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResponseState {
    #[default]
    Open,
    /// hyper has all of it.
    Ended,
    /// The kernel has all of it.
    Flushed,
}

impl ExchangeState {
    pub(super) fn begin(&self, incoming: Option<SharedIncoming>) {
        self.body.set(if incoming.is_some() { BodyState::Open } else { BodyState::Read });
        self.wait.set(BodyWait::Idle);
        self.incoming.replace(incoming);
        self.response.set(ResponseState::Open);
        self.upgrade.take();
    }

    /// Drops everything that keeps the exchange alive, and wakes the task that waits for it.
    pub(super) fn abort(&self) {
        // h2 sends a reset only when the last handle to the stream's body is dropped.
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

    /// Whether the request has not been read to its end.
    pub(in crate::net) fn is_unread(&self) -> bool {
        self.body.get() != BodyState::Read
    }

    /// Whether the service still holds the request's body, and has not read it to its end.
    pub(in crate::net) fn holds_body(&self) -> bool {
        self.body.get() == BodyState::Open
    }

    /// Whether the request will never be read to its end, so that the connection cannot be used again.
    pub(in crate::net) fn is_abandoned(&self) -> bool {
        self.body.get() == BodyState::Abandoned
    }

    /// Records that the service has released the body. `whole`: it was read to its end.
    pub(super) fn close_body(&self, whole: bool) {
        if self.body.get() == BodyState::Open {
            self.body.set(if whole { BodyState::Read } else { BodyState::Abandoned });
            drop(self.incoming.take());
        }
        self.end_wait();
    }

    /// Records that the service waits for more of the body. Returns true if it has waited too long.
    pub(in crate::net) fn await_body(&self, cx: &Context<'_>, now: Instant) -> bool {
        match self.wait.get() {
            BodyWait::Expired => return true,
            BodyWait::Idle => self.wait.set(BodyWait::Since(now)),
            BodyWait::Since(_) | BodyWait::Disarmed => {}
        }
        self.watch_body(cx);
        false
    }

    /// Registers this task to be woken by an abort.
    pub(in crate::net) fn watch_body(&self, cx: &Context<'_>) {
        set_waker(&self.body_task, cx);
    }

    /// Restarts the body's timeout: bytes have arrived, even if not yet enough for the service.
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
    pub(super) fn waiting_since(&self) -> Option<Instant> {
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

    pub(in crate::net) fn response_state(&self) -> ResponseState {
        self.response.get()
    }

    pub(in crate::net) fn end_response(&self) {
        self.response.set(ResponseState::Ended);
    }

    /// Records that the kernel has everything that hyper wrote.
    pub(super) fn flushed(&self) {
        if self.response.get() == ResponseState::Ended {
            self.response.set(ResponseState::Flushed);
        }
    }

    /// Whether the response is sent and the request was read to its end.
    pub(super) fn is_over(&self) -> bool {
        self.response.get() == ResponseState::Flushed && self.body.get() == BodyState::Read
    }
}
