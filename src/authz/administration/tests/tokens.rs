//! Tokens: creation, changes, rotation, and their bounds.

use super::*;
use crate::authz::administration::tokens;

#[test]
fn making_tokens() {
    let town = Town::new();
    let check = |by: &str, owner: &str, scope: &[(&str, Access)], expected: &str| {
        let principal = town.principal(by);
        let facts = town.facts(&principal);
        let made = tokens::owner(&facts, owner)
            .and_then(|owner| tokens::create(&facts, owner, bounds(scope, None, &[]), None));
        assert_eq!(code(made), expected, "{by} for {owner}: {scope:?}");
    };
    check("alice", "alice", &[("youtrack", FULL), ("hub", Access::Read)], "ok");
    check("alice", "ALICE", &[("youtrack", FULL)], "ok");
    check("bob", "bob", &[("hub", FULL)], "service_not_readable");
    check("bob", "bob", &[("no-such", FULL)], "service_not_readable");
    check("alice", "alice", &[], "empty_scope");
    check("alice", "alice", &[("hub", FULL), ("hub", Access::Read)], "duplicate_service");
    check("alice", "bob", &[("youtrack", FULL)], "permission_denied");
    check("alice", "nobody", &[("youtrack", FULL)], "permission_denied");
    check("zoe", "bob", &[("youtrack", FULL)], "permission_denied");
    check("grace", "nobody", &[("wiki", FULL)], "not_found");
    check("grace", "ci-bot", &[("wiki", FULL)], "ok");
    check("grace", "ci-bot", &[("youtrack", FULL)], "service_not_readable");
    check("grace", "bob", &[("wiki", FULL)], "would_escalate");
    check("grace", "carol", &[("wiki", FULL)], "would_escalate");
    check("carol", "bob", &[("youtrack", FULL)], "ok");
    check("carol", "bob", &[("hub", FULL)], "service_not_readable");
    check("carol", "dave", &[("youtrack", FULL)], "user_banned");
    check("operator", "bob", &[("youtrack", FULL)], "ok");
}

#[test]
fn without_update_self_nobody_makes_tokens() {
    let mut town = Town::new();
    town.accounts.set_grant(&initial_grant(), false);
    let principal = town.principal("alice");
    let facts = town.facts(&principal);
    assert_eq!(code(tokens::owner(&facts, "alice")), "permission_denied");
    assert_eq!(code(users::set_password(&facts, "alice", true)), "permission_denied");
    let alice = users::find(&town.accounts, "alice").unwrap();
    assert_eq!(code(tokens::revoke(&principal, alice)), "ok", "revoking one's own needs nothing");
}

#[test]
fn a_token_made_through_a_token_stays_within_it() {
    let mut town = Town::new();
    let end = NOW.plus_seconds(1000);
    let mut parent = town.token(
        &[("permgate", FULL), ("youtrack", FULL), ("wiki", Access::Read)],
        Some(end),
        &["10.0.0.0/8"],
    );
    let check = |name: &str, parent: &Token, child: tokens::TokenBounds, expected: &str| {
        let principal =
            Principal::user(&town.accounts, &town.rules, "id-alice", Some(Cow::Borrowed(parent))).unwrap();
        let facts = town.facts(&principal);
        let alice = users::find(&town.accounts, "alice").unwrap();
        assert_eq!(code(tokens::create(&facts, alice, child.clone(), None)), expected, "{name}");
        assert_eq!(code(tokens::rotate(&facts, alice, &child, None)), expected, "{name}, rotated");
    };
    let inside = ["10.1.0.0/16"];
    check("within", &parent, bounds(&[("youtrack", FULL)], Some(end), &inside), "ok");
    check("wider", &parent, bounds(&[("hub", FULL)], Some(end), &inside), "exceeds_parent_token");
    check("more access", &parent, bounds(&[("wiki", FULL)], Some(end), &inside), "exceeds_parent_token");
    check(
        "longer",
        &parent,
        bounds(&[("youtrack", FULL)], Some(end.plus_seconds(1)), &inside),
        "exceeds_parent_token",
    );
    check("endless", &parent, bounds(&[("youtrack", FULL)], None, &inside), "exceeds_parent_token");
    check("from anywhere", &parent, bounds(&[("youtrack", FULL)], Some(end), &[]), "exceeds_parent_token");
    check(
        "from elsewhere",
        &parent,
        bounds(&[("youtrack", FULL)], Some(end), &["10.0.0.0/7"]),
        "exceeds_parent_token",
    );
    parent.restrictions.end = TokenEnd::Rotated { grace_until: NOW.plus_seconds(10) };
    check(
        "beyond its grace",
        &parent,
        bounds(&[("youtrack", FULL)], Some(end), &inside),
        "exceeds_parent_token",
    );
    let soon = Some(NOW.plus_seconds(10));
    check("within its grace", &parent, bounds(&[("youtrack", FULL)], soon, &inside), "ok");
}

#[test]
fn changing_and_replacing_tokens() {
    let town = Town::new();
    let end = NOW.plus_seconds(1000);
    let before = bounds(&[("hub", Access::Read), ("youtrack", FULL)], Some(end), &["10.0.0.0/8"]);
    let check = |name: &str, by: &str, after: tokens::TokenBounds, expected: &str| {
        let alice = users::find(&town.accounts, "alice").unwrap();
        assert_eq!(
            code(tokens::edit(&town.facts(&town.principal(by)), alice, &before, after)),
            expected,
            "{name}"
        );
    };
    let net = ["10.0.0.0/8"];
    check("nothing", "alice", before.clone(), "ok");
    check("narrower", "alice", bounds(&[("youtrack", Access::Read)], Some(end), &net), "ok");
    check("another's", "bob", before.clone(), "permission_denied");
    check("a manager with less", "grace", before.clone(), "would_escalate");
    check("an administrator", "carol", bounds(&[("youtrack", FULL)], Some(end), &net), "ok");
    check(
        "a service more",
        "alice",
        bounds(&[("hub", Access::Read), ("wiki", FULL), ("youtrack", FULL)], Some(end), &net),
        "cannot_widen",
    );
    check("more access", "alice", bounds(&[("hub", FULL)], Some(end), &net), "cannot_widen");
    check("empty", "alice", bounds(&[], Some(end), &net), "empty_scope");
    check("longer", "alice", bounds(&[("youtrack", FULL)], Some(end.plus_seconds(1)), &net), "cannot_widen");
    check("shorter", "alice", bounds(&[("youtrack", FULL)], Some(NOW.plus_seconds(1)), &net), "ok");
    check("ended", "alice", bounds(&[("youtrack", FULL)], Some(NOW), &net), "expiry_in_past");
    check("from anywhere", "alice", bounds(&[("youtrack", FULL)], Some(end), &[]), "cannot_widen");
    check("from fewer", "alice", bounds(&[("youtrack", FULL)], Some(end), &["10.9.0.0/16"]), "ok");

    let check = |name: &str, by: &str, grace: u64, expected: &str| {
        let grace = Some(Duration::from_secs(grace));
        let alice = users::find(&town.accounts, "alice").unwrap();
        assert_eq!(
            code(tokens::rotate(&town.facts(&town.principal(by)), alice, &before, grace)),
            expected,
            "{name}"
        );
    };
    check("own", "alice", 0, "ok");
    check("a week", "alice", 7 * 86400, "ok");
    check("more than a week", "alice", 7 * 86400 + 1, "invalid_value");
    check("another's", "bob", 0, "permission_denied");
    check("a manager with less", "grace", 0, "would_escalate");
    check("an administrator", "carol", 0, "ok");

    let check = |name: &str, by: &str, owner: &str, service: &str, expected: &str| {
        let owner = users::find(&town.accounts, owner).unwrap();
        let before = bounds(&[(service, FULL)], None, &[]);
        let rotated = tokens::rotate(&town.facts(&town.principal(by)), owner, &before, None);
        assert_eq!(code(rotated), expected, "{name}");
    };
    check("for what both read", "grace", "ci-bot", "wiki", "ok");
    check("for what its owner may read again", "grace", "ci-bot", "youtrack", "service_not_readable");
    check("... by who reads everything", "carol", "ci-bot", "youtrack", "ok");
    check("of who is banned", "carol", "dave", "youtrack", "user_banned");
}

#[test]
fn the_longest_lifetime_is_told_as_it_is_written() {
    let town = Town::new();
    let check = |seconds: u64, expected: &str| {
        let principal = town.principal("alice");
        let facts = AdminFacts { max_lifetime: Some(Duration::from_secs(seconds)), ..town.facts(&principal) };
        let alice = users::find(&town.accounts, "alice").unwrap();
        let endless = bounds(&[("youtrack", FULL)], None, &[]);
        let told = format!("a token can live at most {expected} here: ");
        let refused = tokens::rotate(&facts, alice, &endless, None).unwrap_err();
        assert!(refused.message.starts_with(&told) && refused.message.contains("shorten"), "{refused}");
        let refused = tokens::create(&facts, alice, endless, None).unwrap_err();
        assert!(refused.message.starts_with(&told), "{refused}");
    };
    check(30 * 86_400, "30d");
    check(36 * 3_600, "36h");
    check(90, "90s");
    check(120, "2m");
}

#[test]
fn lifetimes() {
    let town = Town::new();
    let day = 86400;
    let check = |name: &str, max_lifetime: Option<u64>, expires: Option<i64>, expected: &str| {
        let principal = town.principal("alice");
        let facts =
            AdminFacts { max_lifetime: max_lifetime.map(Duration::from_secs), ..town.facts(&principal) };
        let expires = expires.map(|seconds| NOW.plus_seconds(seconds));
        let alice = users::find(&town.accounts, "alice").unwrap();
        let made = tokens::create(&facts, alice, bounds(&[("wiki", FULL)], expires, &[]), None);
        assert_eq!(code(made), expected, "{name}");
    };
    check("endless", None, None, "ok");
    check("already over", None, Some(0), "expiry_in_past");
    check("endless where lives are limited", Some(90 * 86400), None, "lifetime_too_long");
    check("at the limit", Some(90 * 86400), Some(90 * day), "ok");
    check("beyond it", Some(90 * 86400), Some(90 * day + 1), "lifetime_too_long");
}

#[test]
fn an_import_through_a_token_stays_within_it_too() {
    let mut town = Town::new();
    let end = NOW.plus_seconds(1000);
    let parent = town.token(&[("permgate", FULL), ("youtrack", FULL)], Some(end), &[]);
    let check = |name: &str, parent: Option<&Token>, service: &str, expires_at, expected: &str| {
        let principal =
            Principal::user(&town.accounts, &town.rules, "id-carol", parent.map(Cow::Borrowed)).unwrap();
        let facts = town.facts(&principal);
        let scope = [(service.to_owned(), FULL)];
        assert_eq!(code(tokens::import(&facts, &scope, expires_at)), expected, "{name}");
    };
    check("without a token", None, "hub", None, "ok");
    check("within", Some(&parent), "youtrack", Some(end), "ok");
    check("wider", Some(&parent), "hub", Some(end), "exceeds_parent_token");
    check("endless", Some(&parent), "youtrack", None, "exceeds_parent_token");
}
