//! Sessions, invitations, and identities at providers.

use super::at;
use crate::{
    authz::secret::Digest,
    store::{
        engine::Engine,
        model::{IdentityRecord, InvitationRecord, SessionRecord, SignedInBy},
        op::Op,
    },
};

pub(super) fn sessions(engine: &Engine) {
    let session = |number: u8, seen: i64| SessionRecord {
        digest: Digest::from_bytes([number; 32]),
        user: "u1".to_owned(),
        created_at: at(1),
        last_seen_at: at(seen),
        client: [10, 0, 0, number].into(),
        by: if number == 3 { SignedInBy::Provider } else { SignedInBy::Password },
    };
    let invitation = |number: u8, author: Option<&str>| InvitationRecord {
        digest: Digest::from_bytes([number; 32]),
        user: "u1".to_owned(),
        author: author.map(str::to_owned),
        expires_at: at(9),
    };
    let identity = |subject: &str, user: &str| IdentityRecord {
        issuer: "https://id.example".to_owned(),
        subject: subject.to_owned(),
        user: user.to_owned(),
    };
    let kept = [session(1, 3), session(3, 1)];
    let invitations = [invitation(1, None), invitation(2, Some("u2"))];
    engine
        .commit(&[
            Op::PutSession(session(1, 1)),
            Op::PutSession(session(2, 1)),
            Op::PutSession(session(3, 1)),
            Op::PutSession(session(1, 3)),
            Op::DropSession(session(2, 1).digest),
            Op::DropSession(session(9, 1).digest),
            Op::PutInvitation(invitations[0].clone()),
            Op::PutInvitation(invitations[1].clone()),
            Op::PutInvitation(invitation(3, None)),
            Op::PutIdentity(identity("1", "u1")),
            Op::PutIdentity(identity("1", "u3")),
            Op::PutIdentity(identity("2", "u2")),
            Op::DropIdentity(IdentityRecord::digest("https://id.example", "2")),
        ])
        .unwrap();
    engine.commit(&[Op::DropInvitation(invitation(3, None).digest)]).unwrap();
    assert_eq!(engine.sessions().unwrap(), kept);
    assert_eq!(engine.invitations().unwrap(), invitations);
    assert_eq!(engine.identities().unwrap(), [identity("1", "u3")]);
}
