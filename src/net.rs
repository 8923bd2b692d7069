//! Sockets: listeners, accept, TLS, deadlines, connection limits, drain. Knows no domain.
//!
//! A worker is one OS thread with a local runtime of its own; everything here that is not `Send`
//! belongs to one worker. Whatever a client's head says about framing is judged here, once: nobody
//! behind reads the message in another way.

mod accept;
mod bind;
mod body;
mod chunked;
mod clock;
mod connection;
mod decoder;
mod drain;
mod h1;
mod h2;
mod head;
mod inherited;
mod lifetime;
mod limits;
mod peer;
mod proxy_protocol;
mod refusal;
mod sending;
mod splice;
mod stream;
pub mod tls;
mod tunnel;
mod worker;

use std::{
    rc::Rc,
    task::{Context, Poll},
};

pub use self::{
    accept::serve,
    bind::{Address, AddressError, BindError, Bound, Listener, bind, bind_with_mode},
    body::{BodyError, RequestBody},
    chunked::Malformed,
    clock::{Clock, Deadline, Elapsed},
    connection::Connection,
    decoder::{Decoder, Piece},
    drain::{Drain, Drained, Draining, drain},
    inherited::{InheritError, Inherited},
    limits::Limits,
    peer::Peer,
    refusal::Refusal,
    sending::{Coding, SendError, Sending},
    splice::Splice,
    tunnel::Upgraded,
    worker::{Budget, Worker},
};
use crate::message::{Request, Response};

/// What a listener serves: the proxy on workers, the admin Router on the control thread.
pub trait Handler: 'static {
    /// Dropped once its last byte has been handed to the kernel, or the connection is over: what
    /// lives in it sees the whole answer.
    type Body: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Unpin + 'static;

    /// Called with a head that keeps every limit and whose framing is unambiguous. The future is
    /// dropped when the client goes away or the connection is severed.
    fn handle(
        self: Rc<Self>,
        request: Request<RequestBody>,
        connection: Rc<Connection>,
    ) -> impl Future<Output = Response<Self::Body>> + 'static;

    /// What comes after an answer of 101, which the kernel has: HTTP is over on this connection. The
    /// future is dropped when the connection is severed; its end closes the connection.
    fn tunnel(self: Rc<Self>, answered: Self::Body, client: Upgraded) -> impl Future<Output = ()> + 'static {
        drop((answered, client));
        std::future::ready(())
    }

    /// Moves what comes next of an answer's body into a splice, which does not read it. `None`: it
    /// cannot be had so now, but as frames.
    fn poll_pour(
        body: &mut Self::Body,
        cx: &mut Context<'_>,
        splice: &mut Splice,
    ) -> Poll<Option<Result<(), BoxError>>> {
        let _ = (body, cx, splice);
        Poll::Ready(None)
    }

    /// The answer to what never becomes a request; status `refusal.status()`. The connection
    /// closes after it. Also the place to count and log.
    fn refuse(&self, refusal: Refusal, connection: &Connection) -> Response<bytes::Bytes>;

    /// A client has been let in: [`Self::closed`] follows, whatever becomes of the connection. The
    /// place to count.
    fn opened(&self) {}

    /// What [`Self::opened`] told of is over.
    fn closed(&self) {}

    /// A trusted proxy's connection is closed, since it does not say soundly whom it is for. The
    /// place to count and log.
    fn unannounced(&self, _connection: &Connection, _why: &str) {}

    /// A TLS handshake has ended, one way or the other. The place to count.
    fn shaken(&self, _outcome: tls::Handshake, _connection: &Connection) {}
}

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
