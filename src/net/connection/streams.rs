//! What HTTP/2 adds to a [`Connection`]: the streams of the connection that carries them, and the state of
//! each stream. To services, a stream is a connection of its own that is aborted alone.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use http_body::Body as _;
use hyper::body::Incoming;
use tokio::task::AbortHandle;

use super::{CloseReason, Connection, ConnectionCommand, Phase};
use crate::net::{Limits, RequestError, Worker};

/// The HTTP/2 part of a connection that carries streams.
pub struct Streams {
    open: RefCell<Vec<Rc<Connection>>>,
    /// Since when a field section has been incomplete.
    head: Cell<Option<Instant>>,
    pub(in crate::net) last_read: Cell<Instant>,
    /// Since when a stream's reset may have waited to be written.
    reset: Cell<Option<Instant>>,
    /// Streams that the client cancelled while they were served. Each costs as much as a request, but no
    /// longer counts as an open stream.
    cancelled: RateLimit,
    /// Control frames that are not offset by useful frames.
    pub(in crate::net) control_frames: RateLimit,
}

/// A rate limit: a burst of 1000, and 33 per second in the long run, as in nghttp2. Stores when the count
/// returns to zero.
pub struct RateLimit(Cell<Instant>);

/// The HTTP/2 part of a stream.
pub struct Stream {
    connection: Rc<Connection>,
    tasks: RefCell<Vec<AbortHandle>>,
    /// The unread rest of a request's body, and how many bytes of it were discarded.
    pub(in crate::net) leftover: RefCell<Option<Incoming>>,
    discarded: Cell<usize>,
}

/// A stream's entry in its connection's list, with its unit of the stream budget. Dropping it removes the
/// stream.
pub struct OpenStream {
    pub(in crate::net) stream: Rc<Connection>,
    /// `None`: the budget was used up.
    pub(in crate::net) admitted: Option<Rc<Worker>>,
}

/// Bytes of an unread body that are discarded, as after a last response in HTTP/1.1.
const MAX_DISCARDED: usize = 4 << 20;

/// How long a stream's reset may wait to be written before the connection is closed.
const RESET_TIMEOUT: Duration = Duration::from_secs(1);

/// How many control frames a useful frame offsets. A client answers each piece of a response with two
/// WINDOW_UPDATE frames, and a request may come with a few priorities and pings. Useful frames do not reset
/// the count: otherwise a byte of a body now and then would allow any number.
const CREDIT_PER_USEFUL_FRAME: u32 = 25;

const INTERVAL: Duration = Duration::from_millis(30);
const BURST: Duration = INTERVAL.saturating_mul(1000);

impl RateLimit {
    /// Counts one. Returns false if the limit is exceeded.
    pub(in crate::net) fn count(&self, now: Instant) -> bool {
        let forgotten = self.0.get().max(now) + INTERVAL;
        self.0.set(forgotten);
        forgotten.saturating_duration_since(now) <= BURST
    }

    /// Takes this many off the count.
    fn credit(&self, count: u32, now: Instant) {
        let forgotten = self.0.get().checked_sub(INTERVAL * count).unwrap_or(now);
        self.0.set(forgotten.max(now));
    }
}

impl Streams {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            open: RefCell::default(),
            head: Cell::new(None),
            last_read: Cell::new(now),
            reset: Cell::new(None),
            cancelled: RateLimit(Cell::new(now)),
            control_frames: RateLimit(Cell::new(now)),
        }
    }

    pub(in crate::net) fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }

    /// Records whether a field section is incomplete.
    pub(in crate::net) fn set_head(&self, open: bool, now: Instant) {
        self.head.set(open.then(|| self.head.get().unwrap_or(now)));
    }

    /// Records that the kernel has everything that h2 wrote.
    pub(in crate::net) fn flushed(&self) {
        self.reset.set(None);
    }

    pub(in crate::net) fn count_useful_frame(&self, now: Instant) {
        self.control_frames.credit(CREDIT_PER_USEFUL_FRAME, now);
    }

    /// Aborts every stream, because none may outlive its connection.
    pub(in crate::net) fn abort_all(&self) {
        let open = self.open.borrow().clone();
        open.iter().for_each(|stream| stream.abort());
    }

    /// Applies the deadlines of HTTP/2. Called by the ticker.
    pub(super) fn check(&self, connection: &Connection, now: Instant, limits: &Limits, crowded: bool) {
        let past = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        if self.reset.get().is_some_and(|since| past(since, RESET_TIMEOUT)) {
            return connection.close_for(CloseReason::ResetBlocked);
        }
        if self.head.get().is_some_and(|since| past(since, limits.head_timeout)) {
            self.head.set(None);
            return connection.command(ConnectionCommand::Reject(RequestError::HeadTimeout));
        }
        if !self.is_empty() && past(self.last_read.get(), 2 * limits.ping) {
            return connection.close_for(CloseReason::PingTimeout);
        }
        // While the socket is blocked, only the connection's write timeout applies: the streams wait for each
        // other.
        let blocked = connection.write_stalled.get().is_some();
        for stream in self.open.borrow().iter() {
            if blocked {
                stream.restart_write_timeout(now);
            }
            stream.check(now, limits, false, crowded);
        }
    }

    /// Estimates the bytes of responses that wait for the client.
    pub(super) fn held(&self) -> usize {
        self.open.borrow().iter().map(|stream| stream.held()).sum()
    }

    /// Returns the number of open streams.
    pub(in crate::net) fn count(&self) -> usize {
        self.open.borrow().len()
    }
}

impl Stream {
    pub(super) fn new(connection: Rc<Connection>) -> Self {
        Self { connection, tasks: RefCell::default(), leftover: RefCell::default(), discarded: Cell::new(0) }
    }

    pub(in crate::net) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Records that the stream sends bytes of its response, which offset control frames.
    pub(in crate::net) fn count_useful_frame(&self) {
        if let Some(streams) = self.connection.streams() {
            streams.count_useful_frame(self.connection.clock.now());
        }
    }

    /// Adds a task that runs for this stream and is aborted with it.
    pub(in crate::net) fn add_task(&self, task: AbortHandle) {
        if self.connection.aborted() {
            task.abort();
        }
        self.tasks.borrow_mut().push(task);
    }

    /// Makes h2 reset the stream, by aborting the tasks that hold it.
    pub(super) fn abort(&self, now: Instant) {
        self.tasks.take().iter().for_each(AbortHandle::abort);
        drop(self.leftover.take());
        if let Some(streams) = self.connection.streams()
            && streams.reset.get().is_none()
        {
            streams.reset.set(Some(now));
            // The next flush shows whether the reset was written.
            self.connection.wake();
        }
    }

    /// Discards the rest of a body that the service does not read, so that the client's window reopens. Ready
    /// at the end of the body, or after so much that the client must be stopped.
    pub(in crate::net) fn poll_leftover(&self, cx: &mut Context<'_>) -> Poll<()> {
        let leftover = &mut *self.leftover.borrow_mut();
        let Some(body) = leftover else { return Poll::Ready(()) };
        while self.discarded.get() < MAX_DISCARDED
            && let Some(Ok(frame)) = ready!(Pin::new(&mut *body).poll_frame(cx))
        {
            self.discarded.set(self.discarded.get() + frame.data_ref().map_or(0, bytes::Bytes::len));
        }
        *leftover = None;
        Poll::Ready(())
    }
}

impl OpenStream {
    pub(in crate::net) fn new(connection: &Rc<Connection>, worker: &Rc<Worker>) -> Self {
        let stream = Rc::new(Connection::of_stream(connection));
        let mut admitted = None;
        if let Some(streams) = connection.streams() {
            admitted = worker.streams.take(streams.count()).then(|| worker.clone());
            streams.open.borrow_mut().push(stream.clone());
            streams.count_useful_frame(connection.clock.now());
        }
        connection.enter(Phase::Serving);
        Self { stream, admitted }
    }

    /// Counts a stream that the client reset before its response was complete. Too many close the connection.
    pub(in crate::net) fn cancelled(&self) {
        let Some(stream) = self.stream.stream() else { return };
        let now = self.stream.clock.now();
        if stream.connection.streams().is_some_and(|streams| !streams.cancelled.count(now)) {
            let error = RequestError::BadRequest("too many streams were reset");
            stream.connection.command(ConnectionCommand::Reject(error));
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if let Some(worker) = &self.admitted {
            worker.streams.give_back();
        }
        let Some(stream) = self.stream.stream() else { return };
        // A service that still holds the connection must not keep h2's stream open.
        drop((self.stream.exchange.take_upgrade(), stream.tasks.take(), stream.leftover.take()));
        if let Some(streams) = stream.connection.streams() {
            let mut open = streams.open.borrow_mut();
            if let Some(at) = open.iter().position(|open| Rc::ptr_eq(open, &self.stream)) {
                open.swap_remove(at);
            }
            if open.is_empty() && stream.connection.phase() == Phase::Serving {
                stream.connection.enter(Phase::Idle);
            }
        }
        stream.connection.wake();
    }
}
