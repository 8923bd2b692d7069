//! Shared by the tests of a whole gateway: the gateway, an upstream and a client.

#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
#![allow(dead_code, reason = "every test crate uses its own part")]

pub mod authority;
pub mod gateway;
pub mod http;
pub mod import;
pub mod raw;
pub mod stage;
pub mod upstream;
pub mod wait;
