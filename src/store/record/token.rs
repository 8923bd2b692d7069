//! Tokens. What the index needs comes first, so that a start reads no more of a row. Last uses lie
//! apart, so that noting them rewrites no token.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{DecodeError, EncodeError, Record, V1, behind_v1, pack, unpack_v1};
use crate::{
    authz::{
        secret::{Digest, TokenId},
        subject::Access,
        time::Timestamp,
    },
    store::model::{LastUsed, Revocation, RevokeReason, Rotation, TokenRecord},
};

/// What the scan at start needs of a token, borrowed from the row: a million go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenHead<'a> {
    pub id: TokenId,
    pub owner: &'a str,
    pub imported: bool,
    pub scope: Vec<(&'a str, Access)>,
    pub allow_ips: Vec<IpNet>,
    pub not_before: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    pub rotation: Option<Rotation>,
}

/// The first part of a row, which is read without the rest.
#[derive(Serialize, Deserialize)]
struct HeadV1<'a> {
    id: [u8; 12],
    owner: &'a str,
    imported: bool,
    #[serde(borrow)]
    scope: Vec<(&'a str, AccessV1)>,
    allow_ips: Vec<NetV1>,
    not_before: Option<i64>,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
    rotation: Option<([u8; 12], i64)>,
}

#[derive(Serialize, Deserialize)]
struct TailV1<'a> {
    author: Option<&'a str>,
    name: &'a str,
    note: &'a str,
    created_at: i64,
    #[serde(borrow)]
    revoked_by: Option<&'a str>,
    revoked_for: Option<ReasonV1>,
    family: [u8; 12],
    revision: u64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(in crate::store) enum AccessV1 {
    Read,
    Full,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(in crate::store) enum ReasonV1 {
    User,
    Admin,
    Rotated,
    OwnerDeleted,
    Leaked,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(in crate::store) struct NetV1 {
    address: AddressV1,
    prefix: u8,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(in crate::store) enum AddressV1 {
    V4([u8; 4]),
    V6([u8; 16]),
}

#[derive(Serialize, Deserialize)]
struct UseV1<'a> {
    at: i64,
    from: AddressV1,
    service: &'a str,
}

const TOKEN: &str = "token";

impl TokenRecord {
    /// Everything but the digest, which is the key, and the last use, which lies apart.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let head = HeadV1 {
            id: id_bytes(self.id),
            owner: &self.owner,
            imported: self.imported,
            scope: self.scope.iter().map(|(service, access)| (service.as_str(), (*access).into())).collect(),
            allow_ips: self.allow_ips.iter().map(|net| NetV1::from(*net)).collect(),
            not_before: self.not_before.map(Timestamp::as_millis),
            expires_at: self.expires_at.map(Timestamp::as_millis),
            revoked_at: self.revoked.as_ref().map(|revocation| revocation.at.as_millis()),
            rotation: self.rotation.map(|r| (id_bytes(r.to), r.grace_until.as_millis())),
        };
        let tail = TailV1 {
            author: self.author.as_deref(),
            name: &self.name,
            note: &self.note,
            created_at: self.created_at.as_millis(),
            revoked_by: self.revoked.as_ref().and_then(|revocation| revocation.by.as_deref()),
            revoked_for: self.revoked.as_ref().map(|revocation| revocation.reason.into()),
            family: id_bytes(self.family),
            revision: self.revision,
        };
        pack(TOKEN, V1, &(head, tail))
    }

    /// Without its last use.
    pub(crate) fn decode(digest: &Digest, row: &[u8]) -> Result<Self, DecodeError> {
        let (head, tail): (HeadV1<'_>, TailV1<'_>) = unpack_v1(TOKEN, row)?;
        let head = TokenHead::try_from(head)?;
        let revoked = match (head.revoked_at, tail.revoked_for) {
            (Some(at), Some(reason)) => {
                Some(Revocation { at, by: tail.revoked_by.map(str::to_owned), reason: reason.into() })
            }
            (None, None) => None,
            _ => return Err(DecodeError::Malformed(TOKEN)),
        };
        let scope = head.scope.iter().map(|(service, access)| ((*service).to_owned(), *access));
        Ok(Self {
            id: head.id,
            digest: *digest,
            imported: head.imported,
            owner: head.owner.to_owned(),
            author: tail.author.map(str::to_owned),
            name: tail.name.to_owned(),
            note: tail.note.to_owned(),
            scope: scope.collect(),
            allow_ips: head.allow_ips,
            created_at: Timestamp::from_millis(tail.created_at),
            not_before: head.not_before,
            expires_at: head.expires_at,
            last_used: None,
            revoked,
            rotation: head.rotation,
            family: token_id(TOKEN, &tail.family)?,
            revision: tail.revision,
        })
    }
}

impl<'a> TokenHead<'a> {
    pub(crate) fn decode(row: &'a [u8]) -> Result<Self, DecodeError> {
        let (head, _): (HeadV1<'a>, _) =
            postcard::take_from_bytes(behind_v1(TOKEN, row)?).map_err(|_| DecodeError::Malformed(TOKEN))?;
        head.try_into()
    }

    /// Whether somebody ended the token: revoked or replaced it.
    pub(crate) fn is_ended(&self) -> bool {
        self.revoked_at.is_some() || self.rotation.is_some()
    }
}

impl<'a> TryFrom<HeadV1<'a>> for TokenHead<'a> {
    type Error = DecodeError;

    fn try_from(row: HeadV1<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: token_id(TOKEN, &row.id)?,
            owner: row.owner,
            imported: row.imported,
            scope: row.scope.into_iter().map(|(service, access)| (service, access.into())).collect(),
            allow_ips: nets(&row.allow_ips)?,
            not_before: row.not_before.map(Timestamp::from_millis),
            expires_at: row.expires_at.map(Timestamp::from_millis),
            revoked_at: row.revoked_at.map(Timestamp::from_millis),
            rotation: rotation(row.rotation)?,
        })
    }
}

impl Record for LastUsed {
    const KIND: &'static str = "last use";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let row = UseV1 { at: self.at.as_millis(), from: self.from.into(), service: &self.service };
        pack(Self::KIND, V1, &row)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let row: UseV1<'_> = unpack_v1(Self::KIND, bytes)?;
        Ok(Self {
            at: Timestamp::from_millis(row.at),
            from: row.from.into(),
            service: row.service.to_owned(),
        })
    }
}

pub(in crate::store) fn token_id(kind: &'static str, bytes: &[u8; 12]) -> Result<TokenId, DecodeError> {
    TokenId::from_bytes(*bytes).ok_or(DecodeError::Malformed(kind))
}

pub(super) fn id_bytes(id: TokenId) -> [u8; 12] {
    *id.as_bytes()
}

pub(in crate::store) fn rotation(row: Option<([u8; 12], i64)>) -> Result<Option<Rotation>, DecodeError> {
    let Some((to, until)) = row else { return Ok(None) };
    Ok(Some(Rotation { to: token_id(TOKEN, &to)?, grace_until: Timestamp::from_millis(until) }))
}

pub(in crate::store) fn nets(rows: &[NetV1]) -> Result<Vec<IpNet>, DecodeError> {
    let net = |row: &NetV1| IpNet::new(row.address.into(), row.prefix);
    rows.iter().map(net).collect::<Result<_, _>>().map_err(|_| DecodeError::Malformed(TOKEN))
}

impl From<IpNet> for NetV1 {
    fn from(net: IpNet) -> Self {
        Self { address: net.addr().into(), prefix: net.prefix_len() }
    }
}

impl From<IpAddr> for AddressV1 {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => Self::V6(v6.octets()),
        }
    }
}

impl From<AddressV1> for IpAddr {
    fn from(address: AddressV1) -> Self {
        match address {
            AddressV1::V4(octets) => octets.into(),
            AddressV1::V6(octets) => octets.into(),
        }
    }
}

impl From<Access> for AccessV1 {
    fn from(access: Access) -> Self {
        match access {
            Access::Read => Self::Read,
            Access::Full => Self::Full,
        }
    }
}

impl From<AccessV1> for Access {
    fn from(access: AccessV1) -> Self {
        match access {
            AccessV1::Read => Self::Read,
            AccessV1::Full => Self::Full,
        }
    }
}

impl From<RevokeReason> for ReasonV1 {
    fn from(reason: RevokeReason) -> Self {
        match reason {
            RevokeReason::User => Self::User,
            RevokeReason::Admin => Self::Admin,
            RevokeReason::Rotated => Self::Rotated,
            RevokeReason::OwnerDeleted => Self::OwnerDeleted,
            RevokeReason::Leaked => Self::Leaked,
        }
    }
}

impl From<ReasonV1> for RevokeReason {
    fn from(reason: ReasonV1) -> Self {
        match reason {
            ReasonV1::User => Self::User,
            ReasonV1::Admin => Self::Admin,
            ReasonV1::Rotated => Self::Rotated,
            ReasonV1::OwnerDeleted => Self::OwnerDeleted,
            ReasonV1::Leaked => Self::Leaked,
        }
    }
}
