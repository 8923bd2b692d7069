//! Attacks on a whole gateway over real sockets, judged by what a raw upstream receives
//! and by what a raw client gets back.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod benign;
mod budgets;
mod carriers;
mod credentials;
mod destinations;
mod exhaustion;
mod headers;
mod paths;
mod readings;
mod recorder;
mod review;
mod smuggling;
mod stage;
mod statements;
#[path = "../support/mod.rs"]
mod support;
mod upstreams;
