//! permgate: a reverse-proxy authorization gateway for permanent tokens.
//!
//! The modules are floors of a house and imports point down only; `tests/layers.rs` holds the
//! `use crate::…` lines against that order.

pub mod admin;
pub mod app;
pub mod assertion;
pub mod authz;
pub mod cli;
pub mod config;
pub mod fence;
pub mod metrics;
pub mod net;
pub mod proxy;
pub mod settings;
pub mod state;
pub mod store;
