//! A connection on which the upstream speaks HTTP no longer.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::upstream::{call::Ended, io::Io, pooled::PooledConnection};

/// The upstream's end of a tunnel. Dropped before [`Upgraded::finish`], it is reset.
pub struct Upgraded {
    io: Io,
    /// What it has said in its new protocol already.
    early: Bytes,
    connection: PooledConnection,
    finished: bool,
}

impl Upgraded {
    pub(super) fn new(io: Io, early: Bytes, connection: PooledConnection) -> Self {
        Self { io, early, connection, finished: false }
    }

    /// It did not break off.
    pub fn finish(&mut self) {
        self.finished = true;
    }
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        // Cut, drained or failed: what broke off must not look as if it had ended.
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
        if !self.early.is_empty() && self.connection.call().ended().is_none() {
            let length = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early[..length]);
            self.early.advance(length);
            if self.early.is_empty() {
                // A tunnel lives long; what it held goes now.
                self.early = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
