use proptest::prelude::*;

use super::*;
use crate::{
    authz::{subject::Permission, time::Timestamp},
    store::{
        conformance::{event, id, token},
        model::{GrantRecord, Grantee, LastUsed, SignedInBy, UserKind},
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

fn block() -> Block<'static> {
    let item = |number| BlockItem {
        id: id(number),
        taken: Some(format!("name {number}").into()),
        token: write_token(&token(number, "ann")).unwrap().into(),
    };
    Block { owner: "ann".into(), items: vec![item(1), item(2)] }
}

fn uses() -> LastUses {
    let used = LastUsed {
        at: Timestamp::from_millis(77),
        from: "2001:db8::1".parse().unwrap(),
        service: "hub".to_owned(),
    };
    LastUses(vec![(id(1), used)])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn version_1_reads_the_same_for_ever() {
    // Written once by the first permgate; a change of these bytes is a new version, not a new test.
    let check = |name: &str, bytes: &[u8], written: &str| assert_eq!(hex(bytes), written, "{name}");
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
    check(
        "last use",
        &uses().encode().unwrap(),
        "01013030303030303030303030319a010120010db8000000000000000000000001\
         03687562",
    );
    assert_eq!(UserRecord::decode(&user().encode().unwrap()), Ok(user()));
    assert_eq!(LastUses::decode(&uses().encode().unwrap()), Ok(uses()));
    let bytes = block().encode().unwrap();
    let read = Block::decode(&bytes).unwrap();
    assert_eq!(read, block());
    assert_eq!(read_token(&read.owner, &read.items[0]), Ok(token(1, "ann")));
}

#[test]
fn a_session_of_the_first_version_was_begun_with_a_password() {
    // Written by the first permgate.
    let written = [&[1][..], &[7; 32], &[2, b'u', b'1', 0xd0, 0x0f, 0xd2, 0x0f, 0, 10, 0, 0, 1]].concat();
    let read = SessionRecord::decode(&written).unwrap();
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
    let note = "x".repeat(LIMIT);
    let large = crate::store::model::TokenRecord { note, ..token(1, "ann") };
    assert!(write_token(&large).is_err());
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        decode_any(&bytes);
    }

    #[test]
    fn spoilt_records_never_panic(at in 0usize..400, to in any::<u8>()) {
        for mut bytes in [block().encode().unwrap(), event(1).encode().unwrap(), uses().encode().unwrap()] {
            let at = at % bytes.len();
            bytes[at] = to;
            decode_any(&bytes);
        }
    }
}
