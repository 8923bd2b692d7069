//! The authorization decision as pure functions: no I/O, no clock, no serde, no async. The caller passes in
//! time and randomness.
//!
//! [`decide::decide`] turns a request and the current state into a [`decide::Permit`] or a
//! [`decide::Denial`]. [`reason`] maps each reason to the response that the client gets.

pub mod accounts;
pub mod administration;
pub mod carriers;
pub mod cookies;
pub mod decide;
pub mod destination;
pub mod explain;
#[cfg(test)]
mod fixture;
pub mod forwarding;
pub mod host;
pub mod network;
pub mod path;
pub mod reason;
pub mod rules;
pub mod secret;
pub mod subject;
pub mod time;
