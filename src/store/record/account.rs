//! Users, groups, roles and grants.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{DecodeError, EncodeError, Record, V1, pack, unpack_v1};
use crate::{
    authz::{subject::Permission, time::Timestamp},
    store::model::{GrantRecord, Grantee, GroupRecord, RoleRecord, UserKind, UserRecord},
};

#[derive(Serialize, Deserialize)]
struct UserV1<'a> {
    id: Cow<'a, str>,
    login: Cow<'a, str>,
    name: Cow<'a, str>,
    email: Option<Cow<'a, str>>,
    kind: UserKindV1,
    password: Option<Cow<'a, str>>,
    banned: Option<Cow<'a, str>>,
    created_at: i64,
    deleted_at: Option<i64>,
    revision: u64,
}

#[derive(Serialize, Deserialize)]
enum UserKindV1 {
    Human,
    Service,
}

#[derive(Serialize, Deserialize)]
struct GroupV1<'a> {
    id: Cow<'a, str>,
    name: Cow<'a, str>,
    parent: Option<Cow<'a, str>>,
    revision: u64,
}

/// Permissions by their words, which are the public names already.
#[derive(Serialize, Deserialize)]
struct RoleV1<'a> {
    key: Cow<'a, str>,
    name: Cow<'a, str>,
    permissions: Vec<Cow<'a, str>>,
    revision: u64,
}

#[derive(Serialize, Deserialize)]
struct GrantV1<'a> {
    role: Cow<'a, str>,
    to: GranteeV1<'a>,
}

#[derive(Serialize, Deserialize)]
enum GranteeV1<'a> {
    User(Cow<'a, str>),
    Group(Cow<'a, str>),
}

impl Record for UserRecord {
    const KIND: &'static str = "user";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let row = UserV1 {
            id: borrowed(&self.id),
            login: borrowed(&self.login),
            name: borrowed(&self.name),
            email: self.email.as_deref().map(Cow::Borrowed),
            kind: match self.kind {
                UserKind::Human => UserKindV1::Human,
                UserKind::Service => UserKindV1::Service,
            },
            password: self.password.as_deref().map(Cow::Borrowed),
            banned: self.banned.as_deref().map(Cow::Borrowed),
            created_at: self.created_at.as_millis(),
            deleted_at: self.deleted_at.map(Timestamp::as_millis),
            revision: self.revision,
        };
        pack(Self::KIND, V1, &row)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let row: UserV1<'_> = unpack_v1(Self::KIND, bytes)?;
        Ok(Self {
            id: row.id.into_owned(),
            login: row.login.into_owned(),
            name: row.name.into_owned(),
            email: row.email.map(Cow::into_owned),
            kind: match row.kind {
                UserKindV1::Human => UserKind::Human,
                UserKindV1::Service => UserKind::Service,
            },
            password: row.password.map(Cow::into_owned),
            banned: row.banned.map(Cow::into_owned),
            created_at: Timestamp::from_millis(row.created_at),
            deleted_at: row.deleted_at.map(Timestamp::from_millis),
            revision: row.revision,
        })
    }
}

impl Record for GroupRecord {
    const KIND: &'static str = "group";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let row = GroupV1 {
            id: borrowed(&self.id),
            name: borrowed(&self.name),
            parent: self.parent.as_deref().map(Cow::Borrowed),
            revision: self.revision,
        };
        pack(Self::KIND, V1, &row)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let row: GroupV1<'_> = unpack_v1(Self::KIND, bytes)?;
        Ok(Self {
            id: row.id.into_owned(),
            name: row.name.into_owned(),
            parent: row.parent.map(Cow::into_owned),
            revision: row.revision,
        })
    }
}

impl Record for RoleRecord {
    const KIND: &'static str = "role";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let row = RoleV1 {
            key: borrowed(&self.key),
            name: borrowed(&self.name),
            permissions: self.permissions.iter().map(|p| Cow::Borrowed(p.word())).collect(),
            revision: self.revision,
        };
        pack(Self::KIND, V1, &row)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let row: RoleV1<'_> = unpack_v1(Self::KIND, bytes)?;
        let permissions: Option<_> = row.permissions.iter().map(|p| Permission::from_word(p)).collect();
        Ok(Self {
            key: row.key.into_owned(),
            name: row.name.into_owned(),
            permissions: permissions.ok_or(DecodeError::Malformed(Self::KIND))?,
            revision: row.revision,
        })
    }
}

impl Record for GrantRecord {
    const KIND: &'static str = "grant";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let to = match &self.to {
            Grantee::User(id) => GranteeV1::User(borrowed(id)),
            Grantee::Group(id) => GranteeV1::Group(borrowed(id)),
        };
        pack(Self::KIND, V1, &GrantV1 { role: borrowed(&self.role), to })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let row: GrantV1<'_> = unpack_v1(Self::KIND, bytes)?;
        let to = match row.to {
            GranteeV1::User(id) => Grantee::User(id.into_owned()),
            GranteeV1::Group(id) => Grantee::Group(id.into_owned()),
        };
        Ok(Self { role: row.role.into_owned(), to })
    }
}

fn borrowed(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(text)
}
