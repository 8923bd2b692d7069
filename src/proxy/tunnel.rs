//! What follows an upstream's 101: bytes both ways until both sides have ended, one has failed,
//! nothing has moved for too long, or the fence cuts it.

mod pump;

use std::{
    cell::RefCell,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::AsyncWrite as _;

use self::pump::{Pump, Side};
use crate::{
    authz::answer::Reason,
    net::{Deadline, Upgraded},
    proxy::{
        context::RequestContext,
        permitted::LogGuard,
        upstream::{Upgraded as UpstreamIo, settings::UpstreamSettings},
    },
};

/// An upstream that has switched protocols; it waits until its 101 has reached the client.
pub struct Tunnel {
    upstream: Box<UpstreamIo>,
    /// How long nothing may move.
    idle: Duration,
    /// How long the upstream may take nothing of what it is sent.
    stall: Duration,
}

/// Read into by every tunnel of a worker: what is read goes on at once, so that a tunnel at rest
/// holds no buffer.
#[derive(Default)]
pub struct Scratch(RefCell<Vec<u8>>);

/// The largest piece that passes at once.
const PIECE: usize = 32 << 10;

impl Tunnel {
    pub fn new(upstream: Box<UpstreamIo>, settings: &UpstreamSettings) -> Self {
        let (idle, stall) = (settings.tunnel_idle_timeout, settings.first_byte_timeout);
        Self { upstream, idle, stall }
    }

    /// Relays once the client has its 101; without that the request is over.
    pub fn begin(self, guard: LogGuard) {
        let client = guard.context().connection.on_upgrade();
        tokio::task::spawn_local(async move {
            if let Ok(client) = client.await {
                let gateway = Rc::clone(guard.context().gateway());
                self.relay(client, guard, &gateway.scratch).await;
            }
        });
    }

    /// Relays until the tunnel has ended, and says in the context how.
    async fn relay(self, client: Upgraded, guard: LogGuard, scratch: &Scratch) {
        let Self { upstream, idle, stall } = self;
        let context = Rc::clone(guard.context());
        let clock = context.clock();
        let mut relay = Relay {
            upstream,
            client,
            up: Pump::default(),
            down: Pump::default(),
            idle: (clock.deadline(), idle),
            moved: clock.now(),
            stall: (clock.deadline(), stall),
            stalls: false,
            whole: false,
            _open: Open::begin(guard),
        };
        relay.idle.0.arm(idle);
        let ended = poll_fn(|cx| relay.poll(cx, &context, scratch)).await;
        relay.end(ended, &context);
        if ended == Ended::Idle {
            // A TLS client is told that this is meant, if that can be said without waiting.
            let client = &mut relay.client;
            let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut *client).poll_shutdown(cx))).await;
        }
    }
}

/// How a tunnel ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Both sides have said all.
    Whole,
    ByClient,
    ByUpstream,
    /// The upstream takes nothing any more.
    Stalled,
    Idle,
}

/// Dropped in this order: no socket is left when the log tells of it and the fence counts it.
struct Relay {
    upstream: Box<UpstreamIo>,
    client: Upgraded,
    up: Pump,
    down: Pump,
    idle: (Deadline, Duration),
    /// When a byte passed last.
    moved: Instant,
    stall: (Deadline, Duration),
    stalls: bool,
    /// It did not break off.
    whole: bool,
    _open: Open,
}

/// An open tunnel as the metrics count it.
struct Open(LogGuard);

impl Relay {
    fn poll(&mut self, cx: &mut Context<'_>, context: &RequestContext, scratch: &Scratch) -> Poll<Ended> {
        let (sent, received) = (&context.outcome.bytes_in, &context.outcome.bytes_out);
        let before = (sent.get(), received.get());
        let both = {
            let scratch = &mut *scratch.0.borrow_mut();
            scratch.resize(PIECE, 0);
            let up = self.up.poll(cx, &mut self.client, &mut self.upstream, scratch, sent);
            (up, self.down.poll(cx, &mut self.upstream, &mut self.client, scratch, received))
        };
        match both {
            (Poll::Ready(Err(Side::Source)), _) | (_, Poll::Ready(Err(Side::Sink))) => {
                return Poll::Ready(Ended::ByClient);
            }
            (Poll::Ready(Err(Side::Sink)), _) | (_, Poll::Ready(Err(Side::Source))) => {
                return Poll::Ready(Ended::ByUpstream);
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Ended::Whole),
            (Poll::Pending, _) | (_, Poll::Pending) => {}
        }
        let now = context.clock().now();
        if before != (sent.get(), received.get()) {
            self.moved = now;
        }
        if self.poll_stall(cx, before.0 != sent.get()).is_ready() {
            return Poll::Ready(Ended::Stalled);
        }
        self.poll_idle(cx, now).map(|()| Ended::Idle)
    }

    fn poll_stall(&mut self, cx: &mut Context<'_>, moved: bool) -> Poll<()> {
        let (deadline, stall) = &self.stall;
        let stalled = std::mem::replace(&mut self.stalls, self.up.is_held());
        match (stalled, self.stalls) {
            (false, false) => return Poll::Pending,
            (true, false) => {
                deadline.disarm();
                return Poll::Pending;
            }
            (true, true) if !moved => {}
            (_, true) => deadline.arm(*stall),
        }
        deadline.poll_expired(cx)
    }

    /// The deadline is moved only when it has passed, not with every byte.
    fn poll_idle(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let (deadline, idle) = &self.idle;
        ready!(deadline.poll_expired(cx));
        let rested = now.saturating_duration_since(self.moved);
        let Some(left) = idle.checked_sub(rested).filter(|left| !left.is_zero()) else {
            return Poll::Ready(());
        };
        deadline.arm(left);
        deadline.poll_expired(cx)
    }

    /// Writes down how it ended; a side that is not at fault sees the other's failure as a reset.
    fn end(&mut self, ended: Ended, context: &RequestContext) {
        self.whole = matches!(ended, Ended::Whole | Ended::Idle);
        context.outcome.complete.set(ended != Ended::ByClient);
        match ended {
            Ended::Whole | Ended::ByClient => {}
            Ended::Idle => context.outcome.reason.set(Reason::TunnelIdle),
            Ended::Stalled => context.outcome.reason.set(Reason::UpstreamTimeout),
            Ended::ByUpstream => context.outcome.reason.set(Reason::UpstreamReset),
        }
        if self.whole {
            self.upstream.finish();
        } else {
            context.connection.abort();
        }
    }
}

impl Open {
    fn begin(guard: LogGuard) -> Self {
        guard.context().metrics().tunnel_opened();
        Self(guard)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.context().metrics().tunnel_closed();
    }
}
