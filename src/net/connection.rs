//! The state of a client's connection, shared by its requests, its task and the ticker.

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

pub use self::{deadlines::Kept, exchange::CloseReason};
use self::{
    deadlines::Throughput,
    exchange::ExchangeState,
    streams::{Stream, Streams},
};
pub(super) use self::{
    exchange::{ConnectionCommand, Phase, ResponseState},
    streams::OpenStream,
};
use super::{Holder, OnUpgrade, Peer, body::SharedIncoming, clock::Clock, tls::TlsInfo};
use crate::authz::{forwarding::TrustedProxies, time::Timestamp};

/// A client's connection, or one stream of it over HTTP/2, as its requests see it. Belongs to one worker.
pub struct Connection {
    pub peer: Peer,
    /// The proxy that named the peer in a PROXY header.
    named_by: Option<Peer>,
    /// Whether the client speaks TLS to this process.
    pub secure: bool,
    pub(super) exchange: ExchangeState,
    clock: Clock,
    aborted: Cell<bool>,
    close_reason: Cell<Option<CloseReason>>,
    command: Cell<Option<ConnectionCommand>>,
    phase: Cell<Phase>,
    phase_began: Cell<Instant>,
    task: RefCell<Option<Waker>>,
    /// Since when the client has taken no bytes of its response.
    write_stalled: Cell<Option<Instant>>,
    throughput: Throughput,
    /// Bytes of an HTTP/2 stream's response that h2 and this process hold for the client.
    held: Cell<u32>,
    /// Whether a request on this connection was permitted for its token or user.
    permitted: Cell<bool>,
    /// This connection's share of the memory budget for request bodies.
    bodies: OnceCell<Box<Holder>>,
    /// How many [`Kept`] there are.
    kept: Cell<u32>,
    /// The client has closed its side, or the socket has failed.
    ended: Cell<bool>,
    half_closed: Cell<Option<Instant>>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    tls: OnceCell<Box<TlsInfo>>,
    /// Set on a connection that carries HTTP/2 streams.
    streams: OnceCell<Box<Streams>>,
    /// Set on an HTTP/2 stream.
    stream: Option<Box<Stream>>,
}

/// How long a client that has closed its side may wait for the next bytes of its response. A client that has
/// gone away looks the same until it is sent something.
const HALF_CLOSED: Duration = Duration::from_secs(1);

impl Connection {
    pub(super) fn new(peer: Peer, secure: bool, clock: Clock) -> Self {
        let now = clock.refresh();
        Self {
            peer,
            named_by: None,
            secure,
            exchange: ExchangeState::default(),
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
            permitted: Cell::new(false),
            bodies: OnceCell::new(),
            kept: Cell::new(0),
            ended: Cell::new(false),
            half_closed: Cell::new(None),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            tls: OnceCell::new(),
            streams: OnceCell::new(),
            stream: None,
        }
    }

    /// Returns a connection for the client that a proxy named in its PROXY header.
    pub(super) fn for_client(proxy: &Self, peer: Peer) -> Self {
        Self { named_by: Some(proxy.peer), ..Self::new(peer, proxy.secure, proxy.clock.clone()) }
    }

    /// Returns an HTTP/2 stream as a service sees it: aborted and counted on its own.
    fn of_stream(connection: &Rc<Self>) -> Self {
        let stream = Some(Box::new(Stream::new(connection.clone())));
        let phase = Cell::new(Phase::Serving);
        Self { stream, phase, ..Self::new(connection.peer, connection.secure, connection.clock.clone()) }
    }

    /// Returns a connection without a socket, for tests of services.
    pub fn detached(peer: Peer) -> Self {
        Self::new(peer, false, Clock::new())
    }

    /// Stops the connection: when this returns, no more bytes are read from the client or written to it. The
    /// connection's task then closes the socket with a reset.
    ///
    /// An HTTP/2 stream is reset with CANCEL. If the reset cannot be written within a second, its connection
    /// is closed.
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

    /// Returns why this process closed the connection; `None` if a caller of `abort` or the client did.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.close_reason.get().or(self.carrier().close_reason.get())
    }

    pub fn aborted(&self) -> bool {
        self.aborted.get() || self.carrier().aborted.get()
    }

    pub fn address(&self) -> IpAddr {
        self.peer.address()
    }

    /// Returns the bytes received from the client so far, over all its requests.
    pub fn bytes_in(&self) -> u64 {
        self.bytes_in.get()
    }

    /// Returns the bytes handed to the kernel for the client so far, over all its responses. For an HTTP/2
    /// stream: the bytes of its response that were handed to h2.
    pub fn bytes_out(&self) -> u64 {
        self.bytes_out.get()
    }

    /// The worker's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns the client's end of the tunnel that follows a 101 response. Call before responding. The future
    /// fails if the connection ends before the upgrade.
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

    /// Whether the TLS handshake was for another host and its certificate is not valid for this one.
    pub(super) fn is_misdirected(&self, host: &[u8]) -> bool {
        self.carrier().tls.get().is_some_and(|tls| !tls.is_valid_for_host(host))
    }

    /// Whether the handshake would fail now, because the client's certificate has expired or the requirements
    /// for one have changed: this connection accepts no more requests.
    pub fn is_withdrawn(&self) -> bool {
        self.carrier().tls.get().is_some_and(|tls| tls.is_withdrawn())
            || self.client_expires_at().is_some_and(|at| at <= self.clock.wall())
    }

    /// When the certificate expires that the client has shown.
    pub fn client_expires_at(&self) -> Option<Timestamp> {
        self.carrier().tls.get()?.client_expires_at()
    }

    /// Whether the peer's address can be relied on: it is the socket's own, or was named by one of the
    /// `trusted` proxies.
    pub fn has_trusted_address(&self, trusted: &TrustedProxies) -> bool {
        self.carrier().named_by.is_none_or(|proxy| proxy.is_trusted(trusted))
    }

    /// Makes this a connection that carries HTTP/2 streams.
    pub(super) fn enable_streams(&self) -> &Streams {
        self.streams.get_or_init(|| Box::new(Streams::new(self.clock.now())))
    }

    pub(super) fn streams(&self) -> Option<&Streams> {
        self.streams.get().map(|streams| &**streams)
    }

    pub(super) fn stream(&self) -> Option<&Stream> {
        self.stream.as_deref()
    }

    /// Whether this is a stream of an HTTP/2 connection.
    pub fn is_stream(&self) -> bool {
        self.stream.is_some()
    }

    /// Returns the connection that carries this stream, or `self` if this is not a stream.
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

    /// Records that a request was permitted for its token or user. From now on the connection is not closed
    /// during a request to make room for others.
    pub fn set_permitted(&self) {
        self.carrier().permitted.set(true);
    }

    /// Returns this client's share of the memory budget for request bodies.
    pub fn bodies(&self) -> &Holder {
        self.carrier().bodies.get_or_init(Box::default)
    }

    /// Records that the first bytes of a head have arrived, and refreshes the clock for the request.
    pub(super) fn begin_head(&self) {
        self.clock.refresh();
        self.enter(Phase::Head);
    }

    /// Records that a complete head goes to the service, with its body if it has one.
    pub(super) fn begin_service(&self, incoming: Option<SharedIncoming>) {
        // A pipelined head arrived with the request before it, so nothing has refreshed the clock for it.
        if self.phase.replace(Phase::Serving) != Phase::Head {
            self.clock.refresh();
        }
        self.exchange.begin(incoming);
    }

    /// Begins the tunnel, where only the write timeout applies.
    pub(super) fn begin_tunnel(&self) {
        self.half_closed.set(None);
        self.enter(Phase::Tunnel);
    }

    /// Lifts the timeout of the request's body: the response has begun, and its own deadlines limit the
    /// exchange.
    pub fn disarm_body_timeout(&self) {
        self.exchange.disarm_body_timeout();
    }

    /// Records that the service has released the body. `whole`: it was read to its end.
    pub(super) fn close_body(&self, whole: bool) {
        self.exchange.close_body(whole);
        self.enter_idle_if_over();
        if self.exchange.is_abandoned() {
            // The connection ends with the response, because the bytes that follow are not a head.
            self.wake();
        }
    }

    /// Records that the kernel has everything that hyper wrote.
    pub(super) fn flushed(&self) {
        // Over TLS a flush may have waited for the client, too.
        self.write_stalled.set(None);
        self.exchange.flushed();
        self.enter_idle_if_over();
        if let Some(streams) = self.streams() {
            streams.flushed();
        }
    }

    /// Makes an HTTP/1 connection idle when its exchange is over.
    fn enter_idle_if_over(&self) {
        if self.phase.get() == Phase::Serving && self.stream.is_none() && self.exchange.is_over() {
            self.enter(Phase::Idle);
        }
    }

    /// Records that the client sends nothing more.
    pub(super) fn set_ended(&self) {
        self.ended.set(true);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get() || self.carrier().ended.get()
    }

    /// Treats a client as gone that has just closed its side and waits for a response. Returns false if this
    /// client has not closed its side, or already counts as gone.
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

    /// Records that the client has closed its side. Returns true if it has waited long enough since to count
    /// as gone. While the client has yet to read what was sent, the write timeout applies.
    pub(super) fn record_half_close(&self) -> bool {
        let since = self.half_closed.get().unwrap_or_else(|| self.clock.now());
        self.half_closed.set(Some(since));
        self.write_stalled.get().is_none() && self.clock.now().saturating_duration_since(since) >= HALF_CLOSED
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes_in.set(self.bytes_in.get() + bytes as u64);
        self.exchange.received(self.clock.now());
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.bytes_out.set(self.bytes_out.get() + bytes as u64);
        self.write_stalled.set(None);
        if self.half_closed.get().is_some() {
            self.half_closed.set(Some(self.clock.now()));
        }
    }

    pub(super) fn stall(&self) {
        if self.write_stalled.get().is_none() {
            self.write_stalled.set(Some(self.clock.now()));
        }
    }

    /// Registers this task to be woken when something happens to the connection.
    pub(super) fn register(&self, cx: &Context<'_>) {
        set_waker(&self.task, cx);
    }

    /// Takes the pending command, and registers this task to be woken by a later one.
    pub(super) fn poll_command(&self, cx: &Context<'_>) -> Option<ConnectionCommand> {
        self.register(cx);
        if self.aborted() { Some(ConnectionCommand::Abort) } else { self.command.take() }
    }

    pub(super) fn command(&self, command: ConnectionCommand) {
        self.command.set(Some(command));
        self.wake();
    }

    /// Whether the task has yet to act on a command or an abort.
    pub(super) fn is_ending(&self) -> bool {
        self.aborted() || self.command.get().is_some()
    }

    /// Whether the gateway's own response is to replace hyper's.
    pub(super) fn is_rejected(&self) -> bool {
        matches!(self.command.get(), Some(ConnectionCommand::Reject(_)))
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
