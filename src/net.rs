//! Sockets: listeners, accept, deadlines, connection limits, drain. Knows no domain.
//!
//! A worker is one OS thread with a current-thread runtime and a `LocalSet`; everything here that
//! is not `Send` belongs to one worker.

use std::{cell::Cell, net::SocketAddr, rc::Rc, time::Duration};

/// Limits and timeouts of one listener (architecture.md, "Limits and timeouts by default").
#[derive(Clone, Debug)]
pub struct Limits {
    /// Request line and fields together, bytes.
    pub head: usize,
    /// One field, name and value, bytes.
    pub field: usize,
    pub fields: usize,
    /// Request target, bytes.
    pub target: usize,
    /// Connections over all workers.
    pub connections: usize,
    /// `None`: no limit per client address.
    pub connections_per_address: Option<usize>,
    /// From the first byte of a head until the service is called.
    pub head_timeout: Duration,
    pub tls_handshake_timeout: Duration,
    /// Between requests.
    pub idle_timeout: Duration,
    /// A request body that is wanted and does not come.
    pub body_timeout: Duration,
    /// An answer that the client does not take.
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 32 << 10,
            field: 16 << 10,
            fields: 100,
            target: 16 << 10,
            connections: 10_000,
            connections_per_address: None,
            head_timeout: Duration::from_secs(10),
            tls_handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Inet(SocketAddr),
    /// A unix socket, by the kernel's word.
    Unix {
        uid: u32,
        pid: Option<i32>,
    },
}

/// A client's connection as its requests see it. Belongs to one worker.
pub struct Connection {
    pub peer: Peer,
    pub local: Option<SocketAddr>,
    /// TLS ends here.
    pub secure: bool,
    severed: Cell<bool>,
    // The net work package adds the waker, the phase and the byte counts.
}

impl Connection {
    /// From now on no byte is taken from this client and none is handed to it; the connection's
    /// task closes it with a reset. Synchronous: when this returns, it holds.
    pub fn sever(&self) {
        self.severed.set(true);
    }

    pub fn severed(&self) -> bool {
        self.severed.get()
    }
}

/// What a listener serves: the proxy on workers, the admin Router on the control thread.
pub trait Handler: 'static {
    type Body: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + 'static;

    fn handle(
        self: Rc<Self>,
        request: http::Request<hyper::body::Incoming>,
        connection: Rc<Connection>,
    ) -> impl Future<Output = http::Response<Self::Body>> + 'static;
}

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
