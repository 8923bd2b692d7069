//! Sockets: listeners, accept, TLS, deadlines, connection limits, drain, and hyper on top of them. Contains
//! no domain logic.
//!
//! A worker is one OS thread with its own local runtime. Everything here that is not `Send` belongs to one
//! worker. What hyper leaves open about message framing is checked in `framing` only.

mod accept;
mod bind;
mod body;
mod budget;
mod clock;
mod connection;
mod fetch;
mod files;
mod framing;
mod http2;
mod io;
pub mod proxy_protocol;
mod respond;
mod serve;
mod stream;
pub mod tls;
mod upgrade;
mod worker;

use std::rc::Rc;

pub use self::{
    accept::serve,
    bind::{
        Address, AddressError, BindError, Bound, InheritError, Inherited, Listener, bind, bind_with_mode,
    },
    body::{BodyError, FramePoll, RequestBody},
    budget::{Budget, BudgetLimits, Budgets, Holder, Machine, Reading, Reservation, log_refusals},
    clock::{Clock, Deadline, Elapsed, LogThrottle, Throttle},
    connection::{CloseReason, Connection, Kept},
    fetch::fetch,
    files::read_regular_file,
    framing::RequestError,
    stream::{Peer, Socket, Stream},
    upgrade::{OnUpgrade, Upgraded},
    worker::{Drain, Drained, Draining, Limits, Worker, drain},
};

/// The HTTP service behind a listener: the proxy on the workers, the admin router on the control thread.
pub trait Service: 'static {
    /// The body of a response. It is dropped when its last byte has been handed to the kernel (over HTTP/2:
    /// to h2) or the connection has ended, so a guard inside it covers the whole response.
    type Body: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Unpin + 'static;

    /// Handles one request, whose head is within every limit and whose framing is unambiguous. The future is
    /// dropped when the client goes away or the connection is aborted.
    ///
    /// An extended CONNECT of HTTP/2 (RFC 8441) arrives as the equivalent `GET` with `Upgrade`, and is
    /// accepted with 101 as in HTTP/1.1.
    ///
    /// The request is boxed because many futures hold it. Each would otherwise reserve space for it and copy
    /// it.
    fn call(
        self: Rc<Self>,
        request: Box<http::Request<RequestBody>>,
        client: Rc<Connection>,
    ) -> impl Future<Output = http::Response<Self::Body>> + 'static;

    /// Counts and logs an error that prevented a request, and returns a response with `error.status()`. An
    /// HTTP/1 connection closes after it. `head`: the request's, if it was read.
    fn reject(
        &self,
        error: RequestError,
        head: Option<&http::request::Parts>,
        connection: &Connection,
    ) -> http::Response<bytes::Bytes>;

    /// Counts or logs an event of a connection.
    fn observe(&self, event: ConnectionEvent<'_>, connection: &Connection) {
        let _ = (event, connection);
    }
}

/// An event of a connection, for [`Service::observe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEvent<'a> {
    /// A connection was accepted; `Closed` always follows.
    Opened,
    Closed,
    /// A TLS handshake has succeeded or failed.
    Handshake(tls::Handshake),
    /// A trusted proxy's connection is closed because its PROXY header is missing or malformed; the text says
    /// why.
    MissingProxyHeader(&'a str),
}

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
