use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    authz::{subject::Permission, time::Timestamp},
    store::{
        conformance::{event, id, token},
        model::{
            GrantRecord, Grantee, Revocation, RevokeReason, RoleRecord, Rotation, SessionRecord, SignedInBy,
            UserKind, UserRecord,
        },
    },
};

fn user() -> UserRecord {
    UserRecord {
        id: "u1".to_owned(),
        login: "ann".to_owned(),
        name: "Ann".to_owned(),
        email: None,
        kind: UserKind::Human,
        password: None,
        banned: Some("left".to_owned()),
        created_at: Timestamp::from_millis(1000),
        deleted_at: None,
        revision: 2,
    }
}

fn full() -> TokenRecord {
    let at = Timestamp::from_millis(-7);
    TokenRecord {
        author: Some("bob".to_owned()),
        note: "note".to_owned(),
        allow_ips: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        not_before: Some(at),
        expires_at: Some(at),
        revoked: Some(Revocation { at, by: Some("bob".to_owned()), reason: RevokeReason::Leaked }),
        rotation: Some(Rotation { to: id(2), grace_until: at }),
        revision: u64::MAX,
        ..token(3, "ann")
    }
}

fn used() -> LastUsed {
    LastUsed {
        at: Timestamp::from_millis(77),
        from: "2001:db8::1".parse().unwrap(),
        service: "hub".to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn version_1_reads_the_same_for_ever() {
    // Written once by the first permgate. A change of these bytes is a new version, not a new test.
    let check = |name: &str, bytes: &[u8], stored: &str| assert_eq!(hex(bytes), stored, "{name}");
    check("user", &user().encode().unwrap(), "0102753103616e6e03416e6e00000001046c656674d00f0002");
    let grant = GrantRecord { role: "r".to_owned(), to: Grantee::Group("g".to_owned()) };
    check("grant", &grant.encode().unwrap(), "010172010167");
    let role = RoleRecord {
        key: "k".to_owned(),
        name: "K".to_owned(),
        permissions: vec![Permission::UpdateSelf],
        revision: 1,
    };
    check("role", &role.encode().unwrap(), "01016b014b010b7570646174652d73656c6601");
    check("last use", &used().encode().unwrap(), "019a010120010db800000000000000000000000103687562");
    check(
        "token",
        &full().encode().unwrap(),
        "0130303030303030303030303303616e6e0102036875620008796f75747261636b0102000a000000\
         080120010db800000000000000000000000020010d010d010d013030303030303030303030320d01\
         03626f6207546f6b656e2033046e6f7465d00f0103626f620104303030303030303030303033ffffffffffffffffff01",
    );
    assert_eq!(UserRecord::decode(&user().encode().unwrap()), Ok(user()));
    assert_eq!(LastUsed::decode(&used().encode().unwrap()), Ok(used()));
    for token in [full(), token(1, "ann")] {
        let row = token.encode().unwrap();
        assert_eq!(TokenRecord::decode(&token.digest, &row), Ok(token.clone()));
        let head = TokenHead::decode(&row).unwrap();
        assert_eq!((head.id, head.owner, head.imported), (token.id, "ann", token.imported));
        let scope = head.scope.iter().map(|(service, access)| ((*service).to_owned(), *access));
        assert_eq!(scope.collect::<Vec<_>>(), token.scope);
        assert_eq!((head.allow_ips, head.not_before), (token.allow_ips, token.not_before));
        assert_eq!((head.expires_at, head.rotation), (token.expires_at, token.rotation));
        assert_eq!(head.revoked_at, token.revoked.map(|revocation| revocation.at));
    }
}

/// The fields of these records are their stored form: a change of a type must not change it.
#[test]
fn records_that_are_stored_as_they_are_keep_their_fields() {
    let check = |name: &str, bytes: Result<Vec<u8>, EncodeError>, fields: &[&[u8]]| {
        assert_eq!(bytes.unwrap(), fields.concat(), "{name}");
    };
    let at = Timestamp::from_millis(1000);
    let (digest, millis) = (Digest::from_bytes([7; 32]), &[0xd0, 0x0f]);
    let identity = IdentityRecord { issuer: "i".into(), subject: "s".into(), user: "u".into() };
    check("identity", identity.encode(), &[b"\x01\x01i\x01s\x01u"]);
    let invitation = InvitationRecord { digest, user: "u".into(), author: Some("a".into()), expires_at: at };
    check("invitation", invitation.encode(), &[&[1], &[7; 32], b"\x01u\x01\x01a", millis]);
    let session = SessionRecord {
        digest,
        user: "u".into(),
        created_at: at,
        last_seen_at: at,
        client: [10, 0, 0, 1].into(),
        by: SignedInBy::Provider,
    };
    let fields: [&[u8]; 6] = [&[2], &[7; 32], b"\x01u", millis, millis, &[0, 10, 0, 0, 1, 1]];
    check("session", session.encode(), &fields);
    let answered = IdempotencyRecord { key: "k".into(), request: [3; 32], token: id(2), at };
    check("idempotency", answered.encode(), &[b"\x01\x01k", &[3; 32], id(2).as_bytes(), millis]);
    check("audit start", AuditPosition { seq: 5, prev: [9; 32] }.encode(), &[&[1, 5], &[9; 32]]);
    let event = AuditEvent {
        seq: 5,
        service: Some("s".into()),
        reason: Some("r".into()),
        prev: [8; 32],
        hash: [9; 32],
        ..AuditEvent::new(at, "e", "a", "t", None)
    };
    let text = b"\x01e\x01a\x01t\x01\x01s\x00\x02ok\x01\x01r\x00";
    check("audit", event.encode(), &[&[1, 5], millis, text, &[8; 32], &[9; 32]]);
    let (node, incarnation) = ("n".to_owned(), [4; 16]);
    let put = MemberChange::Put { node: node.clone(), incarnation, format: 1, rules: [2; 32], since: 3 };
    check("member", put.encode(), &[b"\x01\x00\x01n", &[4; 16], &[1], &[2; 32], &[3]]);
    let gone = MemberChange::Drop { node, incarnation, over: true };
    check("departed", gone.encode(), &[b"\x01\x01\x01n", &[4; 16], &[1]]);
}

#[test]
fn a_session_of_the_first_version_was_begun_with_a_password() {
    // Written by the first permgate.
    let stored = [&[1][..], &[7; 32], &[2, b'u', b'1', 0xd0, 0x0f, 0xd2, 0x0f, 0, 10, 0, 0, 1]].concat();
    let read = SessionRecord::decode(&stored).unwrap();
    assert_eq!((read.user.as_str(), read.by), ("u1", SignedInBy::Password));
    assert_eq!((read.created_at.as_millis(), read.last_seen_at.as_millis()), (1000, 1001));
    assert_eq!(read.client, std::net::IpAddr::from([10, 0, 0, 1]));
    let provided = SessionRecord { by: SignedInBy::Provider, ..read };
    assert_eq!(SessionRecord::decode(&provided.encode().unwrap()), Ok(provided));
}

#[test]
fn what_is_not_ours_is_said_to_be() {
    let sound = event(5).encode().unwrap();
    let check = |name: &str, bytes: &[u8], expected: DecodeError| {
        assert_eq!(AuditEvent::decode(bytes), Err(expected), "{name}");
    };
    check("nothing", b"", DecodeError::Empty("audit"));
    check("version 0", &[&[0], &sound[1..]].concat(), DecodeError::Malformed("audit"));
    check("a newer version", &[&[2], &sound[1..]].concat(), DecodeError::Newer { kind: "audit", version: 2 });
    check("one byte more", &[&sound[..], b"x"].concat(), DecodeError::Malformed("audit"));
    for end in 1..sound.len() {
        check("cut short", &sound[..end], DecodeError::Malformed("audit"));
    }
}

#[test]
fn a_record_beyond_the_limit_is_not_written() {
    let note = "x".repeat(MAX_VALUE);
    let large = TokenRecord { note, ..token(1, "ann") };
    assert!(large.encode().is_err());
}

/// Otherwise the edit of a token with the longest texts, networks and scope is refused, and the cut of a request
/// with a long path has no event.
#[test]
fn change_that_is_too_long_for_an_event_is_shortened() {
    let network = "2001:db8:1000:abcd:abcd:abcd:abcd:abcd/128";
    let long = "\u{20000}".repeat(500);
    let edit = json!({
        "name": [&long[..400], &long[..396]],
        "note": [long, long],
        "scope": ["service:read ".repeat(250), "x".repeat(3_300)],
        "allow_ips": [vec![network; 64], vec![network; 64]],
        "from": {"token": "UhCLIpMxQ7Dc"},
    });
    let cut = json!({"path": format!("/{}", "a".repeat(2 * MAX_VALUE)), "from": {"token": "UhCLIpMxQ7Dc"}});
    for change in [edit, cut] {
        let at = Timestamp::from_millis(0);
        let event = AuditEvent::new(at, "token.edit", "x".repeat(64), "x".repeat(800), change);
        assert!(event.encode().is_ok());
        let kept: serde_json::Value = serde_json::from_str(&event.change.unwrap()).unwrap();
        assert_eq!(kept["from"]["token"], "UhCLIpMxQ7Dc");
        assert!(kept.to_string().contains('…'));
    }
    let short = json!({"path": "/".repeat(5_000)});
    let event = AuditEvent::new(Timestamp::from_millis(0), "live.cut", "ann", "live:1", short.clone());
    assert_eq!(event.change, Some(short.to_string()), "as it is");
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        decode_any(&bytes);
    }

    #[test]
    fn spoilt_records_never_panic(at in 0usize..400, to in any::<u8>()) {
        for mut bytes in [full().encode().unwrap(), event(1).encode().unwrap(), used().encode().unwrap()] {
            let at = at % bytes.len();
            bytes[at] = to;
            decode_any(&bytes);
        }
    }
}
