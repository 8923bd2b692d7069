//! Shared by the tests of a whole gateway: the gateway, an upstream and a client.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod authority;
pub mod gateway;
pub mod http;
pub mod import;
pub mod raw;
pub mod stage;
pub mod upstream;
pub mod wait;
