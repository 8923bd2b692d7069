//! One change of one record, and the batches of them as bytes: what an entry of the log holds, and what
//! a backup is a stream of.

use super::{
    log::{self, Head, Log, MAX_OPERATIONS},
    model::{
        AuditEvent, AuditStart, GrantRecord, GroupRecord, IdempotencyRecord, IdentityRecord,
        InvitationRecord, LastUsed, RoleRecord, SessionRecord, TokenRecord, UserId, UserRecord,
    },
    record::{DecodeError, EncodeError, Record},
    replica::keys,
};
use crate::authz::secret::{Digest, TokenId};

/// A batch of these is applied in order, all or nothing. Applying one again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Inserts or replaces by digest, and keeps the owner's list. `last_used` in it is ignored: only
    /// [`Op::PutLastUsed`] changes that. Owner and id of a digest never change.
    PutToken(TokenRecord),
    /// The row, its place in the owner's list and its last use; the name is [`Op::FreeName`]'s.
    DropToken {
        id: TokenId,
        owner: UserId,
    },
    /// An owner's live token has this name, which is folded by the caller.
    TakeName {
        owner: UserId,
        name: String,
        token: TokenId,
    },
    FreeName {
        owner: UserId,
        name: String,
    },
    /// Ignored when the stored one is as late or later, or when there is no such token.
    PutLastUsed {
        token: TokenId,
        used: LastUsed,
    },
    PutUser(UserRecord),
    PutGroup(GroupRecord),
    /// The row alone: members and grants go by their own operations.
    DropGroup {
        id: String,
    },
    PutMember {
        group: String,
        user: UserId,
    },
    DropMember {
        group: String,
        user: UserId,
    },
    PutRole(RoleRecord),
    DropRole {
        key: String,
    },
    PutGrant(GrantRecord),
    DropGrant(GrantRecord),
    /// By `seq`, which goes up by one each time.
    AppendAudit(AuditEvent),
    /// The oldest events, up to and without the first one that is kept.
    TrimAudit(AuditStart),
    PutIdempotency(IdempotencyRecord),
    DropIdempotency {
        key: String,
    },
    PutSession(SessionRecord),
    DropSession(Digest),
    PutInvitation(InvitationRecord),
    DropInvitation(Digest),
    PutIdentity(IdentityRecord),
    /// By [`IdentityRecord::key`].
    DropIdentity(Digest),
    /// Changes no record: from whom the batch takes something, for nodes that follow the log.
    Affects(Whom),
}

/// From whom a change may take something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    Everybody,
    User(UserId),
    Token(Digest),
}

/// The first byte of an operation. A number is never given to another kind.
pub(crate) mod tag {
    pub(crate) const PUT_TOKEN: u8 = 1;
    pub(crate) const DROP_TOKEN: u8 = 2;
    pub(crate) const TAKE_NAME: u8 = 3;
    pub(crate) const FREE_NAME: u8 = 4;
    pub(crate) const PUT_LAST_USED: u8 = 5;
    pub(crate) const PUT_USER: u8 = 6;
    pub(crate) const PUT_GROUP: u8 = 7;
    pub(crate) const DROP_GROUP: u8 = 8;
    pub(crate) const PUT_MEMBER: u8 = 9;
    pub(crate) const DROP_MEMBER: u8 = 10;
    pub(crate) const PUT_ROLE: u8 = 11;
    pub(crate) const DROP_ROLE: u8 = 12;
    pub(crate) const PUT_GRANT: u8 = 13;
    pub(crate) const DROP_GRANT: u8 = 14;
    pub(crate) const APPEND_AUDIT: u8 = 15;
    pub(crate) const TRIM_AUDIT: u8 = 16;
    pub(crate) const PUT_IDEMPOTENCY: u8 = 17;
    pub(crate) const DROP_IDEMPOTENCY: u8 = 18;
    pub(crate) const PUT_SESSION: u8 = 19;
    pub(crate) const DROP_SESSION: u8 = 20;
    pub(crate) const PUT_INVITATION: u8 = 21;
    pub(crate) const DROP_INVITATION: u8 = 22;
    pub(crate) const PUT_IDENTITY: u8 = 23;
    pub(crate) const DROP_IDENTITY: u8 = 24;
    pub(crate) const AFFECTS: u8 = 25;
}

/// Why an operation cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpError {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("`{0}` cannot be part of a key")]
    Key(String),
}

const OPERATION: &str = "operation";

impl Op {
    /// Appends the operation as bytes, without its length.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<(), OpError> {
        let mut put = |tag: u8, parts: &[&[u8]]| {
            out.push(tag);
            parts.iter().for_each(|part| out.extend_from_slice(part));
            Ok(())
        };
        match self {
            Op::PutToken(token) => put(tag::PUT_TOKEN, &[token.digest.as_bytes(), &token.encode()?]),
            Op::DropToken { id, owner } => put(tag::DROP_TOKEN, &[id.as_bytes(), owner.as_bytes()]),
            Op::TakeName { owner, name, token } => {
                put(tag::TAKE_NAME, &[token.as_bytes(), &keys::pair(owner, name)?])
            }
            Op::FreeName { owner, name } => put(tag::FREE_NAME, &[&keys::pair(owner, name)?]),
            Op::PutLastUsed { token, used } => put(tag::PUT_LAST_USED, &[token.as_bytes(), &used.encode()?]),
            Op::PutUser(user) => put(tag::PUT_USER, &[&user.encode()?]),
            Op::PutGroup(group) => put(tag::PUT_GROUP, &[&group.encode()?]),
            Op::DropGroup { id } => put(tag::DROP_GROUP, &[id.as_bytes()]),
            Op::PutMember { group, user } => put(tag::PUT_MEMBER, &[&keys::pair(group, user)?]),
            Op::DropMember { group, user } => put(tag::DROP_MEMBER, &[&keys::pair(group, user)?]),
            Op::PutRole(role) => put(tag::PUT_ROLE, &[&role.encode()?]),
            Op::DropRole { key } => put(tag::DROP_ROLE, &[key.as_bytes()]),
            Op::PutGrant(grant) => put(tag::PUT_GRANT, &[&grant.encode()?]),
            Op::DropGrant(grant) => put(tag::DROP_GRANT, &[&grant.encode()?]),
            Op::AppendAudit(event) => put(tag::APPEND_AUDIT, &[&event.encode()?]),
            Op::TrimAudit(start) => put(tag::TRIM_AUDIT, &[&start.encode()?]),
            Op::PutIdempotency(record) => put(tag::PUT_IDEMPOTENCY, &[&record.encode()?]),
            Op::DropIdempotency { key } => put(tag::DROP_IDEMPOTENCY, &[key.as_bytes()]),
            Op::PutSession(session) => put(tag::PUT_SESSION, &[&session.encode()?]),
            Op::DropSession(digest) => put(tag::DROP_SESSION, &[digest.as_bytes()]),
            Op::PutInvitation(invitation) => put(tag::PUT_INVITATION, &[&invitation.encode()?]),
            Op::DropInvitation(digest) => put(tag::DROP_INVITATION, &[digest.as_bytes()]),
            Op::PutIdentity(identity) => put(tag::PUT_IDENTITY, &[&identity.encode()?]),
            Op::DropIdentity(digest) => put(tag::DROP_IDENTITY, &[digest.as_bytes()]),
            Op::Affects(Whom::Everybody) => put(tag::AFFECTS, &[b"*"]),
            Op::Affects(Whom::User(id)) => put(tag::AFFECTS, &[b"u", id.as_bytes()]),
            Op::Affects(Whom::Token(digest)) => put(tag::AFFECTS, &[b"t", digest.as_bytes()]),
        }
    }

    /// Reads one operation, which takes all of the bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (tag, rest) = bytes.split_first().ok_or(DecodeError::Empty(OPERATION))?;
        Ok(match *tag {
            tag::PUT_TOKEN => {
                let (digest, row) = digest(rest)?;
                Op::PutToken(TokenRecord::decode(&digest, row)?)
            }
            tag::DROP_TOKEN => {
                let (id, owner) = id(rest)?;
                Op::DropToken { id, owner: text(owner)? }
            }
            tag::TAKE_NAME => {
                let (token, key) = id(rest)?;
                let (owner, name) = pair(key)?;
                Op::TakeName { owner, name, token }
            }
            tag::FREE_NAME => {
                let (owner, name) = pair(rest)?;
                Op::FreeName { owner, name }
            }
            tag::PUT_LAST_USED => {
                let (token, row) = id(rest)?;
                Op::PutLastUsed { token, used: LastUsed::decode(row)? }
            }
            tag::PUT_USER => Op::PutUser(Record::decode(rest)?),
            tag::PUT_GROUP => Op::PutGroup(Record::decode(rest)?),
            tag::DROP_GROUP => Op::DropGroup { id: text(rest)? },
            tag::PUT_MEMBER => {
                let (group, user) = pair(rest)?;
                Op::PutMember { group, user }
            }
            tag::DROP_MEMBER => {
                let (group, user) = pair(rest)?;
                Op::DropMember { group, user }
            }
            tag::PUT_ROLE => Op::PutRole(Record::decode(rest)?),
            tag::DROP_ROLE => Op::DropRole { key: text(rest)? },
            tag::PUT_GRANT => Op::PutGrant(Record::decode(rest)?),
            tag::DROP_GRANT => Op::DropGrant(Record::decode(rest)?),
            tag::APPEND_AUDIT => Op::AppendAudit(Record::decode(rest)?),
            tag::TRIM_AUDIT => Op::TrimAudit(Record::decode(rest)?),
            tag::PUT_IDEMPOTENCY => Op::PutIdempotency(Record::decode(rest)?),
            tag::DROP_IDEMPOTENCY => Op::DropIdempotency { key: text(rest)? },
            tag::PUT_SESSION => Op::PutSession(Record::decode(rest)?),
            tag::DROP_SESSION => Op::DropSession(whole_digest(rest)?),
            tag::PUT_INVITATION => Op::PutInvitation(Record::decode(rest)?),
            tag::DROP_INVITATION => Op::DropInvitation(whole_digest(rest)?),
            tag::PUT_IDENTITY => Op::PutIdentity(Record::decode(rest)?),
            tag::DROP_IDENTITY => Op::DropIdentity(whole_digest(rest)?),
            tag::AFFECTS => Op::Affects(match rest.split_first().ok_or(MALFORMED)? {
                (b'*', []) => Whom::Everybody,
                (b'u', id) => Whom::User(text(id)?),
                (b't', digest) => Whom::Token(whole_digest(digest)?),
                _ => return Err(MALFORMED),
            }),
            0 => return Err(MALFORMED),
            unknown => return Err(DecodeError::Newer { kind: OPERATION, version: unknown }),
        })
    }
}

const MALFORMED: DecodeError = DecodeError::Malformed(OPERATION);

fn digest(bytes: &[u8]) -> Result<(Digest, &[u8]), DecodeError> {
    let (digest, rest) = bytes.split_first_chunk().ok_or(MALFORMED)?;
    Ok((Digest::from_bytes(*digest), rest))
}

fn whole_digest(bytes: &[u8]) -> Result<Digest, DecodeError> {
    match digest(bytes)? {
        (digest, []) => Ok(digest),
        _ => Err(MALFORMED),
    }
}

fn id(bytes: &[u8]) -> Result<(TokenId, &[u8]), DecodeError> {
    let (id, rest) = bytes.split_first_chunk().ok_or(MALFORMED)?;
    Ok((TokenId::from_bytes(*id).ok_or(MALFORMED)?, rest))
}

fn text(bytes: &[u8]) -> Result<String, DecodeError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| MALFORMED)
}

fn pair(bytes: &[u8]) -> Result<(String, String), DecodeError> {
    keys::parts(bytes).ok_or(MALFORMED)
}

/// A batch takes several entries when it is larger than one; only with the last of them is it made.
const VERSION: u8 = 1;
const CONTINUES: u8 = 1;
const UNFINISHED: u8 = 2;
const LENGTH: usize = size_of::<u32>();

/// A batch as the operations of one entry, rarely of more.
pub(crate) fn encode_batch(ops: &[Op]) -> Result<Vec<Vec<u8>>, OpError> {
    let mut entries = Vec::new();
    let mut entry = vec![VERSION, 0];
    let mut bytes = Vec::new();
    for op in ops {
        bytes.clear();
        op.encode(&mut bytes)?;
        if entry.len() + LENGTH + bytes.len() > MAX_OPERATIONS {
            entry[1] |= UNFINISHED;
            entries.push(std::mem::replace(&mut entry, vec![VERSION, CONTINUES]));
        }
        let length = u32::try_from(bytes.len()).expect("a record is far smaller");
        entry.extend_from_slice(&length.to_le_bytes());
        entry.extend_from_slice(&bytes);
    }
    entries.push(entry);
    Ok(entries)
}

/// Puts batches together again from the entries of a log.
#[derive(Default)]
pub(crate) struct Batches {
    /// Of a batch that is not complete.
    ops: Vec<Op>,
    open: bool,
}

impl Batches {
    /// The operations of the batch that ends with this entry. A batch whose last entry was never
    /// written was never made.
    pub(crate) fn entry(&mut self, operations: &[u8]) -> Result<Option<Vec<Op>>, DecodeError> {
        const ENTRY: &str = "journal entry";
        let malformed = DecodeError::Malformed(ENTRY);
        let (flags, mut rest) = match operations {
            [VERSION, flags, rest @ ..] => (*flags, rest),
            [0, ..] | [] | [VERSION] => return Err(malformed),
            [version, ..] => return Err(DecodeError::Newer { kind: ENTRY, version: *version }),
        };
        if flags & CONTINUES == 0 {
            self.ops.clear();
        } else if !self.open {
            return Err(malformed);
        }
        while !rest.is_empty() {
            let (length, behind) = rest.split_first_chunk().ok_or(malformed)?;
            let length = u32::from_le_bytes(*length) as usize;
            let (op, behind) = behind.split_at_checked(length).ok_or(malformed)?;
            self.ops.push(Op::decode(op)?);
            rest = behind;
        }
        self.open = flags & UNFINISHED != 0;
        Ok(if self.open { None } else { Some(std::mem::take(&mut self.ops)) })
    }
}

/// Reads a log batch by batch, from behind a position on.
pub(crate) struct BatchReader {
    /// Everything up to here was read.
    pub at: Head,
    batches: Batches,
}

/// Why batches could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchError {
    #[error(transparent)]
    Log(#[from] log::ReadError),
    #[error("the replica is of another history than the log at position {0}")]
    History(u64),
    #[error("position {position} of the log cannot be read: {error}")]
    Entry { position: u64, error: DecodeError },
}

impl BatchReader {
    /// The most bytes of operations that are read at once.
    const BYTES: usize = 4 << 20;

    pub(crate) fn new(at: Head) -> Self {
        Self { at, batches: Batches::default() }
    }

    /// The next batches that are complete, each with its position; none when the log has no more.
    pub(crate) fn next(&mut self, log: &dyn Log) -> Result<Vec<(Vec<Op>, Head)>, BatchError> {
        let mut found = Vec::new();
        while found.is_empty() {
            let entries = log.read(self.at.next(), Self::BYTES)?;
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                if entry.previous != self.at.hash {
                    return Err(BatchError::History(self.at.position));
                }
                self.at = entry.head();
                let position = entry.position;
                let batch = self.batches.entry(&entry.operations);
                let batch = batch.map_err(|error| BatchError::Entry { position, error })?;
                found.extend(batch.map(|ops| (ops, self.at)));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance::{id, token};

    #[test]
    fn a_large_batch_takes_several_entries_and_is_made_by_the_last() {
        let ops: Vec<Op> = (0..20_000).map(|number| Op::PutToken(token(number, "ann"))).collect();
        let entries = encode_batch(&ops).unwrap();
        assert!(entries.len() > 1 && entries.iter().all(|entry| entry.len() <= MAX_OPERATIONS));
        let mut batches = Batches::default();
        // One that was cut off stands in front.
        assert_eq!(batches.entry(&entries[0]).unwrap(), None);
        let (last, first) = entries.split_last().unwrap();
        for entry in first {
            assert_eq!(batches.entry(entry).unwrap(), None);
        }
        assert_eq!(batches.entry(last).unwrap(), Some(ops));
        assert!(batches.entry(last).is_err(), "it continues nothing");
    }

    #[test]
    fn operations_read_as_they_were_written() {
        let ops = [
            Op::DropToken { id: id(3), owner: "ann".to_owned() },
            Op::TakeName { owner: "ann".to_owned(), name: "ci".to_owned(), token: id(3) },
            Op::DropSession(token(1, "ann").digest),
            Op::Affects(Whom::Everybody),
            Op::Affects(Whom::User("ann".to_owned())),
            Op::Affects(Whom::Token(token(1, "ann").digest)),
        ];
        let entries = encode_batch(&ops).unwrap();
        assert_eq!(Batches::default().entry(&entries[0]).unwrap().unwrap(), ops);
        assert_eq!(Batches::default().entry(&encode_batch(&[]).unwrap()[0]).unwrap().unwrap(), []);
        let check = |name: &str, bytes: &[u8], expected: &str| {
            let got = Op::decode(bytes).map_or_else(|error| error.to_string(), |op| format!("{op:?}"));
            assert!(got.contains(expected), "{name}: {got}");
        };
        check("nothing", b"", "empty");
        check("a newer kind", &[99], "newer");
        check("half a digest", &[tag::DROP_SESSION, 1, 2], "malformed");
        check("more than a digest", &[&[tag::DROP_SESSION], [7; 33].as_slice()].concat(), "malformed");
        check("nobody", &[tag::AFFECTS, b'x'], "malformed");
    }
}
