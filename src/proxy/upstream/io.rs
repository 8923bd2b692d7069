//! The socket to an upstream. Every read and write first checks whether the call has ended. A failed write
//! does not hide a response that the upstream has already sent.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    net::{Reservation, Stream},
    proxy::upstream::{
        admission::Permit,
        call::{Call, Ended},
    },
};

/// The most interim responses before a response; more are the upstream's fault.
const MAX_INTERIM: u32 = 16;

/// Number of interim responses (1xx) to the current request. hyper's callback can count them but not stop the
/// exchange, so the next read of the socket checks the number.
#[derive(Clone, Default)]
pub struct Interim(Arc<AtomicU32>);

pub struct Io {
    stream: Box<dyn Stream>,
    call: Rc<Call>,
    /// HTTP/1 only: the counter, and the value that was last seen.
    interim: Option<(Interim, u32)>,
    /// A write has failed. Reads continue, for what the upstream has sent.
    write_failed: bool,
    _held: ConnectionPermits,
}

/// What a connection has taken from the limits. Released with the socket.
#[derive(Default)]
#[expect(dead_code, reason = "never read: the permits are released when dropped")]
pub struct ConnectionPermits {
    /// A permit under the upstream's limit on connections, if configured.
    pub permit: Option<Permit>,
    /// A share of the process's budget of sockets.
    pub socket: Option<Reservation>,
}

impl Interim {
    pub fn reset(&self) {
        self.0.store(0, Relaxed);
    }

    pub fn count(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub fn too_many(&self) -> bool {
        self.0.load(Relaxed) > MAX_INTERIM
    }
}

impl Io {
    pub fn new(stream: Box<dyn Stream>, call: Rc<Call>, held: ConnectionPermits) -> Self {
        Self { stream, call, interim: None, write_failed: false, _held: held }
    }

    pub fn watch_interim(mut self, interim: Interim) -> Self {
        self.interim = Some((interim, 0));
        self
    }

    /// The connection has switched protocols, so there is no response left that a failed write could hide.
    pub fn begin_tunnel(&mut self) {
        self.interim = None;
    }

    fn check_interim(&mut self) -> io::Result<()> {
        let Some((interim, seen)) = &mut self.interim else { return Ok(()) };
        if interim.too_many() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many interim responses"));
        }
        let count = interim.0.load(Relaxed);
        if std::mem::replace(seen, count) < count {
            self.call.progressed();
        }
        Ok(())
    }

    /// After a failed write, stays `Pending`: the read shows whether the exchange ends with an early response
    /// or an error. Otherwise a 413 that is followed by a reset would be lost.
    fn poll_send<T>(
        &mut self,
        out: impl FnOnce(Pin<&mut dyn Stream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        self.call.check()?;
        if self.write_failed {
            return Poll::Pending;
        }
        let polled = out(Pin::new(&mut *self.stream));
        self.call.set_blocked(polled.is_pending());
        let result = ready!(polled);
        if result.is_err() && self.interim.is_some() {
            self.write_failed = true;
            return Poll::Pending;
        }
        Poll::Ready(result)
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // The upstream must not mistake a truncated request for a complete one.
        if matches!(self.call.ended(), Some(Ended::Cancelled | Ended::TimedOut)) {
            self.stream.reset_on_close();
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.call.check()?;
        self.check_interim()?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            self.call.count_received(buf.filled().len() - before);
        }
        read
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(|stream| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(|stream| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(|stream| stream.poll_shutdown(cx))
    }
}
