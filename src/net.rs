//! Sockets: listeners, accept, TLS, deadlines, connection limits, drain, and hyper over them. Knows
//! no domain.
//!
//! A worker is one OS thread with a local runtime of its own; everything here that is not `Send`
//! belongs to one worker. What hyper leaves open about framing is judged in `framing`, once.

mod accept;
mod bind;
mod body;
mod budget;
mod clock;
mod connection;
mod fetch;
mod framing;
mod http1;
mod http2;
mod io;
mod limits;
mod peer;
pub mod proxy_protocol;
mod request_error;
mod respond;
mod serve;
mod socket_activation;
mod stream;
pub mod tls;
mod upgrade;
mod worker;

use std::rc::Rc;

pub use self::{
    accept::serve,
    bind::{Address, AddressError, BindError, Bound, Listener, bind, bind_with_mode},
    body::{BodyError, RequestBody},
    budget::{Budget, BudgetLimits, Budgets, Holder, Machine, Reading, Reservation},
    clock::{Clock, Deadline, Elapsed},
    connection::{CloseReason, Connection},
    fetch::fetch,
    limits::Limits,
    peer::Peer,
    request_error::RequestError,
    socket_activation::{InheritError, Inherited},
    stream::{Socket, Stream},
    upgrade::{OnUpgrade, Upgraded},
    worker::{Drain, Drained, Draining, Worker, drain},
};

/// What a listener serves: the proxy on workers, the admin router on the control thread.
pub trait Service: 'static {
    /// Dropped once its last byte has been handed to the kernel (over HTTP/2: to h2), or the
    /// connection is over: what lives in it sees the whole answer.
    type Body: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Unpin + 'static;

    /// Called with a head that is within every limit and whose framing is unambiguous. The future is
    /// dropped when the client goes away or the connection is aborted.
    ///
    /// An extended CONNECT of HTTP/2 (RFC 8441) arrives as the `GET` with `Upgrade` that it stands
    /// for, and is answered with 101 as in HTTP/1.1.
    ///
    /// The request is boxed because it passes through many futures: each would hold room for it, and copy it.
    fn call(
        self: Rc<Self>,
        request: Box<http::Request<RequestBody>>,
        client: Rc<Connection>,
    ) -> impl Future<Output = http::Response<Self::Body>> + 'static;

    /// Counts and logs an error before a request, and answers it with `error.status()`. An HTTP/1 connection
    /// closes after it.
    fn reject(&self, error: RequestError, connection: &Connection) -> http::Response<bytes::Bytes>;

    /// Counts or logs an event of a connection.
    fn observe(&self, event: ConnectionEvent<'_>, connection: &Connection) {
        let _ = (event, connection);
    }
}

/// An event that [`Service::observe`] gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEvent<'a> {
    /// A connection was accepted; `Closed` always follows.
    Opened,
    Closed,
    /// A TLS handshake has succeeded or failed.
    Handshake(tls::Handshake),
    /// A trusted proxy's connection is closed because its PROXY header is missing or malformed, as this says.
    MissingProxyHeader(&'a str),
}

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
