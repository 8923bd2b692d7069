//! What a crash between two rows leaves, and changes before the load.

use super::*;
use crate::{
    authz::{secret::TokenId, time::Timestamp},
    store::{
        self,
        conformance::{id, token},
        model::{LastUsed, Revocation, RevokeReason, TokenRecord},
        op::Op,
    },
};

fn large(replica: &Replica, first: usize) -> Staged {
    let ops: Vec<Op> = (first..first + 1200).map(|number| Op::PutToken(token(number, "ann"))).collect();
    let mut staged = Staged::default();
    ops.iter().for_each(|op| replica.stage(&mut staged, op).unwrap());
    assert!(stage::is_large(&staged.rows));
    staged
}

#[test]
fn a_large_batch_is_there_after_a_restart_and_one_that_was_cut_off_leaves_no_replica() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sled");
    let store = StoreId([1; 16]);
    let replica = Replica::create(&path, store).unwrap();
    replica.finish(Head::EMPTY).unwrap();
    let staged = large(&replica, 0);
    replica.commit(&staged, Head::EMPTY).unwrap();
    let counts = Counts { all: 1200, ended: 0 };
    assert_eq!(replica.counts("ann").unwrap(), counts);
    replica.close();

    let replica = Replica::open(&path, store).unwrap().unwrap();
    replica.load(&mut |_, _| {}).unwrap();
    assert_eq!(replica.counts("ann").unwrap(), counts);
    let page = replica.tokens_of("ann", Some(id(1)), 2).unwrap();
    assert_eq!(page.iter().map(|token| token.id).collect::<Vec<_>>(), [id(2), id(3)]);
    let staged = large(&replica, 2000);
    replica.guarded(|trees| trees.write_large(&staged.rows, None)).unwrap().unwrap();
    replica.close();
    assert!(Replica::open(&path, store).unwrap().is_none());
}

/// A replica that catches up with the log changes before its lists are loaded.
#[test]
fn changes_before_the_load_find_tokens_by_id() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sled");
    let store = StoreId([1; 16]);
    let commit = |replica: &Replica, ops: &[Op]| {
        let mut staged = Staged::default();
        ops.iter().for_each(|op| replica.stage(&mut staged, op).unwrap());
        replica.commit(&staged, Head::EMPTY).unwrap();
    };
    let reopened = |replica: &Replica| {
        replica.close();
        Replica::open(&path, store).unwrap().unwrap()
    };
    let used = |seconds: i64| LastUsed {
        at: Timestamp::from_millis(seconds * 1000),
        from: [192, 0, 2, 1].into(),
        service: "hub".to_owned(),
    };
    let put_used = |number, seconds| Op::PutLastUsed { token: id(number), used: used(seconds) };
    let replica = Replica::create(&path, store).unwrap();
    replica.finish(Head::EMPTY).unwrap();
    let tokens: Vec<Op> = (0..5).map(|number| Op::PutToken(token(number, "ann"))).collect();
    commit(&replica, &tokens);

    let replica = reopened(&replica);
    commit(&replica, &[Op::DropToken { id: id(1), owner: "ann".to_owned() }, put_used(1, 1), put_used(2, 1)]);
    assert_eq!(replica.counts("ann").unwrap(), Counts { all: 4, ended: 0 });
    let replica = reopened(&replica);
    commit(&replica, &[put_used(2, 2), put_used(9, 2), Op::PutToken(token(7, "ann"))]);
    replica.load(&mut |_, _| {}).unwrap();
    let ids: Vec<_> = replica.tokens(None, 10).unwrap().iter().map(|token| token.id).collect();
    assert_eq!(ids, [0, 2, 3, 4, 7].map(id));
    assert_eq!(replica.token(id(2)).unwrap().unwrap().last_used, Some(used(2)));
    assert_eq!(replica.all_rows().iter().filter(|(table, ..)| *table == Table::Uses).count(), 1);

    // Loaded tokens and later ones are listed as one, and what is dropped and made again is listed once.
    let drop = |number| Op::DropToken { id: id(number), owner: "ann".to_owned() };
    let made = [1, 3, 8].map(|number| Op::PutToken(token(number, "ann")));
    commit(&replica, &[drop(3), drop(4)]);
    commit(&replica, &made);
    commit(&replica, &[drop(8)]);
    let mut listed = Vec::new();
    while let page = replica.tokens(listed.last().copied(), 2).unwrap()
        && !page.is_empty()
    {
        listed.extend(page.iter().map(|token| token.id));
    }
    assert_eq!(listed, [0, 1, 2, 3, 7].map(id));
    assert_eq!(replica.token(id(4)).unwrap(), None);

    let replica = reopened(&replica);
    let same = TokenRecord { digest: Digest::from_bytes([9; 32]), ..token(7, "ann") };
    commit(&replica, &[Op::PutToken(same)]);
    let loaded = replica.load(&mut |_, _| {});
    assert!(
        matches!(loaded, Err(store::OpenError::Replica(why)) if why == ReplicaError::Ids.to_string()),
        "no log has this"
    );
}

/// More rows than wait for the visitor: their reader ends, too.
#[test]
fn a_load_ends_at_a_row_that_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let replica = Replica::create(&directory.path().join("sled"), StoreId([1; 16])).unwrap();
    for first in (0..4000).step_by(1200) {
        replica.commit(&large(&replica, first), Head::EMPTY).unwrap();
    }
    let mut visited = Vec::new();
    replica.load(&mut |digest, _| visited.push(digest)).unwrap();
    assert!(visited.len() == 4800 && visited.is_sorted());
    let damage = |trees: &Trees| trees.tree(Table::Tokens).insert(visited[300].as_bytes(), b"").map(drop);
    replica.guarded(damage).unwrap().unwrap();
    let mut before = 0;
    let loaded = replica.load(&mut |_, _| before += 1);
    let damage = DecodeError::Empty("token").to_string();
    assert!(matches!(&loaded, Err(store::OpenError::Replica(why)) if *why == damage), "{loaded:?}");
    assert_eq!(before, 300);
}

/// Tokens that have ended are in a list of their own.
#[test]
fn pages_of_an_owner_have_live_and_ended_tokens_in_the_order_of_ids() {
    let directory = tempfile::tempdir().unwrap();
    let replica = Replica::create(&directory.path().join("sled"), StoreId([1; 16])).unwrap();
    let put = |number, ended: bool| {
        let at = Timestamp::from_millis(0);
        let revoked = ended.then_some(Revocation { at, by: None, reason: RevokeReason::User });
        let mut staged = Staged::default();
        let record = TokenRecord { revoked, ..token(number, "ann") };
        replica.stage(&mut staged, &Op::PutToken(record)).unwrap();
        replica.commit(&staged, Head::EMPTY).unwrap();
    };
    let check = |ended: usize| {
        let mut listed = Vec::new();
        while let page = replica.tokens_of("ann", listed.last().copied(), 2).unwrap()
            && !page.is_empty()
        {
            listed.extend(page.iter().map(|token| token.id));
        }
        assert_eq!(listed, [0, 1, 2, 3, 4, 5, 6].map(id));
        assert_eq!(replica.counts("ann").unwrap(), Counts { all: 7, ended });
    };
    [5, 2, 6, 0, 3, 1, 4].into_iter().for_each(|number| put(number, number % 3 == 0));
    check(3);
    put(1, true);
    put(6, false);
    check(3);
    put(2, true);
    replica.load(&mut |_, _| {}).unwrap();
    check(4);
}

/// The lists keep the first bytes of digests only, and whoever imports tokens may choose those.
#[test]
fn tokens_whose_digests_begin_alike_are_told_apart() {
    for many in [4, 40] {
        let directory = tempfile::tempdir().unwrap();
        let replica = Replica::create(&directory.path().join("sled"), StoreId([1; 16])).unwrap();
        let alike = |number: usize| {
            let mut digest = [7; 32];
            digest[31] = u8::try_from(number).unwrap();
            TokenRecord { digest: Digest::from_bytes(digest), ..token(number, "ann") }
        };
        let stage = |staged: &mut Staged, op: Op| replica.stage(staged, &op).unwrap();
        let drop = |number| Op::DropToken { id: id(number), owner: "ann".to_owned() };
        let mut first = Staged::default();
        (0..many).for_each(|number| stage(&mut first, Op::PutToken(alike(number))));
        replica.commit(&first, Head::EMPTY).unwrap();

        let check = |changed: bool, token: &dyn Fn(TokenId) -> Option<TokenRecord>| {
            assert_eq!(token(id(0)), Some(alike(0)));
            assert_eq!(token(id(1)), Some(alike(1)).filter(|_| !changed));
            assert_eq!(token(id(2)), Some(TokenRecord { imported: changed, ..alike(2) }));
            assert_eq!(token(id(many)), Some(alike(many)).filter(|_| changed));
        };
        check(false, &|id| replica.token(id).unwrap());
        let mut staged = Staged::default();
        stage(&mut staged, drop(1));
        stage(&mut staged, Op::PutToken(alike(many)));
        stage(&mut staged, Op::PutToken(TokenRecord { imported: true, ..alike(2) }));
        check(true, &|id| replica.with_staged(&staged).token(id).unwrap());
        check(false, &|id| replica.token(id).unwrap());
        replica.commit(&staged, Head::EMPTY).unwrap();
        check(true, &|id| replica.token(id).unwrap());
        let ids: Vec<_> = replica.tokens(None, 100).unwrap().iter().map(|token| token.id).collect();
        assert_eq!(ids, (0..=many).filter(|number| *number != 1).map(id).collect::<Vec<_>>());
    }
}
