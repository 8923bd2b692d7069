//! A consistent store with a row of every kind.

use super::{id, token};
use crate::{
    authz::{secret::Digest, subject::Permission, time::Timestamp},
    store::{
        model::{
            AuditEvent, AuditPosition, GrantRecord, Grantee, GroupRecord, IdempotencyRecord, IdentityRecord,
            InvitationRecord, LastUsed, Revocation, RevokeReason, RoleRecord, SessionRecord, SignedInBy,
            TokenRecord, UserKind, UserRecord,
        },
        op::Op,
    },
};

pub(crate) fn user(number: u8, login: &str) -> UserRecord {
    UserRecord {
        id: format!("u{number}"),
        login: login.to_owned(),
        name: login.to_owned(),
        email: None,
        kind: UserKind::Human,
        password: None,
        banned: None,
        created_at: Timestamp::from_millis(1),
        deleted_at: None,
        revision: 1,
    }
}

/// The next event of a chain.
pub(crate) fn chained(head: &mut AuditPosition) -> Op {
    let at = Timestamp::from_millis(7);
    Op::AppendAudit(head.append(AuditEvent::new(at, "user.ban", "ann", "user:bob", None)))
}

/// Users u1 and u2 with rows that refer to them, 600 tokens, 300 audit events.
pub(crate) fn one_of_each() -> Vec<Op> {
    let group = GroupRecord { id: "g1".to_owned(), name: "Ops".to_owned(), parent: None, revision: 1 };
    let child = GroupRecord {
        id: "g2".to_owned(),
        name: "On call".to_owned(),
        parent: Some("g1".to_owned()),
        revision: 1,
    };
    let role = RoleRecord {
        key: "own".to_owned(),
        name: "Own".to_owned(),
        permissions: vec![Permission::ReadAudit],
        revision: 1,
    };
    let grant = |role: &str, to| Op::PutGrant(GrantRecord { role: role.to_owned(), to });
    let digest = |byte| Digest::from_bytes([byte; 32]);
    let session = SessionRecord {
        digest: digest(1),
        user: "u1".to_owned(),
        created_at: Timestamp::from_millis(1),
        last_seen_at: Timestamp::from_millis(1),
        client: [127, 0, 0, 1].into(),
        by: SignedInBy::Password,
    };
    let invitation = InvitationRecord {
        digest: digest(2),
        user: "u2".to_owned(),
        author: None,
        expires_at: Timestamp::from_millis(9),
    };
    let identity = IdentityRecord {
        issuer: "https://id.example".to_owned(),
        subject: "1".to_owned(),
        user: "u1".to_owned(),
    };
    let used = LastUsed {
        at: Timestamp::from_millis(5),
        from: [127, 0, 0, 1].into(),
        service: "youtrack".to_owned(),
    };
    let remembered = IdempotencyRecord {
        key: "a key".to_owned(),
        request: [1; 32],
        token: id(1),
        at: Timestamp::from_millis(5),
    };
    let revocation = Revocation { at: Timestamp::from_millis(3), by: None, reason: RevokeReason::User };
    let mut ops = vec![
        Op::PutUser(user(1, "ann")),
        Op::PutUser(user(2, "bob")),
        Op::PutGroup(group),
        Op::PutGroup(child),
        Op::PutMember { group: "g1".to_owned(), user: "u1".to_owned() },
        Op::PutRole(role),
        grant("own", Grantee::User("u1".to_owned())),
        grant("contributor", Grantee::Group("all-users".to_owned())),
        grant("own", Grantee::Group("g2".to_owned())),
        Op::PutSession(session),
        Op::PutInvitation(invitation),
        Op::PutIdentity(identity),
        Op::PutIdempotency(remembered),
        Op::PutToken(TokenRecord { revoked: Some(revocation), ..token(900, "u2") }),
    ];
    // Enough for several slices.
    ops.extend((0..600).map(|number| Op::PutToken(token(number, "u1"))));
    ops.push(Op::PutLastUsed { token: id(1), used });
    let mut head = AuditPosition::START;
    ops.extend((0..300).map(|_| chained(&mut head)));
    ops
}
