//! What HTTP/2 adds to a [`Connection`]: the trunk that carries streams, and each stream, which
//! handlers see as a connection of its own that can be severed alone.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use h2::{Reason, RecvStream, server::SendResponse};
use http::{Response, StatusCode};
use slab::Slab;

use super::piece::Piece;
use crate::net::{Connection, Limits, Refusal, connection::Order};

/// Of a connection that carries streams.
pub struct Trunk {
    streams: RefCell<Slab<Rc<Connection>>>,
    /// A field section has begun and not ended, since when.
    head: Cell<Option<Instant>>,
    heard: Cell<Instant>,
    ping_due: Cell<bool>,
    /// A stream's reset is not on the wire yet, since when.
    reset: Cell<Option<Instant>>,
    /// When the streams that the client took back are forgotten, [`PACE`] for each.
    taken_back: Cell<Instant>,
}

/// Of a stream.
pub struct Branch {
    trunk: Rc<Connection>,
    reply: RefCell<Option<SendResponse<Piece>>>,
    /// Bytes of the answer that the kernel does not have yet.
    unsent: Cell<usize>,
    /// All of the answer is with h2.
    ended: Cell<bool>,
    /// What the client still sends of a request that nobody reads, and how much of it was thrown away.
    leftover: RefCell<Option<RecvStream>>,
    wasted: Cell<usize>,
}

/// A stream's place on its trunk; dropping it leaves.
pub(super) struct Place {
    trunk: Rc<Connection>,
    key: usize,
    pub(super) stream: Rc<Connection>,
}

/// So much of a body that nobody reads is taken, as behind a last answer in HTTP/1.1.
const MOST_WASTED: usize = 4 << 20;

/// How long the reset of a stream may take to get on the wire before the connection is closed.
const RESET: Duration = Duration::from_secs(1);

/// A client may take back a thousand streams at once that are being served already, and 33 a second
/// in the long run, as with nghttp2: each costs as much as a request and counts for none of the
/// streams that are open.
const PACE: Duration = Duration::from_millis(30);
const BURST: Duration = PACE.saturating_mul(1000);

impl Trunk {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            streams: RefCell::default(),
            head: Cell::new(None),
            heard: Cell::new(now),
            ping_due: Cell::new(false),
            reset: Cell::new(None),
            taken_back: Cell::new(now),
        }
    }

    pub(super) fn is_bare(&self) -> bool {
        self.streams.borrow().is_empty()
    }

    pub(super) fn hear(&self, now: Instant) {
        self.heard.set(now);
    }

    /// Whether a field section is under way.
    pub(super) fn set_head(&self, open: bool, now: Instant) {
        self.head.set(open.then(|| self.head.get().unwrap_or(now)));
    }

    pub(super) fn take_ping(&self) -> bool {
        self.ping_due.take()
    }

    /// Everything that h2 had to write is with the kernel.
    pub(super) fn written(&self) {
        self.reset.set(None);
    }

    /// The client has reset a stream that was being served. False: too many, too fast.
    pub(super) fn take_back(&self, now: Instant) -> bool {
        let forgotten = self.taken_back.get().max(now) + PACE;
        self.taken_back.set(forgotten);
        forgotten.saturating_duration_since(now) <= BURST
    }

    /// The ticker's look at what only a trunk has.
    pub(in crate::net) fn check(&self, connection: &Connection, now: Instant, limits: &Limits) {
        let past = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        if self.reset.get().is_some_and(|since| past(since, RESET)) {
            return connection.sever();
        }
        if self.head.get().is_some_and(|since| past(since, limits.head_timeout)) {
            self.head.set(None);
            return connection.order(Order::Refuse(Refusal::HeadTimeout));
        }
        let streams = self.streams.borrow();
        if !streams.is_empty() {
            if past(self.heard.get(), 2 * limits.ping) {
                return connection.sever();
            }
            if past(self.heard.get(), limits.ping) && !self.ping_due.replace(true) {
                connection.wake();
            }
        }
        for (_, stream) in streams.iter() {
            stream.check(now, limits, false);
        }
    }
}

impl Branch {
    pub(super) fn unsent(&self) -> usize {
        self.unsent.get()
    }

    pub(super) fn owe(&self, bytes: usize) {
        self.unsent.set(self.unsent.get() + bytes);
    }

    /// What is left to be sent after these bytes were, or were thrown away.
    pub(super) fn settle(&self, bytes: usize) -> usize {
        self.unsent.set(self.unsent.get().saturating_sub(bytes));
        self.unsent.get()
    }

    pub(super) fn end(&self) {
        self.ended.set(true);
    }

    /// Nobody reads the rest of the request's body.
    pub(super) fn leave(&self, body: RecvStream) {
        if self.reply.borrow().is_some() {
            self.leftover.replace(Some(body));
        }
    }

    /// Throws away what has come of a body that nobody reads. Ready when nothing more of it comes, or
    /// so much has that the client is to be told to stop.
    fn poll_waste(&self, cx: &mut Context<'_>) -> Poll<()> {
        let leftover = &mut *self.leftover.borrow_mut();
        let Some(body) = leftover else { return Poll::Pending };
        while self.wasted.get() < MOST_WASTED
            && let Some(Ok(data)) = ready!(body.poll_data(cx))
        {
            self.wasted.set(self.wasted.get() + data.len());
            // Only fails when more is given back than was lent.
            let _ = body.flow_control().release_capacity(data.len());
        }
        *leftover = None;
        Poll::Ready(())
    }

    /// The client may send the body that it holds back until it is asked for.
    pub(in crate::net) fn go_on(&self) {
        if let Some(reply) = &mut *self.reply.borrow_mut() {
            let mut response = Response::new(());
            *response.status_mut() = StatusCode::CONTINUE;
            // It fails when the answer has begun; then nobody waits for it.
            let _ = reply.send_informational(response);
        }
    }

    pub(super) fn with_reply<R>(&self, act: impl FnOnce(&mut SendResponse<Piece>) -> R) -> Option<R> {
        self.reply.borrow_mut().as_mut().map(act)
    }

    pub(in crate::net) fn trunk(&self) -> &Connection {
        &self.trunk
    }

    /// Takes back what h2 holds for the client and resets the stream.
    pub(in crate::net) fn reset(&self) {
        self.with_reply(|reply| reply.send_reset(Reason::CANCEL));
        // What is left is a frame that is on the wire in part. If it ends the answer, no reset
        // follows it: only the end of the connection keeps it from passing for a whole one.
        if self.ended.get() && self.unsent.get() > 0 {
            return self.trunk.sever();
        }
        if let Some(trunk) = self.trunk.trunk()
            && trunk.reset.get().is_none()
        {
            trunk.reset.set(Some(self.trunk.clock().now()));
        }
    }
}

impl Place {
    pub(super) fn on(trunk: &Rc<Connection>, reply: SendResponse<Piece>) -> Option<Self> {
        let stream = Rc::new(Connection::stream(
            trunk,
            Branch {
                trunk: trunk.clone(),
                reply: RefCell::new(Some(reply)),
                unsent: Cell::new(0),
                ended: Cell::new(false),
                leftover: RefCell::new(None),
                wasted: Cell::new(0),
            },
        ));
        let key = trunk.trunk()?.streams.borrow_mut().insert(stream.clone());
        Some(Self { trunk: trunk.clone(), key, stream })
    }

    pub(super) fn branch(&self) -> &Branch {
        self.stream.branch().expect("a place is a stream's")
    }

    /// Ready when the client sends no more of its request, or ought not to. What nobody reads is
    /// thrown away meanwhile, so that it has the connection's window back.
    pub(super) fn poll_rest(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.stream.is_unread() {
            ready!(self.branch().poll_waste(cx));
            self.stream.set_unread(false);
        }
        Poll::Ready(())
    }

    /// The client has reset the stream.
    pub(super) fn taken_back(&self) {
        if self.trunk.trunk().is_some_and(|trunk| !trunk.take_back(self.trunk.clock().now())) {
            self.trunk.order(Order::Refuse(Refusal::BadRequest("too many streams were reset")));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // h2's own handles go with the stream: without this they would hold each other.
        let handles = (self.branch().reply.take(), self.branch().leftover.take());
        drop(handles);
        let left = self.trunk.trunk().map(|trunk| trunk.streams.borrow_mut().try_remove(self.key));
        drop(left);
        self.trunk.wake();
    }
}
