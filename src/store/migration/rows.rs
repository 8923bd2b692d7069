//! Turns a row of the released layout into operations. The first byte of the key is the table.

use ipnet::IpNet;
use serde::Deserialize;

use super::Op;
use crate::{
    authz::{
        secret::{Digest, TokenId},
        subject::Access,
        time::Timestamp,
    },
    store::{
        model::{AuditPosition, LastUsed, Revocation, Rotation, TokenRecord},
        record::{DecodeError, Record, unpack_v1, wire},
        replica::keys,
    },
};

#[derive(Deserialize)]
struct MetaV1<'a> {
    store: &'a str,
    revision: u64,
}

/// Some of one owner's tokens.
#[derive(Deserialize)]
struct BlockV1<'a> {
    owner: &'a str,
    #[serde(borrow)]
    items: Vec<ItemV1<'a>>,
}

#[derive(Deserialize)]
struct ItemV1<'a> {
    #[serde(with = "wire")]
    id: TokenId,
    /// The folded name that it has taken among its owner's tokens.
    _taken: Option<&'a str>,
    token: &'a [u8],
}

#[derive(Deserialize)]
struct TokenV1 {
    #[serde(with = "wire")]
    digest: Digest,
    imported: bool,
    author: Option<String>,
    name: String,
    note: String,
    #[serde(with = "wire")]
    scope: Vec<(String, Access)>,
    #[serde(with = "wire")]
    allow_ips: Vec<IpNet>,
    #[serde(with = "wire")]
    created_at: Timestamp,
    #[serde(with = "wire")]
    not_before: Option<Timestamp>,
    #[serde(with = "wire")]
    expires_at: Option<Timestamp>,
    revoked: Option<Revocation>,
    rotation: Option<Rotation>,
    #[serde(with = "wire")]
    family: TokenId,
    revision: u64,
}

#[derive(Deserialize)]
struct UseV1 {
    #[serde(with = "wire")]
    token: TokenId,
    used: LastUsed,
}

/// Appends the operations of a row. For the row about the store itself, returns the store's id and the
/// number of batches that it has applied.
pub(crate) fn operations(key: &[u8], row: &[u8], ops: &mut Vec<Op>) -> Result<Option<(String, u64)>, String> {
    let (table, key) = key.split_first().ok_or("an empty key")?;
    let said = |error: DecodeError| error.to_string();
    match table {
        b's' => {
            let MetaV1 { store, revision } = read("store", row).map_err(said)?;
            return Ok(Some((store.to_owned(), revision)));
        }
        b'b' => block(row, ops).map_err(said)?,
        b'l' => uses(row, ops).map_err(said)?,
        b'c' => ops.push(Op::TrimAudit(AuditPosition::decode(row).map_err(said)?)),
        b'u' => ops.push(Op::PutUser(Record::decode(row).map_err(said)?)),
        b'g' => ops.push(Op::PutGroup(Record::decode(row).map_err(said)?)),
        b'm' => {
            let (group, user) = keys::parts(key).ok_or("a malformed member key")?;
            ops.push(Op::PutMember { group, user });
        }
        b'r' => ops.push(Op::PutRole(Record::decode(row).map_err(said)?)),
        b'n' => ops.push(Op::PutGrant(Record::decode(row).map_err(said)?)),
        b'a' => ops.push(Op::AppendAudit(Record::decode(row).map_err(said)?)),
        b'i' => ops.push(Op::PutIdempotency(Record::decode(row).map_err(said)?)),
        b'e' => ops.push(Op::PutSession(Record::decode(row).map_err(said)?)),
        b'v' => ops.push(Op::PutInvitation(Record::decode(row).map_err(said)?)),
        b'p' => ops.push(Op::PutIdentity(Record::decode(row).map_err(said)?)),
        // Derived from the table `i`.
        b'j' => {}
        _ => return Err("an unknown table".to_owned()),
    }
    Ok(None)
}

/// Returns how many row decoders accept the bytes. For fuzzing.
pub(crate) fn decode_any(bytes: &[u8]) -> usize {
    let mut ops = Vec::new();
    b"sbl".iter().filter(|table| operations(&[**table], bytes, &mut ops).is_ok()).count()
}

fn read<'a, T: Deserialize<'a>>(kind: &'static str, row: &'a [u8]) -> Result<T, DecodeError> {
    unpack_v1(kind, row, |input| T::deserialize(input))
}

fn block(row: &[u8], ops: &mut Vec<Op>) -> Result<(), DecodeError> {
    let block: BlockV1<'_> = read("token block", row)?;
    for item in &block.items {
        let token = token(block.owner, item)?;
        ops.push(Op::PutToken(token));
    }
    Ok(())
}

fn token(owner: &str, item: &ItemV1<'_>) -> Result<TokenRecord, DecodeError> {
    let row: TokenV1 = read("token", item.token)?;
    Ok(TokenRecord {
        imported: row.imported,
        author: row.author,
        note: row.note,
        allow_ips: row.allow_ips,
        not_before: row.not_before,
        expires_at: row.expires_at,
        revoked: row.revoked,
        rotation: row.rotation,
        family: row.family,
        revision: row.revision,
        ..TokenRecord::new(item.id, row.digest, owner.to_owned(), row.name, row.scope, row.created_at)
    })
}

fn uses(row: &[u8], ops: &mut Vec<Op>) -> Result<(), DecodeError> {
    let rows: Vec<UseV1> = read("last use", row)?;
    ops.extend(rows.into_iter().map(|UseV1 { token, used }| Op::PutLastUsed { token, used }));
    Ok(())
}
