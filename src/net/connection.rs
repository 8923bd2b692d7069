//! A client's connection as its requests, its task and the ticker see it.

mod phase;
mod streams;

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::{IpAddr, SocketAddr},
    rc::Rc,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

pub use self::phase::CloseReason;
pub(super) use self::{
    phase::{ConnectionCommand, Phase},
    streams::{OpenStream, Stream, Streams},
};
use super::{Limits, OnUpgrade, Peer, Upgraded, body::SharedIncoming, clock::Clock, tls::TlsInfo};

/// A client's connection as its requests see it; over HTTP/2, one stream of it. Belongs to one worker.
pub struct Connection {
    pub peer: Peer,
    pub local: Option<SocketAddr>,
    /// TLS ends here.
    pub secure: bool,
    clock: Clock,
    aborted: Cell<bool>,
    close_reason: Cell<Option<CloseReason>>,
    command: Cell<Option<ConnectionCommand>>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    task: RefCell<Option<Waker>>,
    /// The client takes nothing of what is there for it, since when.
    write_stalled: Cell<Option<Instant>>,
    /// A body that is wanted and does not come, since when.
    body_wanted: Cell<Option<Instant>>,
    body_late: Cell<bool>,
    /// The answer has begun: the request's body may take its time.
    body_timeout_off: Cell<bool>,
    body_task: RefCell<Option<Waker>>,
    /// The request's body, for `abort` to drop.
    incoming: RefCell<Option<SharedIncoming>>,
    /// The service holds the request's body, which has not ended.
    body_open: Cell<bool>,
    /// Bytes of the current request were not read by anybody.
    unread: Cell<bool>,
    answer: Cell<Answer>,
    /// The answer is a 101.
    switching: Cell<bool>,
    /// The client has closed its side, or the socket has failed.
    ended: Cell<bool>,
    half_closed: Cell<Option<Instant>>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    upgrade: RefCell<Option<oneshot::Sender<Upgraded>>>,
    tls: OnceCell<Box<TlsInfo>>,
    /// Of a connection that carries HTTP/2 streams.
    streams: OnceCell<Box<Streams>>,
    /// Of such a stream.
    stream: Option<Box<Stream>>,
}

/// How far the current answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Open,
    /// All of it is with hyper.
    Ended,
    /// All of it is with the kernel.
    Flushed,
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
            aborted: Cell::new(false),
            close_reason: Cell::new(None),
            command: Cell::new(None),
            phase: Cell::new(if secure { Phase::Handshake } else { Phase::Fresh }),
            since: Cell::new(since),
            task: RefCell::new(None),
            write_stalled: Cell::new(None),
            body_wanted: Cell::new(None),
            body_late: Cell::new(false),
            body_timeout_off: Cell::new(false),
            body_task: RefCell::new(None),
            incoming: RefCell::new(None),
            body_open: Cell::new(false),
            unread: Cell::new(false),
            answer: Cell::new(Answer::Open),
            switching: Cell::new(false),
            ended: Cell::new(false),
            half_closed: Cell::new(None),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            upgrade: RefCell::new(None),
            tls: OnceCell::new(),
            streams: OnceCell::new(),
            stream: None,
        }
    }

    /// A stream of HTTP/2 as services see it: aborted alone, and counted for itself.
    pub(super) fn of_stream(connection: &Rc<Self>) -> Self {
        let stream =
            Self::new(connection.peer, connection.local, connection.secure, connection.clock.clone());
        stream.phase.set(Phase::Serving);
        Self { stream: Some(Box::new(Stream::new(connection.clone()))), ..stream }
    }

    /// A connection that no socket belongs to, for tests of services.
    pub fn detached(peer: Peer) -> Self {
        Self::new(peer, None, false, Clock::new())
    }

    /// From now on no byte is taken from this client and none is handed to it; the connection's
    /// task closes it with a reset. Synchronous: when this returns, it holds.
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
        // h2 sends a reset only once nobody holds the stream's body any more.
        let incoming = self.incoming.borrow().as_ref().and_then(|incoming| incoming.borrow_mut().take());
        drop(incoming);
        drop(self.upgrade.take());
        self.wake();
        self.wake_body();
    }

    pub(super) fn close_for(&self, reason: CloseReason) {
        if !self.aborted() {
            self.close_reason.set(Some(reason));
        }
        self.abort();
    }

    /// Why this end has closed the connection on its own; `None` if it did not.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.close_reason.get().or_else(|| self.stream.as_ref()?.connection().close_reason())
    }

    pub fn aborted(&self) -> bool {
        self.aborted.get() || self.stream.as_ref().is_some_and(|stream| stream.connection().aborted())
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
            self.upgrade.replace(Some(sender));
        }
        OnUpgrade::new(receiver)
    }

    pub(super) fn take_upgrade(&self) -> Option<oneshot::Sender<Upgraded>> {
        self.upgrade.take()
    }

    pub(super) fn set_tls(&self, tls: TlsInfo) {
        assert!(self.tls.set(Box::new(tls)).is_ok(), "a connection has one handshake");
    }

    /// Whether TLS named another host that the certificate shown is not valid for.
    pub(super) fn misdirects(&self, host: &[u8]) -> bool {
        let connection = self.stream.as_ref().map_or(self, |stream| stream.connection());
        connection.tls.get().is_some_and(|tls| !tls.fits(host))
    }

    pub(super) fn carry_streams(&self) {
        let streams = Streams::new(self.clock.now());
        assert!(self.streams.set(Box::new(streams)).is_ok(), "a connection turns to HTTP/2 once");
    }

    pub(super) fn streams(&self) -> Option<&Streams> {
        self.streams.get().map(|streams| &**streams)
    }

    pub(super) fn stream(&self) -> Option<&Stream> {
        self.stream.as_deref()
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

    /// A head is whole and goes to the service, with this body if it has one.
    pub(super) fn begin_service(&self, incoming: Option<SharedIncoming>) {
        // Pipelined heads are not seen as they come.
        if self.phase.replace(Phase::Serving) != Phase::Head {
            self.clock.refresh();
        }
        self.body_open.set(incoming.is_some());
        self.unread.set(incoming.is_some());
        self.incoming.replace(incoming);
        self.body_late.set(false);
        self.body_timeout_off.set(false);
        self.body_wanted.set(None);
        self.answer.set(Answer::Open);
        drop(self.upgrade.take());
        self.switching.set(false);
    }

    /// The answer to the current request is a 101.
    pub(super) fn switch(&self) {
        self.switching.set(true);
    }

    pub(super) fn is_switching(&self) -> bool {
        self.switching.get()
    }

    /// From now on only a client that takes nothing has a deadline here.
    pub(super) fn begin_tunnel(&self) {
        self.half_closed.set(None);
        self.enter(Phase::Tunnel);
    }

    /// The answer has begun before the request has ended, as where both sides talk for as long as they
    /// like: from now on the answer's own deadlines say how long that lasts.
    pub fn disarm_body_timeout(&self) {
        self.body_timeout_off.set(true);
        self.body_wanted.set(None);
    }

    /// The service holds the body no longer. `whole`: it has read all of it.
    pub(super) fn close_body(&self, whole: bool) {
        self.body_wanted.set(None);
        if whole {
            self.unread.set(false);
        }
        if self.body_open.replace(false) {
            drop(self.incoming.take());
            self.settle();
        }
    }

    /// Nobody will read the rest of the current request: the connection cannot go on after it.
    pub(super) fn body_abandoned(&self) -> bool {
        self.unread.get() && !self.body_open.get()
    }

    pub(super) fn is_unread(&self) -> bool {
        self.unread.get()
    }

    pub(super) fn answer(&self) -> Answer {
        self.answer.get()
    }

    pub(super) fn end_answer(&self) {
        self.answer.set(Answer::Ended);
    }

    /// The kernel has everything that hyper wrote.
    pub(super) fn flushed(&self) {
        if self.answer.get() == Answer::Ended {
            self.answer.set(Answer::Flushed);
            self.settle();
        }
    }

    /// An HTTP/1 exchange whose answer is sent and whose body is read is over.
    fn settle(&self) {
        let over = self.answer.get() == Answer::Flushed && !self.body_open.get();
        if over && self.phase.get() == Phase::Serving && self.stream.is_none() {
            self.enter(Phase::Idle);
        }
    }

    /// No byte will come from this client any more.
    pub(super) fn set_ended(&self) {
        self.ended.set(true);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.get() || self.stream.as_ref().is_some_and(|stream| stream.connection().has_ended())
    }

    /// The client has closed its side. True: so long ago that it is gone.
    pub(super) fn half_closed_for_long(&self) -> bool {
        let since = self.half_closed.get().unwrap_or_else(|| self.clock.now());
        self.half_closed.set(Some(since));
        self.clock.now().saturating_duration_since(since) >= HALF_CLOSED
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes_in.set(self.bytes_in.get() + bytes as u64);
        if self.body_wanted.get().is_some() {
            self.body_wanted.set(Some(self.clock.now()));
        }
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

    /// The body is wanted and not there. True: it is overdue.
    pub(super) fn await_body(&self, cx: &mut Context<'_>) -> bool {
        if self.body_late.get() {
            return true;
        }
        if self.body_wanted.get().is_none() && !self.body_timeout_off.get() {
            self.body_wanted.set(Some(self.clock.now()));
        }
        set_waker(&self.body_task, cx);
        false
    }

    pub(super) fn body_came(&self) {
        self.body_wanted.set(None);
    }

    /// Lets whatever happens to the connection wake this task.
    pub(super) fn register(&self, cx: &mut Context<'_>) {
        set_waker(&self.task, cx);
    }

    /// Lets an abort wake whoever holds the tunnel: the connection's own tasks may go on beside it.
    pub(super) fn register_tunnel(&self, cx: &mut Context<'_>) {
        set_waker(&self.body_task, cx);
    }

    pub(super) fn command(&self, command: ConnectionCommand) {
        self.command.set(Some(command));
        self.wake();
    }

    pub(super) fn take_command(&self) -> Option<ConnectionCommand> {
        self.command.take()
    }

    /// Whether an answer of our own is due in hyper's stead.
    pub(super) fn is_rejected(&self) -> bool {
        matches!(self.command.get(), Some(ConnectionCommand::Reject(_)))
    }

    /// The worker drains: who has nothing under way goes at once, the others learn of it.
    pub(super) fn begin_drain(&self) {
        if self.phase.get() == Phase::Idle {
            self.command.set(Some(ConnectionCommand::Close));
        }
        self.wake();
    }

    /// The ticker's look at this connection.
    pub(super) fn check(&self, now: Instant, limits: &Limits, draining: bool) {
        let past = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        if self.write_stalled.get().is_some_and(|since| past(since, limits.write_timeout)) {
            return self.close_for(CloseReason::WriteTimeout);
        }
        if let Some(streams) = self.streams() {
            streams.check(self, now, limits);
        }
        if self.half_closed.get().is_some_and(|since| past(since, HALF_CLOSED)) {
            // The task reads again and learns that the client is gone.
            self.wake();
        }
        let since = self.since.get();
        match self.phase.get() {
            Phase::Handshake if past(since, limits.tls_handshake_timeout) => {
                self.command(ConnectionCommand::Close);
            }
            Phase::Fresh if draining && past(since, FRESH_IN_DRAIN) => {
                self.command(ConnectionCommand::Close);
            }
            Phase::Fresh | Phase::Idle if past(since, limits.idle_timeout) => {
                self.command(ConnectionCommand::Close);
            }
            Phase::Head if past(since, limits.head_timeout) => {
                self.command(ConnectionCommand::Reject(super::RequestError::HeadTimeout));
            }
            Phase::Serving if self.body_wanted.get().is_some_and(|at| past(at, limits.body_timeout)) => {
                self.body_wanted.set(None);
                self.body_late.set(true);
                self.wake_body();
            }
            Phase::Closing if past(since, LINGER) => self.command(ConnectionCommand::Close),
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

fn set_waker(slot: &RefCell<Option<Waker>>, cx: &mut Context<'_>) {
    let slot = &mut *slot.borrow_mut();
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}
