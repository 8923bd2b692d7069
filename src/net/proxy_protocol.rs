//! The PROXY protocol, versions 1 and 2: what a proxy says of a connection before its first byte.
//! Only the header's own bytes are taken from the socket, so that TLS and HTTP begin where it ends.

mod header;

use std::{io, net::SocketAddr};

use rustix::net::RecvFlags;

use self::header::LONGEST;
pub use self::header::{Verdict, parse};
use super::stream::Socket;

/// For whom a proxy has made a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    Client(SocketAddr),
    /// For somebody whose address it does not tell.
    Unnamed,
    /// For itself, such as a health check.
    Own,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyHeaderError {
    #[error("the PROXY header is malformed: {0}")]
    Malformed(&'static str),
    #[error("the connection ended within the PROXY header")]
    Ended,
    /// Nothing was said at all, as by a check whether the port is open.
    #[error("the connection ended before the PROXY header")]
    Silent,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the header; whoever calls sees to the deadline.
pub(super) async fn read(socket: &Socket) -> Result<ProxyHeader, ProxyHeaderError> {
    let mut header = Vec::new();
    let mut ahead = vec![0; LONGEST];
    loop {
        let seen = socket.receive(&mut ahead, RecvFlags::PEEK).await?;
        if seen == 0 {
            return Err(if header.is_empty() { ProxyHeaderError::Silent } else { ProxyHeaderError::Ended });
        }
        let before = header.len();
        header.extend_from_slice(&ahead[..seen]);
        let (len, proxy_header) = match parse(&header) {
            Verdict::Partial => (header.len(), None),
            Verdict::Whole(len, proxy_header) => (len, Some(proxy_header)),
            Verdict::Malformed(why) => return Err(ProxyHeaderError::Malformed(why)),
        };
        // What was seen is there: it is the header's own part alone that is taken.
        let mut left = len - before;
        while left > 0 {
            left -= socket.receive(&mut ahead[..left], RecvFlags::empty()).await?;
        }
        if let Some(proxy_header) = proxy_header {
            return Ok(proxy_header);
        }
    }
}
