//! What a crash between two rows leaves.

use super::*;
use crate::store::{
    conformance::{id, token},
    op::Op,
};

fn large(replica: &Replica, first: usize) -> Staged {
    let ops: Vec<Op> = (first..first + 600).map(|number| Op::PutToken(token(number, "ann"))).collect();
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
    replica.finish(Staged::default(), Head::EMPTY).unwrap();
    let staged = large(&replica, 0);
    replica.commit(&staged, Head::EMPTY).unwrap();
    let counts = Counts { all: 600, ended: 0 };
    assert_eq!(replica.counts("ann"), counts);
    replica.close();

    let replica = Replica::open(&path, store).unwrap();
    replica.load(&mut |_, _| {}).unwrap().unwrap();
    assert_eq!(replica.counts("ann"), counts);
    let page = replica.tokens_of("ann", Some(id(1)), 2).unwrap();
    assert_eq!(page.iter().map(|token| token.id).collect::<Vec<_>>(), [id(2), id(3)]);
    let staged = large(&replica, 1000);
    replica.guarded(|trees| trees.write_large(&staged.rows, None)).unwrap().unwrap();
    replica.close();
    assert!(matches!(Replica::open(&path, store), Err(OpenError::Absent { .. })));
}
