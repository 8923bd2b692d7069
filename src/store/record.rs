//! The encoding of records: a version byte, then postcard of the record. Every version that was ever written
//! stays readable; a newer one is an error that names it. Foreign bytes are an error, never a panic.

use postcard::ser_flavors::Flavor as _;
use serde::{Deserialize, Serialize};

mod token;
pub(super) mod wire;

pub(crate) use token::TokenHead;

use crate::{
    authz::{secret::Digest, subject::Permission, time::Timestamp},
    store::{
        cluster::MemberChange,
        migration,
        model::{
            AuditEvent, AuditPosition, GrantRecord, Grantee, GroupRecord, IdempotencyRecord, IdentityRecord,
            InvitationRecord, LastUsed, RoleRecord, SessionRecord, TokenRecord, UserKind, UserRecord,
        },
        op::{Batches, Op},
    },
};

/// Maximum bytes of a value. With at most 20 values in a sled node, none leaves sled's data file for its
/// `blobs/` directory.
pub(crate) const MAX_VALUE: usize = 16 * 1024;

/// A record that is stored as one value in one place.
pub(crate) trait Record: Sized {
    /// The record's name in errors.
    const KIND: &'static str;

    fn encode(&self) -> Result<Vec<u8>, EncodeError>;
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {kind} record of {size} bytes is larger than {MAX_VALUE}")]
pub(crate) struct EncodeError {
    kind: &'static str,
    size: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("a {0} record is empty")]
    Empty(&'static str),
    #[error("a {kind} record has version {version}, which only a newer permgate can read")]
    Newer { kind: &'static str, version: u8 },
    #[error("a {0} record is malformed")]
    Malformed(&'static str),
}

/// Decodes the bytes as every kind of record; returns how many kinds accept them. For fuzzing.
pub fn decode_any(bytes: &[u8]) -> usize {
    let digest = Digest::from_bytes([0; 32]);
    // The operations contain every record; a last use and a token come after an id and a digest.
    let operations = (0..=u8::MAX).filter(|tag| Op::decode(&[&[*tag], bytes].concat()).is_ok());
    operations.count()
        + usize::from(LastUsed::decode(bytes).is_ok())
        + usize::from(TokenRecord::decode(&digest, bytes).is_ok())
        + usize::from(TokenHead::decode(bytes).is_ok())
        + usize::from(Op::decode(bytes).is_ok())
        + usize::from(Batches::default().entry(bytes).is_ok())
        + migration::decode_any(bytes)
}

pub(super) const V1: u8 = 1;

type Out = postcard::Serializer<postcard::ser_flavors::ExtendFlavor<Vec<u8>>>;
type Input<'a> = postcard::Deserializer<'a, postcard::de_flavors::Slice<'a>>;

pub(super) fn pack(
    kind: &'static str,
    version: u8,
    write: impl FnOnce(&mut Out) -> postcard::Result<()>,
) -> Result<Vec<u8>, EncodeError> {
    // The size of most records: growing by doubling from nothing would copy each one five times.
    let mut bytes = Vec::with_capacity(256);
    bytes.push(version);
    let mut out = Out { output: postcard::ser_flavors::ExtendFlavor::new(bytes) };
    let written = write(&mut out).and_then(|()| out.output.finalize());
    let bytes = written.expect("memory takes every serialisable value");
    if bytes.len() > MAX_VALUE {
        return Err(EncodeError { kind, size: bytes.len() });
    }
    Ok(bytes)
}

/// Splits off the version; one that is newer than `newest` is an error that names it.
fn versioned<'a>(kind: &'static str, newest: u8, bytes: &'a [u8]) -> Result<(u8, &'a [u8]), DecodeError> {
    match bytes.split_first().ok_or(DecodeError::Empty(kind))? {
        (0, _) => Err(DecodeError::Malformed(kind)),
        (&version, _) if version > newest => Err(DecodeError::Newer { kind, version }),
        (version, rest) => Ok((*version, rest)),
    }
}

/// Decodes a value, which must use every byte: a longer record is not ours.
fn unpack<'a, T>(
    kind: &'static str,
    bytes: &'a [u8],
    read: impl FnOnce(&mut Input<'a>) -> postcard::Result<T>,
) -> Result<T, DecodeError> {
    let mut input = Input::from_bytes(bytes);
    let value = read(&mut input);
    match (value, input.finalize()) {
        (Ok(value), Ok([])) => Ok(value),
        _ => Err(DecodeError::Malformed(kind)),
    }
}

pub(super) fn unpack_v1<'a, T>(
    kind: &'static str,
    bytes: &'a [u8],
    read: impl FnOnce(&mut Input<'a>) -> postcard::Result<T>,
) -> Result<T, DecodeError> {
    unpack(kind, versioned(kind, V1, bytes)?.1, read)
}

/// Implements [`Record`] for a record with a single version, which `$wire` encodes and decodes.
macro_rules! record {
    ($record:ty, $kind:literal, $wire:ident) => {
        impl $crate::store::record::Record for $record {
            const KIND: &'static str = $kind;

            fn encode(&self) -> Result<Vec<u8>, $crate::store::record::EncodeError> {
                $crate::store::record::pack(Self::KIND, $crate::store::record::V1, |out| {
                    $wire::serialize(self, out)
                })
            }

            fn decode(bytes: &[u8]) -> Result<Self, $crate::store::record::DecodeError> {
                $crate::store::record::unpack_v1(Self::KIND, bytes, |read| $wire::deserialize(read))
            }
        }
    };
}
pub(super) use record;

record!(AuditEvent, "audit", AuditEvent);
record!(AuditPosition, "audit start", AuditPosition);
record!(IdempotencyRecord, "idempotency", IdempotencyRecord);
record!(IdentityRecord, "identity", IdentityRecord);
record!(InvitationRecord, "invitation", InvitationRecord);
record!(LastUsed, "last use", LastUsed);
record!(MemberChange, "node", MemberChange);
record!(UserRecord, "user", UserV1);
record!(GroupRecord, "group", GroupV1);
record!(RoleRecord, "role", RoleV1);
record!(GrantRecord, "grant", GrantV1);

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

const V2: u8 = 2;

/// Version 1 ended before `by`: all of its sessions were begun with a password.
impl Record for SessionRecord {
    const KIND: &'static str = "session";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        pack(Self::KIND, V2, |out| self.serialize(out))
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (version, rest) = versioned(Self::KIND, V2, bytes)?;
        let by_password: &[u8] = if version == V1 { &[0] } else { &[] };
        unpack(Self::KIND, &[rest, by_password].concat(), |read| Self::deserialize(read))
    }
}

#[cfg(test)]
mod tests;
