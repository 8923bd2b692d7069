//! Users, groups, roles and grants as they are stored and shown. Plain values, without serde.

use strum::IntoStaticStr;

use crate::authz::{subject::Permission, time::Timestamp};

/// UUIDv7 text: a handle, never a secret.
pub type UserId = String;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    pub id: UserId,
    pub login: String,
    pub name: String,
    pub email: Option<String>,
    pub kind: UserKind,
    /// argon2id PHC string; `None` while no password is set.
    pub password: Option<String>,
    pub banned: Option<String>,
    pub created_at: Timestamp,
    /// Marks a tombstone: the audit log still resolves the id. The login may be reused, the id never.
    pub deleted_at: Option<Timestamp>,
    /// Increases with every change; used as the ETag.
    pub revision: u64,
}

impl UserRecord {
    /// A new user, without email and password.
    pub fn new(id: UserId, login: String, name: String, kind: UserKind, created_at: Timestamp) -> Self {
        let (email, password, banned, deleted_at) = (None, None, None, None);
        Self { id, login, name, email, kind, password, banned, created_at, deleted_at, revision: 1 }
    }

    /// Whether the user may sign in, in whatever way. Service accounts have tokens only.
    pub fn may_sign_in(&self) -> bool {
        self.kind == UserKind::Human && self.banned.is_none() && self.deleted_at.is_none()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum UserKind {
    Human,
    Service,
}

impl UserKind {
    pub const fn word(self) -> &'static str {
        self.into_str()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    pub id: String,
    pub name: String,
    /// The parent's id.
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
