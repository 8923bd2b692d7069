//! One request on one connection: until when the upstream may be silent, and the switch that ends
//! the request at once.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;

use crate::net::{Clock, Deadline};

/// Shared by whoever waits for the answer, the body on its way up, and the socket. On HTTP/1 there
/// is one for each connection, which serves one request after the other; on HTTP/2 one for each
/// stream.
pub struct Call {
    ended: Cell<Option<Ended>>,
    deadline: Deadline,
    /// The deadline is about something that is awaited now.
    armed: Cell<bool>,
    /// How long the upstream may be silent before its answer; `None` once that has begun.
    silence: Cell<Option<Duration>>,
    /// Bytes read from the socket for this call.
    received: Cell<u64>,
    reader: RefCell<Option<Waker>>,
    /// Since when the socket has taken nothing of what is to be written.
    blocked_since: Cell<Option<Instant>>,
    /// Tasks of hyper's that carry the call: they end with it.
    tasks: RefCell<Vec<AbortHandle>>,
}

/// Why the gateway itself ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The fence has cut it: no byte is read and none is written from now on.
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

    /// Starts anew the time within which the answer has to begin.
    pub fn await_answer(&self, silence: Duration) {
        self.silence.set(Some(silence));
        self.arm(silence);
    }

    /// The upstream still takes the request, or says that it works on it: while the answer has not
    /// begun, its time starts anew.
    pub fn progressed(&self) {
        if let Some(silence) = self.silence.get() {
            self.arm(silence);
        }
    }

    /// The answer has begun.
    pub fn answered(&self) {
        self.silence.set(None);
        self.disarm();
    }

    pub fn is_answered(&self) -> bool {
        self.silence.get().is_none()
    }

    /// More of the answer is awaited; the time for it runs from the first time this is said.
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

    /// What a request comes to. `None`: the upstream was silent for too long, and the call has ended.
    pub async fn answer<T>(&self, sent: impl Future<Output = T>) -> Option<T> {
        let mut sent = pin!(sent);
        poll_fn(|cx| match sent.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => self.poll_overdue(cx).map(|()| None),
        })
        .await
    }

    /// Synchronous: from now on the socket of an HTTP/1 connection takes and gives no byte, and no
    /// piece of a body goes into an HTTP/2 stream.
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

    /// For whoever reads or writes: an error once the call has ended.
    pub fn check(&self) -> io::Result<()> {
        if self.ended().is_some() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// What is aborted when the call ends.
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

    /// Whether the socket takes what is written to it.
    pub fn set_blocked(&self, blocked: bool) {
        if blocked != self.blocked_since.get().is_some() {
            self.blocked_since.set(blocked.then(Instant::now));
        }
    }

    /// For how long the socket has taken nothing; zero if it does.
    pub fn blocked_for(&self) -> Duration {
        self.blocked_since.get().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The socket has given so many bytes.
    pub fn count_received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    pub fn has_received(&self) -> bool {
        self.received.get() > 0
    }

    /// Wakes this task when the socket has given something.
    pub fn wake_on_read(&self, cx: &Context<'_>) {
        *self.reader.borrow_mut() = Some(cx.waker().clone());
    }
}

/// By this a request is cut, whatever it is on: a queue, a connection in the making, a call.
#[derive(Default)]
pub struct CancelHandle {
    cancelled: Cell<bool>,
    call: RefCell<Option<Rc<Call>>>,
}

impl CancelHandle {
    /// Synchronous: from now on no byte is read from the upstream and none is written to it.
    pub fn cancel(&self) {
        self.cancelled.set(true);
        if let Some(call) = self.call.take() {
            call.end(Ended::Cancelled);
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }

    /// The request is on this call from now on. One that was cut while it waited gets nowhere.
    pub(super) fn attach(&self, call: &Rc<Call>) {
        if self.is_cancelled() {
            call.end(Ended::Cancelled);
        }
        *self.call.borrow_mut() = Some(Rc::clone(call));
    }

    /// The connection is no longer this request's.
    pub(super) fn detach(&self) {
        self.call.take();
    }
}
