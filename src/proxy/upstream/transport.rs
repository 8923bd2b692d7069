//! The kinds of stream that lead to an upstream, as one.

use std::time::Duration;

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::client::TlsStream;

pub type Transport = Box<dyn Stream>;

pub trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// Closing is a reset from now on. A unix socket has none; its peer sees the end.
    fn reset_on_close(&self);
}

impl Stream for TcpStream {
    fn reset_on_close(&self) {
        // A failure means that the connection is gone already.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

impl Stream for TlsStream<TcpStream> {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}

impl Stream for UnixStream {
    fn reset_on_close(&self) {}
}
