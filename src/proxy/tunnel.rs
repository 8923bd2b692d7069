//! What follows an upstream's 101: bytes both ways until both sides have ended, one has failed,
//! nothing has moved for too long, or the fence cuts it.

mod end;

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};

use self::end::{End, Traffic};
use crate::{
    authz::answer::Reason,
    net::{Clock, Deadline},
    proxy::{
        context::RequestContext,
        permitted::LogGuard,
        upstream::{Upgraded, settings::UpstreamSettings},
    },
};

/// An upstream that has switched protocols; it waits until its 101 has reached the client.
pub struct Tunnel {
    upstream: Box<Upgraded>,
    /// How long nothing may move.
    idle: Duration,
    /// How long the upstream may take nothing of what it is sent.
    stall: Duration,
}

/// How a tunnel ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Both sides have said all.
    Complete,
    ClientFailed,
    UpstreamFailed,
    /// The upstream takes nothing any more.
    Stalled,
    Idle,
}

impl Tunnel {
    pub fn new(upstream: Box<Upgraded>, settings: &UpstreamSettings) -> Self {
        let (idle, stall) = (settings.tunnel_idle_timeout, settings.first_byte_timeout);
        Self { upstream, idle, stall }
    }

    /// Relays once the client has its 101; without that the request is over.
    pub fn begin(self, guard: LogGuard) {
        let client = guard.context().connection.on_upgrade();
        tokio::task::spawn_local(async move {
            if let Ok(client) = client.await {
                self.relay(client, guard).await;
            }
        });
    }

    /// Relays until the tunnel has ended, and writes down in the context how.
    async fn relay(self, client: impl AsyncRead + AsyncWrite + Unpin, guard: LogGuard) {
        let context = Rc::clone(guard.context());
        // Dropped last: no socket is left when the log tells of it and the fence counts it.
        let _open = OpenTunnel::begin(guard);
        let to_upstream = Traffic::new(&context.outcome.bytes_in);
        let to_client = Traffic::new(&context.outcome.bytes_out);
        let mut client = End::new(client, &to_client);
        let mut upstream = End::new(self.upstream, &to_upstream);
        let mut watch = Watch::new(context.clock(), self.idle, self.stall);
        let outcome = {
            let mut copy = pin!(copy_bidirectional(&mut client, &mut upstream));
            poll_fn(|cx| match copy.as_mut().poll(cx) {
                Poll::Ready(Ok(_)) => Poll::Ready(Outcome::Complete),
                Poll::Ready(Err(_)) if to_client.has_failed() => Poll::Ready(Outcome::ClientFailed),
                Poll::Ready(Err(_)) => Poll::Ready(Outcome::UpstreamFailed),
                Poll::Pending => watch.poll(cx, &to_upstream, &to_client),
            })
            .await
        };
        record(outcome, &context);
        if matches!(outcome, Outcome::Complete | Outcome::Idle) {
            upstream.stream.finish();
        } else {
            context.connection.abort();
        }
        if outcome == Outcome::Idle {
            // A TLS client is told that this is meant, if that can be said without waiting.
            let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut client).poll_shutdown(cx))).await;
        }
    }
}

/// A side that is not at fault sees the other's failure as a reset.
fn record(outcome: Outcome, context: &RequestContext) {
    context.outcome.complete.set(outcome != Outcome::ClientFailed);
    match outcome {
        Outcome::Complete | Outcome::ClientFailed => {}
        Outcome::Idle => context.outcome.reason.set(Some(Reason::TunnelIdle)),
        Outcome::Stalled => context.outcome.reason.set(Some(Reason::UpstreamTimeout)),
        Outcome::UpstreamFailed => context.outcome.reason.set(Some(Reason::UpstreamReset)),
    }
}

/// The two deadlines of a tunnel.
struct Watch<'c> {
    clock: &'c Clock,
    idle: (Deadline, Duration),
    /// When a byte passed last, and how many had by then.
    moved: (Instant, u64),
    stall: (Deadline, Duration),
    /// Since the upstream takes nothing: how much it had taken.
    stalled_at: Option<u64>,
}

impl<'c> Watch<'c> {
    fn new(clock: &'c Clock, idle: Duration, stall: Duration) -> Self {
        let (idle, stall) = ((clock.deadline(), idle), (clock.deadline(), stall));
        idle.0.arm(idle.1);
        Self { clock, idle, moved: (clock.now(), 0), stall, stalled_at: None }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        to_upstream: &Traffic<'_>,
        to_client: &Traffic<'_>,
    ) -> Poll<Outcome> {
        let total = to_upstream.written() + to_client.written();
        if total != self.moved.1 {
            self.moved = (self.clock.now(), total);
        }
        if self.poll_stall(cx, to_upstream).is_ready() {
            return Poll::Ready(Outcome::Stalled);
        }
        self.poll_idle(cx).map(|()| Outcome::Idle)
    }

    fn poll_stall(&mut self, cx: &mut Context<'_>, to_upstream: &Traffic<'_>) -> Poll<()> {
        let (deadline, stall) = &self.stall;
        let stalled_at = to_upstream.is_blocked().then(|| to_upstream.written());
        if stalled_at != self.stalled_at {
            self.stalled_at = stalled_at;
            match stalled_at {
                Some(_) => deadline.arm(*stall),
                None => deadline.disarm(),
            }
        }
        if stalled_at.is_some() { deadline.poll_expired(cx) } else { Poll::Pending }
    }

    /// The deadline is moved only when it has passed, not with every byte.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (deadline, idle) = &self.idle;
        ready!(deadline.poll_expired(cx));
        let rested = self.clock.now().saturating_duration_since(self.moved.0);
        let Some(left) = idle.checked_sub(rested).filter(|left| !left.is_zero()) else {
            return Poll::Ready(());
        };
        deadline.arm(left);
        deadline.poll_expired(cx)
    }
}

/// An open tunnel as the metrics count it.
struct OpenTunnel(LogGuard);

impl OpenTunnel {
    fn begin(guard: LogGuard) -> Self {
        guard.context().metrics().tunnel_opened();
        Self(guard)
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.context().metrics().tunnel_closed();
    }
}
