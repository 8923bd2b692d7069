//! A client's connection that is HTTP's no longer: what comes after an answer of 101. The same
//! watch as before: counted, stopped dead when severed, and never stalled for longer than allowed.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Connection, stream::Stream};

/// The client's end of a tunnel, in plain text.
pub struct Upgraded {
    stream: Stream,
    connection: Rc<Connection>,
    /// What came behind the head, before the answer.
    early: BytesMut,
}

impl Upgraded {
    pub(super) fn new(stream: Stream, connection: Rc<Connection>, early: BytesMut) -> Self {
        Self { stream, connection, early }
    }

    fn alive(&self) -> io::Result<()> {
        if self.connection.severed() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.alive()?;
        if !self.early.is_empty() {
            let part = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early[..part]);
            self.early.advance(part);
            if self.early.is_empty() {
                // Its memory is as large as a head, and a tunnel lives long.
                self.early = BytesMut::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.connection.received(buf.filled().len() - before);
        read
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.alive()?;
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        match &written {
            Poll::Ready(Ok(bytes)) => self.connection.sent(*bytes),
            Poll::Pending => self.connection.send_stalls(),
            Poll::Ready(Err(_)) => {}
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alive()?;
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_pending() {
            self.connection.send_stalls();
        } else {
            self.connection.sent(0);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alive()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        // What was cut must not look as if it had ended.
        if self.connection.severed() {
            self.stream.reset_on_close();
        }
    }
}
