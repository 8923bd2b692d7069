//! The fence: a change answers only when every participant decides by it and has cut what it
//! forbids. Knows no domain: what a participant judges is its own affair.

use std::{net::IpAddr, time::Duration};

use crate::authz::{
    secret::{Digest, TokenId},
    subject::UserIx,
};

/// Whom a change can have taken something from; a sweep may skip everybody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affected {
    /// Only entries of this token.
    Token(Digest),
    /// Only entries of this user's tokens.
    User(UserIx),
    /// Anybody: groups, roles, grants, a reload.
    Everybody,
}

/// How many in-flight requests, streams and tunnels a change has cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut(pub u64);

/// A participant has not acknowledged in time: durable, not yet everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a worker has not taken the change over within {} s", .0.as_secs())]
pub struct FenceIncomplete(pub Duration);

/// An in-flight request as `GET /v1/live` lists it.
#[derive(Clone, Debug)]
pub struct LiveRow {
    /// Process-wide: `<participant>-<number>`; what `cut` takes.
    pub id: String,
    pub request_id: String,
    pub token: Option<TokenId>,
    pub user: Option<UserIx>,
    pub service: String,
    pub method: String,
    /// Redacted, without query.
    pub path: String,
    pub client: IpAddr,
    pub age: Duration,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// Shared by the publisher, who raises it, and the participants, who acknowledge.
pub struct Fence {}
