//! One end of a tunnel. It records written bytes, whether a write is blocked, and failures. It accepts no
//! more bytes once the request is over.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::context::RequestContext;

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
