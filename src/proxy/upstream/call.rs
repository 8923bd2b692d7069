//! One request on one connection: its timeouts, which are longer for messages that may pause on purpose, and
//! the handle that ends it immediately.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Request, header};
use http_body::Body as _;
use tokio::task::AbortHandle;

use crate::{
    net::{Clock, Deadline},
    proxy::upstream::OutgoingBody,
    settings::UpstreamSettings,
};

/// Shared by the request, its body and the socket. HTTP/1 has one per connection, which serves one request
/// after the other. HTTP/2 has one per stream and one for the whole connection.
pub struct Call {
    ended: Cell<Option<Ended>>,
    deadline: Deadline,
    /// The deadline is running.
    armed: Cell<bool>,
    /// How long the upstream may be silent before its response; `None` once that has begun.
    silence: Cell<Option<Duration>>,
    /// The upstream waits for more of the request, which the client has not sent yet.
    paused: Cell<bool>,
    /// Bytes read from the socket for this call.
    received: Cell<u64>,
    reader: RefCell<Option<Waker>>,
    /// Since when writes to the socket have blocked; `None` if they do not.
    blocked_since: Cell<Option<Instant>>,
    /// hyper's tasks for this call, which are aborted when it ends.
    tasks: RefCell<Vec<AbortHandle>>,
}

/// Why the gateway ended a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The fence has cut the request. No byte is read or written any more.
    Cancelled,
    /// The upstream was silent for too long.
    TimedOut,
    /// The rest of the response is not needed.
    Dropped,
}

impl Call {
    pub fn new(clock: &Clock) -> Rc<Self> {
        Rc::new(Self {
            ended: Cell::new(None),
            deadline: clock.deadline(),
            armed: Cell::new(false),
            silence: Cell::new(None),
            paused: Cell::new(false),
            received: Cell::new(0),
            reader: RefCell::default(),
            blocked_since: Cell::new(None),
            tasks: RefCell::default(),
        })
    }

    /// Starts a request.
    pub fn begin(&self, silence: Duration) {
        self.received.set(0);
        self.await_response(silence);
    }

    /// Restarts the timeout for the start of the response.
    pub fn await_response(&self, silence: Duration) {
        self.silence.set(Some(silence));
        self.paused.set(false);
        self.arm(silence);
    }

    /// The upstream has sent an interim response: restarts the timeout for the start of the response.
    pub fn progressed(&self) {
        if let Some(silence) = self.silence.get().filter(|_| !self.paused.get()) {
            self.arm(silence);
        }
    }

    /// The client has not sent more of the request: the upstream owes nothing until it has.
    pub fn pause(&self) {
        if !self.has_response() && !self.paused.replace(true) {
            self.disarm();
        }
    }

    /// The upstream gets more of the request: restarts the timeout for the start of the response.
    pub fn resume(&self) {
        self.paused.set(false);
        self.progressed();
    }

    /// The response has begun.
    pub fn response_began(&self) {
        self.silence.set(None);
        self.disarm();
    }

    pub fn has_response(&self) -> bool {
        self.silence.get().is_none()
    }

    /// Waits for more of the response. The timeout runs from the first call.
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

    /// Ready when the timeout has expired; the call has then ended.
    pub fn poll_timeout(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.poll_expired(cx).map(|()| self.end(Ended::TimedOut))
    }

    /// Waits for the response. `None`: the timeout has expired, and the call has ended.
    pub async fn response<T>(&self, mut sent: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        poll_fn(|cx| match sent.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending => self.poll_timeout(cx).map(|()| None),
        })
        .await
    }

    /// Ends the call synchronously: no more bytes are read from or written to an HTTP/1 connection, and no
    /// more of a body goes into an HTTP/2 stream.
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

    /// Must be called before each read and write. An error means that the call has ended.
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

    /// Whether all tasks of the call have finished.
    pub fn is_done(&self) -> bool {
        self.tasks.borrow().iter().all(AbortHandle::is_finished)
    }

    /// Must be called after each write. `blocked`: whether it was pending.
    pub fn set_blocked(&self, blocked: bool) {
        if blocked != self.blocked_since.get().is_some() {
            self.blocked_since.set(blocked.then(Instant::now));
        }
    }

    /// For how long writes have blocked; zero if they do not.
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

    /// Wakes this task at the next read from the socket.
    pub fn wake_on_read(&self, cx: &Context<'_>) {
        *self.reader.borrow_mut() = Some(cx.waker().clone());
    }
}

/// Cuts a request, whether it is waiting in a queue, for a connection, or for a response.
#[derive(Default)]
pub struct CancelHandle {
    cancelled: Cell<bool>,
    call: RefCell<Option<Rc<Call>>>,
}

impl CancelHandle {
    /// Cancels synchronously: no more bytes are read from the upstream or written to it.
    pub fn cancel(&self) {
        self.cancelled.set(true);
        if let Some(call) = self.call.take() {
            call.end(Ended::Cancelled);
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }

    /// Attaches the call that the request uses now. If the request is already cancelled, the call ends.
    pub(super) fn attach(&self, call: &Rc<Call>) {
        if self.is_cancelled() {
            call.end(Ended::Cancelled);
        }
        *self.call.borrow_mut() = Some(Rc::clone(call));
    }

    /// Detaches the call, because the connection no longer belongs to this request.
    pub(super) fn detach(&self) {
        self.call.take();
    }
}

/// Returns how long the upstream may be silent before its response and within it. A gRPC client may keep a
/// call open and be silent for a long time, and so may the upstream.
pub fn silence_timeouts(
    settings: &UpstreamSettings,
    request: &Request<OutgoingBody>,
) -> (Duration, Duration) {
    let UpstreamSettings { first_byte_timeout, body_timeout, stream_idle_timeout, .. } = *settings;
    if is_stream(request.headers()) {
        let open = !request.body().is_end_stream();
        let silence = if open { first_byte_timeout.max(stream_idle_timeout) } else { first_byte_timeout };
        return (silence, stream_idle_timeout);
    }
    let watches = request.uri().query().is_some_and(|query| {
        let is_on = |value: &str| !matches!(value, "" | "false" | "0");
        query.split('&').filter_map(|pair| pair.split_once('=')).any(|(name, value)| {
            // Kubernetes' watches and `kubectl logs --follow`, and Docker's logs.
            matches!(name, "watch" | "follow") && is_on(value)
        })
    });
    (first_byte_timeout, if watches { stream_idle_timeout } else { body_timeout })
}

/// Whether a message's media type is one whose body may pause for a long time.
pub fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let starts = |known: &[u8]| {
        kind.split_at_checked(known.len()).is_some_and(|(start, rest)| {
            start.eq_ignore_ascii_case(known)
                && rest.first().is_none_or(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-')
        })
    };
    // `application/connect` is followed by `+proto` or `+json`: the streams of the Connect protocol.
    [&b"text/event-stream"[..], b"application/grpc", b"application/grpc-web", b"application/connect"]
        .into_iter()
        .any(starts)
}
