//! The admin listener over real sockets, on a real store.

mod exchange;
mod fencing;
mod hardening;
mod harness;
mod lists;
mod nouns;
mod operations;
mod rules;
mod tokens;
mod vectors;
