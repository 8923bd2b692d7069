//! A disk that breaks: a change that adds power is not made, one that removes it takes effect all the same.

use super::{deletion::user, *};
use crate::store::conformance::token;

struct Broken {
    bench: Bench,
    alice: Actor,
    token: TokenRecord,
    other: TokenRecord,
}

impl Broken {
    async fn new() -> Self {
        let bench = Bench::peopled().await;
        let create = async |owner: &str, name: &str| {
            let scope = vec![("wiki".into(), FULL)];
            let new = NewToken { scope, ..named(owner, name) };
            bench.store.create_token(operator(), new, None).await.unwrap().record
        };
        let (token, other) = (create("alice", "ci").await, create("bob", "ci").await);
        let alice = bench.by("alice");
        bench.store.engine().break_sync();
        Self { bench, alice, token, other }
    }
}

#[tokio::test]
async fn what_adds_power_is_not_done() {
    let Broken { bench, alice, .. } = Broken::new().await;
    let store = &bench.store;
    let before = bench.state.index().len();
    assert_eq!(store.writable(), Ok(()));
    assert_eq!(code(store.create_token(alice.clone(), named("alice", "new"), None).await), "unknown");
    assert!(store.writable().is_err());
    assert_eq!(bench.state.index().len(), before);
    assert_eq!(code(store.create_user(operator(), person("carol")).await), "closed");
    assert!(store.accounts().user_by_login("carol").is_none());
    assert_eq!(code(store.set_member(operator(), "developers".into(), "bob".into(), true).await), "closed");
    assert!(!bench.reads("bob", "hub"));
    assert_eq!(code(store.ban_user(operator(), "bob".into(), None).await), "closed");
    assert_eq!(code(store.replace_configuration(operator(), usual()).await), "closed");
}

#[tokio::test]
async fn what_takes_power_away_holds() {
    let Broken { bench, alice, token, other } = Broken::new().await;
    let store = &bench.store;
    let revoke = async |by: &Actor, id| code(store.revoke_token(by.clone(), id, RevokeReason::Leaked).await);
    assert_eq!(revoke(&alice, token.id).await, "not_durable");
    assert_eq!(bench.ending(&token.digest), TokenEnd::Revoked);
    assert!(store.token(token.id).unwrap().unwrap().revoked.is_some());
    assert_eq!(revoke(&alice, token.id).await, "not_durable", "again");
    assert_eq!(revoke(&alice, other.id).await, "permission_denied", "the rules hold on");
    assert_eq!(bench.ending(&other.digest), TokenEnd::None);
    assert!(bench.reads("alice", "hub"));
    assert_eq!(
        code(store.set_member(operator(), "developers".into(), "alice".into(), false).await),
        "not_durable"
    );
    assert!(!bench.reads("alice", "hub"));
    assert_eq!(code(store.ban_user(operator(), "bob".into(), Some("x".into())).await), "not_durable");
    assert!(bench.state.snapshot().directory.user_by_login("bob").unwrap().banned);
    assert_eq!(code(store.delete_user(operator(), "bob".into()).await), "not_durable");
    assert_eq!(bench.ending(&other.digest), TokenEnd::Revoked);
    assert!(bench.state.snapshot().directory.user_by_login("bob").is_none());
    let all = GrantTarget::Group("all-users".into());
    assert_eq!(code(store.set_grant(operator(), "contributor".into(), all, false).await), "not_durable");
    assert_eq!(code(store.delete_group(operator(), "developers".into()).await), "not_durable");
}

/// More than a page of them: no later change can end the rest.
#[tokio::test]
async fn all_tokens_of_a_deleted_user_end_at_once() {
    let tokens = (0..2_500).map(|number| token(number, "id-1"));
    let mut rows: Vec<Op> = tokens.clone().map(Op::PutToken).collect();
    rows.push(Op::PutUser(user(1)));
    let bench = Bench::seeded(usual(), &rows);
    bench.store.engine().break_sync();
    assert_eq!(code(bench.store.delete_user(operator(), "user-1".into()).await), "not_durable");
    for record in tokens {
        assert_eq!(bench.ending(&record.digest), TokenEnd::Revoked);
        assert!(bench.store.token(record.id).unwrap().unwrap().revoked.is_some());
    }
}

#[tokio::test]
async fn narrowing_holds_and_widening_is_refused() {
    let Broken { bench, alice, token, .. } = Broken::new().await;
    let edit = |access| TokenEdit { scope: Some(vec![("wiki".into(), access)]), ..TokenEdit::default() };
    let edited = async |edit| code(bench.store.edit_token(alice.clone(), token.id, None, edit).await);
    assert_eq!(edited(edit(Access::Read)).await, "not_durable");
    let held =
        bench.indexed(&token.digest).unwrap().scope.iter().map(|(_, access)| access).collect::<Vec<_>>();
    assert_eq!(held, [Access::Read]);
    assert_eq!(edited(edit(Access::Full)).await, "cannot_widen");
    let rename = TokenEdit { name: Some("x".into()), ..TokenEdit::default() };
    assert_eq!(edited(rename).await, "closed");
}

#[tokio::test]
async fn a_role_that_loses_permissions_holds_and_one_that_gains_is_refused() {
    use crate::authz::subject::Permission::{ReadGroup, ReadService, UpdateGroup};
    let bench = Bench::peopled().await;
    let store = &bench.store;
    let edited = async |revision, permissions: &[_]| {
        let edit = RoleEdit { permissions: Some(permissions.to_vec()), ..RoleEdit::default() };
        code(store.edit_role(operator(), "reader".into(), revision, edit).await)
    };
    let both = vec![ReadService, ReadGroup];
    store.create_role(operator(), "reader".into(), "Reader".into(), both).await.unwrap();
    store.set_grant(operator(), "reader".into(), GrantTarget::User("bob".into()), true).await.unwrap();
    assert_eq!(edited(Some(1), &[ReadService, UpdateGroup]).await, "ok");
    assert_eq!(edited(Some(1), &[ReadService]).await, "stale");
    assert_eq!(bench.events().last().unwrap(), "role.edit");
    store.engine().break_sync();
    assert!(bench.reads("bob", "hub"));
    // A permission that another one has implied is no addition.
    assert_eq!(edited(None, &[ReadService, ReadGroup]).await, "not_durable");
    assert!(bench.reads("bob", "hub"));
    assert_eq!(edited(None, &[]).await, "not_durable");
    assert!(!bench.reads("bob", "hub"));
    assert_eq!(edited(None, &[ReadService]).await, "closed");
    let rename = RoleEdit { name: Some("Other".into()), ..RoleEdit::default() };
    assert_eq!(code(store.edit_role(operator(), "reader".into(), None, rename).await), "closed");
}

/// One batch with both kinds, in any order: each gets its own answer.
#[tokio::test]
async fn a_broken_batch_is_told_apart() {
    let Broken { bench, alice, token, other } = Broken::new().await;
    let store = &bench.store;
    let release = bench.hold().await;
    let (created, revoked, rotated, banned, ()) = tokio::join!(
        store.create_token(alice.clone(), named("alice", "new"), None),
        store.revoke_token(alice.clone(), token.id, RevokeReason::User),
        store.rotate_token(operator(), other.id, None, None),
        store.ban_user(operator(), "bob".into(), Some("x".into())),
        async { drop(release) },
    );
    assert_eq!(code(created), "unknown");
    assert_eq!(code(revoked), "not_durable");
    assert_eq!(code(rotated), "unknown");
    assert_eq!(code(banned), "not_durable");
    assert_eq!(bench.ending(&token.digest), TokenEnd::Revoked);
    assert_eq!(bench.ending(&other.digest), TokenEnd::None);
    assert_eq!(bench.state.index().len(), 2);
}

#[tokio::test]
async fn a_restart_takes_changes_again() {
    let Broken { bench, alice, token, .. } = Broken::new().await;
    let revoked = bench.store.revoke_token(alice, token.id, RevokeReason::User).await;
    assert_eq!(code(revoked), "not_durable");
    let bench = bench.again().await;
    bench.store.verify_audit().unwrap();
    let by = bench.by("alice");
    bench.store.revoke_token(by, token.id, RevokeReason::User).await.unwrap();
    assert_eq!(bench.ending(&token.digest), TokenEnd::Revoked);
    bench.store.verify_audit().unwrap();
}

#[tokio::test]
async fn a_dead_writer_is_told_and_takes_nothing() {
    let bench = Bench::peopled().await;
    let token = bench.store.create_token(operator(), named("alice", "ci"), None).await.unwrap().record;
    let (store, published) = (&bench.store, bench.state.version());
    // A plan that panics ends the writer: half of a change, and a lock that is held.
    let panics = writer::Task::new(
        writer::TaskKind::Counted,
        Box::new(move |tx| {
            tx.revoke_token(&operator(), token.id, RevokeReason::Admin).unwrap();
            tx.create_user(&operator(), &person("zoe"), "id").unwrap();
            let shared = tx.shared.clone();
            let _unsaved = shared.unsaved.lock();
            panic!("on purpose")
        }),
        oneshot::channel().0,
    );
    assert!(store.queue.send(writer::Command::Change(panics)).await.is_ok());
    tokio::time::timeout(ACKNOWLEDGE_TIMEOUT, store.ended()).await.expect("it has ended");
    assert!(store.writable().is_err());
    assert_eq!(code(store.ban_user(operator(), "bob".into(), Some("x".into())).await), "closed");
    assert_eq!((bench.ending(&token.digest), bench.state.version()), (TokenEnd::None, published));
    assert!(store.engine().token(token.id).unwrap().unwrap().revoked.is_none(), "nothing was written");
    assert!(store.engine().users().unwrap().iter().all(|user| user.login != "zoe"));
}

/// A worker that never applies a change: durable, but not acknowledged as in force.
#[tokio::test]
async fn a_silent_participant_makes_the_fence_incomplete() {
    let bench = Bench::peopled().await;
    let made = bench.store.create_token(operator(), named("alice", "ci"), None).await.unwrap().record;
    let Bench { dir, store, clock, .. } = bench;
    store.close().await;
    let fence = Fence::new(std::time::Duration::from_millis(50));
    let Bench { dir, store, clock, .. } = Bench::with_fence(dir, usual(), clock, fence.clone());
    let silent = fence.join();
    let revoked = store.revoke_token(operator(), made.id, RevokeReason::Leaked).await;
    assert!(matches!(revoked, Err(ChangeError::FenceIncomplete)), "{revoked:?}");
    assert!(fence.is_broken());
    assert_eq!(store.writable(), Ok(()));
    drop(silent);
    store.close().await;
    let bench = Bench::over(dir, usual(), clock);
    assert_eq!(bench.ending(&made.digest), TokenEnd::Revoked, "it was durable");
}
