//! permgate is a reverse-proxy authorization gateway for permanent tokens. It stands in front of HTTP
//! services and forwards a request when its `Authorization: Bearer` token is granted for the service that
//! owns the path, and the token's owner may read that service at that moment.
//!
//! # The life of a request
//!
//! ```text
//! net::serve            accept, TLS, connection limits, deadlines; hyper parses; framing is checked again
//!   proxy               request id, log line, and the one map from a rejection to a response
//!     proxy::authorize    one synchronous block, before the first await:
//!       authz::path         the path, in every way that some server might interpret it
//!       authz::rules        which service owns it, under every interpretation
//!       state               the token and its owner by the token's digest, in memory
//!       authz::decide       a Permit, or a Denial with its reason
//!       fence               a live entry, so that a later change can reauthorize the request
//!     proxy::forward      the head is rewritten: fields dropped, identity set
//!     proxy::upstream     limits, balancing, pool; accepts only a request with a Permit
//! ```
//!
//! # The life of a change
//!
//! A call of [`admin`], or a reload by [`app`], sends a command to the writer of [`store`], which is the only
//! publisher. The writer makes the change durable, replaces what [`state`] holds and raises the epoch of
//! [`fence`]. It answers when every worker has reauthorized its in-flight requests by the new state and cut
//! those that are no longer permitted.
//!
//! # Modules
//!
//! Modules form layers, and imports point down only: `tests/layers.rs` checks every `use crate::…` against a
//! table. From the bottom up: [`authz`] (the decision, pure), [`state`], [`fence`], [`metrics`],
//! [`settings`], [`net`], [`assertion`] and [`issuer`], [`store`], [`proxy`] beside [`admin`], [`config`],
//! [`app`], [`cli`]. `docs/architecture.md` has the diagram, `docs/domain.md` the rules of the product,
//! `docs/glossary.md` the terms.

pub mod admin;
pub mod app;
pub mod assertion;
pub mod authz;
pub mod cli;
pub mod config;
pub mod fence;
pub mod issuer;
pub mod metrics;
pub mod net;
pub mod proxy;
pub mod settings;
pub mod state;
pub mod store;
