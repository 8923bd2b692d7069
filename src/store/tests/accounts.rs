//! Users, groups, roles and grants: what workers read after each change, and after a restart.

use super::*;
use crate::authz::subject::Permission;

#[tokio::test]
async fn a_new_store_has_what_is_built_in() {
    let bench = Bench::new();
    let check = |bench: &Bench| {
        let accounts = bench.store.accounts();
        let roles: Vec<&str> = accounts.roles().map(|role| role.key.as_str()).collect();
        assert_eq!(roles, ["contributor", "observer", "system-admin"]);
        let grant = GrantRecord { role: "contributor".into(), to: Grantee::Group("all-users".into()) };
        assert_eq!(accounts.grants().collect::<Vec<_>>(), [grant]);
        assert_eq!(bench.events(), ["store.create"]);
    };
    check(&bench);
    let bench = bench.again().await;
    check(&bench);
    let take = GrantTarget::Group("all-users".into());
    bench.store.set_grant(operator(), "contributor".into(), take, false).await.unwrap();
    let bench = bench.again().await;
    assert_eq!(bench.store.accounts().grants().count(), 0, "what was taken away stays away");
}

#[tokio::test]
async fn what_workers_read_follows() {
    let bench = Bench::peopled().await;
    let store = &bench.store;
    let check = |what: &str, bench: &Bench, alice: bool, bob: bool| {
        assert_eq!((bench.reads("alice", "hub"), bench.reads("bob", "hub")), (alice, bob), "{what}");
    };
    check("membership", &bench, true, false);
    assert!(bench.reads("bob", "wiki"));
    store.set_member(operator(), "developers".into(), "alice".into(), false).await.unwrap();
    check("no membership", &bench, false, false);
    store.create_group(operator(), "juniors".into(), Some("developers".into())).await.unwrap();
    store.set_member(operator(), "juniors".into(), "bob".into(), true).await.unwrap();
    check("membership below", &bench, false, true);
    let rename = GroupEdit { name: Some("devs".into()), parent: None };
    store.edit_group(operator(), "Developers".into(), None, rename).await.unwrap();
    check("renamed away from the readers", &bench, false, false);
    store
        .create_role(operator(), "reader".into(), "Reader".into(), vec![Permission::ReadService])
        .await
        .unwrap();
    let to = GrantTarget::Group("juniors".into());
    store.set_grant(operator(), "reader".into(), to, true).await.unwrap();
    check("the global permission", &bench, false, true);
    store.set_grant(operator(), "reader".into(), GrantTarget::User("ALICE".into()), true).await.unwrap();
    check("... granted to a user", &bench, true, true);
    let bench = bench.again().await;
    check("after a restart", &bench, true, true);
    bench.store.delete_role(operator(), "reader".into()).await.unwrap();
    check("without the role", &bench, false, false);
    assert_eq!(code(bench.store.delete_group(operator(), "devs".into()).await), "invalid_value");
    bench.store.delete_group(operator(), "juniors".into()).await.unwrap();
    let bench = bench.again().await;
    assert!(bench.store.accounts().group_by_name("juniors").is_none());
    assert_eq!(bench.store.accounts().user_by_login("bob").unwrap().groups, []);
}

#[tokio::test]
async fn bans_come_and_go() {
    let bench = Bench::peopled().await;
    let banned = |bench: &Bench| bench.state.snapshot().directory.user_by_login("bob").unwrap().banned;
    let ban = async |reason: Option<&str>| {
        bench.store.ban_user(operator(), "bob".into(), reason.map(Into::into)).await.unwrap().record
    };
    assert_eq!(ban(Some("left")).await.banned.as_deref(), Some("left"));
    assert!(banned(&bench));
    assert_eq!(ban(Some("left")).await.revision, 2, "banned already");
    assert_eq!(ban(None).await.banned, None);
    assert!(!banned(&bench));
    assert_eq!(bench.events().iter().filter(|event| *event == "user.ban").count(), 1);
}

#[tokio::test]
async fn deletion_leaves_a_tombstone() {
    let bench = Bench::peopled().await;
    let token = bench.store.create_token(operator(), named("alice", "ci"), None).await.unwrap().record;
    bench
        .store
        .set_grant(operator(), "observer".into(), GrantTarget::User("alice".into()), true)
        .await
        .unwrap();
    let gone = bench.store.delete_user(operator(), "alice".into()).await.unwrap().record;
    assert_eq!(bench.ending(&token.digest), TokenEnd::Revoked);
    let reason = bench.store.token(token.id).unwrap().unwrap().revoked.unwrap().reason;
    assert_eq!(reason, RevokeReason::OwnerDeleted);
    assert_eq!(code(bench.store.delete_user(operator(), "alice".into()).await), "not_found");

    let second = bench.store.create_user(operator(), person("Alice")).await.unwrap().record;
    assert_ne!(second.id, gone.id);
    assert!(bench.reads("alice", "wiki"));
    let bench = bench.again().await;
    let accounts = bench.store.accounts();
    assert_eq!(accounts.user_by_login("alice").unwrap().record.id, second.id);
    assert!(accounts.user_by_id(&gone.id).unwrap().record.deleted_at.is_some());
    assert!(!bench.reads("alice", "hub"), "a login that is used again has none of its first owner's groups");
    assert_eq!(accounts.grants().count(), 1);
}

#[tokio::test]
async fn users_keep_their_place() {
    let bench = Bench::peopled().await;
    let place =
        |bench: &Bench, login: &str| bench.state.snapshot().directory.user_by_login(login).unwrap().ix;
    let before = (place(&bench, "alice"), place(&bench, "bob"));
    let edit = UserEdit { login: Some("robert".into()), ..UserEdit::default() };
    bench.store.edit_user(operator(), "bob".into(), Some(1), edit.clone()).await.unwrap();
    assert_eq!((place(&bench, "alice"), place(&bench, "robert")), before);
    assert!(bench.state.snapshot().directory.user_by_login("bob").is_none());
    assert_eq!(code(bench.store.edit_user(operator(), "robert".into(), Some(1), edit).await), "stale");
    let edit = UserEdit { login: Some("alice".into()), ..UserEdit::default() };
    assert_eq!(code(bench.store.edit_user(operator(), "robert".into(), None, edit).await), "name_taken");
}

#[tokio::test]
async fn a_reload_replaces_all_or_nothing() {
    let bench = Bench::peopled().await;
    let open = configuration(vec![service("hub", "/hub", &["all-users"])]);
    bench.store.replace_configuration(operator(), open).await.unwrap();
    assert!(bench.reads("bob", "hub"));
    let services = bench.state.snapshot().rules.services().len();
    let twice = configuration(vec![service("a", "/x", &[]), service("b", "/x", &[])]);
    let refused = bench.store.replace_configuration(operator(), twice).await;
    assert!(matches!(refused, Err(ChangeError::Rules(_))));
    assert_eq!(bench.state.snapshot().rules.services().len(), services);
    let denied = bench.store.replace_configuration(bench.by("alice"), usual()).await;
    assert_eq!(code(denied), "permission_denied");
    assert_eq!(bench.events().last().map(String::as_str), Some("config.reload"));
}

/// Records that were given names when other rules held can be changed in everything else.
#[tokio::test]
async fn names_of_older_rules_stay_until_they_are_changed() {
    let now = Timestamp::from_millis(NOW - 1_000);
    let user = UserRecord::new("u1".into(), "alice".into(), "Al\u{ad}ice".into(), UserKind::Human, now);
    let group =
        |id: &str, name: &str| GroupRecord { id: id.into(), name: name.into(), parent: None, revision: 1 };
    let (id, digest) = (TokenId::parse("000000000001").unwrap(), Digest::from_bytes([1; 32]));
    let token = TokenRecord::new(
        id,
        digest,
        "u1".into(),
        "c\u{3164}i".into(),
        vec![("wiki".into(), Access::Read)],
        now,
    );
    let rows = [
        Op::PutUser(user),
        Op::PutGroup(group("g1", "de\u{34f}vs")),
        Op::PutGroup(group("g2", "all developers")),
        Op::PutToken(token),
    ];
    let bench = Bench::seeded(usual(), &rows);
    let store = &bench.store;
    let edit = |name: &str| UserEdit {
        name: Some(name.into()),
        email: Some(Some("a@b.example".into())),
        login: None,
    };
    store.edit_user(operator(), "alice".into(), None, edit("Al\u{ad}ice")).await.unwrap();
    assert_eq!(
        code(store.edit_user(operator(), "alice".into(), None, edit("A\u{ad}lice")).await),
        "invalid_name"
    );
    let edit =
        |name: &str| GroupEdit { name: Some(name.into()), parent: Some(Some("all developers".into())) };
    store.edit_group(operator(), "de\u{34f}vs".into(), None, edit("de\u{34f}vs")).await.unwrap();
    assert_eq!(
        code(store.edit_group(operator(), "de\u{34f}vs".into(), None, edit("d\u{34f}evs")).await),
        "invalid_name"
    );
    let edit =
        |name: &str| TokenEdit { name: Some(name.into()), note: Some("n".into()), ..TokenEdit::default() };
    store.edit_token(operator(), id, None, edit("c\u{3164}i")).await.unwrap();
    assert_eq!(code(store.edit_token(operator(), id, None, edit("\u{3164}ci")).await), "invalid_name");
}
