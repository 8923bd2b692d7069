//! The life of tokens, through the methods of the store: what is stored, what workers see, what is audited.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn a_new_token_is_usable_and_lasts() {
    let bench = Bench::peopled().await;
    let made = bench.store.create_token(bench.by("alice"), named("alice", " CI "), None).await.unwrap();
    let text = made.text.unwrap();
    assert_eq!(made.record.name, "CI");
    assert_eq!(made.record.digest, text.digest());
    assert!(text.expose().contains(made.record.id.as_str()));
    let indexed = bench.indexed(&text.digest()).unwrap();
    assert_eq!((indexed.id, indexed.restrictions.end), (made.record.id, TokenEnd::None));

    let bench = bench.again().await;
    assert_eq!(bench.store.token(made.record.id).unwrap(), Some(made.record.clone()));
    assert_eq!(bench.ending(&text.digest()), TokenEnd::None);
    assert_eq!(bench.store.token_by_digest(&text.digest()).unwrap(), Some(made.record));
}

#[tokio::test]
async fn names_are_unique_among_an_owners_live_tokens() {
    let bench = Bench::peopled().await;
    let create =
        async |owner: &str, name: &str| bench.store.create_token(operator(), named(owner, name), None).await;
    let first = create("alice", "Build").await.unwrap().record;
    assert_eq!(code(create("alice", "BUILD").await), "name_taken");
    assert_eq!(code(create("bob", "build").await), "ok");
    bench.store.revoke_token(operator(), first.id, RevokeReason::Admin).await.unwrap();
    let second = create("alice", "bUILD").await.unwrap().record;

    let rename = TokenEdit { name: Some("other".into()), ..TokenEdit::default() };
    bench.store.edit_token(operator(), second.id, None, rename.clone()).await.unwrap();
    let third = create("alice", "build").await.unwrap().record;
    assert_eq!(code(bench.store.edit_token(operator(), third.id, None, rename).await), "name_taken");

    let soon = expiring("alice", "short", bench.now().plus_seconds(60));
    let short = bench.store.create_token(operator(), soon, None).await.unwrap().record;
    assert_eq!(code(create("alice", "short").await), "name_taken");
    bench.pass(60);
    let refused = bench.store.rotate_token(operator(), short.id, None, None).await;
    assert!(format!("{:?}", refused.map(drop)).contains("the token has expired: create a new one"));
    assert_eq!(code(create("alice", "short").await), "ok", "an expired token gives its name up");
}

#[tokio::test]
async fn an_owner_has_so_many_live_tokens() {
    let bench =
        Bench::with(Configuration { policy: Policy { max_tokens: 2, ..Policy::default() }, ..usual() });
    bench.store.create_user(operator(), person("alice")).await.unwrap();
    let create = async |name: &str| bench.store.create_token(operator(), named("alice", name), None).await;
    let soon = expiring("alice", "a", bench.now().plus_seconds(60));
    bench.store.create_token(operator(), soon, None).await.unwrap();
    let second = create("b").await.unwrap().record;
    assert_eq!(code(create("c").await), "too_many_tokens");
    let rotate = async |id, grace| bench.store.rotate_token(operator(), id, grace, None).await;
    assert_eq!(code(rotate(second.id, None).await), "too_many_tokens", "the old one would stay");
    let third = rotate(second.id, Some(Duration::ZERO)).await.unwrap().record;
    assert_eq!(code(create("c").await), "too_many_tokens");
    bench.pass(60);
    assert_eq!(code(create("c").await), "ok", "an expired token takes no place");
    assert_eq!(code(rotate(third.id, None).await), "too_many_tokens");
}

#[tokio::test]
async fn tokens_in_their_grace_take_places() {
    let bounded = || Configuration { policy: Policy { max_tokens: 3, ..Policy::default() }, ..usual() };
    let bench = Bench::with(bounded());
    bench.store.create_user(operator(), person("alice")).await.unwrap();
    let first = bench.store.create_token(operator(), named("alice", "a"), None).await.unwrap().record;
    let second = bench.store.rotate_token(operator(), first.id, None, None).await.unwrap().record;
    let third = bench.store.rotate_token(operator(), second.id, None, None).await.unwrap().record;
    assert_eq!(
        code(bench.store.create_token(operator(), named("alice", "b"), None).await),
        "too_many_tokens"
    );

    bench.store.close().await;
    let bench = Bench::over(bench.dir, bounded(), bench.clock);
    let create = async |name: &str| bench.store.create_token(operator(), named("alice", name), None).await;
    let rotate = async |id| bench.store.rotate_token(operator(), id, None, None).await;
    assert_eq!(code(rotate(third.id).await), "too_many_tokens", "also after a start");
    bench.store.revoke_token(operator(), first.id, RevokeReason::Admin).await.unwrap();
    assert_eq!(code(create("b").await), "ok", "one in its grace was revoked");
    assert_eq!(code(create("c").await), "too_many_tokens");
    bench.pass(3600);
    assert_eq!(code(rotate(third.id).await), "ok", "the grace is over");
    assert_eq!(code(create("c").await), "too_many_tokens");
}

#[tokio::test]
async fn an_owner_has_so_many_ended_tokens() {
    let policy = Policy { max_ended_tokens: 3, ..Policy::default() };
    let bench = Bench::with_policy(policy);
    for login in ["alice", "bob"] {
        bench.store.create_user(operator(), person(login)).await.unwrap();
    }
    let create = async |owner: &str, name: &str| {
        let soon = expiring(owner, name, bench.now().plus_seconds(60));
        bench.store.create_token(operator(), soon, None).await
    };
    let revoke = async |id| bench.store.revoke_token(operator(), id, RevokeReason::User).await;
    let rotate = async |id| bench.store.rotate_token(operator(), id, None, None).await;
    for at in 0..5 {
        create("alice", &format!("expires {at}")).await.unwrap();
    }
    bench.pass(60);
    let old = create("alice", "old").await.unwrap().record;
    let new = rotate(old.id).await.unwrap().record;
    let other = create("alice", "other").await.unwrap().record;
    let last = create("alice", "last").await.unwrap().record;
    revoke(new.id).await.unwrap();
    assert_eq!(code(create("alice", "more").await), "ok", "what merely expired does not count");
    revoke(other.id).await.unwrap();
    let Err(ChangeError::Refused(refusal)) = create("alice", "most").await else { panic!("it was made") };
    assert_eq!((refusal.code.word(), refusal.status().as_u16()), ("too_many_tokens", 429));
    let Err(ChangeError::Refused(refusal)) = rotate(last.id).await else { panic!("it was made") };
    assert_eq!((refusal.code.word(), refusal.status().as_u16()), ("too_many_tokens", 429));
    assert_eq!(code(revoke(last.id).await), "ok", "a revocation always goes through");
    assert_eq!(code(create("bob", "more").await), "ok");
}

#[tokio::test]
async fn rotation_replaces_within_the_family() {
    let bench = Bench::peopled().await;
    let old = bench.store.create_token(bench.by("alice"), named("alice", "ci"), None).await.unwrap().record;
    let rotate = async |id, grace| bench.store.rotate_token(bench.by("alice"), id, grace, None).await;
    let made = rotate(old.id, None).await.unwrap();
    let new = made.record;
    assert_eq!((new.family, new.name.as_str(), &new.scope), (old.family, "ci", &old.scope));
    assert_ne!(new.digest, old.digest);
    let grace_until = bench.now().plus_seconds(3600);
    assert_eq!(bench.ending(&old.digest), TokenEnd::Rotated { grace_until });
    assert_eq!(bench.ending(&new.digest), TokenEnd::None);
    assert_eq!(
        bench.store.token(old.id).unwrap().unwrap().rotation,
        Some(Rotation { to: new.id, grace_until })
    );
    assert_eq!(code(rotate(old.id, None).await), "token_revoked");
    assert_eq!(code(bench.store.create_token(operator(), named("alice", "CI"), None).await), "name_taken");

    let newer = rotate(new.id, Some(Duration::ZERO)).await.unwrap().record;
    assert_eq!(bench.ending(&new.digest), TokenEnd::Rotated { grace_until: bench.now() });
    assert_eq!(newer.family, old.id);
    bench.store.revoke_token(operator(), newer.id, RevokeReason::Admin).await.unwrap();
    assert_eq!(code(rotate(newer.id, None).await), "token_revoked");
    assert_eq!(code(bench.store.create_token(operator(), named("alice", "CI"), None).await), "ok");
}

/// By every way to revoke, and by every token of the family.
#[tokio::test]
async fn what_a_token_made_of_itself_ends_with_it() {
    let bench = Bench::peopled().await;
    let scope = vec![("permgate".to_owned(), FULL), ("wiki".to_owned(), FULL)];
    let create = async |by: Actor, name: &str| {
        // It expires before the grace of the token that creates it.
        let expires_at = Some(bench.now().plus_seconds(60));
        let new = NewToken { scope: scope.clone(), expires_at, ..named("alice", name) };
        bench.store.create_token(by, new, None).await.unwrap().record
    };
    let with = |token: &TokenRecord| Actor { parent: Some(token.id), ..bench.by("alice") };
    let rotate = async |by: Actor, token: &TokenRecord| {
        bench.store.rotate_token(by, token.id, None, None).await.unwrap().record
    };
    let first = create(operator(), "first").await;
    let child = create(with(&first), "child").await;
    let second = bench.store.rotate_itself(bench.by("alice"), first.id).await.unwrap().record;
    let third = rotate(with(&second), &second).await;
    let fourth = rotate(with(&first), &third).await;
    let fifth = bench.store.rotate_itself(bench.by("alice"), fourth.id).await.unwrap().record;
    let by_person = rotate(bench.by("alice"), &fifth).await;
    bench.store.revoke_by_value(operator(), vec![first.digest], true).await.unwrap();
    for (name, token, ends) in [
        ("first", &first, true),
        ("by itself", &second, true),
        ("by itself, over the API", &third, true),
        ("by one before, over the API", &fourth, true),
        ("by itself again", &fifth, true),
        ("by a person", &by_person, false),
        ("beside it", &child, false),
    ] {
        assert_eq!(bench.ending(&token.digest) == TokenEnd::Revoked, ends, "{name}");
    }
    let other = create(operator(), "other").await;
    let by_another = rotate(with(&by_person), &other).await;
    bench.store.revoke_token(operator(), other.id, RevokeReason::Admin).await.unwrap();
    assert_eq!(bench.ending(&by_another.digest), TokenEnd::None, "by a token of another family");
}

#[tokio::test]
async fn revocation_is_idempotent_and_final() {
    let bench = Bench::peopled().await;
    let token = bench.store.create_token(operator(), named("alice", "ci"), None).await.unwrap().record;
    let revoke = async |reason| bench.store.revoke_token(bench.by("alice"), token.id, reason).await.unwrap();
    let first = revoke(RevokeReason::Leaked).await.record;
    assert_eq!(bench.ending(&token.digest), TokenEnd::Revoked);
    bench.pass(10);
    assert_eq!(revoke(RevokeReason::User).await.record, first, "it stays as it was revoked");
    let edit = TokenEdit { note: Some("x".into()), ..TokenEdit::default() };
    assert_eq!(code(bench.store.edit_token(operator(), token.id, None, edit).await), "token_revoked");
    let unknown = TokenId::parse("unknown00000").unwrap();
    assert_eq!(code(bench.store.revoke_token(operator(), unknown, RevokeReason::User).await), "not_found");
    let revocations = bench.events().iter().filter(|event| *event == "token.revoke").count();
    assert_eq!(revocations, 1);

    let bench = bench.again().await;
    assert_eq!(bench.ending(&token.digest), TokenEnd::Revoked);
}

#[tokio::test]
async fn edits_hold_against_a_revision() {
    let bench = Bench::peopled().await;
    let new = NewToken { scope: vec![("hub".into(), FULL), ("wiki".into(), FULL)], ..named("alice", "ci") };
    let token = bench.store.create_token(operator(), new, None).await.unwrap().record;
    let edit = TokenEdit { scope: Some(vec![("wiki".into(), Access::Read)]), ..TokenEdit::default() };
    let edited = async |revision, edit: TokenEdit| {
        bench.store.edit_token(operator(), token.id, Some(revision), edit).await
    };
    let after = edited(1, edit.clone()).await.unwrap().record;
    assert_eq!(after.revision, 2);
    assert_eq!(bench.indexed(&token.digest).unwrap().scope.iter().count(), 1);
    assert_eq!(code(edited(1, edit.clone()).await), "stale");
    assert_eq!(edited(2, edit).await.unwrap().record.revision, 2, "nothing changed");
}

#[tokio::test]
async fn a_repeated_request_makes_one_token() {
    let bench = Bench::peopled().await;
    let once = |request: u8| Some(Idempotency { key: "alice/1".into(), request: [request; 32] });
    let create = async |request| {
        bench.store.create_token(bench.by("alice"), named("alice", "ci"), once(request)).await
    };
    let first = create(1).await.unwrap();
    assert!(first.text.is_some());
    let again = create(1).await.unwrap();
    assert_eq!(again.record, first.record);
    assert!(again.text.is_none(), "the text is shown once");
    assert_eq!(code(create(2).await), "key_reused");
    assert_eq!(bench.events().iter().filter(|event| *event == "token.create").count(), 1);
    bench.pass(24 * 3600);
    assert_eq!(code(create(2).await), "name_taken", "forgotten after a day");
}

#[tokio::test]
async fn imported_tokens_are_known_by_digest() {
    let bench = Bench::new();
    let line = |digest: u8, owner: &str, name: &str| ImportedToken {
        digest: Digest::from_bytes([digest; 32]),
        owner: owner.into(),
        name: name.into(),
        scope: vec![("hub".into(), FULL)],
        expires_at: None,
    };
    let import = async |actor, lines: Vec<ImportedToken>| {
        let answers = bench.store.import_tokens(actor, lines, true).await?.record;
        Ok::<_, ChangeError>(
            answers.into_iter().map(|a| code(a.map_err(ChangeError::from))).collect::<Vec<_>>(),
        )
    };
    let lines = vec![
        line(1, "ci", "a"),
        line(2, "ci", "A"),
        line(1, "other", "b"),
        line(3, "b a d", "c"),
        ImportedToken { scope: vec![("nope".into(), FULL)], ..line(4, "ci", "d") },
        ImportedToken { expires_at: Some(bench.now()), ..line(5, "ci", "e") },
        line(6, "Ci", "f"),
    ];
    let expected =
        ["ok", "name_taken", "name_taken", "invalid_name", "service_not_readable", "expiry_in_past", "ok"];
    assert_eq!(import(operator(), lines.clone()).await.unwrap(), expected);
    assert_eq!(bench.state.index().imported(), 2);
    assert!(bench.indexed(&Digest::from_bytes([6; 32])).is_some());
    assert_eq!(import(operator(), lines).await.unwrap(), expected, "an import can be resumed");
    assert_eq!(bench.state.index().imported(), 2);
    let events = bench.events();
    let again = ImportedToken { scope: Vec::new(), expires_at: Some(bench.now()), ..line(6, "ci", "") };
    assert_eq!(import(operator(), vec![again]).await.unwrap(), ["ok"], "known, whatever is refused by now");
    assert_eq!(bench.events(), events, "nothing happened");
    let answers = bench.store.import_tokens(operator(), vec![line(8, "ci", "h"), line(8, "ci", "h")], false);
    let known = answers.await.unwrap().record.into_iter().map(|answer| answer.unwrap().known);
    assert_eq!(known.collect::<Vec<_>>(), [false, true], "as on a retry in the same batch");
    assert_eq!(code(import(bench.by("ci"), vec![line(7, "ci", "g")]).await), "permission_denied");

    let bench = bench.again().await;
    assert_eq!(bench.state.index().imported(), 3);
}

#[tokio::test]
async fn a_token_that_asks_has_to_hold_still() {
    let bench = Bench::peopled().await;
    let scope = vec![("permgate".to_owned(), FULL), ("wiki".to_owned(), FULL)];
    let parent = NewToken { scope, ..named("alice", "parent") };
    let parent = bench.store.create_token(operator(), parent, None).await.unwrap().record;
    let by = Actor { parent: Some(parent.id), ..bench.by("alice") };
    let create = async |name: &str| bench.store.create_token(by.clone(), named("alice", name), None).await;
    assert_eq!(code(create("one").await), "ok");
    for (access, name) in [(Some(Access::Read), "only reads"), (None, "not for this listener")] {
        let wiki = ("wiki".to_owned(), FULL);
        let scope = access.map(|access| ("permgate".to_owned(), access)).into_iter().chain([wiki]).collect();
        let edit = TokenEdit { scope: Some(scope), ..TokenEdit::default() };
        bench.store.edit_token(operator(), parent.id, None, edit).await.unwrap();
        assert_eq!(code(create(name).await), "permission_denied", "{name}");
    }
    bench.store.revoke_token(operator(), parent.id, RevokeReason::Admin).await.unwrap();
    assert_eq!(code(create("two").await), "permission_denied");
}

#[tokio::test]
async fn last_use_goes_forward() {
    let bench = Bench::peopled().await;
    let token = bench.store.create_token(operator(), named("alice", "ci"), None).await.unwrap().record;
    let used = |seconds: i64| LastUsed {
        at: Timestamp::from_millis(NOW + seconds * 1000),
        from: [127, 0, 0, 1].into(),
        service: "wiki".into(),
    };
    let unknown = Digest::from_bytes([9; 32]);
    bench.store.record_use(vec![(token.digest, used(5)), (unknown, used(5))]).await.unwrap();
    bench.store.record_use(vec![(token.digest, used(3))]).await.unwrap();
    let stored = bench.store.token(token.id).unwrap().unwrap();
    assert_eq!(stored.last_used, Some(used(5)));
    assert_eq!(stored.revision, 1);
    let edit = TokenEdit { note: Some("x".into()), ..TokenEdit::default() };
    bench.store.edit_token(operator(), token.id, None, edit).await.unwrap();
    assert_eq!(bench.store.token(token.id).unwrap().unwrap().last_used, Some(used(5)));
}
