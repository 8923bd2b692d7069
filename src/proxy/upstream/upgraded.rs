//! A connection to an upstream that has switched protocols.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::upstream::{call::Ended, io::Io, pool::PooledConnection};

/// The upstream's end of a tunnel. Dropping it without [`Upgraded::finish`] resets it.
pub struct Upgraded {
    io: Box<dyn Duplex>,
    /// The bytes that were read after the head of the 101.
    early: Bytes,
    connection: PooledConnection,
    finished: bool,
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

impl Upgraded {
    pub(super) fn http1(io: Io, early: Bytes, connection: PooledConnection) -> Self {
        Self { io: Box::new(io), early, connection, finished: false }
    }

    pub(super) fn http2(io: hyper::upgrade::Upgraded, connection: PooledConnection) -> Self {
        Self { io: Box::new(TokioIo::new(io)), early: Bytes::new(), connection, finished: false }
    }

    /// Both sides have ended the tunnel.
    pub fn finish(&mut self) {
        self.finished = true;
        self.connection.finish_tunnel();
    }
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        // The upstream must not mistake a tunnel that was cut, drained or failed for one that has ended.
        if !self.finished {
            self.connection.call().end(Ended::Cancelled);
        }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.connection.call().check()?;
        if !self.early.is_empty() {
            let length = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early[..length]);
            self.early.advance(length);
            if self.early.is_empty() {
                // Free the buffer now, because a tunnel is long-lived.
                self.early = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.connection.call().check()?;
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.call().check()?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.call().check()?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
