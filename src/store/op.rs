//! Operations, each of which changes one record, and their encoding. Log entries and backups consist of
//! them.

use super::{
    cluster::MemberChange,
    model::{
        AuditEvent, AuditPosition, GrantRecord, GroupRecord, IdempotencyRecord, IdentityRecord,
        InvitationRecord, LastUsed, RoleRecord, SessionRecord, TokenRecord, UserId, UserRecord,
    },
    record::{DecodeError, EncodeError, Record},
};
use crate::authz::secret::{Digest, TokenId};

mod batch;

pub(crate) use batch::{BatchError, BatchReader, Batches, FORMAT, encode_batch};

/// A value in an operation.
trait Field: Sized {
    /// Whether a separator must follow it unless it is the last field.
    const TEXT: bool = false;
    fn write(&self, out: &mut Vec<u8>) -> Result<(), OpError>;
    /// Decodes a value and advances `bytes` past it.
    fn read(bytes: &mut &[u8]) -> Result<Self, DecodeError>;
}

/// Numbers and fields of all operations. Journals and backups contain them, so a number is never reused and
/// the fields of an operation never change. An encoded operation is the number and then each field.
macro_rules! operations {
    (
        records { $($(#[$about:meta])* $number:literal $tag:ident $kind:ident($type:ty),)* }
        keys { $($(#[$key_about:meta])* $key_number:literal $key_tag:ident
            $key_kind:ident { $($field:ident: $field_type:ty),* },)* }
    ) => {
        /// A change of one record. A batch is applied in order, all or nothing. Applying one again changes
        /// nothing.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) enum Op {
            $($(#[$about])* $kind($type),)*
            $($(#[$key_about])* $key_kind { $($field: $field_type),* },)*
        }

        /// The first byte of an operation.
        pub(crate) mod tag {
            $(pub(crate) const $tag: u8 = $number;)*
            $(pub(crate) const $key_tag: u8 = $key_number;)*
        }

        impl Op {
            /// Appends the encoded operation, without its length.
            pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<(), OpError> {
                match self {
                    $(Op::$kind(record) => {
                        out.push(tag::$tag);
                        record.write(out)
                    })*
                    $(Op::$key_kind { $($field),* } => {
                        out.push(tag::$key_tag);
                        $($field.write(out)?;)*
                        if [$(<$field_type as Field>::TEXT),*].last() == Some(&true) {
                            out.pop();
                        }
                        Ok(())
                    })*
                }
            }

            /// Decodes one operation, which must take all of the bytes.
            pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
                let (tag, mut rest) = bytes.split_first().ok_or(DecodeError::Empty(OPERATION))?;
                let op = match *tag {
                    $(tag::$tag => Op::$kind(Field::read(&mut rest)?),)*
                    $(tag::$key_tag => Op::$key_kind { $($field: Field::read(&mut rest)?),* },)*
                    0 => return Err(MALFORMED),
                    unknown => return Err(DecodeError::Newer { kind: OPERATION, version: unknown }),
                };
                if rest.is_empty() { Ok(op) } else { Err(MALFORMED) }
            }
        }
    };
}

operations! {
    records {
        /// Inserts or replaces a token by digest, and updates the owner's list. `last_used` is ignored:
        /// only [`Op::PutLastUsed`] changes it. The owner and id of a digest never change.
        1 PUT_TOKEN PutToken(TokenRecord),
        6 PUT_USER PutUser(UserRecord),
        7 PUT_GROUP PutGroup(GroupRecord),
        11 PUT_ROLE PutRole(RoleRecord),
        13 PUT_GRANT PutGrant(GrantRecord),
        14 DROP_GRANT DropGrant(GrantRecord),
        /// Keyed by `seq`, which increases by one each time.
        15 APPEND_AUDIT AppendAudit(AuditEvent),
        /// Removes the oldest events, up to but not including the first one that is kept.
        16 TRIM_AUDIT TrimAudit(AuditPosition),
        17 PUT_IDEMPOTENCY PutIdempotency(IdempotencyRecord),
        19 PUT_SESSION PutSession(SessionRecord),
        20 DROP_SESSION DropSession(Digest),
        21 PUT_INVITATION PutInvitation(InvitationRecord),
        22 DROP_INVITATION DropInvitation(Digest),
        23 PUT_IDENTITY PutIdentity(IdentityRecord),
        /// Keyed by [`IdentityRecord::digest`].
        24 DROP_IDENTITY DropIdentity(Digest),
        /// Changes no record: says from whom the batch takes something, for nodes that follow the log.
        25 AFFECTS Affects(AffectedSubject),
        /// Changes the members of a cluster.
        26 NODE Node(MemberChange),
    }
    keys {
        /// Removes the row and its last use.
        2 DROP_TOKEN DropToken { id: TokenId, owner: UserId },
        /// Changes nothing, like the next one: it is in older logs, where names had a table of their own.
        3 TAKE_NAME TakeName { token: TokenId, owner: UserId, name: String },
        4 FREE_NAME FreeName { owner: UserId, name: String },
        /// Ignored if the stored use is as late or later, or if the token does not exist.
        5 PUT_LAST_USED PutLastUsed { token: TokenId, used: LastUsed },
        /// Removes the row only: members and grants have operations of their own.
        8 DROP_GROUP DropGroup { id: String },
        9 PUT_MEMBER PutMember { group: String, user: UserId },
        10 DROP_MEMBER DropMember { group: String, user: UserId },
        12 DROP_ROLE DropRole { key: String },
        18 DROP_IDEMPOTENCY DropIdempotency { key: Box<str> },
    }
}

/// From whom a change may take something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AffectedSubject {
    All,
    User(UserId),
    Token(Digest),
}

/// Why an operation cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpError {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("`{0}` cannot be part of a key")]
    Key(String),
}

const OPERATION: &str = "operation";
const MALFORMED: DecodeError = DecodeError::Malformed(OPERATION);
const SEPARATOR: u8 = 0;

fn read_chunk<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (chunk, rest) = bytes.split_first_chunk().ok_or(MALFORMED)?;
    *bytes = rest;
    Ok(*chunk)
}

impl Field for TokenId {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), OpError> {
        out.extend_from_slice(self.as_bytes());
        Ok(())
    }

    fn read(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        Self::from_bytes(read_chunk(bytes)?).ok_or(MALFORMED)
    }
}

impl Field for Digest {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), OpError> {
        out.extend_from_slice(self.as_bytes());
        Ok(())
    }

    fn read(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(Self::from_bytes(read_chunk(bytes)?))
    }
}

impl Field for String {
    const TEXT: bool = true;

    fn write(&self, out: &mut Vec<u8>) -> Result<(), OpError> {
        if self.is_empty() || self.as_bytes().contains(&SEPARATOR) {
            return Err(OpError::Key(self.clone()));
        }
        out.extend_from_slice(self.as_bytes());
        out.push(SEPARATOR);
        Ok(())
    }

    fn read(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let end = bytes.iter().position(|byte| *byte == SEPARATOR);
        let text = &bytes[..end.unwrap_or(bytes.len())];
        *bytes = end.map_or(&[], |end| &bytes[end + 1..]);
        match std::str::from_utf8(text) {
            Ok(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(MALFORMED),
        }
    }
}

/// Text that a client chose. It takes the rest of the bytes.
impl Field for Box<str> {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), OpError> {
        out.extend_from_slice(self.as_bytes());
        Ok(())
    }

    fn read(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        std::str::from_utf8(std::mem::take(bytes)).map(Into::into).map_err(|_| MALFORMED)
    }
}

/// A record, which takes the rest of the bytes.
impl<R: Record> Field for R {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), OpError> {
        out.extend_from_slice(&self.encode()?);
        Ok(())
    }

    fn read(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        R::decode(std::mem::take(bytes))
    }
}

/// The digest precedes the row, which does not contain it.
impl Field for TokenRecord {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), OpError> {
        self.digest.write(out)?;
        out.extend_from_slice(&self.encode()?);
        Ok(())
    }

    fn read(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let digest = Digest::read(bytes)?;
        Self::decode(&digest, std::mem::take(bytes))
    }
}

impl Field for AffectedSubject {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), OpError> {
        let (kind, id) = match self {
            AffectedSubject::All => (b'*', &[][..]),
            AffectedSubject::User(id) => (b'u', id.as_bytes()),
            AffectedSubject::Token(digest) => (b't', &digest.as_bytes()[..]),
        };
        out.push(kind);
        out.extend_from_slice(id);
        Ok(())
    }

    fn read(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        match read_chunk(bytes)? {
            [b'*'] => Ok(AffectedSubject::All),
            [b'u'] => String::read(bytes).map(AffectedSubject::User),
            [b't'] => Digest::read(bytes).map(AffectedSubject::Token),
            _ => Err(MALFORMED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        conformance::{id, token},
        log::MAX_OPERATIONS,
    };

    #[test]
    fn operations_read_as_they_were_written() {
        let ops = [
            Op::DropToken { id: id(3), owner: "ann".to_owned() },
            Op::TakeName { owner: "ann".to_owned(), name: "ci".to_owned(), token: id(3) },
            Op::DropSession(token(1, "ann").digest),
            Op::Node(MemberChange::Drop { node: "gate-1".to_owned(), incarnation: [3; 16], over: true }),
            Op::Affects(AffectedSubject::All),
            Op::Affects(AffectedSubject::User("ann".to_owned())),
            Op::Affects(AffectedSubject::Token(token(1, "ann").digest)),
        ];
        let entries = encode_batch(&ops, MAX_OPERATIONS).unwrap();
        assert_eq!(Batches::default().entry(&entries[0]).unwrap().unwrap(), ops);
        assert_eq!(
            Batches::default().entry(&encode_batch(&[], MAX_OPERATIONS).unwrap()[0]).unwrap().unwrap(),
            []
        );
        let bytes = |op: &Op| {
            let mut bytes = Vec::new();
            op.encode(&mut bytes).unwrap();
            bytes
        };
        // The encoding in existing journals and backups.
        assert_eq!(bytes(&ops[0]), [&[2][..], id(3).as_bytes(), b"ann"].concat());
        assert_eq!(bytes(&ops[1]), [&[3][..], id(3).as_bytes(), b"ann\0ci"].concat());
        assert_eq!(bytes(&Op::DropIdempotency { key: "a\0b".into() }), b"\x12a\0b");
        assert_eq!(bytes(&ops[5]), b"\x19uann");
        let check = |name: &str, bytes: &[u8], expected: &str| {
            let got = Op::decode(bytes).map_or_else(|error| error.to_string(), |op| format!("{op:?}"));
            assert!(got.contains(expected), "{name}: {got}");
        };
        check("nothing", b"", "empty");
        check("a newer kind", &[99], "newer");
        check("half a digest", &[tag::DROP_SESSION, 1, 2], "malformed");
        check("more than a digest", &[&[tag::DROP_SESSION], [7; 33].as_slice()].concat(), "malformed");
        check("nobody", &[tag::AFFECTS, b'x'], "malformed");
        check("half a pair", &[&[tag::PUT_MEMBER], &b"group"[..]].concat(), "malformed");
        check("three", &[&[tag::PUT_MEMBER], &b"group\0user\0more"[..]].concat(), "malformed");
    }
}
