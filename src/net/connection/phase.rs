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
    /// The handler, its answer or the request's body are under way.
    Serving,
    /// What passes is HTTP no longer.
    Tunnel,
    /// The last answer is out; what the client still sends is thrown away.
    Closing,
}

/// What the ticker or the drain tells the connection's task to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Close; nothing is lost by it.
    Close,
    Refuse(Refusal),
}
