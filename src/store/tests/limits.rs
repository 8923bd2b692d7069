//! What an account cannot do without end, and what it no longer gets once it has lost power.

use std::{num::NonZeroU32, time::Duration};

use super::*;
use crate::{
    authz::subject::Permission::{ManageRole, ReadUser, UpdateUser},
    settings::Rate,
};

/// An account may make one change a minute, and `burst` at once.
fn slow(burst: u32) -> Bench {
    let number = |n| NonZeroU32::new(n).unwrap();
    let write_rate = Rate { count: number(1), window: Duration::from_secs(60), burst: number(burst) };
    Bench::with_policy(Policy { write_rate, ..Policy::default() })
}

/// Only their rows for a day; live tokens and revoked ones have limits of their own.
#[tokio::test]
async fn an_owner_has_so_many_expired_tokens() {
    let policy = Policy { max_tokens: 2, max_expired_tokens: 3, ..Policy::default() };
    let bench = Bench::with_policy(policy);
    for login in ["alice", "bob"] {
        bench.store.create_user(operator(), person(login)).await.unwrap();
    }
    let create = async |owner: &str, name: &str| {
        let soon = expiring(owner, name, bench.now().plus_seconds(60));
        bench.store.create_token(operator(), soon, None).await
    };
    create("alice", "expires").await.unwrap();
    bench.pass(60);
    let live = create("alice", "live").await.unwrap().record;
    assert_eq!(code(create("alice", "more").await), "ok", "live tokens have their own limit");
    bench.pass(60);
    let Err(ChangeError::Refused(refusal)) = create("alice", "most").await else { panic!("it was made") };
    assert_eq!((refusal.code.word(), refusal.status().as_u16()), ("too_many_tokens", 429));
    assert_eq!(code(create("bob", "most").await), "ok");
    bench.store.revoke_token(operator(), live.id, RevokeReason::Admin).await.unwrap();
    assert_eq!(code(create("alice", "most").await), "ok", "a revoked one has not expired");

    let lines = (0..6u8).map(|at| ImportedToken {
        digest: Digest::from_bytes([at; 32]),
        owner: "bob".into(),
        name: format!("imported {at}"),
        scope: vec![("wiki".into(), FULL)],
        expires_at: None,
    });
    let imported = bench.store.import_tokens(operator(), lines.collect(), false).await.unwrap().record;
    let id = imported[0].as_ref().unwrap().id;
    let rotated = bench.store.rotate_token(operator(), id, Some(Duration::ZERO), None).await;
    assert_eq!(code(rotated), "ok", "more live tokens than the limit, but none has expired");
}

#[tokio::test]
async fn narrowing_ones_own_token_has_a_rate_of_its_own() {
    let bench = slow(2);
    let alice = bench.store.create_user(operator(), person("alice")).await.unwrap().record;
    let alice = Actor::new(ActorKind::User(alice.id));
    let new = expiring("alice", "ci", bench.now().plus_seconds(1_000));
    let token = bench.store.create_token(alice.clone(), new, None).await.unwrap().record;
    let shorten = async |actor: &Actor, by: i64, note: Option<&str>| {
        let expires_at = Some(bench.now().plus_seconds(1_000 - by));
        let edit = TokenEdit { expires_at, note: note.map(Into::into), ..TokenEdit::default() };
        code(bench.store.edit_token(actor.clone(), token.id, None, edit).await)
    };
    assert_eq!(code(bench.store.create_token(alice.clone(), named("alice", "b"), None).await), "ok");
    assert_eq!(code(bench.store.create_token(alice.clone(), named("alice", "c"), None).await), "too_fast");
    assert_eq!(shorten(&alice, 1, None).await, "ok", "other changes do not hold it up");
    assert_eq!(shorten(&alice, 1, Some("a note beside no change of the bounds")).await, "ok");
    assert_eq!(shorten(&alice, 1, Some("another")).await, "too_fast");
    assert_eq!(shorten(&alice, 2, None).await, "too_fast");
    assert_eq!(shorten(&alice, 1, None).await, "ok", "nothing to write");
    assert_eq!(shorten(&operator(), 3, None).await, "ok");
    let revoked = bench.store.revoke_token(alice, token.id, RevokeReason::User).await;
    assert_eq!(code(revoked), "ok", "a revocation always goes through");
}

/// What an administrator can repeat without end takes nothing away, so it is held up.
#[tokio::test]
async fn a_removal_that_takes_nothing_is_counted() {
    let bench = slow(1);
    for login in ["alice", "bob", "carol"] {
        bench.store.create_user(operator(), person(login)).await.unwrap();
    }
    let (store, alice) = (&bench.store, bench.by("alice"));
    let powers = vec![ManageRole, UpdateUser];
    store.create_role(operator(), "manager".into(), "Manager".into(), powers).await.unwrap();
    store.set_grant(operator(), "manager".into(), GrantTarget::User("alice".into()), true).await.unwrap();
    let role = vec![UpdateUser, ReadUser];
    store.create_role(operator(), "other".into(), "Other".into(), role.clone()).await.unwrap();
    let networks: Vec<_> = ["192.0.2.1/32", "192.0.2.2/32"].map(|net| net.parse().unwrap()).into();
    let new = NewToken { allow_ips: networks.clone(), ..named("bob", "ci") };
    let token = store.create_token(operator(), new, None).await.unwrap().record;

    let edit = async |networks: &[_], note: &str| {
        let edit =
            TokenEdit { allow_ips: Some(networks.to_vec()), note: Some(note.into()), ..TokenEdit::default() };
        code(store.edit_token(alice.clone(), token.id, None, edit).await)
    };
    let ban = async |login: &str, reason: &str| {
        code(store.ban_user(alice.clone(), login.into(), Some(reason.into())).await)
    };
    let rename = async |name: &str, permissions: &[_]| {
        let edit = RoleEdit { name: Some(name.into()), permissions: Some(permissions.to_vec()) };
        code(store.edit_role(alice.clone(), "other".into(), None, edit).await)
    };
    assert_eq!(ban("carol", "first").await, "ok");
    assert_eq!(ban("carol", "second").await, "ok");
    assert_eq!(ban("carol", "third").await, "too_fast");
    assert_eq!(ban("carol", "second").await, "ok", "nothing to write");
    assert_eq!(ban("bob", "another").await, "ok");
    assert_eq!(edit(&networks, "a note").await, "too_fast");
    let swapped = [networks[1], networks[0]];
    assert_eq!(edit(&swapped, "").await, "too_fast", "the same networks");
    assert_eq!(edit(&networks[..1], "narrowed").await, "ok");
    assert_eq!(rename("Another", &role).await, "too_fast");
    assert_eq!(rename("Another", &[ReadUser]).await, "ok");
    bench.pass(60);
    assert_eq!(edit(&networks[..1], "once").await, "ok");
    assert_eq!(edit(&networks[..1], "twice").await, "too_fast");
    let shorten = async |seconds| {
        let end = Some(bench.now().plus_seconds(seconds));
        let edit = TokenEdit { expires_at: end, ..TokenEdit::default() };
        code(store.edit_token(alice.clone(), token.id, None, edit).await)
    };
    assert_eq!(shorten(100).await, "ok");
    assert_eq!(shorten(50).await, "ok");
}

/// Also without a disk, where what is in force fills the memory.
#[tokio::test]
async fn narrowing_that_is_not_durable_is_counted() {
    let bench = slow(1);
    bench.store.create_user(operator(), person("alice")).await.unwrap();
    let token = bench.store.create_token(operator(), named("alice", "ci"), None).await.unwrap().record;
    bench.store.engine().break_sync();
    let shorten = async |seconds| {
        let end = Some(bench.now().plus_seconds(seconds));
        let edit = TokenEdit { expires_at: end, ..TokenEdit::default() };
        code(bench.store.edit_token(bench.by("alice"), token.id, None, edit).await)
    };
    assert_eq!(shorten(100).await, "not_durable");
    assert_eq!(shorten(50).await, "too_fast");
}

#[tokio::test]
async fn a_repeated_request_shows_no_token_of_others_once_the_power_is_lost() {
    let bench = Bench::peopled().await;
    let store = &bench.store;
    store.create_role(operator(), "manager".into(), "Manager".into(), vec![UpdateUser]).await.unwrap();
    let grant = async |granted| {
        let alice = GrantTarget::User("alice".into());
        store.set_grant(operator(), "manager".into(), alice, granted).await.unwrap();
    };
    let once = |key: &str| Some(Idempotency { key: format!("alice {key}"), request: [1; 32] });
    let create = async |owner| store.create_token(bench.by("alice"), named(owner, "ci"), once(owner)).await;
    grant(true).await;
    let (of_bob, own) = (create("bob").await.unwrap().record, create("alice").await.unwrap().record);
    let rotate = async || store.rotate_token(bench.by("alice"), of_bob.id, None, once("rotated")).await;
    rotate().await.unwrap();
    assert!(create("bob").await.unwrap().text.is_none());
    grant(false).await;
    assert_eq!(code(create("bob").await), "permission_denied");
    assert_eq!(code(rotate().await), "permission_denied");
    assert_eq!(create("alice").await.unwrap().record.id, own.id, "one's own");
    store.ban_user(operator(), "alice".into(), Some(String::new())).await.unwrap();
    assert_eq!(code(create("alice").await), "permission_denied");
}

/// The change was accepted before the token was bound to addresses, and is made after that.
#[tokio::test]
async fn a_waiting_change_is_not_made_by_a_token_that_is_bound_to_other_addresses() {
    let bench = Bench::new();
    for login in ["alice", "bob"] {
        bench.store.create_user(operator(), person(login)).await.unwrap();
    }
    let admin = GrantTarget::User("alice".into());
    bench.store.set_grant(operator(), "system-admin".into(), admin, true).await.unwrap();
    let new = NewToken { scope: vec![("permgate".into(), FULL)], ..named("alice", "ci") };
    let token = bench.store.create_token(operator(), new, None).await.unwrap().record;
    let here = Actor { parent: Some(token.id), client: Some([192, 0, 2, 1].into()), ..bench.by("alice") };
    let edit = |name: &str| UserEdit { name: Some(name.into()), ..UserEdit::default() };
    let renamed =
        async |name| code(bench.store.edit_user(here.clone(), "bob".into(), None, edit(name)).await);
    assert_eq!(renamed("Bob").await, "ok");
    for (network, expected) in [("192.0.2.0/24", "ok"), ("192.0.2.7", "permission_denied")] {
        let networks = vec![crate::authz::network::parse(network).unwrap()];
        let bound = TokenEdit { allow_ips: Some(networks), ..TokenEdit::default() };
        bench.store.edit_token(operator(), token.id, None, bound).await.unwrap();
        assert_eq!(renamed(network).await, expected, "{network}");
    }
}

#[tokio::test]
async fn a_waiting_change_is_not_made_by_a_token_that_has_ended() {
    let bench = Bench::new();
    for login in ["alice", "bob"] {
        bench.store.create_user(operator(), person(login)).await.unwrap();
    }
    let admin = GrantTarget::User("alice".into());
    bench.store.set_grant(operator(), "system-admin".into(), admin, true).await.unwrap();
    for end in ["revoked", "replaced", "expired"] {
        let expires_at = Some(bench.now().plus_seconds(60));
        let new = NewToken { scope: vec![("permgate".into(), FULL)], expires_at, ..named("alice", end) };
        let token = bench.store.create_token(operator(), new, None).await.unwrap().record;
        let by = Actor { parent: Some(token.id), ..bench.by("alice") };
        let rename = async |name: &str| {
            let edit = UserEdit { name: Some(name.into()), ..UserEdit::default() };
            code(bench.store.edit_user(by.clone(), "bob".into(), None, edit).await)
        };
        assert_eq!(rename("Bob").await, "ok", "{end}");
        match end {
            "revoked" => {
                bench.store.revoke_token(operator(), token.id, RevokeReason::Admin).await.unwrap();
            }
            "replaced" => {
                let grace = Some(Duration::from_secs(5));
                bench.store.rotate_token(operator(), token.id, grace, None).await.unwrap();
                bench.pass(5);
            }
            _ => bench.pass(60),
        }
        assert_eq!(rename("Robert").await, "permission_denied", "{end}");
    }
}
