//! Records as bytes: a version byte, then postcard of a private struct per version. What was once
//! written stays readable; what a newer permgate wrote is refused by name. Foreign bytes are an
//! error, never a panic.

use serde::{Deserialize, Serialize};

mod account;
mod event;
mod session;
pub(super) mod token;

pub(crate) use token::TokenHead;

use crate::{
    authz::secret::Digest,
    store::{
        model::{
            AuditEvent, AuditStart, GrantRecord, GroupRecord, IdempotencyRecord, IdentityRecord,
            InvitationRecord, LastUsed, RoleRecord, SessionRecord, TokenRecord, UserRecord,
        },
        op::{Batches, Op},
        released,
    },
};

/// No value is larger: with at most 20 of them in a sled node, none leaves sled's data file for its
/// `blobs/` directory.
pub(crate) const LIMIT: usize = 16 * 1024;

/// A record that has one place and one value.
pub(crate) trait Record: Sized {
    /// The word in errors.
    const KIND: &'static str;

    fn encode(&self) -> Result<Vec<u8>, EncodeError>;
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {kind} record of {size} bytes is larger than {LIMIT}")]
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

/// Reads the bytes as every kind of record there is and says how many of them accept. For fuzzing.
pub fn decode_any(bytes: &[u8]) -> usize {
    fn accepted<R: Record>(bytes: &[u8]) -> usize {
        usize::from(R::decode(bytes).is_ok())
    }
    let digest = Digest::from_bytes([0; 32]);
    accepted::<UserRecord>(bytes)
        + accepted::<GroupRecord>(bytes)
        + accepted::<RoleRecord>(bytes)
        + accepted::<GrantRecord>(bytes)
        + accepted::<AuditEvent>(bytes)
        + accepted::<AuditStart>(bytes)
        + accepted::<IdempotencyRecord>(bytes)
        + accepted::<SessionRecord>(bytes)
        + accepted::<InvitationRecord>(bytes)
        + accepted::<IdentityRecord>(bytes)
        + accepted::<LastUsed>(bytes)
        + usize::from(TokenRecord::decode(&digest, bytes).is_ok())
        + usize::from(TokenHead::decode(bytes).is_ok())
        + usize::from(Op::decode(bytes).is_ok())
        + usize::from(Batches::default().entry(bytes).is_ok())
        + released::decode_any(bytes)
}

const V1: u8 = 1;

pub(super) fn pack<T: Serialize>(kind: &'static str, version: u8, value: &T) -> Result<Vec<u8>, EncodeError> {
    // As long as most records are: growing by doubling from nothing copies each one five times.
    let mut bytes = Vec::with_capacity(256);
    bytes.push(version);
    let bytes = postcard::to_extend(value, bytes).expect("memory takes every serialisable value");
    if bytes.len() > LIMIT {
        return Err(EncodeError { kind, size: bytes.len() });
    }
    Ok(bytes)
}

/// The version and what follows it.
fn versioned<'a>(kind: &'static str, bytes: &'a [u8]) -> Result<(u8, &'a [u8]), DecodeError> {
    let (version, rest) = bytes.split_first().ok_or(DecodeError::Empty(kind))?;
    Ok((*version, rest))
}

/// What follows the one version there is; what is newer is said so.
fn behind_v1<'a>(kind: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], DecodeError> {
    match versioned(kind, bytes)? {
        (V1, rest) => Ok(rest),
        (0, _) => Err(DecodeError::Malformed(kind)),
        (version, _) => Err(DecodeError::Newer { kind, version }),
    }
}

/// Every byte must be used: a longer record is not ours.
fn unpack<'a, T: Deserialize<'a>>(kind: &'static str, bytes: &'a [u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(DecodeError::Malformed(kind)),
    }
}

pub(super) fn unpack_v1<'a, T: Deserialize<'a>>(
    kind: &'static str,
    bytes: &'a [u8],
) -> Result<T, DecodeError> {
    unpack(kind, behind_v1(kind, bytes)?)
}

#[cfg(test)]
mod tests;
