//! The kinds of socket to clients and to upstreams, and the peer at the other end.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    time::Duration,
};

use rustix::net::RecvFlags;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{client, server};

use crate::authz::forwarding::TrustedProxies;

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

/// The peer at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Inet(SocketAddr),
    /// A process on a unix socket, as the kernel reports it.
    Unix {
        uid: u32,
        pid: Option<i32>,
    },
    /// A client that the trusted proxy at this address does not name. It has the proxy's address, but not the
    /// proxy's trust.
    Unnamed(IpAddr),
}

impl Peer {
    /// Returns the peer's address. A unix socket's peer counts as local.
    pub fn address(&self) -> IpAddr {
        match self {
            Self::Inet(address) => address.ip(),
            Self::Unix { .. } => IpAddr::from([127, 0, 0, 1]),
            Self::Unnamed(proxy) => *proxy,
        }
    }

    /// Whether the peer is trusted to name its clients.
    pub fn is_trusted(&self, trusted: &TrustedProxies) -> bool {
        match self {
            Self::Inet(address) => trusted.contains(address.ip()),
            Self::Unix { .. } => trusted.unix,
            Self::Unnamed(_) => false,
        }
    }

    /// The address to which the limit per address applies.
    pub(super) fn limited_address(&self) -> Option<IpAddr> {
        match self {
            Self::Inet(address) => Some(address.ip()),
            Self::Unix { .. } | Self::Unnamed(_) => None,
        }
    }
}
