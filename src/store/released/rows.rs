//! A row of the released layout as operations: the first byte of the key is the table.

use serde::Deserialize;

use super::Op;
use crate::{
    authz::{secret::Digest, time::Timestamp},
    store::{
        model::{AuditStart, LastUsed, Revocation, TokenRecord},
        record::{
            DecodeError, Record,
            token::{AccessV1, AddressV1, NetV1, ReasonV1, nets, rotation, token_id},
            unpack_v1,
        },
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
    id: [u8; 12],
    /// The folded name it has taken among its owner's.
    taken: Option<&'a str>,
    token: &'a [u8],
}

#[derive(Deserialize)]
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

#[derive(Deserialize)]
struct RevocationV1<'a> {
    at: i64,
    by: Option<&'a str>,
    reason: ReasonV1,
}

#[derive(Deserialize)]
struct UseV1<'a> {
    token: [u8; 12],
    at: i64,
    from: AddressV1,
    service: &'a str,
}

/// Appends what a row comes to. The one about the store itself answers which store it is, and how many
/// batches it has taken.
pub(crate) fn operations(key: &[u8], row: &[u8], ops: &mut Vec<Op>) -> Result<Option<(String, u64)>, String> {
    let (table, key) = key.split_first().ok_or("an empty key")?;
    let read = |error: DecodeError| error.to_string();
    match table {
        b's' => {
            let MetaV1 { store, revision } = unpack_v1("store", row).map_err(read)?;
            return Ok(Some((store.to_owned(), revision)));
        }
        b'b' => block(row, ops).map_err(read)?,
        b'l' => uses(row, ops).map_err(read)?,
        b'c' => ops.push(Op::TrimAudit(AuditStart::decode(row).map_err(read)?)),
        b'u' => ops.push(Op::PutUser(Record::decode(row).map_err(read)?)),
        b'g' => ops.push(Op::PutGroup(Record::decode(row).map_err(read)?)),
        b'm' => {
            let (group, user) = keys::parts(key).ok_or("a malformed member key")?;
            ops.push(Op::PutMember { group, user });
        }
        b'r' => ops.push(Op::PutRole(Record::decode(row).map_err(read)?)),
        b'n' => ops.push(Op::PutGrant(Record::decode(row).map_err(read)?)),
        b'a' => ops.push(Op::AppendAudit(Record::decode(row).map_err(read)?)),
        b'i' => ops.push(Op::PutIdempotency(Record::decode(row).map_err(read)?)),
        b'e' => ops.push(Op::PutSession(Record::decode(row).map_err(read)?)),
        b'v' => ops.push(Op::PutInvitation(Record::decode(row).map_err(read)?)),
        b'p' => ops.push(Op::PutIdentity(Record::decode(row).map_err(read)?)),
        // Follows from the table `i`.
        b'j' => {}
        _ => return Err("an unknown table".to_owned()),
    }
    Ok(None)
}

/// How many readers of rows accept the bytes. For fuzzing.
pub(crate) fn decode_any(bytes: &[u8]) -> usize {
    let mut ops = Vec::new();
    b"sbl".iter().filter(|table| operations(&[**table], bytes, &mut ops).is_ok()).count()
}

fn block(row: &[u8], ops: &mut Vec<Op>) -> Result<(), DecodeError> {
    let block: BlockV1<'_> = unpack_v1("token block", row)?;
    for item in &block.items {
        let token = token(block.owner, item)?;
        let (id, owner) = (token.id, token.owner.clone());
        ops.push(Op::PutToken(token));
        ops.extend(item.taken.map(|name| Op::TakeName { owner, name: name.to_owned(), token: id }));
    }
    Ok(())
}

fn token(owner: &str, item: &ItemV1<'_>) -> Result<TokenRecord, DecodeError> {
    const TOKEN: &str = "token";
    let row: TokenV1<'_> = unpack_v1(TOKEN, item.token)?;
    Ok(TokenRecord {
        id: token_id(TOKEN, &item.id)?,
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

fn uses(row: &[u8], ops: &mut Vec<Op>) -> Result<(), DecodeError> {
    const USES: &str = "last use";
    let rows: Vec<UseV1<'_>> = unpack_v1(USES, row)?;
    for row in rows {
        let used = LastUsed {
            at: Timestamp::from_millis(row.at),
            from: row.from.into(),
            service: row.service.to_owned(),
        };
        ops.push(Op::PutLastUsed { token: token_id(USES, &row.token)?, used });
    }
    Ok(())
}
