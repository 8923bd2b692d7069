//! Many callers at once: one order, one chain, no name twice.

use std::time::Duration;

use super::*;
use crate::store::audit::Verified;

#[tokio::test]
async fn many_callers_make_one_chain() {
    let bench = Bench::peopled().await;
    let callers: Vec<_> = (0..16)
        .map(|caller| {
            let store = bench.store.clone();
            tokio::spawn(async move {
                let mut ids = Vec::new();
                for number in 0..8 {
                    let new = named("alice", &format!("{caller}-{number}"));
                    ids.push(store.create_token(operator(), new, None).await.unwrap().record.id);
                }
                for id in &ids[..4] {
                    store.revoke_token(operator(), *id, RevokeReason::Admin).await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let events = 5 + 16 * 12;
    let Verified { events: counted, last } = bench.store.verify_audit().unwrap();
    assert_eq!(counted, events);
    let bench = bench.again().await;
    assert_eq!(bench.store.verify_audit().unwrap(), Verified { events, last });
    assert_eq!(bench.state.index().len(), 128);
    bench.store.create_user(operator(), person("carol")).await.unwrap();
    assert_eq!(bench.store.verify_audit().unwrap().events, events + 1, "the chain goes on");
}

#[tokio::test]
async fn a_name_is_given_once() {
    let bench = Bench::peopled().await;
    let asked: Vec<_> = (0..32)
        .map(|at| {
            let (store, name) = (bench.store.clone(), if at % 2 == 0 { "ci" } else { "CI" });
            tokio::spawn(
                async move { code(store.create_token(operator(), named("alice", name), None).await) },
            )
        })
        .collect();
    let mut answers = Vec::new();
    for one in asked {
        answers.push(one.await.unwrap());
    }
    assert_eq!(answers.iter().filter(|answer| *answer == "ok").count(), 1);
    assert_eq!(answers.iter().filter(|answer| *answer == "name_taken").count(), 31);
}

/// A batch is planned as a whole: commands see the results of earlier ones.
#[tokio::test]
async fn a_batch_sees_itself() {
    let bench = Bench::new();
    let store = &bench.store;
    let once = || Some(Idempotency { key: "k".into(), request: [1; 32] });
    let (user, group, member, first, again) = tokio::join!(
        store.create_user(operator(), person("alice")),
        store.create_group(operator(), "developers".into(), None),
        store.set_member(operator(), "developers".into(), "alice".into(), true),
        store.create_token(operator(), named("alice", "ci"), once()),
        store.create_token(operator(), named("alice", "ci"), once()),
    );
    user.unwrap();
    group.unwrap();
    member.unwrap();
    let (first, again) = (first.unwrap(), again.unwrap());
    assert_eq!(first.record.id, again.record.id);
    assert!(again.text.is_none());
    let release = bench.hold().await;
    let (late, gone, ()) = tokio::join!(
        store.create_token(operator(), named("alice", "late"), None),
        store.delete_user(operator(), "alice".into()),
        async { drop(release) },
    );
    gone.unwrap();
    let tokens = [first.record.digest, late.unwrap().record.digest];
    assert_eq!(tokens.map(|digest| bench.ending(&digest)), [TokenEnd::Revoked; 2]);
    let bench = bench.again().await;
    assert_eq!(tokens.map(|digest| bench.ending(&digest)), [TokenEnd::Revoked; 2]);
    assert_eq!(bench.store.accounts().user_by_login("alice").map(|user| user.ix), None);
}

/// A removal waits for one batch, not for everything that was sent before it.
#[tokio::test]
async fn a_removal_overtakes_what_waits() {
    let bench = Bench::peopled().await;
    let release = bench.hold().await;
    let makers: Vec<_> = (0..100)
        .map(|number| {
            let (store, new) = (bench.store.clone(), named("alice", &number.to_string()));
            tokio::spawn(async move { store.create_token(operator(), new, None).await.map(drop) })
        })
        .collect();
    tokio::task::yield_now().await;
    let ban = bench.store.ban_user(operator(), "bob".into(), Some("x".into()));
    let (banned, ()) = tokio::join!(ban, async { drop(release) });
    banned.unwrap();
    for maker in makers {
        maker.await.unwrap().unwrap();
    }
    let events = bench.events();
    let made = events.iter().take_while(|event| *event != "user.ban");
    // The writer may have taken the first of them already.
    assert!(made.filter(|event| *event == "token.create").count() <= 1, "{events:?}");
}

#[tokio::test]
async fn closing_answers_what_was_accepted() {
    let bench = Bench::peopled().await;
    let (made, ()) =
        tokio::join!(bench.store.create_token(operator(), named("alice", "ci"), None), bench.store.close());
    let made = made.unwrap().record;
    assert!(bench.store.writable().is_err());
    assert_eq!(code(bench.store.create_token(operator(), named("alice", "x"), None).await), "closed");
    bench.store.close().await;
    let bench = bench.again().await;
    assert_eq!(bench.store.token(made.id).unwrap(), Some(made));
}

#[tokio::test]
async fn audit_events_beyond_their_retention_go_and_the_chain_still_holds() {
    let kept = Policy { audit_retention: Some(Duration::from_secs(86_400)), ..Policy::default() };
    let bench = Bench::with(Configuration { policy: kept, ..usual() });
    bench.store.create_user(operator(), person("old")).await.unwrap();
    bench.clock.fetch_add(2 * 86_400_000, Ordering::Relaxed);
    // The first change after the day drops old rows; the second one finds none.
    for login in ["new", "newer"] {
        bench.store.create_user(operator(), person(login)).await.unwrap();
    }
    let events = bench.store.audit(None, 100).unwrap().items;
    let targets: Vec<&str> = events.iter().rev().map(|event| event.target.as_str()).collect();
    assert_eq!(targets, ["user:new", "user:newer"]);
    assert_eq!(bench.store.verify_audit().unwrap().events, 2);
    let bench = bench.again().await;
    assert_eq!(bench.store.verify_audit().unwrap().events, 2, "from the checkpoint on");
}

#[tokio::test]
async fn old_rows_go_after_a_clock_that_was_ahead() {
    let bench = Bench::peopled().await;
    let year = 365 * 86_400_000;
    bench.clock.fetch_add(year, Ordering::Relaxed);
    for login in ["ahead", "further"] {
        bench.store.create_user(operator(), person(login)).await.unwrap();
    }
    bench.clock.fetch_sub(year, Ordering::Relaxed);
    let once = Some(Idempotency { key: "k".into(), request: [1; 32] });
    bench.store.create_token(operator(), named("alice", "one"), once).await.unwrap();
    bench.clock.fetch_add(3 * 86_400_000, Ordering::Relaxed);
    for login in ["new", "newer"] {
        bench.store.create_user(operator(), person(login)).await.unwrap();
    }
    assert_eq!(bench.store.engine().idempotency_records(None, 10).unwrap().len(), 0);
}

/// A change that cannot be written fails alone, and leaves nothing in its batch.
#[tokio::test]
async fn what_cannot_be_written_leaves_nothing() {
    let bench = Bench::peopled().await;
    let store = &bench.store;
    let large = Some(Idempotency { key: "k".repeat(20_000), request: [1; 32] });
    let (one, large, two, user, three) = tokio::join!(
        store.create_token(operator(), named("alice", "one"), None),
        store.create_token(operator(), named("alice", "large"), large),
        store.create_token(operator(), named("alice", "two"), None),
        store.create_user(operator(), person("carol")),
        store.create_token(operator(), named("carol", "three"), None),
    );
    assert_eq!((code(one), code(large), code(two)), ("ok".into(), "closed".into(), "ok".into()));
    assert_eq!((code(user), code(three)), ("ok".into(), "ok".into()));
    assert_eq!(store.writable(), Ok(()));
    assert_eq!(code(store.create_token(operator(), named("alice", "large"), None).await), "ok");
    let events = bench.events().iter().filter(|event| *event == "token.create").count();
    assert_eq!(events, 4);
    let bench = bench.again().await;
    assert_eq!(bench.state.index().len(), 4);
    bench.store.verify_audit().unwrap();
}
