//! The real binary: its signals, streams and exit codes, and what it leaves on the disk.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod ending;
mod figures;
mod floods;
mod harness;
#[allow(dead_code, reason = "floods uses a part of it")]
#[path = "../support/http2.rs"]
mod http2;
mod log;
mod memory;
mod reload;
mod secrets;
mod start;
mod sync;
mod systemd;
