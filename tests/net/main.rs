//! The listener's limits and protocol rules, over real sockets.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[path = "../support/authority.rs"]
mod authority;
mod breaches;
mod budgets;
mod conformance;
mod deadlines;
mod ends;
mod frames;
mod handshakes;
mod harness;
#[path = "../support/http2.rs"]
mod http2;
mod multiplexed;
mod proxy_protocol;
mod refusals;
mod requests;
mod sockets;
mod tls;
#[path = "../support/wait.rs"]
mod wait;
