//! A client's connection or HTTP/2 stream after a 101 response, when it no longer carries HTTP. It is still
//! counted, can be aborted, and has the write timeout.

use std::{
    any::Any,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

use super::{Connection, io::CancelIo};

/// The client's end of a tunnel, with TLS removed.
pub struct Upgraded {
    io: Box<dyn Duplex>,
    connection: Rc<Connection>,
    /// The connection's slot and guard, or the HTTP/2 stream. Released when the tunnel ends.
    _held: Box<dyn Any>,
}

/// The client's end of a future tunnel. Fails if the connection ends first.
pub type OnUpgrade = oneshot::Receiver<Upgraded>;

trait Duplex: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

impl Upgraded {
    /// Wraps an HTTP/1 connection. `buffered`: what the client sent after its request.
    pub(super) fn http1(io: CancelIo, buffered: &[u8], held: impl Any) -> Self {
        io.stop_watching();
        io.push_back(buffered);
        let connection = io.connection().clone();
        connection.begin_tunnel();
        Self { io: Box::new(io), connection, _held: Box::new(held) }
    }

    pub(super) fn http2(io: hyper::upgrade::Upgraded, connection: Rc<Connection>, held: impl Any) -> Self {
        connection.begin_tunnel();
        Self { io: Box::new(TokioIo::new(io)), connection, _held: Box::new(held) }
    }

    /// Registers this task to be woken by an abort. Fails if the connection is aborted.
    fn watch(&self, cx: &mut Context<'_>) -> io::Result<()> {
        self.connection.exchange.watch_body(cx);
        if self.connection.aborted() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Counts bytes written to an HTTP/2 stream. `CancelIo` counts those of a socket.
    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if self.connection.is_stream() {
            match &written {
                Poll::Ready(Ok(bytes)) => self.connection.sent(*bytes),
                Poll::Pending => self.connection.stall(),
                Poll::Ready(Err(_)) => {}
            }
        }
        written
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.watch(cx)?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if self.connection.is_stream() {
            self.connection.received(buf.filled().len() - before);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.watch(cx)?;
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch(cx)?;
        // Over HTTP/2, hyper's `poll_flush` only waits for room to write more.
        if self.connection.is_stream() { Poll::Ready(Ok(())) } else { Pin::new(&mut self.io).poll_flush(cx) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch(cx)?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
