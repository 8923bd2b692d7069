//! permgate is a reverse-proxy authorization gateway for permanent tokens. It stands in front of HTTP services and
//! forwards a request when its `Authorization: Bearer` token is granted for the service that owns the path, and the
//! token's owner may read that service at that moment.
//!
//! # The life of a request
//!
//! ```text
//! net::serve            accept, TLS, connection limits, deadlines; hyper parses; framing is checked once more
//!   proxy               request id, log line, and the one map from a rejection to a response
//!     proxy::authorize    one synchronous block, before the first await:
//!       authz::path         the path, with every reading that some server might make of it
//!       authz::rules        which service owns it, by all readings
//!       state               the token by its digest, with its owner: in memory
//!       authz::decide       a Permit, or a Denial with its reason
//!       fence               a live entry, so that a later change can judge the request again
//!     proxy::forward      the head written anew: fields dropped, identity set
//!     proxy::upstream     limits, balancing, pool; takes only a request with a Permit
//! ```
//!
//! # The life of a change
//!
//! A call of [`admin`], or a reload by [`app`], is a command to the writer of [`store`], which is the only publisher. It
//! makes the change durable, replaces what [`state`] holds, raises the epoch of [`fence`], and answers when every worker
//! has judged what it has in flight by the new state and cut what is no longer permitted.
//!
//! # Modules
//!
//! Modules are floors of a house, and imports point down only: `tests/layers.rs` checks every `use crate::…` against a
//! table. From the ground up: [`authz`] (the decision, pure), [`state`], [`fence`], [`metrics`], [`settings`], [`net`],
//! [`assertion`] and [`issuer`], [`store`], [`proxy`] beside [`admin`], [`config`], [`app`], [`cli`]. `docs/architecture.md` has the
//! drawing, `docs/domain.md` the rules of the product, `docs/glossary.md` the words.

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
