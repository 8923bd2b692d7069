//! The deletion of a user with many tokens, which are revoked in several changes.

use super::*;
use crate::store::conformance::{id, token};

/// More than two pages.
const MANY: usize = 2_500;

pub(super) fn user(number: usize) -> UserRecord {
    let login = format!("user-{number}");
    UserRecord::new(
        format!("id-{number}"),
        login.clone(),
        login,
        UserKind::Service,
        Timestamp::from_millis(NOW),
    )
}

fn changes(bench: &Bench) -> u64 {
    bench.store.metrics().commits.value()
}

/// A number in the audit events of a kind, oldest first.
fn counted(bench: &Bench, kind: &str, field: &str) -> Vec<u64> {
    let events =
        bench.store.audit(None, 10).unwrap().items.into_iter().rev().filter(|event| event.event == kind);
    let change = |event: AuditEvent| serde_json::from_str(&event.change.unwrap()).unwrap();
    events.map(change).map(|change: serde_json::Value| change[field].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn many_tokens_of_a_deleted_user_are_revoked_in_pages() {
    let mut rows: Vec<Op> = (0..MANY).map(|number| Op::PutToken(token(number, "id-1"))).collect();
    rows.push(Op::PutUser(user(1)));
    let bench = Bench::seeded(usual(), &rows);
    let before = changes(&bench);
    let deleted = bench.store.delete_user(operator(), "user-1".into()).await.unwrap().record;
    assert!(deleted.deleted_at.is_some());
    // The tombstone, and three pages.
    assert_eq!(changes(&bench) - before, 4);
    for number in 0..MANY {
        let revoked = bench.store.token(id(number)).unwrap().unwrap().revoked.unwrap();
        assert_eq!(revoked.reason, RevokeReason::OwnerDeleted);
    }
    assert_eq!(counted(&bench, "user.delete", "revoked_tokens"), [2_500]);
}

/// The tombstone alone refuses the tokens. Their rows follow when old rows are looked for.
#[tokio::test]
async fn interrupted_deletion_is_finished_later() {
    let mut rows: Vec<Op> = (0..MANY).map(|number| Op::PutToken(token(number, "id-1"))).collect();
    rows.extend([Op::PutUser(user(1)), Op::PutUser(user(2))]);
    let bench = Bench::seeded(usual(), &rows);
    let first = bench.store.change(writer::TaskKind::OnlyRemoves, |tx| tx.delete_user(&operator(), "user-1"));
    first.await.unwrap();
    let last = id(MANY - 1);
    let is_revoked = || bench.store.token(last).unwrap().unwrap().revoked.is_some();
    assert!(!is_revoked());
    let owner = bench.indexed(&token(MANY - 1, "id-1").digest).unwrap().owner;
    assert!(bench.state.snapshot().directory.user(owner).unwrap().deleted);
    for name in ["a", "b", "c", "d"] {
        bench.pass(10);
        let edit = UserEdit { name: Some(name.into()), ..UserEdit::default() };
        bench.store.edit_user(operator(), "user-2".into(), None, edit).await.unwrap();
    }
    assert!(is_revoked());
    assert_eq!(bench.ending(&token(MANY - 1, "id-1").digest), TokenEnd::Revoked);
}
