//! Users, groups, roles and grants.

use serde::{Deserialize, Serialize};

use super::{record, wire};
use crate::{
    authz::{subject::Permission, time::Timestamp},
    store::model::{GrantRecord, Grantee, GroupRecord, RoleRecord, UserKind, UserRecord},
};

#[derive(Serialize, Deserialize)]
#[serde(remote = "UserRecord")]
struct UserV1 {
    id: String,
    login: String,
    name: String,
    email: Option<String>,
    #[serde(with = "wire")]
    kind: UserKind,
    password: Option<String>,
    banned: Option<String>,
    #[serde(with = "wire")]
    created_at: Timestamp,
    #[serde(with = "wire")]
    deleted_at: Option<Timestamp>,
    revision: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "GroupRecord")]
struct GroupV1 {
    id: String,
    name: String,
    parent: Option<String>,
    revision: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "RoleRecord")]
struct RoleV1 {
    key: String,
    name: String,
    #[serde(with = "wire")]
    permissions: Vec<Permission>,
    revision: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "GrantRecord")]
struct GrantV1 {
    role: String,
    #[serde(with = "wire")]
    to: Grantee,
}

record!(UserRecord, "user", UserV1);
record!(GroupRecord, "group", GroupV1);
record!(RoleRecord, "role", RoleV1);
record!(GrantRecord, "grant", GrantV1);
