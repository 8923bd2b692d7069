//! The kinds of socket to clients and to upstreams.

use std::{io, os::fd::AsFd, time::Duration};

use rustix::net::RecvFlags;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{client, server};

/// An open socket.
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A byte stream that carries HTTP: a socket, or TLS over one.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Makes closing reset the connection, so that what the kernel holds for the peer is discarded. A unix
    /// socket has no reset: its peer sees an incomplete message end.
    fn reset_on_close(&self);
}

impl Socket {
    pub(super) fn reset_on_close(&self) {
        match self {
            Self::Tcp(stream) => stream.reset_on_close(),
            Self::Unix(stream) => stream.reset_on_close(),
        }
    }

    pub(super) async fn receive(&self, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.async_io(Interest::READABLE, || receive(stream, buf, flags)).await,
            Self::Unix(stream) => stream.async_io(Interest::READABLE, || receive(stream, buf, flags)).await,
        }
    }
}

fn receive(socket: impl AsFd, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    Ok(rustix::net::recv(socket, buf, flags)?.1)
}

impl Stream for TcpStream {
    fn reset_on_close(&self) {
        // A failure means that the connection is already gone.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

impl Stream for UnixStream {
    fn reset_on_close(&self) {}
}

impl Stream for server::TlsStream<TcpStream> {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}

impl Stream for client::TlsStream<TcpStream> {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}
