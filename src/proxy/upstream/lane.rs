//! One connection to an upstream (or one stream of a shared one) as the worker sees it: what was heard
//! on it during the present exchange, until when it may keep silent, and the switch that ends it at once.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::task::AbortHandle;

use crate::{
    net::{Clock, Deadline},
    proxy::upstream::pump::Outflow,
};

/// Shared by the wire, the exchange that uses the connection and the sweep of deadlines.
pub struct Lane {
    end: Cell<Option<End>>,
    deadline: Deadline,
    waiting: Cell<Waiting>,
    heard: Cell<u64>,
    peer_closed: Cell<bool>,
    branch: RefCell<Branch>,
}

/// Of a shared connection: what belongs to this exchange alone.
#[derive(Default)]
struct Branch {
    outflow: Option<Outflow>,
    /// Sends the rest of the request while the answer comes already.
    pump: Option<AbortHandle>,
}

/// What the running deadline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Nothing,
    Answer,
}

/// Why the gateway itself ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The fence: from now on no byte is taken and none is sent.
    Cut,
    /// The upstream kept silent for too long.
    TimedOut,
    /// Nobody needs it any more.
    Dropped,
}

impl Lane {
    pub fn new(clock: &Clock) -> Rc<Self> {
        Rc::new(Self {
            end: Cell::new(None),
            deadline: clock.deadline(),
            waiting: Cell::new(Waiting::Nothing),
            heard: Cell::new(0),
            peer_closed: Cell::new(false),
            branch: RefCell::default(),
        })
    }

    /// A request is about to be sent.
    pub fn begin(&self, silence: Duration) {
        self.heard.set(0);
        self.expect_within(silence);
    }

    /// The stream that ending the lane resets.
    pub(super) fn reset_with(&self, outflow: Outflow) {
        self.branch.borrow_mut().outflow = Some(outflow);
    }

    /// The task that ending the lane aborts.
    pub(super) fn pump_with(&self, pump: AbortHandle) {
        self.branch.borrow_mut().pump = Some(pump);
    }

    /// Whether nothing of the request is left to be sent.
    pub(super) fn is_pumped(&self) -> bool {
        self.branch.borrow().pump.as_ref().is_none_or(AbortHandle::is_finished)
    }

    /// Starts (or starts anew) the time within which the upstream must be heard.
    pub fn expect_within(&self, silence: Duration) {
        self.waiting.set(Waiting::Answer);
        self.deadline.arm(silence);
    }

    /// Starts the time anew, if it runs: the upstream still takes what it is sent.
    pub fn extend(&self, silence: Duration) {
        if self.waiting.get() == Waiting::Answer {
            self.expect_within(silence);
        }
    }

    /// As [`Lane::expect_within`], unless that time runs already.
    pub fn expect_if_quiet(&self, silence: Duration) {
        if self.waiting.get() == Waiting::Nothing {
            self.expect_within(silence);
        }
    }

    /// Something came.
    pub fn expect_nothing(&self) {
        if self.waiting.replace(Waiting::Nothing) != Waiting::Nothing {
            self.deadline.disarm();
        }
    }

    /// Asked by the task that waits for bytes.
    pub(super) fn poll_overdue(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.poll_expired(cx).map(|()| self.finish(End::TimedOut))
    }

    /// Synchronous: when this returns, no byte is taken from the upstream and none is sent to it.
    pub fn finish(&self, end: End) {
        if self.end.get().is_none() {
            self.end.set(Some(end));
        }
        let Branch { outflow, pump } = self.branch.take();
        if let Some(pump) = pump {
            pump.abort();
        }
        if let Some(outflow) = outflow {
            outflow.borrow_mut().send_reset(h2::Reason::CANCEL);
        }
    }

    pub fn end(&self) -> Option<End> {
        self.end.get()
    }

    /// Whether not one byte of an answer came and the other side has closed: what a keep-alive
    /// connection looks like that the upstream gave up while the request was under way.
    pub fn closed_unanswered(&self) -> bool {
        self.heard.get() == 0 && self.peer_closed.get()
    }

    /// So many bytes came; none: the upstream has closed its side.
    pub(super) fn hear(&self, bytes: usize) {
        if bytes == 0 {
            self.peer_closed.set(true);
        } else {
            self.heard.set(self.heard.get() + bytes as u64);
        }
    }

    pub(super) fn lose(&self) {
        self.peer_closed.set(true);
    }
}
