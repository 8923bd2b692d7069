//! What HTTP/2 adds to a [`Connection`]: the one that carries streams, and each stream, which
//! services see as a connection of its own that is aborted alone.

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
use crate::net::{Limits, RequestError};

/// Of a connection that carries streams.
pub struct Streams {
    open: RefCell<Vec<Rc<Connection>>>,
    /// A field section has begun and not ended, since when.
    head: Cell<Option<Instant>>,
    heard: Cell<Instant>,
    /// A stream's reset may not be on the wire yet, since when.
    reset: Cell<Option<Instant>>,
    /// Streams that the client cancelled while they were served: each costs as much as a request and
    /// counts for none of the streams that are open.
    cancelled: Pace,
    /// Frames that carry nothing, since the last one that did.
    control_frames: Pace,
}

/// Counts what a client may do a thousand times at once, and 33 times a second in the long run, as with
/// nghttp2: when all of it is forgotten.
struct Pace(Cell<Instant>);

/// Of a stream.
pub struct Stream {
    connection: Rc<Connection>,
    tasks: RefCell<Vec<AbortHandle>>,
    /// What the client still sends of a request that nobody reads, and how much of it was thrown away.
    leftover: RefCell<Option<Incoming>>,
    wasted: Cell<usize>,
}

/// A stream's entry in its connection's list; dropping it leaves.
pub struct OpenStream(Rc<Connection>);

/// So much of a body that nobody reads is taken, as behind a last answer in HTTP/1.1.
const MOST_WASTED: usize = 4 << 20;

/// How long the reset of a stream may take to get on the wire before the connection is closed.
const RESET: Duration = Duration::from_secs(1);

const PACE: Duration = Duration::from_millis(30);
const BURST: Duration = PACE.saturating_mul(1000);

impl Pace {
    /// False: too often, too fast.
    fn count(&self, now: Instant) -> bool {
        let forgotten = self.0.get().max(now) + PACE;
        self.0.set(forgotten);
        forgotten.saturating_duration_since(now) <= BURST
    }
}

impl Streams {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            open: RefCell::default(),
            head: Cell::new(None),
            heard: Cell::new(now),
            reset: Cell::new(None),
            cancelled: Pace(Cell::new(now)),
            control_frames: Pace(Cell::new(now)),
        }
    }

    pub(in crate::net) fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }

    pub(in crate::net) fn hear(&self, now: Instant) {
        self.heard.set(now);
    }

    /// Whether a field section is under way.
    pub(in crate::net) fn set_head(&self, open: bool, now: Instant) {
        self.head.set(open.then(|| self.head.get().unwrap_or(now)));
    }

    /// Everything that h2 had to write is with the kernel.
    pub(in crate::net) fn flushed(&self) {
        self.reset.set(None);
    }

    /// False: too many control frames without anything useful between them.
    pub(in crate::net) fn count_control_frame(&self, now: Instant) -> bool {
        self.control_frames.count(now)
    }

    pub(in crate::net) fn was_useful(&self, now: Instant) {
        self.control_frames.0.set(now);
    }

    /// Nothing of a stream outlives its connection.
    pub(in crate::net) fn abort_all(&self) {
        let open = self.open.borrow().clone();
        open.iter().for_each(|stream| stream.abort());
    }

    /// The ticker's look at what only such a connection has.
    pub(super) fn check(&self, connection: &Connection, now: Instant, limits: &Limits) {
        let past = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        if self.reset.get().is_some_and(|since| past(since, RESET)) {
            return connection.close_for(CloseReason::ResetBlocked);
        }
        if self.head.get().is_some_and(|since| past(since, limits.head_timeout)) {
            self.head.set(None);
            return connection.command(ConnectionCommand::Reject(RequestError::HeadTimeout));
        }
        if !self.is_empty() && past(self.heard.get(), 2 * limits.ping) {
            return connection.close_for(CloseReason::PingTimeout);
        }
        for stream in self.open.borrow().iter() {
            stream.check(now, limits, false);
        }
    }
}

impl Stream {
    pub(super) fn new(connection: Rc<Connection>) -> Self {
        Self { connection, tasks: RefCell::default(), leftover: RefCell::default(), wasted: Cell::new(0) }
    }

    pub(in crate::net) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Bytes of an answer are on their way.
    pub(in crate::net) fn was_useful(&self) {
        if let Some(streams) = self.connection.streams() {
            streams.was_useful(self.connection.clock.now());
        }
    }

    /// A task that runs for this stream, and ends with it.
    pub(in crate::net) fn add_task(&self, task: AbortHandle) {
        if self.connection.aborted() {
            task.abort();
        }
        self.tasks.borrow_mut().push(task);
    }

    /// Makes h2 reset the stream: nobody holds it once its tasks are gone.
    pub(super) fn abort(&self, now: Instant) {
        self.tasks.take().iter().for_each(AbortHandle::abort);
        drop(self.leftover.take());
        if let Some(streams) = self.connection.streams()
            && streams.reset.get().is_none()
        {
            streams.reset.set(Some(now));
            // Whether the reset got on the wire shows with the next flush.
            self.connection.wake();
        }
    }

    /// Nobody reads the rest of the request's body.
    pub(in crate::net) fn leave(&self, incoming: Incoming) {
        self.leftover.replace(Some(incoming));
    }

    /// Throws away what comes of a body that nobody reads, so that the client has its window back. Ready
    /// when nothing more of it comes, or so much has that the client is to be told to stop.
    pub(in crate::net) fn poll_leftover(&self, cx: &mut Context<'_>) -> Poll<()> {
        let leftover = &mut *self.leftover.borrow_mut();
        let Some(body) = leftover else { return Poll::Ready(()) };
        while self.wasted.get() < MOST_WASTED
            && let Some(Ok(frame)) = ready!(Pin::new(&mut *body).poll_frame(cx))
        {
            self.wasted.set(self.wasted.get() + frame.data_ref().map_or(0, bytes::Bytes::len));
        }
        *leftover = None;
        Poll::Ready(())
    }
}

impl OpenStream {
    pub(in crate::net) fn new(connection: &Rc<Connection>) -> Self {
        let stream = Rc::new(Connection::of_stream(connection));
        if let Some(streams) = connection.streams() {
            streams.open.borrow_mut().push(stream.clone());
            streams.was_useful(connection.clock.now());
        }
        connection.enter(Phase::Serving);
        Self(stream)
    }

    pub(in crate::net) fn get(&self) -> &Rc<Connection> {
        &self.0
    }

    /// The client has reset the stream before it had its answer.
    pub(in crate::net) fn cancelled(&self) {
        let Some(stream) = self.0.stream() else { return };
        let now = self.0.clock.now();
        if stream.connection.streams().is_some_and(|streams| !streams.cancelled.count(now)) {
            let error = RequestError::BadRequest("too many streams were reset");
            stream.connection.command(ConnectionCommand::Reject(error));
        }
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let Some(stream) = self.0.stream() else { return };
        // Whoever still holds the connection must not hold h2's stream with it.
        drop((self.0.exchange.take_upgrade(), stream.tasks.take(), stream.leftover.take()));
        if let Some(streams) = stream.connection.streams() {
            let mut open = streams.open.borrow_mut();
            if let Some(at) = open.iter().position(|open| Rc::ptr_eq(open, &self.0)) {
                open.swap_remove(at);
            }
            if open.is_empty() && stream.connection.phase() == Phase::Serving {
                stream.connection.enter(Phase::Idle);
            }
        }
        stream.connection.wake();
    }
}
