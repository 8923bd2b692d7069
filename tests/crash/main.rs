//! Durability when the process is killed, a worker hangs, the disk is full or a sync
//! fails: the real binary with real faults.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

#[path = "../support/mod.rs"]
mod support;

mod directories;
mod disk_full;
mod every_call;
mod faults;
mod held_worker;
mod installation;
mod killed;
mod sync_error;
mod verified;
mod volumes;
mod write_errors;
