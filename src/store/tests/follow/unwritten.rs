//! Removals that are in force on a node although the log could not be written, and are kept until it can.

use super::*;
use crate::store::{conformance::token, log::memory::Fault, tests::deletion::user};

impl Node {
    async fn wait_until_written(&self) {
        for _ in 0..100 {
            self.store.follow(None).await.unwrap();
            if self.store.unwritten() == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("{} removals are not written", self.store.unwritten());
    }

    fn is_banned(&self, login: &str) -> bool {
        self.state.snapshot().directory.user_by_login(login).unwrap().banned
    }
}

/// The caller's token may have been narrowed by the time a removal can be written: it was rightful.
#[tokio::test]
async fn a_kept_revocation_outlives_the_bounds_of_its_callers_token() {
    let cluster = Cluster::new();
    let (one, other) = (cluster.node(), cluster.node());
    let alice = one.store.create_user(operator(), person("alice")).await.unwrap().record;
    let end = Some(Timestamp::from_millis(NOW + 60_000));
    let new = NewToken { scope: vec![("permgate".into(), FULL)], expires_at: end, ..named("alice", "by") };
    let by = one.store.create_token(operator(), new, None).await.unwrap().record;
    let leaked = one.store.create_token(operator(), named("alice", "leaked"), None).await.unwrap().record;
    let actor = Actor {
        parent: Some(by.id),
        client: Some([192, 0, 2, 1].into()),
        ..Actor::new(ActorKind::User(alice.id))
    };
    other.store.follow(None).await.unwrap();
    cluster.log.inject(Fault::NotWritten);
    let revoked = one.store.revoke_token(actor, leaked.id, RevokeReason::Leaked).await;
    assert_eq!(code(revoked), "not_durable");
    let networks = vec!["192.0.2.7/32".parse().unwrap()];
    let bound = TokenEdit { allow_ips: Some(networks), ..TokenEdit::default() };
    other.store.edit_token(operator(), by.id, None, bound).await.unwrap();
    cluster.clock.fetch_add(60_000, Ordering::Relaxed);
    one.wait_until_written().await;
    other.store.follow(None).await.unwrap();
    for node in [&one, &other] {
        assert_eq!(node.indexed(&leaked.digest).restrictions.end, TokenEnd::Revoked);
    }
}

/// A repetition plans nothing, since the removal is in force here. But the log does not have it yet.
#[tokio::test]
async fn a_repeated_removal_is_durable_only_once_it_is_written() {
    let cluster = Cluster::new();
    let (one, other) = (cluster.node(), cluster.node());
    one.store.create_user(operator(), person("bob")).await.unwrap();
    let leaked = one.store.create_token(operator(), named("bob", "leaked"), None).await.unwrap().record;
    for _ in 0..3 {
        cluster.log.inject(Fault::NotWritten);
        let revoked = one.store.revoke_token(operator(), leaked.id, RevokeReason::Leaked).await;
        assert_eq!(code(revoked), "not_durable");
        cluster.log.inject(Fault::NotWritten);
        let banned = one.store.ban_user(operator(), "bob".into(), Some("x".into())).await;
        assert_eq!(code(banned), "not_durable");
        assert_eq!(one.store.unwritten(), 2, "each of them once");
    }
    // The fault may not have been used up.
    cluster.log.heal();
    one.wait_until_written().await;
    assert_eq!(code(one.store.revoke_token(operator(), leaked.id, RevokeReason::Leaked).await), "ok");
    assert_eq!(code(one.store.ban_user(operator(), "bob".into(), Some("x".into())).await), "ok");
    other.store.follow(None).await.unwrap();
    assert_eq!(other.indexed(&leaked.digest).restrictions.end, TokenEnd::Revoked);
    assert!(other.is_banned("bob"));
}

/// Its entry has the rows without the removal.
#[tokio::test]
async fn another_nodes_change_does_not_undo_a_kept_removal() {
    let cluster = Cluster::new();
    let (one, other) = (cluster.node(), cluster.node());
    for login in ["bob", "carl"] {
        one.store.create_user(operator(), person(login)).await.unwrap();
    }
    let leaked = one.store.create_token(operator(), named("bob", "leaked"), None).await.unwrap().record;
    other.store.follow(None).await.unwrap();
    cluster.log.inject(Fault::NotWritten);
    let revoked = one.store.revoke_token(operator(), leaked.id, RevokeReason::Leaked).await;
    assert_eq!(code(revoked), "not_durable");
    for login in ["bob", "carl"] {
        cluster.log.inject(Fault::NotWritten);
        assert_eq!(code(one.store.ban_user(operator(), login.into(), Some("x".into())).await), "not_durable");
    }
    cluster.log.heal();
    let renamed = UserEdit { name: Some("Robert".into()), ..UserEdit::default() };
    other.store.edit_user(operator(), "bob".into(), None, renamed).await.unwrap();
    let edit = TokenEdit { name: Some("renamed".into()), ..TokenEdit::default() };
    other.store.edit_token(operator(), leaked.id, None, edit).await.unwrap();
    other.store.delete_user(operator(), "carl".into()).await.unwrap();
    other.store.create_user(operator(), person("dora")).await.unwrap();
    let holds = || {
        assert_eq!(one.indexed(&leaked.digest).restrictions.end, TokenEnd::Revoked);
        let record = one.store.token(leaked.id).unwrap().unwrap();
        assert!(record.revoked.is_some() && record.name == "renamed", "{record:?}");
        assert!(one.is_banned("bob") && !one.is_banned("dora"));
        assert_eq!(one.store.accounts().user_by_login("bob").unwrap().record.name, "Robert");
    };
    one.store.follow(None).await.unwrap();
    holds();
    one.wait_until_written().await;
    holds();
    other.store.follow(None).await.unwrap();
    assert_eq!(one.memory(), other.memory());
    assert!(one.rows() == other.rows());
    one.store.verify_audit().unwrap();
}

/// A session of the browser that made the removal, and one that the removal ended.
#[tokio::test]
async fn a_kept_removal_outlives_its_callers_session() {
    let cluster = Cluster::new();
    let (one, other) = (cluster.node(), cluster.node());
    let mut actors = Vec::new();
    for (login, number) in [("alice", 1), ("bob", 2), ("carl", 3)] {
        one.store.create_user(operator(), person(login)).await.unwrap();
        one.store.set_password(operator(), login.into(), None, Some(PHC.into())).await.unwrap();
        let user = one.store.accounts().user_by_login(login).unwrap().record.id.clone();
        let (digest, client) = (Digest::from_bytes([number; 32]), [127, 0, 0, 1].into());
        let new = NewSession { user: user.clone(), verified: PHC.into(), digest, client, replaces: None };
        one.store.begin_session(new).await.unwrap();
        actors.push(Actor { session: Some(digest), ..Actor::new(ActorKind::User(user)) });
    }
    let leaked = one.store.create_token(operator(), named("alice", "leaked"), None).await.unwrap().record;
    other.store.follow(None).await.unwrap();
    let [alice, bob, carl] = [0, 1, 2].map(|at| actors[at].clone());
    cluster.log.inject(Fault::NotWritten);
    let revoked = one.store.revoke_token(alice.clone(), leaked.id, RevokeReason::Leaked).await;
    assert_eq!(code(revoked), "not_durable");
    for (actor, login) in [(alice, "alice"), (operator(), "bob")] {
        cluster.log.inject(Fault::NotWritten);
        assert_eq!(code(one.store.end_sessions(actor, login.into()).await), "not_durable");
    }
    cluster.log.heal();
    // It has the session without the removal, and records its use.
    other.store.record_session(bob.session.unwrap(), Timestamp::from_millis(NOW + 1)).await.unwrap();
    one.store.follow(None).await.unwrap();
    assert_eq!(one.store.session(&bob.session.unwrap()), None);
    cluster.clock.fetch_add(31 * 60_000, Ordering::Relaxed);
    one.wait_until_written().await;
    other.store.follow(None).await.unwrap();
    assert_eq!(other.indexed(&leaked.digest).restrictions.end, TokenEnd::Revoked);
    cluster.clock.fetch_sub(31 * 60_000, Ordering::Relaxed);
    let live = |actor: &Actor| other.store.session(&actor.session.unwrap()).is_some();
    assert_eq!([live(&actors[0]), live(&bob), live(&carl)], [false, false, true]);
    assert_eq!(one.memory(), other.memory());
}

/// It will never be written, so it is not put in force, and other changes go on.
#[tokio::test]
async fn a_removal_that_is_too_large_for_the_log_is_refused() {
    let cluster = Cluster::new();
    let one = cluster.node();
    one.store.close().await;
    let generation = Generation { path: one.directory.path().to_owned(), store: cluster.log.store() };
    let engine = generation.with_log(Box::new(cluster.log.reopen())).unwrap();
    engine.commit(&[Op::PutUser(user(1))]).unwrap();
    let note = "x".repeat(4000);
    let tokens = (0..400).map(|number| TokenRecord { note: note.clone(), ..token(number, "id-1") });
    let tokens: Vec<_> = tokens.collect();
    for some in tokens.chunks(100) {
        engine.commit(&some.iter().cloned().map(Op::PutToken).collect::<Vec<_>>()).unwrap();
    }
    engine.close();
    let one = cluster.node();
    let deleted = one.store.delete_user(operator(), "user-1".into()).await;
    assert_eq!(code(deleted), "closed");
    assert_eq!(one.store.writable(), Ok(()));
    assert_eq!(one.indexed(&tokens[0].digest).restrictions.end, TokenEnd::None, "nothing was changed");
    assert_eq!(one.store.unwritten(), 0);
    one.store.create_user(operator(), person("bob")).await.unwrap();
    one.store.ban_user(operator(), "user-1".into(), Some("x".into())).await.unwrap();
}
