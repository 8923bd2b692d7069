//! What is dropped over time, and how fast changes may come.

use super::*;
use crate::store::{conformance::live_token_named, replica::Counts};

#[tokio::test]
async fn rows_of_revoked_tokens_stay_ninety_days() {
    let bench = Bench::peopled().await;
    let gone = bench.store.create_token(operator(), named("alice", "a"), None).await.unwrap().record;
    let kept = bench.store.create_token(operator(), named("alice", "b"), None).await.unwrap().record;
    bench.store.revoke_token(operator(), gone.id, RevokeReason::Admin).await.unwrap();
    let stir = async || {
        bench.store.record_use(Vec::new()).await.unwrap();
        let edit = UserEdit { name: Some(bench.now().as_millis().to_string()), ..UserEdit::default() };
        bench.store.edit_user(operator(), "bob".into(), None, edit.clone()).await.unwrap();
        // Retention runs after the answer: the next change is answered after it.
        bench.store.edit_user(operator(), "bob".into(), None, edit).await.unwrap();
    };
    bench.pass(89 * 24 * 3600);
    stir().await;
    assert_eq!(bench.ending(&gone.digest), TokenEnd::Revoked);
    bench.pass(2 * 24 * 3600);
    stir().await;
    assert!(bench.indexed(&gone.digest).is_none());
    assert_eq!(bench.store.token(gone.id).unwrap(), None);
    assert!(bench.indexed(&kept.digest).is_some());
}

/// In a cluster, one node drops rows for all, and it may make no change of its own for days.
#[tokio::test]
async fn rows_are_dropped_while_only_others_make_changes() {
    let bench = Bench::peopled().await;
    let gone = bench.store.create_token(operator(), named("alice", "a"), None).await.unwrap().record;
    bench.store.revoke_token(operator(), gone.id, RevokeReason::Admin).await.unwrap();
    bench.pass(91 * 24 * 3600);
    // Retention runs after the answer.
    for _ in 0..2 {
        bench.store.follow(None).await.unwrap();
    }
    assert!(bench.indexed(&gone.digest).is_none());
}

#[tokio::test]
async fn answers_are_remembered_for_a_day() {
    let bench = Bench::peopled().await;
    let once = |key: &str| Some(Idempotency { key: key.into(), request: [1; 32] });
    let create = async |name: &str, key: &str| {
        bench.store.create_token(operator(), named("alice", name), once(key)).await.unwrap();
        let mut keys: Vec<_> = bench
            .store
            .engine()
            .idempotency_records(None, 9)
            .unwrap()
            .into_iter()
            .map(|one| one.key)
            .collect();
        keys.sort();
        keys
    };
    create("a", "first").await;
    bench.pass(12 * 3600);
    create("b", "second").await;
    bench.pass(12 * 3600 + 1);
    create("c", "third").await;
    // Retention runs after the answer: the next change is answered after it.
    assert_eq!(create("d", "fourth").await, ["fourth", "second", "third"]);
}

/// A token that merely expired is dropped after a day, with its name; one that was ended stays.
#[tokio::test]
async fn rows_of_expired_tokens_go_after_a_day() {
    let bench = Bench::peopled().await;
    let end = Some(Timestamp::from_millis(NOW + 3_600_000));
    let make = async |name: &str, expires_at| {
        let new = NewToken { expires_at, ..named("alice", name) };
        bench.store.create_token(operator(), new, None).await.unwrap().record
    };
    let (gone, ended, kept) = (make("gone", end).await, make("ended", end).await, make("kept", None).await);
    bench.store.revoke_token(operator(), ended.id, RevokeReason::Admin).await.unwrap();
    let imported = Digest::from_bytes([9; 32]);
    let (owner, name, scope) = ("alice".to_owned(), "imported".to_owned(), vec![("wiki".into(), FULL)]);
    let one = ImportedToken { digest: imported, owner, name, scope, expires_at: end };
    bench.store.import_tokens(operator(), vec![one], false).await.unwrap().record[0].as_ref().unwrap();
    let stir = async || {
        // Retention runs after the answer: the next change is answered after it.
        for login in ["one", "two"] {
            let login = format!("{login}{}", bench.now().as_millis());
            bench.store.create_user(operator(), person(&login)).await.unwrap();
        }
    };
    bench.pass(24 * 3600);
    stir().await;
    assert!(bench.indexed(&gone.digest).is_some(), "not yet");
    // The name of an expired token is free; a token that takes it keeps it.
    let again = make("gone", None).await;
    bench.pass(3601);
    stir().await;
    assert!(bench.indexed(&gone.digest).is_none() && bench.indexed(&imported).is_none());
    assert_eq!(bench.store.token(gone.id).unwrap(), None);
    assert_eq!(bench.state.index().imported(), 0);
    for token in [&ended, &kept, &again] {
        assert!(bench.indexed(&token.digest).is_some(), "{}", token.name);
    }
    let engine = bench.store.engine();
    let owner = &kept.owner;
    let named =
        |name: &str| live_token_named(engine, owner, name, bench.now()).unwrap().map(|token| token.id);
    assert_eq!(named("gone"), Some(again.id));
    assert_eq!(named("imported"), None);
    assert_eq!(engine.counts(owner).unwrap(), Counts { all: 3, ended: 1 });
    let bench = bench.again().await;
    assert!(bench.indexed(&gone.digest).is_none() && bench.indexed(&again.digest).is_some());
}

/// A removal during a round that drops rows is answered in that batch, not after the whole round.
#[tokio::test]
async fn a_round_drops_no_more_than_a_page() {
    let bench = Bench::peopled().await;
    let scope = vec![("wiki".to_owned(), FULL)];
    let end = Some(Timestamp::from_millis(NOW + 1000));
    let lines = (0..2500u32).map(|number| ImportedToken {
        digest: Digest::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes()),
        owner: "alice".into(),
        name: format!("t{number}"),
        scope: scope.clone(),
        expires_at: end,
    });
    bench.store.import_tokens(operator(), lines.collect(), false).await.unwrap();
    bench.pass(2 * 24 * 3600);
    let mut left = vec![bench.state.index().len()];
    while *left.last().unwrap() > 0 {
        bench.pass(10);
        bench.store.create_user(operator(), person(&format!("u{}", left.len()))).await.unwrap();
        bench.store.record_use(Vec::new()).await.unwrap();
        left.push(bench.state.index().len());
        assert!(left.len() < 20, "{left:?}");
    }
    assert!(left.windows(2).all(|pair| pair[0] - pair[1] <= 1000), "{left:?}");
}

#[tokio::test]
async fn an_account_is_held_to_its_rate_and_removals_are_not() {
    use std::{num::NonZeroU32, time::Duration};
    let rate = crate::settings::Rate {
        count: NonZeroU32::MIN,
        window: Duration::from_secs(10),
        burst: NonZeroU32::new(3).unwrap(),
    };
    let bench = Bench::peopled().await;
    let policy = Policy { write_rate: rate, ..Policy::default() };
    bench.store.replace_configuration(operator(), Configuration { policy, ..usual() }).await.unwrap();
    let (alice, store) = (bench.by("alice"), &bench.store);
    let make = async |actor: &Actor, name: &str| {
        store.create_token(actor.clone(), named("alice", name), None).await.map(|made| made.record.id)
    };
    let one = make(&alice, "one").await.unwrap();
    make(&alice, "two").await.unwrap();
    let rotated = store.rotate_token(alice.clone(), one, None, None).await.unwrap().record.id;
    let refused = make(&alice, "three").await;
    assert!(matches!(refused, Err(ChangeError::RateLimited(10))), "{refused:?}");
    let shorter = TokenEdit { allow_ips: Some(vec!["10.0.0.0/8".parse().unwrap()]), ..TokenEdit::default() };
    store.edit_token(alice.clone(), rotated, None, shorter).await.unwrap();
    store.revoke_token(alice.clone(), rotated, RevokeReason::User).await.unwrap();
    store.revoke_token(alice.clone(), one, RevokeReason::User).await.unwrap();
    store.end_sessions(alice.clone(), "alice".into()).await.unwrap();
    make(&operator(), "three").await.unwrap();
    assert_eq!(code(store.edit_user(bench.by("bob"), "bob".into(), None, UserEdit::default()).await), "ok");
    bench.pass(10);
    make(&alice, "four").await.unwrap();
    assert_eq!(code(make(&alice, "five").await), "too_fast");
}
