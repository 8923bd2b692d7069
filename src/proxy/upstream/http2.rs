//! HTTP/2 to an upstream: a connection of hyper's that many requests share. How many it carries,
//! whether it takes more, and when it ends.

mod stream;
mod websocket;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
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

pub use self::{stream::Http2Stream, websocket::is_asked_for as is_websocket};
use crate::{
    net::{Clock, Deadline, Stream},
    proxy::upstream::{
        HEAD_LIMIT,
        body::OutgoingBody,
        call::{Call, Ended},
        io::{ConnectionPermits, Io},
    },
};

/// Streams on one connection; more of them get another one.
const MAX_STREAMS: usize = 100;
/// What one request may hold unread of its answer.
const STREAM_WINDOW: u32 = 64 << 10;
/// More than all streams together may hold, so that a hundred clients that do not read never stop the
/// connection for the one that does. `h2` ends a connection whose unread frames cost more beside
/// their content (256 bytes each) than half of this: enough for all streams' windows full of frames
/// of 32 bytes, as events and gRPC messages are.
const CONNECTION_WINDOW: u32 = MAX_STREAMS as u32 * STREAM_WINDOW / 32 * 256 * 2;
/// What one request may have handed over and not sent.
const SEND_BUFFER: usize = 16 << 10;
/// How long the upstream may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the upstream may take nothing after a stream was cut.
const BLOCKED_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a farewell may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What has been reset is remembered for so long, so that what was still on its way from the
/// upstream (a server may ignore a reset) costs that stream alone.
const RESETS_REMEMBERED: Duration = Duration::from_secs(30);
const MAX_RESETS_REMEMBERED: usize = 4096;

pub struct Http2 {
    /// `None`: takes no more requests and closes after the last one.
    sender: RefCell<Option<SendRequest<OutgoingBody>>>,
    connection: RefCell<Option<HyperConnection>>,
    executor: StreamExecutor,
    /// Of the connection as a whole.
    call: Rc<Call>,
    active: Cell<usize>,
    /// How many the upstream takes, as far as it has refused some.
    limit: Cell<usize>,
    used: Cell<bool>,
    idle: Duration,
    clock: Clock,
    /// Until when it may be idle, or is to be closed.
    deadline: Deadline,
}

/// Why there is no HTTP/2 connection.
#[derive(Debug, thiserror::Error)]
pub enum Http2Error {
    #[error("the connection was closed before its settings came")]
    Closed,
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

type HyperConnection = Connection<TokioIo<Io>, OutgoingBody, StreamExecutor>;

/// Spawns hyper's tasks on the worker and gives each call those that send its body or carry its
/// tunnel, so that the end of the call ends them whatever they wait for.
#[derive(Clone, Default)]
pub struct StreamExecutor(Rc<RefCell<Option<Rc<Call>>>>);

impl StreamExecutor {
    /// hyper polls a body first and then spawns what sends the rest of it.
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
        // What this task spawns in its turn, as it does for a tunnel, belongs to the same call.
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
    /// Ready when the upstream has shown that it speaks HTTP/2, so that it is known how many streams
    /// it takes. `ping`: how often it is asked for life while something is under way.
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
            // None before its settings.
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
        // Whoever does not wait for it any more does not want it.
        let mut unfinished = Unfinished(Some(Rc::clone(&this.call)));
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

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A stream for one more request, if it takes one. `secure`: the scheme that requests name.
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

    /// The upstream has refused a stream: from now on it gets no more than it has.
    fn refused(&self) {
        self.limit.set(self.active.get().saturating_sub(1).max(1));
    }

    /// Whether the upstream takes WebSockets (RFC 8441).
    pub fn takes_extended_connect(&self) -> bool {
        let connection = self.connection.borrow();
        connection.as_ref().is_some_and(HyperConnection::is_extended_connect_protocol_enabled)
    }

    pub fn is_closed(&self) -> bool {
        self.sender.borrow().as_ref().is_none_or(SendRequest::is_closed)
    }

    pub fn is_idle(&self) -> bool {
        self.active.get() == 0
    }

    /// Takes no more requests; says farewell after the last one.
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
        // What is under way goes on; then the farewell has its time.
        poll_fn(|cx| {
            if self.poll_connection(cx).is_ready() && self.is_idle() && self.call.is_done() {
                return Poll::Ready(());
            }
            self.deadline.poll_expired(cx)
        })
        .await;
        self.call.end(Ended::Dropped);
    }

    /// Ready when hyper takes no more requests on it.
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

/// After a cut: a connection that cannot send the stream's reset ends as a whole.
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

/// Ends the tasks of a connection that nobody waits for.
struct Unfinished(Option<Rc<Call>>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(call) = &self.0 {
            call.end(Ended::Dropped);
        }
    }
}
