//! The admin listener over real sockets with a real store.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![allow(clippy::needless_pass_by_value, reason = "`json!` returns values")]

mod exchange;
mod fencing;
mod hardening;
mod harness;
mod invitations;
mod lists;
mod nouns;
mod operations;
mod page_lists;
mod pages;
mod power;
mod provider;
mod rules;
mod scripts;
mod sessions;
mod shares;
#[path = "../support/spec.rs"]
mod spec;
mod tokens;
mod vectors;
