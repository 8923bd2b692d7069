//! A client's connection as its requests, its task and the ticker see it.

mod phase;

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    task::{Context, Waker},
    time::{Duration, Instant},
};

pub(super) use self::phase::{Order, Phase};
use super::{
    Limits, Peer, Refusal,
    clock::Clock,
    h2::{Branch, Trunk},
    tls::Presented,
};

/// A client's connection as its requests see it. Belongs to one worker.
pub struct Connection {
    pub peer: Peer,
    pub local: Option<SocketAddr>,
    /// TLS ends here.
    pub secure: bool,
    clock: Clock,
    severed: Cell<bool>,
    drained: Cell<bool>,
    order: Cell<Option<Order>>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    task: RefCell<Option<Waker>>,
    /// Bytes for the client that it does not take, since when.
    stalled: Cell<Option<Instant>>,
    /// A body that is wanted and does not come, since when.
    wanted: Cell<Option<Instant>>,
    body_late: Cell<bool>,
    /// The answer has begun: the request's body may take its time.
    unhurried: Cell<bool>,
    body_task: RefCell<Option<Waker>>,
    /// The handler wants no more of the request's body.
    body_dropped: Cell<bool>,
    /// Bytes of the present request are still to come from the wire.
    unread: Cell<bool>,
    half_closed: Cell<Option<Instant>>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    /// Of one that TLS ends on.
    presented: OnceCell<Box<Presented>>,
    /// Of one that carries HTTP/2's streams.
    trunk: OnceCell<Box<Trunk>>,
    /// Of one that is such a stream.
    branch: Option<Box<Branch>>,
}

/// How long a client may go on sending what nobody reads after the last answer.
const LINGER: Duration = Duration::from_secs(2);

/// How long an answer may take whose client has closed its side, as one that has gone away does.
const HALF_CLOSED: Duration = Duration::from_secs(1);

/// How long a drain waits for the first byte of a connection that has just been made.
const FRESH_IN_DRAIN: Duration = Duration::from_secs(1);

impl Connection {
    pub(super) fn new(peer: Peer, local: Option<SocketAddr>, secure: bool, clock: Clock) -> Self {
        let since = clock.refresh();
        Self {
            peer,
            local,
            secure,
            clock,
            severed: Cell::new(false),
            drained: Cell::new(false),
            order: Cell::new(None),
            phase: Cell::new(if secure { Phase::Handshake } else { Phase::Fresh }),
            since: Cell::new(since),
            task: RefCell::new(None),
            stalled: Cell::new(None),
            wanted: Cell::new(None),
            body_late: Cell::new(false),
            unhurried: Cell::new(false),
            body_task: RefCell::new(None),
            body_dropped: Cell::new(false),
            unread: Cell::new(false),
            half_closed: Cell::new(None),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            presented: OnceCell::new(),
            trunk: OnceCell::new(),
            branch: None,
        }
    }

    /// A stream of HTTP/2, as handlers see it: severed alone, and counted for itself.
    pub(super) fn stream(trunk: &Rc<Self>, branch: Branch) -> Self {
        let stream = Self::new(trunk.peer, trunk.local, trunk.secure, trunk.clock.clone());
        stream.phase.set(Phase::Serving);
        Self { branch: Some(Box::new(branch)), ..stream }
    }

    /// A connection that no socket belongs to, for tests of handlers.
    pub fn detached(peer: Peer) -> Self {
        Self::new(peer, None, false, Clock::new())
    }

    /// From now on no byte is taken from this client and none is handed to it; the connection's
    /// task closes it with a reset. Synchronous: when this returns, it holds.
    ///
    /// A stream is reset, and its connection closed should the reset not get on the wire.
    pub fn sever(&self) {
        let before = self.severed.replace(true);
        if let Some(branch) = &self.branch
            && !before
        {
            branch.reset();
        }
        self.wake();
        self.wake_body();
    }

    /// The time of a drain is over: what is still under way ends here.
    pub(super) fn end_drain(&self) {
        self.drained.set(!self.severed());
        self.sever();
    }

    /// Whether it was a drain that ended it.
    pub fn drained(&self) -> bool {
        self.drained.get() || self.branch.as_ref().is_some_and(|branch| branch.trunk().drained())
    }

    pub fn severed(&self) -> bool {
        self.severed.get() || self.branch.as_ref().is_some_and(|branch| branch.trunk().severed())
    }

    pub fn address(&self) -> IpAddr {
        self.peer.address()
    }

    /// Bytes taken from the client so far, over all its requests.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.get()
    }

    /// Bytes handed to the kernel for the client so far, over all its answers.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.get()
    }

    /// The worker's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn present(&self, presented: Presented) {
        assert!(self.presented.set(Box::new(presented)).is_ok(), "a connection is shaken once");
    }

    /// Whether the host is not for this connection, since TLS named another one.
    pub(super) fn misdirects<'h>(&self, host: impl FnOnce() -> Option<&'h [u8]>) -> bool {
        self.presented.get().is_some_and(|presented| host().is_some_and(|host| !presented.fits(host)))
    }

    pub(super) fn carry_streams(&self, trunk: Trunk) {
        assert!(self.trunk.set(Box::new(trunk)).is_ok(), "a connection turns to HTTP/2 once");
    }

    pub(super) fn trunk(&self) -> Option<&Trunk> {
        self.trunk.get().map(|trunk| &**trunk)
    }

    pub(super) fn branch(&self) -> Option<&Branch> {
        self.branch.as_deref()
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.clock.now());
    }

    /// Since when nothing has been under way that closing would lose.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        matches!(self.phase.get(), Phase::Fresh | Phase::Idle).then(|| self.since.get())
    }

    /// The first bytes of a head are here; the clock is fresh for the request from now on.
    pub(super) fn begin_head(&self) {
        self.clock.refresh();
        self.enter(Phase::Head);
    }

    /// A head is whole and goes to the handler.
    pub(super) fn begin_service(&self) {
        self.phase.set(Phase::Serving);
        self.body_dropped.set(false);
        self.body_late.set(false);
        self.unhurried.set(false);
        self.wanted.set(None);
    }

    /// From now on only a client that takes nothing has a deadline here.
    pub(super) fn begin_tunnel(&self) {
        self.half_closed.set(None);
        self.enter(Phase::Tunnel);
    }

    /// The answer has begun before the request has ended, as where both sides talk for as long as they
    /// like: from now on the answer's own deadlines say how long that lasts.
    pub fn hurry_no_more(&self) {
        self.unhurried.set(true);
        self.wanted.set(None);
    }

    pub(super) fn drop_body(&self) {
        self.body_dropped.set(true);
        self.wanted.set(None);
    }

    pub(super) fn set_unread(&self, unread: bool) {
        self.unread.set(unread);
    }

    pub(super) fn is_unread(&self) -> bool {
        self.unread.get()
    }

    /// The client has closed its side. True: so long ago that it is gone.
    pub(super) fn sent_all(&self) -> bool {
        let since = self.half_closed.get().unwrap_or_else(|| self.clock.now());
        self.half_closed.set(Some(since));
        self.clock.now().saturating_duration_since(since) >= HALF_CLOSED
    }

    /// Nobody will read the rest of the present request: the connection cannot go on after it.
    pub(super) fn body_abandoned(&self) -> bool {
        self.body_dropped.get() && self.unread.get()
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes_in.set(self.bytes_in.get() + bytes as u64);
        if self.wanted.get().is_some() {
            self.wanted.set(Some(self.clock.now()));
        }
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.bytes_out.set(self.bytes_out.get() + bytes as u64);
        self.stalled.set(None);
    }

    pub(super) fn send_stalls(&self) {
        if self.stalled.get().is_none() {
            self.stalled.set(Some(self.clock.now()));
        }
    }

    /// Whether bytes for the client wait for it to take them.
    pub(super) fn stalls(&self) -> bool {
        self.stalled.get().is_some()
    }

    /// The body is wanted and not there. True: it is overdue.
    pub(super) fn await_body(&self, cx: &mut Context<'_>) -> bool {
        if self.body_late.get() {
            return true;
        }
        if self.wanted.get().is_none() && !self.unhurried.get() {
            self.wanted.set(Some(self.clock.now()));
        }
        register(&self.body_task, cx);
        false
    }

    pub(super) fn body_came(&self) {
        self.wanted.set(None);
    }

    pub(super) fn attend(&self, cx: &mut Context<'_>) {
        register(&self.task, cx);
    }

    pub(super) fn order(&self, order: Order) {
        self.order.set(Some(order));
        self.wake();
    }

    pub(super) fn take_order(&self) -> Option<Order> {
        self.order.take()
    }

    /// The worker drains: who has nothing under way goes at once.
    pub(super) fn finish(&self) {
        if self.phase.get() == Phase::Idle {
            self.order(Order::Close);
        } else if self.trunk().is_some() {
            // Its streams go on, but the client must begin no others.
            self.wake();
        }
    }

    /// The ticker's look at this connection.
    pub(super) fn check(&self, now: Instant, limits: &Limits, draining: bool) {
        let past = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        if self.stalled.get().is_some_and(|since| past(since, limits.write_timeout)) {
            return self.sever();
        }
        if let Some(trunk) = self.trunk() {
            trunk.check(self, now, limits);
        }
        if self.half_closed.get().is_some_and(|since| past(since, HALF_CLOSED)) {
            // The task asks the socket again and learns that it is gone.
            self.wake();
        }
        let since = self.since.get();
        match self.phase.get() {
            Phase::Handshake if past(since, limits.tls_handshake_timeout) => {
                self.order(Order::Close);
            }
            Phase::Fresh if draining && past(since, FRESH_IN_DRAIN) => self.order(Order::Close),
            Phase::Fresh | Phase::Idle if past(since, limits.idle_timeout) => {
                self.order(Order::Close);
            }
            Phase::Head if past(since, limits.head_timeout) => {
                self.order(Order::Refuse(Refusal::HeadTimeout));
            }
            Phase::Serving if self.wanted.get().is_some_and(|at| past(at, limits.body_timeout)) => {
                self.wanted.set(None);
                self.body_late.set(true);
                self.wake_body();
            }
            Phase::Closing if past(since, LINGER) => self.order(Order::Close),
            _ => {}
        }
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.task.borrow() {
            waker.wake_by_ref();
        }
    }

    fn wake_body(&self) {
        let waker = self.body_task.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

fn register(slot: &RefCell<Option<Waker>>, cx: &mut Context<'_>) {
    let slot = &mut *slot.borrow_mut();
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}
