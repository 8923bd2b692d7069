//! The path of a request through the gateway over real sockets, between a scripted
//! upstream and a client of raw bytes.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod answers;
#[path = "../support/authority.rs"]
mod authority;
mod balance;
mod client_faults;
mod fencing;
mod forms;
mod forward_auth;
mod forwarding;
mod harness;
mod health;
#[path = "../support/http2.rs"]
mod http2;
mod identity;
mod large;
mod limits;
mod multiplexed;
mod names;
mod overload;
mod own;
mod secured;
#[path = "../support/spec.rs"]
mod spec;
mod streaming;
mod streams;
mod telling;
mod tunnels;
mod upstream_faults;
mod upstream_habits;
#[path = "../support/wait.rs"]
mod wait;
