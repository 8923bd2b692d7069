//! The records as the store keeps them and the admin listener shows them. No serde here: `record`
//! turns them into versioned bytes, `admin` into JSON.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::authz::{
    secret::{Digest, TokenId},
    subject::{Access, Permission},
    time::Timestamp,
};

/// UUIDv7 text: a handle, never a secret.
pub type UserId = String;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    pub id: UserId,
    pub login: String,
    pub name: String,
    pub email: Option<String>,
    pub kind: UserKind,
    /// argon2id PHC string; empty until the web page sets one.
    pub password: Option<String>,
    pub banned: Option<String>,
    pub created_at: Timestamp,
    /// A tombstone: the audit log still resolves it, the login may be reused, the id never.
    pub deleted_at: Option<Timestamp>,
    /// Goes up with every change; the ETag.
    pub revision: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserKind {
    Human,
    Service,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    pub id: String,
    pub name: String,
    /// Id of the parent.
    pub parent: Option<String>,
    pub revision: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleRecord {
    pub key: String,
    pub name: String,
    pub permissions: Vec<Permission>,
    pub revision: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrantRecord {
    pub role: String,
    pub to: Grantee,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grantee {
    /// User id.
    User(String),
    /// Group id.
    Group(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    pub id: TokenId,
    pub digest: Digest,
    /// Registered by digest; its text never passed through here.
    pub imported: bool,
    pub owner: UserId,
    /// User id, or `None` for the operator on the unix socket.
    pub author: Option<UserId>,
    pub name: String,
    pub note: String,
    /// Service keys, sorted.
    pub scope: Vec<(String, Access)>,
    pub allow_ips: Vec<IpNet>,
    pub created_at: Timestamp,
    pub not_before: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub last_used: Option<LastUsed>,
    pub revoked: Option<Revocation>,
    pub rotation: Option<Rotation>,
    /// The id of the first token of the family.
    pub family: TokenId,
    pub revision: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastUsed {
    pub at: Timestamp,
    pub from: IpAddr,
    /// Service key.
    pub service: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub at: Timestamp,
    pub by: Option<UserId>,
    pub reason: RevokeReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokeReason {
    User,
    Admin,
    Rotated,
    OwnerDeleted,
    Leaked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    pub to: TokenId,
    pub grace_until: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    pub seq: u64,
    pub at: Timestamp,
    /// `token.create`, `user.ban`, `refusal`, ...
    pub event: String,
    /// Login, `operator` (unix socket), `system`, or `token:<id>` of a stranger's refusal.
    pub actor: String,
    /// `token:<id>`, `user:<login>`, `group:<name>`, ...
    pub target: String,
    pub service: Option<String>,
    pub request_id: Option<String>,
    pub outcome: String,
    pub reason: Option<String>,
    /// What changed, as JSON text; never a secret.
    pub change: Option<String>,
    /// BLAKE3 of the event before.
    pub prev: [u8; 32],
    pub hash: [u8; 32],
}
