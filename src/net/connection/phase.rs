//! Where a connection is, and what it is told to do.

use crate::net::Refusal;

/// Where a connection is in its life, which says what deadline holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Handshake,
    /// No byte has come yet.
    Fresh,
    /// Between requests.
    Idle,
    /// Bytes of a head have come.
    Head,
    /// hyper has the head and has not called the service.
    Judged,
    /// The handler, its answer or the request's body are under way.
    Serving,
    /// What passes is HTTP no longer.
    Tunnel,
    /// The last answer is out; what the client still sends is thrown away.
    Closing,
}

/// How far the answer of the present request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Open,
    /// hyper holds all of it.
    Ended,
    /// The kernel holds all of it.
    Flushed,
}

/// What the ticker, the drain or the wire tells the connection's task to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Close; nothing is lost by it.
    Close,
    Refuse(Refusal),
    /// Go on as HTTP/2: the client has begun so.
    Multiplex,
}
