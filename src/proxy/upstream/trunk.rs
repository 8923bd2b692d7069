//! One HTTP/2 connection to an upstream, shared by many exchanges: how many it carries, whether it
//! takes more, and when it ends (idle for too long, or dead by its pings).

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong,
    client::{Builder, Connection, SendRequest},
};
use tokio::sync::Notify;

use crate::{
    net::{Clock, Deadline},
    proxy::upstream::{HEAD_LIMIT, admission::Place, transport::Transport},
};

/// Streams on one connection; more of them get another one.
const MOST_STREAMS: usize = 100;
/// What one exchange may hold unread.
const STREAM_WINDOW: u32 = 64 << 10;
/// As much as all streams together may hold: a hundred clients that do not read never stop the
/// connection for the one that does.
const CONNECTION_WINDOW: u32 = MOST_STREAMS as u32 * STREAM_WINDOW;
/// What unread frames may cost beside their content: 256 bytes each, less what a small one holds. Enough
/// for all windows full of frames of 32 bytes, as events and gRPC messages are: beyond it h2 ends
/// the connection, with everybody on it.
const SMALL_FRAMES: usize = CONNECTION_WINDOW as usize / 32 * (256 - 32);
const SEND_BUFFER: usize = 256 << 10;

/// While something is under way: how often life is asked for, and how long the answer may take.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_WITHIN: Duration = Duration::from_secs(20);
/// How long a farewell may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// What has been reset is remembered for so long, so that what was still on its way from the
/// upstream (a server may ignore a reset) costs that stream alone.
const RESETS_REMEMBERED: Duration = Duration::from_secs(30);
const MOST_RESETS_REMEMBERED: usize = 4096;

pub struct Trunk {
    /// `None`: takes no more exchanges and closes after the last one.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    active: Cell<usize>,
    /// How many the upstream takes, as far as it has refused some.
    most: Cell<usize>,
    used: Cell<bool>,
    idle: Duration,
    clock: Clock,
    deadline: Deadline,
    phase: Cell<Phase>,
    open: Notify,
}

/// What the deadline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The upstream's settings have not come yet.
    Opening,
    Idle,
    Busy,
    /// A ping is on its way.
    Asked,
    Leaving,
    Closed,
}

impl Trunk {
    /// Ready when the upstream has shown that it speaks HTTP/2. The driver is a task of its own.
    /// `held`: its place, where there are only so many.
    pub async fn start(
        transport: Transport,
        clock: &Clock,
        idle: Duration,
        held: Option<Place>,
    ) -> Result<Rc<Self>, h2::Error> {
        let (sender, mut connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .data_frame_budget(SMALL_FRAMES)
            .max_header_list_size(u32::try_from(HEAD_LIMIT).expect("64 KiB"))
            .max_send_buffer_size(SEND_BUFFER)
            .reset_stream_duration(RESETS_REMEMBERED)
            .max_concurrent_reset_streams(MOST_RESETS_REMEMBERED)
            // None before its settings: then it is known how many it takes, and that it is one.
            .initial_max_send_streams(0)
            .handshake::<_, Bytes>(transport)
            .await?;
        let pings = connection.ping_pong().expect("asked for once");
        let trunk = Rc::new(Self {
            sender: RefCell::new(Some(sender)),
            active: Cell::new(0),
            most: Cell::new(MOST_STREAMS),
            used: Cell::new(false),
            idle,
            clock: clock.clone(),
            deadline: clock.deadline(),
            phase: Cell::new(Phase::Opening),
            open: Notify::new(),
        });
        let driven = Rc::clone(&trunk);
        let driver = tokio::task::spawn_local(driven.drive(connection, pings, held));
        // Whoever does not wait for it any more does not want it.
        let mut guard = Abandoned(Some(driver.abort_handle()));
        if trunk.phase.get() == Phase::Opening {
            trunk.open.notified().await;
        }
        guard.0 = None;
        match trunk.phase.get() {
            Phase::Closed => Err(driver.await.ok().and_then(Result::err).unwrap_or_else(broken)),
            _ => Ok(trunk),
        }
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A handle for one more exchange, if it takes one.
    pub fn enter(&self) -> Option<SendRequest<Bytes>> {
        let mut sender = self.sender.borrow_mut();
        let sender = sender.as_mut()?;
        let sound = matches!(sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())));
        if !sound || self.active.get() >= self.most.get().min(sender.current_max_send_streams()) {
            return None;
        }
        self.active.set(self.active.get() + 1);
        if self.phase.replace(Phase::Busy) == Phase::Idle {
            self.deadline.arm(PING_EVERY);
        }
        Some(sender.clone())
    }

    /// After an exchange, however it ended.
    pub fn leave(&self) {
        self.used.set(true);
        self.active.set(self.active.get() - 1);
        if self.active.get() == 0 && matches!(self.phase.get(), Phase::Busy | Phase::Asked) {
            self.phase.set(Phase::Idle);
            self.deadline.arm(self.idle);
        }
    }

    /// The upstream has refused a stream: from now on it gets no more than it has.
    pub fn refused(&self) {
        self.most.set(self.active.get().saturating_sub(1).max(1));
    }

    /// Whether an exchange has ended on it already.
    pub fn used(&self) -> bool {
        self.used.get()
    }

    pub fn is_closed(&self) -> bool {
        let mut sender = self.sender.borrow_mut();
        !sender.as_mut().is_some_and(|sender| {
            matches!(sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
        })
    }

    pub fn is_idle(&self) -> bool {
        self.active.get() == 0
    }

    /// Takes no more exchanges; says farewell after the last one.
    pub fn retire(&self) {
        self.sender.borrow_mut().take();
    }

    async fn drive(
        self: Rc<Self>,
        mut connection: Connection<Transport, Bytes>,
        mut pings: PingPong,
        held: Option<Place>,
    ) -> Result<(), h2::Error> {
        let result = poll_fn(|cx| {
            if self.poll_alive(&mut pings, cx).is_ready() {
                return Poll::Ready(Err(broken()));
            }
            let end = Pin::new(&mut connection).poll(cx);
            if self.phase.get() == Phase::Opening && connection.max_concurrent_send_streams() > 0 {
                self.phase.set(Phase::Idle);
                self.deadline.arm(self.idle);
                self.open.notify_one();
                // The deadline has to know whom to wake.
                return self.poll_alive(&mut pings, cx).map(|()| Err(broken()));
            }
            end
        })
        .await;
        if let Err(error) = &result {
            tracing::debug!(%error, "upstream connection ended");
        }
        drop((connection, held));
        self.phase.set(Phase::Closed);
        self.retire();
        self.open.notify_one();
        result
    }

    /// Ready when the connection is to be dropped.
    fn poll_alive(&self, pings: &mut PingPong, cx: &mut Context<'_>) -> Poll<()> {
        if self.phase.get() == Phase::Asked && pings.poll_pong(cx).is_ready() {
            self.phase.set(Phase::Busy);
            self.deadline.arm(PING_EVERY);
        }
        loop {
            ready!(self.deadline.poll_expired(cx));
            match self.phase.get() {
                Phase::Busy => {
                    // One at a time: an unanswered one of an earlier exchange is as good.
                    let _ = pings.send_ping(Ping::opaque());
                    let _ = pings.poll_pong(cx);
                    self.phase.set(Phase::Asked);
                    self.deadline.arm(PING_WITHIN);
                }
                Phase::Idle => {
                    self.phase.set(Phase::Leaving);
                    self.retire();
                    self.deadline.arm(CLOSE_WITHIN);
                }
                Phase::Opening | Phase::Asked | Phase::Leaving | Phase::Closed => return Poll::Ready(()),
            }
        }
    }
}

/// Ends the driver of a connection that nobody waits for.
struct Abandoned(Option<tokio::task::AbortHandle>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(driver) = &self.0 {
            driver.abort();
        }
    }
}

fn broken() -> h2::Error {
    h2::Reason::INTERNAL_ERROR.into()
}
