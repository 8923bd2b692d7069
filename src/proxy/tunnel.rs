//! A tunnel after an upstream's 101. Copies bytes in both directions until both sides have ended, one fails,
//! the tunnel is idle for too long, or the fence cuts it. Each end records what is written to it, and accepts
//! no more bytes once the request is over.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

use crate::{
    authz::reason::Reason,
    metrics::WorkerEvent,
    net::{Clock, Deadline},
    proxy::{context::RequestContext, permitted::LogGuard, upstream::Upgraded},
    settings::UpstreamSettings,
};

/// An upstream connection that has switched protocols, before the client has received the 101.
pub struct Tunnel {
    upstream: Box<Upgraded>,
    /// The idle timeout.
    idle: Duration,
    /// How long written bytes may wait for the upstream to read.
    stall: Duration,
}

/// How a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Both sides have ended.
    Complete,
    ClientFailed,
    UpstreamFailed,
    /// The upstream stopped reading.
    Stalled,
    Idle,
}

impl Tunnel {
    pub fn new(upstream: Box<Upgraded>, settings: &UpstreamSettings) -> Self {
        let (idle, stall) = (settings.tunnel_idle_timeout, settings.first_byte_timeout);
        Self { upstream, idle, stall }
    }

    /// Starts relaying once the client has received the 101. If the client disconnects
    /// first, the request ends.
    pub fn begin(self, guard: LogGuard) {
        let client = guard.context().connection.on_upgrade();
        tokio::task::spawn_local(async move {
            if let Ok(client) = client.await {
                self.relay(client, guard).await;
            }
        });
    }

    /// Relays until the tunnel ends, and records the outcome in the context.
    async fn relay(self, client: impl AsyncRead + AsyncWrite + Unpin, guard: LogGuard) {
        let context = Rc::clone(guard.context());
        // Dropped last, so that both sockets are closed before the request is logged and
        // leaves the live registry.
        let _open = OpenTunnel::begin(guard);
        let to_upstream = EndState::new(&context.outcome.bytes_in);
        let to_client = EndState::new(&context.outcome.bytes_out);
        let mut client = TunnelEnd::new(client, &to_client, &context);
        let mut upstream = TunnelEnd::new(self.upstream, &to_upstream, &context);
        let mut idle = IdleTimer::new(context.clock(), self.idle);
        let mut stall = IdleTimer::new(context.clock(), self.stall);
        let outcome = {
            let mut copy = pin!(copy_bidirectional(&mut client, &mut upstream));
            poll_fn(|cx| match copy.as_mut().poll(cx) {
                Poll::Ready(Ok(_)) => Poll::Ready(Outcome::Complete),
                Poll::Ready(Err(_)) if to_client.failed.get() => Poll::Ready(Outcome::ClientFailed),
                Poll::Ready(Err(_)) => Poll::Ready(Outcome::UpstreamFailed),
                // The copy no longer polls an end that has reached end of file, so the cut is checked here.
                Poll::Pending if context.is_over() => Poll::Ready(Outcome::ClientFailed),
                Poll::Pending => {
                    if !to_upstream.blocked.get() {
                        stall.restart(to_upstream.written.get());
                    } else if stall.poll(cx, to_upstream.written.get()).is_ready() {
                        return Poll::Ready(Outcome::Stalled);
                    }
                    idle.poll(cx, to_upstream.written.get() + to_client.written.get()).map(|()| Outcome::Idle)
                }
            })
            .await
        };
        context.outcome.complete.set(outcome != Outcome::ClientFailed);
        let reason = match outcome {
            Outcome::Complete | Outcome::ClientFailed => None,
            Outcome::Idle => Some(Reason::TunnelIdle),
            Outcome::Stalled => Some(Reason::UpstreamTimeout),
            Outcome::UpstreamFailed => Some(Reason::UpstreamReset),
        };
        if reason.is_some() {
            context.outcome.reason.set(reason);
        }
        if matches!(outcome, Outcome::Complete | Outcome::Idle) {
            upstream.stream.finish();
        } else {
            context.connection.abort();
        }
        if outcome == Outcome::Idle {
            // Sends close_notify to a TLS client, unless that would block.
            let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut client).poll_shutdown(cx))).await;
        }
    }
}

/// Whether a byte count has not changed for too long.
struct IdleTimer<'c> {
    clock: &'c Clock,
    deadline: Deadline,
    limit: Duration,
    /// The count, and the time of its last change.
    last: (u64, Instant),
}

impl<'c> IdleTimer<'c> {
    fn new(clock: &'c Clock, limit: Duration) -> Self {
        let deadline = clock.deadline();
        deadline.arm(limit);
        Self { clock, deadline, limit, last: (0, clock.now()) }
    }

    fn restart(&mut self, count: u64) {
        self.last = (count, self.clock.now());
    }

    /// Ready once `limit` has passed without a change. The deadline is re-armed only when
    /// it expires, not for every byte.
    fn poll(&mut self, cx: &mut Context<'_>, count: u64) -> Poll<()> {
        if count != self.last.0 {
            self.restart(count);
        }
        loop {
            ready!(self.deadline.poll_expired(cx));
            let left = self.limit.saturating_sub(self.clock.now().saturating_duration_since(self.last.1));
            if left.is_zero() {
                return Poll::Ready(());
            }
            self.deadline.arm(left);
        }
    }
}

/// Counts an open tunnel in the metrics.
struct OpenTunnel(LogGuard);

impl OpenTunnel {
    fn begin(guard: LogGuard) -> Self {
        guard.context().metrics().count(WorkerEvent::TunnelOpened);
        Self(guard)
    }
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        self.0.context().metrics().count(WorkerEvent::TunnelClosed);
    }
}

/// The record of one end, readable while the copy owns that end.
pub struct EndState<'e> {
    /// The bytes written to this end.
    pub written: &'e Cell<u64>,
    /// Whether a write is pending.
    pub blocked: Cell<bool>,
    pub failed: Cell<bool>,
}

pub struct TunnelEnd<'t, S> {
    pub stream: S,
    traffic: &'t EndState<'t>,
    context: &'t RequestContext,
}

impl<'e> EndState<'e> {
    pub fn new(written: &'e Cell<u64>) -> Self {
        Self { written, blocked: Cell::new(false), failed: Cell::new(false) }
    }

    fn record<T>(&self, outcome: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(_)) = outcome {
            self.failed.set(true);
        }
    }
}

impl<'t, S> TunnelEnd<'t, S> {
    pub fn new(stream: S, traffic: &'t EndState<'t>, context: &'t RequestContext) -> Self {
        Self { stream, traffic, context }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TunnelEnd<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.traffic.record(&read);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TunnelEnd<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.context.is_relay_stopped() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.traffic.blocked.set(written.is_pending());
        self.traffic.record(&written);
        if let Poll::Ready(Ok(count)) = written {
            self.traffic.written.set(self.traffic.written.get() + count as u64);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.traffic.blocked.set(flushed.is_pending());
        self.traffic.record(&flushed);
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.traffic.record(&shut);
        shut
    }
}
