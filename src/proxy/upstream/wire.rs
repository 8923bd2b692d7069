//! The bytes between the worker and an upstream, watched: the lane's switch is looked at before
//! every byte, and a broken write does not hide an answer that was already sent.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    net::Splice,
    proxy::upstream::{
        admission::Place,
        lane::{End, Lane},
        transport::Transport,
    },
};

pub struct Wire {
    stream: Transport,
    lane: Rc<Lane>,
    /// The upstream takes no more; what it has answered is still to be read.
    deaf: bool,
    /// HTTP is over on it: no answer is to come that a broken write could hide.
    tunnel: bool,
    /// Among the upstream's connections; given back with the socket.
    _held: Option<Place>,
}

impl Wire {
    pub fn new(stream: Transport, lane: Rc<Lane>, held: Option<Place>) -> Self {
        Self { stream, lane, deaf: false, tunnel: false, _held: held }
    }

    pub fn begin_tunnel(&mut self) {
        self.tunnel = true;
    }

    /// Of one at rest: whether the upstream has neither closed it nor said anything.
    pub fn is_quiet(&mut self) -> bool {
        self.stream.is_quiet()
    }

    fn check(&self) -> io::Result<()> {
        match self.lane.end() {
            None => Ok(()),
            Some(_) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// As much as there is, and no more than `most`, into a splice. `None`: it cannot be had that way.
    pub fn poll_pour(
        &mut self,
        cx: &mut Context<'_>,
        splice: &mut Splice,
        most: u64,
    ) -> Poll<Option<io::Result<usize>>> {
        if let Err(error) = self.check() {
            return Poll::Ready(Some(Err(error)));
        }
        let poured = match &self.stream {
            Transport::Tcp(socket) => splice.fill_from(socket, cx, most),
            Transport::Unix(_) | Transport::Tls(_) => return Poll::Ready(None),
        };
        match poured {
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(poured)) => self.heard(cx, Poll::Ready(Ok(poured))).map(Some),
            Poll::Pending => self.heard(cx, Poll::Pending).map(Some),
        }
    }

    fn heard(&self, cx: &mut Context<'_>, read: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match read {
            Poll::Ready(Ok(count)) => self.lane.hear(count),
            Poll::Ready(Err(_)) => self.lane.lose(),
            Poll::Pending => {
                ready!(self.lane.poll_overdue(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }

    /// A failed write turns into waiting: the read side tells how the exchange ends, be it with an
    /// early answer or with an error. Without this a 413 that is followed by a reset gets lost.
    fn written(&mut self, result: &io::Result<usize>) -> Poll<io::Result<usize>> {
        match result {
            Ok(count) => Poll::Ready(Ok(*count)),
            Err(error) if self.tunnel => Poll::Ready(Err(error.kind().into())),
            Err(_) => {
                self.deaf = true;
                self.lane.lose();
                Poll::Pending
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The upstream must not take half a request for a whole one.
        if matches!(self.lane.end(), Some(End::Cut | End::TimedOut)) {
            self.stream.reset_on_close();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.heard(cx, read.map(|read| read.map(|()| buf.filled().len() - before))).map(|read| read.map(drop))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        if self.deaf {
            return Poll::Pending;
        }
        let result = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.written(&result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        if self.deaf {
            return Poll::Pending;
        }
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices));
        self.written(&result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
