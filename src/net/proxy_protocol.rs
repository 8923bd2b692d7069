//! The PROXY protocol, versions 1 and 2: the header in which a proxy names a connection's client. Only the
//! header's own bytes are taken from the socket, so that TLS or HTTP begins where it ends.

mod header;

use std::{io, net::SocketAddr};

use rustix::net::RecvFlags;

use self::header::MAX_HEADER;
pub use self::header::{Parsed, parse};
use super::stream::Socket;

/// The client for which a proxy has opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    Client(SocketAddr),
    /// A client whose address the proxy does not name.
    Unnamed,
    /// The proxy itself, such as for a health check.
    Own,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyHeaderError {
    #[error("the PROXY header is malformed: {0}")]
    Malformed(&'static str),
    #[error("the connection ended within the PROXY header")]
    Ended,
    /// No byte arrived, as in a check whether the port is open.
    #[error("the connection ended before the PROXY header")]
    Silent,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the header. The caller applies the deadline.
pub(super) async fn read(socket: &Socket) -> Result<ProxyHeader, ProxyHeaderError> {
    let mut header = Vec::new();
    let mut buffered = vec![0; MAX_HEADER];
    loop {
        let seen = socket.receive(&mut buffered, RecvFlags::PEEK).await?;
        if seen == 0 {
            return Err(if header.is_empty() { ProxyHeaderError::Silent } else { ProxyHeaderError::Ended });
        }
        let before = header.len();
        header.extend_from_slice(&buffered[..seen]);
        let (len, proxy_header) = match parse(&header) {
            Parsed::Partial => (header.len(), None),
            Parsed::Whole(len, proxy_header) => (len, Some(proxy_header)),
            Parsed::Malformed(why) => return Err(ProxyHeaderError::Malformed(why)),
        };
        // The peeked bytes are available. Only the header's part of them is consumed.
        let mut left = len - before;
        while left > 0 {
            left -= socket.receive(&mut buffered[..left], RecvFlags::empty()).await?;
        }
        if let Some(proxy_header) = proxy_header {
            return Ok(proxy_header);
        }
    }
}
