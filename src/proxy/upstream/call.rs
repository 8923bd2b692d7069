//! One request on one connection: how long the upstream may be silent, and the handle that ends the
//! request at once.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;

use crate::net::{Clock, Deadline};

/// Shared by the request, its body and the socket. On HTTP/1 there is one per connection, which serves
/// one request after the other; on HTTP/2 one per stream, and one for the connection as a whole.
pub struct Call {
    ended: Cell<Option<Ended>>,
    deadline: Deadline,
    /// Something is awaited now, and the deadline runs.
    armed: Cell<bool>,
    /// How long the upstream may be silent before its response; `None` once that has begun.
    silence: Cell<Option<Duration>>,
    /// Bytes that were read from the socket for this call.
    received: Cell<u64>,
    reader: RefCell<Option<Waker>>,
    /// Since when the socket accepts no bytes; `None`: it does.
    blocked_since: Cell<Option<Instant>>,
    /// hyper's tasks for this call, which end with it.
    tasks: RefCell<Vec<AbortHandle>>,
}

/// Why the gateway itself ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The fence has cut the request: no byte is read or written from now on.
    Cancelled,
    /// The upstream was silent for too long.
    TimedOut,
    /// Nobody waits for the rest.
    Dropped,
}

impl Call {
    pub fn new(clock: &Clock) -> Rc<Self> {
        Rc::new(Self {
            ended: Cell::new(None),
            deadline: clock.deadline(),
            armed: Cell::new(false),
            silence: Cell::new(None),
            received: Cell::new(0),
            reader: RefCell::default(),
            blocked_since: Cell::new(None),
            tasks: RefCell::default(),
        })
    }

    /// A request is about to be sent.
    pub fn begin(&self, silence: Duration) {
        self.received.set(0);
        self.await_answer(silence);
    }

    /// Restarts the time within which the response has to begin.
    pub fn await_answer(&self, silence: Duration) {
        self.silence.set(Some(silence));
        self.arm(silence);
    }

    /// The upstream has read more of the request, or sent an interim response: restarts the time within
    /// which the response has to begin.
    pub fn progressed(&self) {
        if let Some(silence) = self.silence.get() {
            self.arm(silence);
        }
    }

    /// The response has begun.
    pub fn answered(&self) {
        self.silence.set(None);
        self.disarm();
    }

    pub fn is_answered(&self) -> bool {
        self.silence.get().is_none()
    }

    /// More of the response is awaited; the time for it runs from the first call.
    pub fn await_body(&self, idle: Duration) {
        if !self.armed.get() {
            self.arm(idle);
        }
    }

    pub fn disarm(&self) {
        if self.armed.replace(false) {
            self.deadline.disarm();
        }
    }

    fn arm(&self, after: Duration) {
        self.armed.set(true);
        self.deadline.arm(after);
    }

    /// Ready when the upstream was silent for too long; the call has ended then.
    pub fn poll_overdue(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.poll_expired(cx).map(|()| self.end(Ended::TimedOut))
    }

    /// Waits for the response. `None`: the upstream was silent for too long, and the call has ended.
    pub async fn answer<T>(&self, mut sent: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        poll_fn(|cx| match sent.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => self.poll_overdue(cx).map(|()| None),
        })
        .await
    }

    /// Takes effect synchronously: from now on no byte is read from or written to an HTTP/1 connection,
    /// and no piece of a body goes into an HTTP/2 stream.
    pub fn end(&self, ended: Ended) {
        if self.ended.get().is_none() {
            self.ended.set(Some(ended));
        }
        for task in self.tasks.take() {
            task.abort();
        }
    }

    pub fn ended(&self) -> Option<Ended> {
        self.ended.get()
    }

    /// Call it before reading or writing. An error: the call has ended.
    pub fn check(&self) -> io::Result<()> {
        if self.ended().is_some() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Adds a task that is aborted when the call ends.
    pub fn add_task(&self, task: AbortHandle) {
        if self.ended.get().is_some() {
            task.abort();
        } else {
            self.tasks.borrow_mut().push(task);
        }
    }

    /// Whether all tasks of the call are over.
    pub fn is_done(&self) -> bool {
        self.tasks.borrow().iter().all(AbortHandle::is_finished)
    }

    /// Call it after each write: whether the socket accepted no byte.
    pub fn set_blocked(&self, blocked: bool) {
        if blocked != self.blocked_since.get().is_some() {
            self.blocked_since.set(blocked.then(Instant::now));
        }
    }

    /// For how long the socket has accepted no bytes; zero if it does.
    pub fn blocked_for(&self) -> Duration {
        self.blocked_since.get().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Counts bytes that were read from the socket.
    pub fn count_received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    pub fn has_received(&self) -> bool {
        self.received.get() > 0
    }

    /// Wakes this task when something was read from the socket.
    pub fn wake_on_read(&self, cx: &Context<'_>) {
        *self.reader.borrow_mut() = Some(cx.waker().clone());
    }
}

/// Cuts a request, whether it waits in a queue, for a connection, or for a response.
#[derive(Default)]
pub struct CancelHandle {
    cancelled: Cell<bool>,
    call: RefCell<Option<Rc<Call>>>,
}

impl CancelHandle {
    /// Takes effect synchronously: from now on no byte is read from the upstream or written to it.
    pub fn cancel(&self) {
        self.cancelled.set(true);
        if let Some(call) = self.call.take() {
            call.end(Ended::Cancelled);
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }

    /// The request uses this call from now on. If it was cut while it waited, the call ends.
    pub(super) fn attach(&self, call: &Rc<Call>) {
        if self.is_cancelled() {
            call.end(Ended::Cancelled);
        }
        *self.call.borrow_mut() = Some(Rc::clone(call));
    }

    /// The connection no longer belongs to this request.
    pub(super) fn detach(&self) {
        self.call.take();
    }
}
