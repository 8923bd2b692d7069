//! Tokens. The part that the index needs comes first, so that a start decodes nothing else of a row. Last
//! uses are stored separately, so that recording one rewrites no token.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{DecodeError, EncodeError, V1, pack, unpack_v1, versioned, wire};
use crate::{
    authz::{
        secret::{Digest, TokenId},
        subject::Access,
        time::Timestamp,
    },
    store::model::{Revocation, RevokeReason, Rotation, TokenRecord},
};

/// The part of a token that the index needs, borrowed from the row, since a start may read a million. It is
/// the first part of a row, and is decoded without the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenHead<'a> {
    #[serde(with = "wire")]
    pub id: TokenId,
    pub owner: &'a str,
    pub imported: bool,
    #[serde(borrow, with = "wire")]
    pub scope: Vec<(&'a str, Access)>,
    #[serde(with = "wire")]
    pub allow_ips: Vec<IpNet>,
    #[serde(with = "wire")]
    pub not_before: Option<Timestamp>,
    #[serde(with = "wire")]
    pub expires_at: Option<Timestamp>,
    #[serde(with = "wire")]
    pub revoked_at: Option<Timestamp>,
    pub rotation: Option<Rotation>,
    pub author: Option<&'a str>,
    pub name: &'a str,
}

#[derive(Serialize, Deserialize)]
struct TailV1<'a> {
    note: &'a str,
    #[serde(with = "wire")]
    created_at: Timestamp,
    revoked_by: Option<&'a str>,
    revoked_for: Option<RevokeReason>,
    #[serde(with = "wire")]
    family: TokenId,
    revision: u64,
}

const TOKEN: &str = "token";

impl TokenRecord {
    /// Encodes everything but the digest, which is the key, and the last use, which is stored separately.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let tail = TailV1 {
            note: &self.note,
            created_at: self.created_at,
            revoked_by: self.revoked.as_ref().and_then(|revocation| revocation.by.as_deref()),
            revoked_for: self.revoked.as_ref().map(|revocation| revocation.reason),
            family: self.family,
            revision: self.revision,
        };
        pack(TOKEN, V1, |out| (self.head(), tail).serialize(out))
    }

    /// The part that the index needs.
    pub(crate) fn head(&self) -> TokenHead<'_> {
        TokenHead {
            id: self.id,
            owner: &self.owner,
            imported: self.imported,
            scope: self.scope.iter().map(|(service, access)| (service.as_str(), *access)).collect(),
            allow_ips: self.allow_ips.clone(),
            not_before: self.not_before,
            expires_at: self.expires_at,
            revoked_at: self.revoked.as_ref().map(|revocation| revocation.at),
            rotation: self.rotation,
            author: self.author.as_deref(),
            name: &self.name,
        }
    }

    /// Decodes a row, without the token's last use.
    pub(crate) fn decode(digest: &Digest, row: &[u8]) -> Result<Self, DecodeError> {
        let (head, tail): (TokenHead<'_>, TailV1<'_>) = unpack_v1(TOKEN, row, |read| <_>::deserialize(read))?;
        let revoked = match (head.revoked_at, tail.revoked_for) {
            (Some(at), Some(reason)) => {
                Some(Revocation { at, by: tail.revoked_by.map(str::to_owned), reason })
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
            author: head.author.map(str::to_owned),
            name: head.name.to_owned(),
            note: tail.note.to_owned(),
            scope: scope.collect(),
            allow_ips: head.allow_ips,
            created_at: tail.created_at,
            not_before: head.not_before,
            expires_at: head.expires_at,
            last_used: None,
            revoked,
            rotation: head.rotation,
            family: tail.family,
            revision: tail.revision,
        })
    }
}

impl<'a> TokenHead<'a> {
    pub(crate) fn decode(row: &'a [u8]) -> Result<Self, DecodeError> {
        let mut read = postcard::Deserializer::from_bytes(versioned(TOKEN, V1, row)?.1);
        Self::deserialize(&mut read).map_err(|_| DecodeError::Malformed(TOKEN))
    }

    /// Whether the token was revoked or replaced.
    pub(crate) fn is_ended(&self) -> bool {
        self.revoked_at.is_some() || self.rotation.is_some()
    }

    /// Until when a replaced token still works; `None` if it was not replaced, or if it was revoked.
    pub(crate) fn grace_until(&self) -> Option<Timestamp> {
        let rotation = self.rotation.filter(|_| self.revoked_at.is_none())?;
        Some(self.expires_at.map_or(rotation.grace_until, |end| end.min(rotation.grace_until)))
    }
}
