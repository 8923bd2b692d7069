//! An HTTP/2 connection to an upstream through hyper, which many requests share: how many streams it carries,
//! whether it accepts more, and when it closes.

mod stream;

use std::{
    cell::{Cell, RefCell},
    error::Error as _,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use hyper::{
    client::conn::http2::{Builder, Connection, SendRequest},
    rt::Executor,
};
use hyper_util::rt::{TokioIo, TokioTimer};

pub use self::stream::{Http2Stream, is_websocket};
use crate::{
    net::{BoxError, Clock, Deadline, Stream},
    proxy::upstream::{
        HEAD_LIMIT,
        body::OutgoingBody,
        call::{Call, Ended},
        io::{ConnectionPermits, Io},
    },
};

/// The most streams on one connection. For more, another connection is opened.
const MAX_STREAMS: usize = 100;
/// The most unread bytes of one response.
const STREAM_WINDOW: u32 = 64 << 10;
/// Larger than all stream windows together, so that a hundred clients that do not read
/// never block the connection for one that does. `h2` closes a connection if the overhead
/// of unread frames (256 bytes each) exceeds half of this window. It is large enough for
/// every stream window to be full of 32-byte frames, such as events and gRPC messages.
const CONNECTION_WINDOW: u32 = MAX_STREAMS as u32 * STREAM_WINDOW / 32 * 256 * 2;
/// The most bytes of one request's body that are buffered for sending.
const SEND_BUFFER: usize = 16 << 10;
/// How long the upstream may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a write may block after a stream was cut, before the connection is closed.
const BLOCKED_TIMEOUT: Duration = Duration::from_secs(1);
/// How long closing the connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long reset streams are remembered. A frame that arrives for a remembered one (a
/// server may ignore a reset) affects only that stream.
const RESETS_REMEMBERED: Duration = Duration::from_secs(30);
const MAX_RESETS_REMEMBERED: usize = 4096;

pub struct Http2 {
    /// `None`: accepts no more requests, and closes after the last one.
    sender: RefCell<Option<SendRequest<OutgoingBody>>>,
    connection: RefCell<Option<HyperConnection>>,
    executor: StreamExecutor,
    /// The call of the whole connection.
    call: Rc<Call>,
    active: Cell<usize>,
    /// The most streams, lowered once the upstream has refused one.
    limit: Cell<usize>,
    used: Cell<bool>,
    idle: Duration,
    clock: Clock,
    /// The idle timeout, or the timeout of closing.
    deadline: Deadline,
}

/// Why an HTTP/2 connection could not be established.
#[derive(Debug, thiserror::Error)]
pub enum Http2Error {
    #[error("the connection was closed before its settings arrived")]
    Closed,
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

type HyperConnection = Connection<TokioIo<Io>, OutgoingBody, StreamExecutor>;

/// Spawns hyper's tasks on the worker. The tasks that send a call's body or carry its tunnel are assigned to
/// that call, so they end with it whatever they wait for.
#[derive(Clone, Default)]
pub struct StreamExecutor(Rc<RefCell<Option<Rc<Call>>>>);

impl StreamExecutor {
    /// Assigns the next spawned task to `call`. hyper polls a body once, then spawns the
    /// task that sends the rest.
    pub fn next_is_for(&self, call: &Rc<Call>) {
        *self.0.borrow_mut() = Some(Rc::clone(call));
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, future: F) {
        let Some(call) = self.0.take() else {
            tokio::task::spawn_local(future);
            return;
        };
        // Tasks that this task spawns, such as a tunnel's, belong to the same call.
        let (executor, of_call) = (self.clone(), Rc::clone(&call));
        let mut future = Box::pin(future);
        let task = tokio::task::spawn_local(poll_fn(move |cx| {
            executor.next_is_for(&of_call);
            let polled = future.as_mut().poll(cx);
            executor.0.take();
            polled
        }));
        call.add_task(task.abort_handle());
    }
}

impl Http2 {
    /// Ready once the upstream's SETTINGS have arrived, which say how many streams it accepts. `ping` is the
    /// interval of keep-alive pings while requests are under way.
    pub async fn start(
        stream: Box<dyn Stream>,
        clock: &Clock,
        idle: Duration,
        ping: Duration,
        held: ConnectionPermits,
    ) -> Result<Rc<Self>, Http2Error> {
        let (call, executor) = (Call::new(clock), StreamExecutor::default());
        executor.next_is_for(&call);
        let io = Io::new(stream, Rc::clone(&call), held);
        let (sender, connection) = Builder::new(executor.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(HEAD_LIMIT).expect("64 KiB"))
            .max_send_buf_size(SEND_BUFFER)
            .reset_stream_duration(RESETS_REMEMBERED)
            .max_concurrent_reset_streams(MAX_RESETS_REMEMBERED)
            .keep_alive_interval(ping)
            .keep_alive_timeout(PING_TIMEOUT)
            // No streams before the upstream's SETTINGS.
            .initial_max_send_streams(0)
            .handshake(TokioIo::new(io))
            .await?;
        let this = Rc::new(Self {
            sender: RefCell::new(Some(sender)),
            connection: RefCell::new(Some(connection)),
            executor,
            call,
            active: Cell::new(0),
            limit: Cell::new(MAX_STREAMS),
            used: Cell::new(false),
            idle,
            clock: clock.clone(),
            deadline: clock.deadline(),
        });
        // If the caller stops waiting, the connection's tasks end.
        let mut unfinished = AbortOnDrop(Some(Rc::clone(&this.call)));
        poll_fn(|cx| this.poll_settings(cx)).await?;
        unfinished.0 = None;
        this.deadline.arm(idle);
        tokio::task::spawn_local(Rc::clone(&this).drive());
        Ok(this)
    }

    fn poll_settings(&self, cx: &mut Context<'_>) -> Poll<Result<(), Http2Error>> {
        self.call.wake_on_read(cx);
        let mut connection = self.connection.borrow_mut();
        let Some(connection) = connection.as_mut() else { return Poll::Ready(Err(Http2Error::Closed)) };
        if connection.current_max_send_streams() > 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(Pin::new(connection).poll(cx))?;
        Poll::Ready(Err(Http2Error::Closed))
    }

    /// Opens a stream for one request, if the connection accepts another.
    /// `secure` selects the scheme of requests.
    pub fn open(self: &Rc<Self>, secure: bool) -> Option<Http2Stream> {
        let sender = self.sender.borrow().clone().filter(|sender| !sender.is_closed())?;
        let allowed = self.connection.borrow().as_ref()?.current_max_send_streams();
        if self.active.get() >= self.limit.get().min(allowed) {
            return None;
        }
        self.active.set(self.active.get() + 1);
        self.deadline.disarm();
        Some(Http2Stream::new(Rc::clone(self), sender, secure))
    }

    fn release(&self, ended: Option<Ended>) {
        if ended == Some(Ended::Cancelled) {
            tokio::task::spawn_local(close_if_blocked(Rc::clone(&self.call)));
        }
        self.used.set(true);
        self.active.set(self.active.get() - 1);
        if self.active.get() == 0 {
            let closing = self.sender.borrow().is_none();
            self.deadline.arm(if closing { CLOSE_TIMEOUT } else { self.idle });
        }
    }

    /// The upstream has refused a stream, so it gets no more than it has now.
    fn stop_opening(&self) {
        self.limit.set(self.active.get().saturating_sub(1).max(1));
    }

    /// Whether the upstream accepts WebSockets (RFC 8441).
    pub fn supports_extended_connect(&self) -> bool {
        let connection = self.connection.borrow();
        connection.as_ref().is_some_and(HyperConnection::is_extended_connect_protocol_enabled)
    }

    pub fn is_closed(&self) -> bool {
        self.sender.borrow().as_ref().is_none_or(SendRequest::is_closed)
    }

    pub fn is_idle(&self) -> bool {
        self.active.get() == 0
    }

    /// Accepts no more requests; closes after the last one.
    pub fn retire(&self) {
        if self.sender.take().is_some() && self.is_idle() {
            self.deadline.arm(CLOSE_TIMEOUT);
        }
    }

    async fn drive(self: Rc<Self>) {
        poll_fn(|cx| match self.deadline.poll_expired(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.poll_connection(cx),
        })
        .await;
        self.retire();
        // Requests under way continue. After the last one, closing has `CLOSE_TIMEOUT`.
        poll_fn(|cx| {
            if self.poll_connection(cx).is_ready() && self.is_idle() && self.call.is_done() {
                return Poll::Ready(());
            }
            self.deadline.poll_expired(cx)
        })
        .await;
        self.call.end(Ended::Dropped);
    }

    /// Ready when hyper accepts no more requests on the connection.
    fn poll_connection(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut slot = self.connection.borrow_mut();
        let Some(connection) = slot.as_mut() else { return Poll::Ready(()) };
        if let Err(error) = ready!(Pin::new(connection).poll(cx)) {
            tracing::debug!(%error, "upstream connection ended");
        }
        *slot = None;
        Poll::Ready(())
    }
}

/// The socket's error, if that is the cause of hyper's.
pub fn socket_error(error: &hyper::Error) -> Option<&io::Error> {
    error.source()?.downcast_ref()
}

/// The error of a body that ends early: the stream is reset with CANCEL.
pub fn cancelled() -> BoxError {
    h2::Error::from(h2::Reason::CANCEL).into()
}

/// Closes a connection that cannot send the reset of a stream that was cut.
async fn close_if_blocked(call: Rc<Call>) {
    loop {
        tokio::time::sleep(BLOCKED_TIMEOUT).await;
        match call.blocked_for() {
            Duration::ZERO => return,
            blocked if blocked >= BLOCKED_TIMEOUT => return call.end(Ended::Cancelled),
            _ => {}
        }
    }
}

/// Ends the tasks of a connection whose setup is abandoned.
struct AbortOnDrop(Option<Rc<Call>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(call) = &self.0 {
            call.end(Ended::Dropped);
        }
    }
}
