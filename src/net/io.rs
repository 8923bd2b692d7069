//! The I/O object that hyper uses instead of the socket. It stops when the connection is aborted, records
//! what the deadlines depend on, and keeps hyper's own bare error responses off the wire.

mod watch;

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    mem::MaybeUninit,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use zeroize::Zeroize as _;

use self::watch::{Frames, Lines};
use super::{
    Connection, RequestError, Worker,
    connection::{ConnectionCommand, Phase},
    stream::Stream,
};

/// The connection preface of an HTTP/2 client with prior knowledge (RFC 9113, 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A client's socket, shared by hyper and the connection's task.
#[derive(Clone)]
pub(super) struct CancelIo(Rc<Inner>);

struct Inner {
    stream: RefCell<Box<dyn Stream>>,
    connection: Rc<Connection>,
    worker: Rc<Worker>,
    /// Bytes that were read from the socket and are still to be read by hyper.
    buffered: RefCell<BytesMut>,
    watch: RefCell<Watch>,
    /// Whether the kernel has taken only a part of the last write.
    partly_written: Cell<bool>,
}

/// What the client's bytes are checked for.
enum Watch {
    /// The lines of an HTTP/1 head.
    Lines(Lines),
    Frames(Frames),
    Nothing,
}

impl CancelIo {
    /// Checks for HTTP/1 at first.
    pub(super) fn new(stream: Box<dyn Stream>, connection: Rc<Connection>, worker: Rc<Worker>) -> Self {
        Self(Rc::new(Inner {
            stream: RefCell::new(stream),
            connection,
            worker,
            buffered: RefCell::default(),
            watch: RefCell::new(Watch::Lines(Lines::default())),
            partly_written: Cell::new(false),
        }))
    }

    pub(super) fn connection(&self) -> &Rc<Connection> {
        &self.0.connection
    }

    pub(super) fn watch_frames(&self) {
        self.0.watch.replace(Watch::Frames(Frames::default()));
    }

    pub(super) fn stop_watching(&self) {
        self.0.watch.replace(Watch::Nothing);
    }

    /// Returns the ID of the stream that the client opened last, or 0.
    pub(super) fn last_stream(&self) -> u32 {
        match &*self.0.watch.borrow() {
            Watch::Frames(frames) => frames.last_stream(),
            Watch::Lines(_) | Watch::Nothing => 0,
        }
    }

    /// Whether the kernel has taken the last write in full, so that another frame can follow.
    pub(super) fn is_between_writes(&self) -> bool {
        !self.0.partly_written.get()
    }

    /// Makes these bytes the next to be read.
    pub(super) fn push_back(&self, bytes: &[u8]) {
        let behind = self.0.buffered.replace(BytesMut::from(bytes));
        self.0.buffered.borrow_mut().extend_from_slice(&behind);
    }

    /// Ready when an HTTP/1 client has gone away before its response, which hyper does not detect. Cannot
    /// tell (`Pending`) while the request's body is unread or a pipelined request is buffered.
    pub(super) fn poll_disconnect(&self, cx: &mut Context<'_>) -> Poll<()> {
        let connection = &self.0.connection;
        let waits = connection.phase() == Phase::Serving && !connection.exchange.is_unread();
        if !waits || !self.0.buffered.borrow().is_empty() {
            return Poll::Pending;
        }
        match ready!(self.read_ahead(cx)) {
            Ok(1..) => Poll::Pending,
            // The client may have closed only its side and still wait for the response.
            Ok(0) if !connection.record_half_close() => Poll::Pending,
            Ok(0) | Err(_) => {
                connection.set_ended();
                Poll::Ready(())
            }
        }
    }

    /// Whether a client in clear text begins with HTTP/2's preface. The bytes remain to be read.
    pub(super) fn poll_preface(&self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            {
                let buffered = self.0.buffered.borrow();
                let seen = buffered.len().min(PREFACE.len());
                if buffered[..seen] != PREFACE[..seen] || seen == PREFACE.len() {
                    return Poll::Ready(buffered.starts_with(PREFACE));
                }
            }
            if !matches!(ready!(self.read_ahead(cx)), Ok(1..)) {
                return Poll::Ready(false);
            }
            if self.0.connection.phase() == Phase::Fresh {
                self.0.connection.begin_head();
            }
        }
    }

    /// Reads from the socket into `buffered`.
    fn read_ahead(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut room = [MaybeUninit::uninit(); 4 << 10];
        let mut buf = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut *self.0.stream.borrow_mut()).poll_read(cx, &mut buf))?;
        let read = buf.filled_mut();
        self.0.connection.received(read.len());
        self.0.buffered.borrow_mut().extend_from_slice(read);
        // The bytes may contain a head with a token.
        read.zeroize();
        Poll::Ready(Ok(read.len()))
    }
}

impl Inner {
    fn check_open(&self) -> io::Result<()> {
        if self.connection.aborted() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check_open()?;
        let start = buf.filled().len();
        let mut buffered = self.buffered.borrow_mut();
        if buffered.is_empty() {
            let read = ready!(Pin::new(&mut *self.stream.borrow_mut()).poll_read(cx, buf));
            let length = buf.filled().len() - start;
            if read.is_err() || length == 0 {
                self.connection.set_ended();
                return Poll::Ready(read);
            }
            self.connection.received(length);
        } else {
            let part = buffered.len().min(buf.remaining());
            buf.put_slice(&buffered[..part]);
            buffered[..part].zeroize();
            buffered.advance(part);
            if buffered.is_empty() {
                // Frees the buffer, which may be as large as a head: a tunnel lives long.
                *buffered = BytesMut::new();
            }
        }
        self.watch(&buf.filled()[start..])?;
        Poll::Ready(Ok(()))
    }

    fn watch(&self, bytes: &[u8]) -> io::Result<()> {
        let watched = match &mut *self.watch.borrow_mut() {
            Watch::Nothing => Ok(()),
            Watch::Frames(frames) => frames.follow(bytes, &self.connection),
            Watch::Lines(lines) => {
                if matches!(self.connection.phase(), Phase::Fresh | Phase::Idle) {
                    *lines = Lines::after(lines);
                    self.connection.begin_head();
                }
                if self.connection.phase() == Phase::Head {
                    lines.follow(bytes, &self.worker.limits())
                } else {
                    Ok(())
                }
            }
        };
        watched.map_err(|error| {
            self.connection.command(ConnectionCommand::Reject(error));
            io::ErrorKind::InvalidData.into()
        })
    }

    /// Whether these bytes are hyper's own error response, which has no body and was not counted. If so,
    /// requests the gateway's response instead.
    fn intercept_error(&self, bytes: &[u8]) -> bool {
        let serving = !matches!(self.connection.phase(), Phase::Fresh | Phase::Idle | Phase::Head);
        if serving || !matches!(&*self.watch.borrow(), Watch::Lines(_)) {
            return false;
        }
        let Some(status) = bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.first_chunk()) else {
            return false;
        };
        self.connection.command(ConnectionCommand::Reject(match status {
            b"431" => RequestError::HeadTooLarge,
            b"414" => RequestError::TargetTooLong,
            _ => RequestError::BadRequest("the head cannot be parsed"),
        }));
        true
    }

    fn poll_write(
        &self,
        cx: &mut Context<'_>,
        length: usize,
        write: impl FnOnce(Pin<&mut Box<dyn Stream>>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let written = write(Pin::new(&mut *self.stream.borrow_mut()), cx);
        match &written {
            Poll::Ready(Ok(written)) => {
                self.partly_written.set(*written < length);
                self.connection.sent(*written);
            }
            Poll::Pending => self.connection.stall(),
            Poll::Ready(Err(_)) => self.connection.set_ended(),
        }
        written
    }
}

impl AsyncRead for CancelIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read(cx, buf)
    }
}

impl AsyncWrite for CancelIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.check_open()?;
        if self.0.intercept_error(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.0.poll_write(cx, bytes.len(), |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.check_open()?;
        let length = slices.iter().map(|slice| slice.len()).sum();
        if slices.first().is_some_and(|first| self.0.intercept_error(first)) {
            return Poll::Ready(Ok(length));
        }
        self.0.poll_write(cx, length, |stream, cx| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.stream.borrow().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.check_open()?;
        let flushed = Pin::new(&mut *self.0.stream.borrow_mut()).poll_flush(cx);
        match &flushed {
            // hyper flushes only when it has written everything.
            Poll::Ready(Ok(())) => self.0.connection.flushed(),
            Poll::Pending => self.0.connection.stall(),
            Poll::Ready(Err(_)) => self.0.connection.set_ended(),
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.check_open()?;
        // The gateway's own response is yet to be written.
        if self.0.connection.is_rejected() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(cx)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // A response that was cut must not look complete.
        if self.connection.aborted() {
            self.stream.borrow().reset_on_close();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::net::{Budgets, Limits, Peer};

    /// Takes every write, like TLS, and waits once for room before it has flushed.
    struct Buffered {
        waited: bool,
    }

    impl AsyncRead for Buffered {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Buffered {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if std::mem::replace(&mut self.waited, true) { Poll::Ready(Ok(())) } else { Poll::Pending }
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl Stream for Buffered {
        fn reset_on_close(&self) {}
    }

    #[tokio::test]
    async fn flush_that_had_to_wait_ends_the_write_timeout() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let connection = Rc::new(Connection::detached(Peer::Inet(([127, 0, 0, 1], 1).into())));
                let worker = Worker::new(Limits::default(), Budgets::for_process());
                let mut io = CancelIo::new(Box::new(Buffered { waited: false }), connection.clone(), worker);
                let cx = &mut Context::from_waker(std::task::Waker::noop());
                connection.enter(Phase::Serving);
                assert!(Pin::new(&mut io).poll_write(cx, b"x").is_ready());
                let limits = Limits { write_timeout: Duration::ZERO, ..Limits::default() };
                let check = |aborted: bool| {
                    assert_eq!(connection.held() > 0, aborted, "the client has everything");
                };
                check(false);
                assert!(Pin::new(&mut io).poll_flush(cx).is_pending());
                check(true);
                assert!(Pin::new(&mut io).poll_flush(cx).is_ready());
                check(false);
                connection.check(connection.clock().now(), &limits, false, false);
                assert!(!connection.aborted());
            })
            .await;
    }
}
