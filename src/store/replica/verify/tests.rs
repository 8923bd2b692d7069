//! Every kind of damage to a row is found, and concurrent changes are not taken for damage.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::store::{
    Settings,
    conformance::{
        id, token,
        whole::{chained, one_of_each, user},
    },
    engine::{Engine, verify_closed},
    model::AuditPosition,
    op::Op,
    replica::ReplicaError,
};

struct TestReplica {
    directory: tempfile::TempDir,
    engine: Engine,
}

impl TestReplica {
    /// A row of every kind.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = Settings { path: directory.path().join("store"), ballast: 0 };
        let engine = Engine::open(&settings).unwrap();
        engine.commit(&one_of_each()).unwrap();
        Self { directory, engine }
    }

    fn found(&self) -> Vec<String> {
        let mut found = Vec::new();
        let verified =
            self.engine.replica().verify(&mut |_, _, _| ControlFlow::Continue(()), &mut |table, what| {
                found.push(format!("{}: {what}", table.name()));
            });
        assert!(verified.is_continue());
        found
    }

    /// Changes rows directly, past the engine.
    fn spoil(&self, change: impl FnOnce(&Trees) -> Result<(), ReplicaError>) {
        self.engine.replica().read(change).unwrap();
    }
}

#[test]
fn a_row_that_does_not_fit_is_found() {
    let replica = TestReplica::new();
    assert_eq!(replica.found(), [""; 0]);
    let check = |name: &str, expected: &str, table: Table, key: &[u8], row: Option<&[u8]>| {
        let before = replica.engine.replica().read(|trees| trees.get(table, key)).unwrap();
        let put = |row: Option<&[u8]>| {
            replica.spoil(|trees| {
                match row {
                    Some(row) => trees.tree(table).insert(key, row)?,
                    None => trees.tree(table).remove(key)?,
                };
                Ok(())
            });
        };
        put(row);
        let found = replica.found();
        assert!(found.iter().any(|what| what.contains(expected)), "{name}: {found:#?}");
        let sum = format!("{}: its ", table.name());
        assert!(found.iter().any(|what| what.starts_with(&sum)), "{name}: {found:#?}");
        put(before.as_deref());
    };
    let digest = |number: usize| token(number, "u1").digest;
    let row = |number: usize, owner: &str| token(number, owner).encode().unwrap();
    check("a token is gone", "the list of the user u1", Table::Tokens, digest(7).as_bytes(), None);
    check("other bytes", "token record", Table::Tokens, digest(7).as_bytes(), Some(b"\x01x"));
    check(
        "another token's row",
        "leads to another token",
        Table::Tokens,
        digest(7).as_bytes(),
        Some(&row(8, "u1")),
    );
    check(
        "another owner",
        "is not in the list of its owner u2",
        Table::Tokens,
        digest(7).as_bytes(),
        Some(&row(7, "u2")),
    );
    check(
        "an owner who is not there",
        "names the user u9",
        Table::Tokens,
        digest(7).as_bytes(),
        Some(&row(7, "u9")),
    );
    let renamed = TokenRecord { name: "x".to_owned(), ..token(7, "u1") }.encode().unwrap();
    check(
        "another name",
        "the name of the token 000000000007 does not lead to it",
        Table::Tokens,
        digest(7).as_bytes(),
        Some(&renamed),
    );
    check("another row of the token", "leads to another token", Table::Tokens, &[9; 32], Some(&row(7, "u1")));
    check(
        "a use of no token",
        "a last use belongs to no token",
        Table::Uses,
        id(899).as_bytes(),
        Some(&replica.row(Table::Uses, id(1).as_bytes())),
    );
    check("a user is gone", "who does not exist", Table::Users, b"u1", None);
    check(
        "two logins",
        "two users have the login Ann",
        Table::Users,
        b"u3",
        Some(&user(3, "Ann").encode().unwrap()),
    );
    check(
        "under another key",
        "a row has another row's key",
        Table::Users,
        b"u3",
        Some(&user(4, "zoe").encode().unwrap()),
    );
    check("a group is gone", "names the group g1, which does not exist", Table::Groups, b"g1", None);
    check(
        "a member of nothing",
        "a membership of u1 names the group g9",
        Table::Members,
        &keys::pair("g9", "u1").unwrap(),
        Some(b""),
    );
    check("a role is gone", "names a role that does not exist", Table::Roles, b"own", None);
    check("half a grant", "grant record", Table::Grants, b"own\0user\0u1", Some(b"\x01"));
    check("a grant is gone", "", Table::Grants, b"own\0user\0u1", None);
    check(
        "a session under another key",
        "a row has another row's key",
        Table::Sessions,
        &[9; 32],
        Some(&replica.row(Table::Sessions, &[1; 32])),
    );
    check("an invitation of a newer permgate", "newer", Table::Invitations, &[2; 32], Some(b"\xff"));
    check(
        "an identity is gone",
        "",
        Table::IdentityCache,
        IdentityRecord::digest("https://id.example", "1").as_bytes(),
        None,
    );
    check(
        "an answer under another key",
        "a row has another row's key",
        Table::Idempotency,
        &keys::idempotency("another key"),
        Some(&replica.row(Table::Idempotency, &keys::idempotency("a key"))),
    );
    check("an event is gone", "an event is missing", Table::Audit, &keys::audit(150), None);
    check("the last event is gone", "ends before event 300", Table::Audit, &keys::audit(300), None);
    check(
        "an event twice",
        "audit",
        Table::Audit,
        &keys::audit(301),
        Some(&replica.row(Table::Audit, &keys::audit(300))),
    );
    assert_eq!(replica.found(), [""; 0], "everything is as it was");
}

/// A load of such a replica fails, and the lists that the rows are compared with are what it has.
#[test]
fn a_token_that_is_gone_is_one_finding_offline_too() {
    let replica = TestReplica::new();
    replica.spoil(|trees| {
        trees.tree(Table::Tokens).remove(token(7, "u1").digest.as_bytes())?;
        Ok(())
    });
    replica.engine.close();
    let settings = Settings { path: replica.directory.path().join("store"), ballast: 0 };
    let report = verify_closed(&settings, &mut |_| ControlFlow::Continue(())).unwrap();
    let found: Vec<_> = report.damage.iter().map(|finding| finding.what.as_str()).collect();
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(found[0].contains("tokens does not have the rows that were written"), "{found:#?}");
    assert!(found[1].contains("600 rows, 601 were written"), "{found:#?}");
}

impl TestReplica {
    fn row(&self, table: Table, key: &[u8]) -> Vec<u8> {
        self.engine.replica().read(|trees| Ok(trees.get(table, key)?.unwrap().to_vec())).unwrap()
    }
}

#[test]
fn changes_that_go_on_meanwhile_are_no_damage() {
    let replica = TestReplica::new();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut head = AuditPosition::load(&replica.engine).unwrap();
            for number in 1000.. {
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let engine = &replica.engine;
                engine.commit(&[Op::PutToken(token(number, "u1")), chained(&mut head)]).unwrap();
                engine.commit(&[Op::DropToken { id: id(number), owner: "u1".to_owned() }]).unwrap();
                // Before what is being read, and after it.
                replica
                    .engine
                    .commit(&[Op::PutUser(user(
                        u8::try_from(number % 200).unwrap() + 50,
                        &format!("x{number}"),
                    ))])
                    .unwrap();
            }
        });
        for _ in 0..5 {
            assert_eq!(replica.found(), [""; 0]);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn whoever_stops_reading_ends_it() {
    let replica = TestReplica::new();
    let mut calls = 0;
    let ended = replica.engine.replica().verify(
        &mut |_, _, _| {
            calls += 1;
            if calls == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
        &mut |table, what| panic!("{}: {what}", table.name()),
    );
    assert!(ended.is_break());
    assert_eq!(calls, 2);
}
