//! The real binary: its signals, streams and exit codes, and what it leaves on the disk.

#[path = "../support/mod.rs"]
mod support;

mod commands;
mod ending;
mod harness;
mod log;
mod reload;
mod secrets;
mod start;
mod sync;
