//! Pipeline tools through the gateway, each with the carrier that it can use. They work with a good token,
//! and print the gateway's description for a bad, a wrong and a revoked one, as far as they print any.
//!
//! Needs packages from apt, npm and PyPI, so it is ignored by default and run by `.ci/run`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod browser;
mod cache;
mod files;
mod images;
mod operations;
mod packages;
#[path = "../support/mod.rs"]
mod support;
mod tools;
