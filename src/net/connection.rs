//! A client's connection as its requests, its task and the ticker see it.

mod deadlines;
mod exchange;
mod streams;

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::IpAddr,
    rc::Rc,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

pub use self::exchange::CloseReason;
use self::{
    deadlines::Throughput,
    exchange::Exchange,
    streams::{Stream, Streams},
};
pub(super) use self::{
    exchange::{AnswerState, ConnectionCommand, Phase},
    streams::OpenStream,
};
use super::{Holder, OnUpgrade, Peer, body::SharedIncoming, clock::Clock, tls::TlsInfo};
use crate::authz::forwarding::TrustedProxies;

/// A client's connection as its requests see it; over HTTP/2, one stream of it. Belongs to one worker.
pub struct Connection {
    pub peer: Peer,
    /// The proxy that has named the peer in a PROXY header.
    named_by: Option<Peer>,
    /// The client speaks TLS to this process.
    pub secure: bool,
    pub(super) exchange: Exchange,
    clock: Clock,
    aborted: Cell<bool>,
    close_reason: Cell<Option<CloseReason>>,
    command: Cell<Option<ConnectionCommand>>,
    phase: Cell<Phase>,
    phase_began: Cell<Instant>,
    task: RefCell<Option<Waker>>,
    /// Since when the client has taken nothing of its answer.
    write_stalled: Cell<Option<Instant>>,
    throughput: Throughput,
    /// Bytes of an HTTP/2 stream's answer that h2 and this end hold for the client.
    held: Cell<u32>,
    /// Somebody has signed in on it.
    has_user: Cell<bool>,
    /// What this connection has of the budget of request bodies in memory.
    bodies: OnceCell<Box<Holder>>,
    /// The client has closed its side, or the socket has failed.
    ended: Cell<bool>,
    half_closed: Cell<Option<Instant>>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    tls: OnceCell<Box<TlsInfo>>,
    /// Set on a connection that carries HTTP/2 streams.
    streams: OnceCell<Box<Streams>>,
    /// Set on one of those streams.
    stream: Option<Box<Stream>>,
}

/// How long an answer may take whose client has closed its side, as one that has gone away does.
const HALF_CLOSED: Duration = Duration::from_secs(1);

impl Connection {
    pub(super) fn new(peer: Peer, secure: bool, clock: Clock) -> Self {
        let now = clock.refresh();
        Self {
            peer,
            named_by: None,
            secure,
            exchange: Exchange::default(),
            clock,
            aborted: Cell::new(false),
            close_reason: Cell::new(None),
            command: Cell::new(None),
            phase: Cell::new(if secure { Phase::Handshake } else { Phase::Fresh }),
            phase_began: Cell::new(now),
            task: RefCell::new(None),
            write_stalled: Cell::new(None),
            throughput: Throughput::new(now),
            held: Cell::new(0),
            has_user: Cell::new(false),
            bodies: OnceCell::new(),
            ended: Cell::new(false),
            half_closed: Cell::new(None),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            tls: OnceCell::new(),
            streams: OnceCell::new(),
            stream: None,
        }
    }

    /// A proxy's connection, which belongs to the peer that it names from now on.
    pub(super) fn for_client(proxy: &Self, peer: Peer) -> Self {
        Self { named_by: Some(proxy.peer), ..Self::new(peer, proxy.secure, proxy.clock.clone()) }
    }

    /// An HTTP/2 stream as a service sees it, which is aborted and counted on its own.
    fn of_stream(connection: &Rc<Self>) -> Self {
        let stream = Some(Box::new(Stream::new(connection.clone())));
        let phase = Cell::new(Phase::Serving);
        Self { stream, phase, ..Self::new(connection.peer, connection.secure, connection.clock.clone()) }
    }

    /// A connection that no socket belongs to, for tests of services.
    pub fn detached(peer: Peer) -> Self {
        Self::new(peer, false, Clock::new())
    }

    /// From now on no byte is taken from this client and none is handed to it; the connection's
    /// task closes it with a reset. This has taken effect when it returns.
    ///
    /// An HTTP/2 stream is reset with CANCEL; its connection is closed if the reset cannot be
    /// written within a second.
    pub fn abort(&self) {
        let before = self.aborted.replace(true);
        if let Some(stream) = &self.stream
            && !before
        {
            stream.abort(self.clock.now());
        }
        self.exchange.abort();
        self.wake();
    }

    pub(super) fn close_for(&self, reason: CloseReason) {
        if !self.aborted() {
            self.close_reason.set(Some(reason));
        }
        self.abort();
    }

    /// Why this end has closed the connection on its own; `None` if it did not.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.close_reason.get().or(self.carrier().close_reason.get())
    }

    pub fn aborted(&self) -> bool {
        self.aborted.get() || self.carrier().aborted.get()
    }

    pub fn address(&self) -> IpAddr {
        self.peer.address()
    }

    /// Bytes taken from the client so far, over all its requests.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.get()
    }

    /// Bytes handed to the kernel for the client so far, over all its answers; of an HTTP/2 stream,
    /// bytes of its answer that were handed to h2.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.get()
    }

    /// The worker's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The client's end of what follows an answer of 101. Call before answering; the future fails
    /// when the connection ends before the upgrade.
    pub fn on_upgrade(&self) -> OnUpgrade {
        let (sender, receiver) = oneshot::channel();
        if !self.aborted() {
            self.exchange.set_upgrade(sender);
        }
        receiver
    }

    pub(super) fn set_tls(&self, tls: TlsInfo) {
        assert!(self.tls.set(Box::new(tls)).is_ok(), "a connection has one handshake");
    }

    /// Whether the TLS handshake was for another host, and its certificate is not valid for this one.
    pub(super) fn misdirects(&self, host: &[u8]) -> bool {
        self.carrier().tls.get().is_some_and(|tls| !tls.fits(host))
    }

    /// What clients have to show in the handshake has changed since: nothing more is asked by this connection.
    pub fn is_withdrawn(&self) -> bool {
        self.carrier().tls.get().is_some_and(|tls| tls.is_withdrawn())
    }

    /// Whether the peer is known: its own, or named by a proxy that is trusted.
    pub fn is_named_rightly(&self, trusted: &TrustedProxies) -> bool {
        self.carrier().named_by.is_none_or(|proxy| proxy.is_trusted(trusted))
    }

    /// From now on this connection carries HTTP/2.
    pub(super) fn carry_streams(&self) -> &Streams {
        self.streams.get_or_init(|| Box::new(Streams::new(self.clock.now())))
    }

    pub(super) fn streams(&self) -> Option<&Streams> {
        self.streams.get().map(|streams| &**streams)
    }

    pub(super) fn stream(&self) -> Option<&Stream> {
        self.stream.as_deref()
    }

    /// The connection that carries this stream, or this one.
    fn carrier(&self) -> &Self {
        self.stream().map_or(self, Stream::connection)
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.phase_began.set(self.clock.now());
    }

    /// Somebody has signed in: from now on it makes no room for others unless it is idle.
    pub fn set_user(&self) {
        self.carrier().has_user.set(true);
    }

    /// What the client has of the budget of request bodies in memory.
    pub fn bodies(&self) -> &Holder {
        self.carrier().bodies.get_or_init(Box::default)
    }

    /// The first bytes of a head have come. Refreshes the clock for the request.
    pub(super) fn begin_head(&self) {
        self.clock.refresh();
        self.enter(Phase::Head);
    }

    /// A whole head goes to the service, with this body if it has one.
    pub(super) fn begin_service(&self, incoming: Option<SharedIncoming>) {
        // A pipelined head came with the request before it.
        if self.phase.replace(Phase::Serving) != Phase::Head {
            self.clock.refresh();
        }
        self.exchange.begin(incoming);
    }

    /// From now on only a client that takes nothing has a deadline here.
    pub(super) fn begin_tunnel(&self) {
        self.half_closed.set(None);
        self.enter(Phase::Tunnel);
    }

    /// From now on the request's body may take its time: the answer has begun, and its own deadlines say
    /// how long the exchange lasts.
    pub fn disarm_body_timeout(&self) {
        self.exchange.disarm_body_timeout();
    }

    /// The service no longer holds the body; `whole`: it has read all of it.
    pub(super) fn close_body(&self, whole: bool) {
        self.exchange.close_body(whole);
        self.settle();
        if self.exchange.is_abandoned() {
            // The connection ends with the answer: what the client still sends is no head.
            self.wake();
        }
    }

    /// The kernel has everything that hyper wrote.
    pub(super) fn flushed(&self) {
        self.exchange.flushed();
        self.settle();
        if let Some(streams) = self.streams() {
            streams.flushed();
        }
    }

    /// An HTTP/1 connection whose exchange is over waits for the next one.
    fn settle(&self) {
        if self.phase.get() == Phase::Serving && self.stream.is_none() && self.exchange.is_over() {
            self.enter(Phase::Idle);
        }
    }

    /// The client sends nothing any more.
    pub(super) fn set_ended(&self) {
        self.ended.set(true);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get() || self.carrier().ended.get()
    }

    /// A client that has closed its side and waits for an answer, as one that has gone away does, counts as gone
    /// from now on. False: this one has not.
    pub(super) fn presume_gone(&self) -> bool {
        let now = self.clock.now();
        let waits = |since: Instant| now.saturating_duration_since(since) < HALF_CLOSED;
        if self.phase.get() != Phase::Serving || !self.half_closed.get().is_some_and(waits) {
            return false;
        }
        self.half_closed.set(now.checked_sub(HALF_CLOSED));
        self.wake();
        true
    }

    /// The client has closed its side. True: so long ago that it counts as gone.
    pub(super) fn half_closed_for_long(&self) -> bool {
        let since = self.half_closed.get().unwrap_or_else(|| self.clock.now());
        self.half_closed.set(Some(since));
        self.clock.now().saturating_duration_since(since) >= HALF_CLOSED
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes_in.set(self.bytes_in.get() + bytes as u64);
        self.exchange.received(self.clock.now());
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.bytes_out.set(self.bytes_out.get() + bytes as u64);
        self.write_stalled.set(None);
    }

    pub(super) fn stall(&self) {
        if self.write_stalled.get().is_none() {
            self.write_stalled.set(Some(self.clock.now()));
        }
    }

    /// Wakes this task when something happens to the connection.
    pub(super) fn register(&self, cx: &Context<'_>) {
        set_waker(&self.task, cx);
    }

    /// What this task is told to do. A later command wakes it.
    pub(super) fn poll_command(&self, cx: &Context<'_>) -> Option<ConnectionCommand> {
        self.register(cx);
        if self.aborted() { Some(ConnectionCommand::Abort) } else { self.command.take() }
    }

    pub(super) fn command(&self, command: ConnectionCommand) {
        self.command.set(Some(command));
        self.wake();
    }

    /// Whether our own answer is to replace hyper's.
    pub(super) fn is_rejected(&self) -> bool {
        matches!(self.command.get(), Some(ConnectionCommand::Reject(_)))
    }

    /// The worker drains: an idle connection closes at once, the others are woken.
    pub(super) fn begin_drain(&self) {
        if self.phase.get() == Phase::Idle {
            self.command.set(Some(ConnectionCommand::Close));
        }
        self.wake();
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.task.borrow() {
            waker.wake_by_ref();
        }
    }
}

fn set_waker(slot: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    slot.borrow_mut().get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
}
