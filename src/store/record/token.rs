//! Tokens, packed by owner: a million single rows would cost sled ten times the time and memory of
//! a few ten thousand blocks. Last uses lie apart, so that noting them rewrites no token.

use std::{borrow::Cow, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{DecodeError, EncodeError, Record, V1, pack, unpack_v1};
use crate::{
    authz::{
        secret::{Digest, TokenId},
        subject::Access,
        time::Timestamp,
    },
    store::model::{LastUsed, Revocation, RevokeReason, Rotation, TokenRecord},
};

/// Some of one owner's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block<'a> {
    pub owner: Cow<'a, str>,
    pub items: Vec<BlockItem<'a>>,
}

/// A token that is found without reading the ones beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockItem<'a> {
    pub id: TokenId,
    /// The folded name it has taken among its owner's.
    pub taken: Option<Cow<'a, str>>,
    /// What [`write_token`] made.
    pub token: Cow<'a, [u8]>,
}

/// The last uses of a block's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LastUses(pub Vec<(TokenId, LastUsed)>);

#[derive(Serialize, Deserialize)]
struct BlockV1<'a> {
    owner: &'a str,
    #[serde(borrow)]
    items: Vec<ItemV1<'a>>,
}

#[derive(Serialize, Deserialize)]
struct ItemV1<'a> {
    id: [u8; 12],
    taken: Option<&'a str>,
    token: &'a [u8],
}

#[derive(Serialize, Deserialize)]
struct TokenV1<'a> {
    digest: [u8; 32],
    imported: bool,
    author: Option<&'a str>,
    name: &'a str,
    note: &'a str,
    #[serde(borrow)]
    scope: Vec<(&'a str, AccessV1)>,
    allow_ips: Vec<NetV1>,
    created_at: i64,
    not_before: Option<i64>,
    expires_at: Option<i64>,
    #[serde(borrow)]
    revoked: Option<RevocationV1<'a>>,
    rotation: Option<([u8; 12], i64)>,
    family: [u8; 12],
    revision: u64,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum AccessV1 {
    Read,
    Full,
}

#[derive(Serialize, Deserialize)]
struct RevocationV1<'a> {
    at: i64,
    by: Option<&'a str>,
    reason: ReasonV1,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum ReasonV1 {
    User,
    Admin,
    Rotated,
    OwnerDeleted,
    Leaked,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct NetV1 {
    address: AddressV1,
    prefix: u8,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum AddressV1 {
    V4([u8; 4]),
    V6([u8; 16]),
}

#[derive(Serialize, Deserialize)]
struct UseV1<'a> {
    token: [u8; 12],
    at: i64,
    from: AddressV1,
    service: &'a str,
}

const TOKEN: &str = "token";

/// Everything but the id, the owner and the last use, which lie elsewhere.
pub(crate) fn write_token(token: &TokenRecord) -> Result<Vec<u8>, EncodeError> {
    let row = TokenV1 {
        digest: *token.digest.as_bytes(),
        imported: token.imported,
        author: token.author.as_deref(),
        name: &token.name,
        note: &token.note,
        scope: token.scope.iter().map(|(service, access)| (service.as_str(), (*access).into())).collect(),
        allow_ips: token.allow_ips.iter().map(|net| NetV1::from(*net)).collect(),
        created_at: token.created_at.as_millis(),
        not_before: token.not_before.map(Timestamp::as_millis),
        expires_at: token.expires_at.map(Timestamp::as_millis),
        revoked: token.revoked.as_ref().map(|revocation| RevocationV1 {
            at: revocation.at.as_millis(),
            by: revocation.by.as_deref(),
            reason: revocation.reason.into(),
        }),
        rotation: token.rotation.map(|r| (id_bytes(r.to), r.grace_until.as_millis())),
        family: id_bytes(token.family),
        revision: token.revision,
    };
    pack(TOKEN, V1, &row)
}

/// Without its last use.
pub(crate) fn read_token(owner: &str, item: &BlockItem<'_>) -> Result<TokenRecord, DecodeError> {
    let row: TokenV1<'_> = unpack_v1(TOKEN, &item.token)?;
    Ok(TokenRecord {
        id: item.id,
        digest: Digest::from_bytes(row.digest),
        imported: row.imported,
        owner: owner.to_owned(),
        author: row.author.map(str::to_owned),
        name: row.name.to_owned(),
        note: row.note.to_owned(),
        scope: row.scope.iter().map(|(service, access)| ((*service).to_owned(), (*access).into())).collect(),
        allow_ips: nets(&row.allow_ips)?,
        created_at: Timestamp::from_millis(row.created_at),
        not_before: row.not_before.map(Timestamp::from_millis),
        expires_at: row.expires_at.map(Timestamp::from_millis),
        last_used: None,
        revoked: row.revoked.map(|revocation| Revocation {
            at: Timestamp::from_millis(revocation.at),
            by: revocation.by.map(str::to_owned),
            reason: revocation.reason.into(),
        }),
        rotation: rotation(row.rotation)?,
        family: token_id(TOKEN, &row.family)?,
        revision: row.revision,
    })
}

impl<'a> Block<'a> {
    const KIND: &'static str = "token block";

    pub(crate) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let items = self.items.iter().map(|item| ItemV1 {
            id: id_bytes(item.id),
            taken: item.taken.as_deref(),
            token: &item.token,
        });
        pack(Self::KIND, V1, &BlockV1 { owner: &self.owner, items: items.collect() })
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let row: BlockV1<'a> = unpack_v1(Self::KIND, bytes)?;
        let items = row.items.into_iter().map(|item| {
            Ok(BlockItem {
                id: token_id(Self::KIND, &item.id)?,
                taken: item.taken.map(Cow::Borrowed),
                token: Cow::Borrowed(item.token),
            })
        });
        Ok(Self { owner: Cow::Borrowed(row.owner), items: items.collect::<Result<_, _>>()? })
    }

    /// How many of its tokens have a name.
    pub(crate) fn named(&self) -> usize {
        self.items.iter().filter(|item| item.taken.is_some()).count()
    }

    pub(crate) fn into_owned(self) -> Block<'static> {
        let items = self.items.into_iter().map(|item| BlockItem {
            id: item.id,
            taken: item.taken.map(|name| Cow::Owned(name.into_owned())),
            token: Cow::Owned(item.token.into_owned()),
        });
        Block { owner: Cow::Owned(self.owner.into_owned()), items: items.collect() }
    }
}

impl Record for LastUses {
    const KIND: &'static str = "last use";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let rows = self.0.iter().map(|(token, used)| UseV1 {
            token: id_bytes(*token),
            at: used.at.as_millis(),
            from: used.from.into(),
            service: &used.service,
        });
        pack(Self::KIND, V1, &rows.collect::<Vec<_>>())
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let rows: Vec<UseV1<'_>> = unpack_v1(Self::KIND, bytes)?;
        let uses = rows.into_iter().map(|row| {
            let used = LastUsed {
                at: Timestamp::from_millis(row.at),
                from: row.from.into(),
                service: row.service.to_owned(),
            };
            Ok((token_id(Self::KIND, &row.token)?, used))
        });
        Ok(Self(uses.collect::<Result<_, _>>()?))
    }
}

pub(super) fn token_id(kind: &'static str, bytes: &[u8; 12]) -> Result<TokenId, DecodeError> {
    TokenId::from_bytes(*bytes).ok_or(DecodeError::Malformed(kind))
}

pub(super) fn id_bytes(id: TokenId) -> [u8; 12] {
    *id.as_bytes()
}

fn rotation(row: Option<([u8; 12], i64)>) -> Result<Option<Rotation>, DecodeError> {
    let Some((to, until)) = row else { return Ok(None) };
    Ok(Some(Rotation { to: token_id(TOKEN, &to)?, grace_until: Timestamp::from_millis(until) }))
}

fn nets(rows: &[NetV1]) -> Result<Vec<IpNet>, DecodeError> {
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
