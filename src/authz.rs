//! The decision, pure: no I/O, no clock, no serde, no async. Time and randomness are arguments.
//!
//! [`decide::decide`] turns what a client sent and what the state knows into a
//! [`decide::Permit`] or a [`decide::Denial`]; [`answer`] is the one map from a reason to what the
//! client is told.

pub mod accounts;
pub mod administration;
pub mod answer;
pub mod carriers;
pub mod cookies;
pub mod decide;
pub mod destination;
pub mod explain;
#[cfg(test)]
mod fixture;
pub mod forwarding;
pub mod host;
pub mod path;
pub mod rules;
pub mod secret;
pub mod subject;
pub mod time;
