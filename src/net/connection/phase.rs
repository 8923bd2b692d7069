//! Where a connection is in its life, what its task is told to do, and why it was closed.

use crate::net::RequestError;

/// Where a connection is in its life, which decides the deadline that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Handshake,
    /// No byte has come yet.
    Fresh,
    /// Between requests; over HTTP/2, without an open stream.
    Idle,
    /// Bytes of a head have come.
    Head,
    /// A request or its answer is under way.
    Serving,
    /// The answer is a 101, which is on its way.
    Switching,
    /// What passes is no longer HTTP.
    Tunnel,
    /// The last answer is out; what the client still sends is thrown away.
    Closing,
}

/// What a connection's task is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionCommand {
    /// Reset the connection.
    Abort,
    /// Close; nothing is lost by it.
    Close,
    /// Answer with this error, then close.
    Reject(RequestError),
}

/// Why this end has aborted a connection on its own, where no caller of `abort` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The time of a drain was over.
    Drained,
    /// The client took nothing of an answer for `write_timeout`.
    WriteTimeout,
    /// A budget of the process was used up, and this connection had the most of it, or made room.
    OverBudget,
    /// An HTTP/2 client with open streams answered no ping.
    PingTimeout,
    /// A stream's reset could not be written, so the connection carries nothing any more.
    ResetBlocked,
}
