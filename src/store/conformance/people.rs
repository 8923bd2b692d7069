//! Users, groups, members, roles and grants.

use super::at;
use crate::{
    authz::subject::Permission,
    store::{
        engine::Engine,
        model::{GrantRecord, Grantee, GroupRecord, RoleRecord, UserKind, UserRecord},
        op::Op,
    },
};

pub(super) fn accounts(engine: &Engine) {
    let user = |id: &str, login: &str| UserRecord {
        id: id.to_owned(),
        login: login.to_owned(),
        name: "A Name".to_owned(),
        email: Some("a@example.org".to_owned()),
        kind: UserKind::Service,
        password: Some("$argon2id$".to_owned()),
        banned: Some("why".to_owned()),
        created_at: at(1),
        deleted_at: Some(at(2)),
        revision: 3,
    };
    let group = GroupRecord {
        id: "g1".to_owned(),
        name: "Ops".to_owned(),
        parent: Some("g0".to_owned()),
        revision: 1,
    };
    let role = RoleRecord {
        key: "all".to_owned(),
        name: "Everything".to_owned(),
        permissions: Permission::ALL.to_vec(),
        revision: 1,
    };
    let grants = [Grantee::Group("g1".to_owned()), Grantee::User("u1".to_owned())]
        .map(|to| GrantRecord { role: "all".to_owned(), to });
    let member = |group: &str, user: &str| (group.to_owned(), user.to_owned());
    let put_member =
        |group: &str, user: &str| Op::PutMember { group: group.to_owned(), user: user.to_owned() };
    engine
        .commit(&[
            Op::PutUser(user("u2", "bob")),
            Op::PutUser(user("u1", "old")),
            Op::PutUser(user("u1", "ann")),
            Op::PutGroup(group.clone()),
            Op::PutGroup(GroupRecord { id: "g2".to_owned(), ..group.clone() }),
            put_member("g1", "u1"),
            put_member("g1", "u2"),
            put_member("g11", "u1"),
            Op::PutRole(role.clone()),
            Op::PutRole(RoleRecord { key: "none".to_owned(), permissions: Vec::new(), ..role.clone() }),
            Op::PutGrant(grants[0].clone()),
            Op::PutGrant(grants[1].clone()),
        ])
        .unwrap();
    assert_eq!(engine.users().unwrap(), [user("u1", "ann"), user("u2", "bob")]);
    assert_eq!(engine.groups().unwrap().len(), 2);
    assert_eq!(engine.members().unwrap(), [member("g1", "u1"), member("g1", "u2"), member("g11", "u1")]);
    assert_eq!(engine.roles().unwrap()[0], role);
    let mut found = engine.grants().unwrap();
    found.sort();
    let mut expected = grants.to_vec();
    expected.sort();
    assert_eq!(found, expected);
    engine
        .commit(&[
            Op::DropGroup { id: "g2".to_owned() },
            Op::DropMember { group: "g1".to_owned(), user: "u1".to_owned() },
            Op::DropRole { key: "none".to_owned() },
            Op::DropGrant(grants[0].clone()),
        ])
        .unwrap();
    assert_eq!(engine.groups().unwrap(), [group]);
    assert_eq!(engine.members().unwrap(), [member("g1", "u2"), member("g11", "u1")]);
    assert_eq!(engine.roles().unwrap(), [role]);
    assert_eq!(engine.grants().unwrap(), [grants[1].clone()]);
}
