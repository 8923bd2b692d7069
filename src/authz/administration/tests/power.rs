//! Every way to give power or to take over an account, each with a session, an unbounded token and each kind
//! of bounded token.

use super::*;

type ChangeFn = fn(&AdminFacts<'_>) -> Result<(), AdminError>;

fn record(login: &str) -> UserRecord {
    UserRecord { id: "new".into(), ..user(login) }
}

fn edited(facts: &AdminFacts<'_>, name: &str, change: fn(&mut GroupRecord)) -> Result<(), AdminError> {
    let before = groups::find(facts.accounts, name)?;
    let mut after = before.record.clone();
    change(&mut after);
    groups::edit(facts, before, after).map(drop)
}

fn made(facts: &AdminFacts<'_>, name: &str, parent: Option<&str>) -> Result<(), AdminError> {
    groups::create(facts, GroupRecord { id: "new".into(), ..group(name, parent) }).map(drop)
}

fn changed(facts: &AdminFacts<'_>, key: &str, to: &[Permission]) -> Result<(), AdminError> {
    let before = roles::find(facts.accounts, key)?;
    roles::edit(facts, before, role(key, to)).map(drop)
}

fn granted(facts: &AdminFacts<'_>, role: &str, granted: bool) -> Result<(), AdminError> {
    let to = Grantee::User("id-erin".into());
    roles::grant(facts, &GrantRecord { role: role.into(), to }, granted)
}

const GIVING: [(&str, ChangeFn); 19] = [
    ("own password", |w| users::set_password(w, "carol", true).map(drop)),
    ("another's password", |w| users::set_password(w, "bob", true).map(drop)),
    ("a user with a password", |w| {
        users::create(w, UserRecord { password: Some("phc".into()), ..record("new") }).map(drop)
    }),
    ("a user with a reserved login", |w| users::create(w, record("root")).map(drop)),
    ("an invitation, an identity", |w| users::invite(w, "bob").map(drop)),
    ("another's login", |w| {
        let before = users::find_to_edit(w, "bob")?;
        users::edit(w, before, UserRecord { login: "robert".into(), ..before.record.clone() }).map(drop)
    }),
    ("a role", |w| roles::create(w, role("new", &[Permission::ReadUser])).map(drop)),
    ("a permission of a role", |w| changed(w, "auditor", &[Permission::ReadAudit, Permission::ReadUser])),
    ("a grant", |w| granted(w, "system-admin", true)),
    ("a group below power", |w| made(w, "new", Some("developers"))),
    ("a group that readers wait for", |w| made(w, "ghosts", None)),
    ("a group that an upstream waits for", |w| made(w, "Wardens", None)),
    ("a group renamed to what readers wait for", |w| edited(w, "hikers", |g| g.name = "ghosts".into())),
    ("a group renamed to what an upstream waits for", |w| edited(w, "hikers", |g| g.name = "wardens".into())),
    ("a group moved below power", |w| edited(w, "hikers", |g| g.parent = Some("g-support".into()))),
    ("a group moved below what an upstream is told of", |w| {
        edited(w, "hikers", |g| g.parent = Some("g-postmasters".into()))
    }),
    ("a member of who reads", |w| groups::set_member(w, "developers", "grace", true).map(drop)),
    ("a member of who has a role", |w| groups::set_member(w, "auditors", "grace", true).map(drop)),
    ("a member of whom an upstream is told", |w| {
        groups::set_member(w, "postmasters", "grace", true).map(drop)
    }),
];

/// Changes that give no power.
const HARMLESS: [(&str, ChangeFn); 13] = [
    ("a user", |w| users::create(w, record("new")).map(drop)),
    ("another's name", |w| {
        let before = users::find_to_edit(w, "bob")?;
        users::edit(w, before, UserRecord { name: "Bob".into(), ..before.record.clone() }).map(drop)
    }),
    ("a password removed", |w| users::set_password(w, "bob", false).map(drop)),
    ("a ban", |w| users::ban(w, "bob", Some("x")).map(drop)),
    ("a user deleted", |w| users::delete(w, "bob").map(drop)),
    ("sessions ended", |w| users::end_sessions(w, "bob").map(drop)),
    ("an empty role", |w| roles::create(w, role("new", &[])).map(drop)),
    ("a permission taken from a role", |w| changed(w, "auditor", &[])),
    ("a grant taken away", |w| granted(w, "auditor", false)),
    ("a plain group", |w| made(w, "new", Some("hikers"))),
    ("a plain group renamed", |w| edited(w, "hikers", |g| g.name = "walkers".into())),
    ("a group renamed out of power", |w| edited(w, "developers", |g| g.name = "devs".into())),
    ("a member taken out", |w| groups::set_member(w, "developers", "alice", false).map(drop)),
];

#[test]
fn power_is_given_by_a_session_or_by_an_unbounded_token() {
    const EVERYTHING: [(&str, Access); 7] = [
        ("youtrack", FULL),
        ("hub", FULL),
        ("wiki", FULL),
        ("vault", FULL),
        ("ghost", FULL),
        ("mail", FULL),
        ("permgate", FULL),
    ];
    let mut town = Town::new();
    let unbounded = town.token(&EVERYTHING, None, &[]);
    let mut read = EVERYTHING;
    read[0].1 = Access::Read;
    let mut in_grace = unbounded.clone();
    in_grace.restrictions.end = TokenEnd::Rotated { grace_until: NOW.plus_seconds(60) };
    let bounded = [
        ("of an hour", town.token(&EVERYTHING, Some(NOW.plus_seconds(3600)), &[])),
        ("from some addresses", town.token(&EVERYTHING, None, &["10.0.0.0/8"])),
        ("without a service", town.token(&EVERYTHING[1..], None, &[])),
        ("that reads a service only", town.token(&read, None, &[])),
        ("in its grace", in_grace),
    ];
    let by = |token: Option<&Token>| {
        let token = token.cloned().map(Cow::Owned);
        Principal::user(&town.accounts, &town.rules, "id-carol", token).unwrap()
    };
    for (name, change) in GIVING {
        assert_eq!(code(change(&town.facts(&by(None)))), "ok", "{name}, by a session");
        assert_eq!(code(change(&town.facts(&by(Some(&unbounded))))), "ok", "{name}, by an unbounded token");
        for (kind, token) in &bounded {
            let expected = "exceeds_parent_token";
            assert_eq!(code(change(&town.facts(&by(Some(token))))), expected, "{name}, by a token {kind}");
        }
    }
    for (name, change) in HARMLESS {
        for (kind, token) in &bounded {
            assert_eq!(code(change(&town.facts(&by(Some(token))))), "ok", "{name}, by a token {kind}");
        }
    }
}

#[test]
fn what_upstreams_are_told_of_is_power() {
    let mut town = Town::new();
    for login in ["otto", "mia"] {
        let grant = |role: &str| GrantRecord { role: role.into(), to: Grantee::User(format!("id-{login}")) };
        town.accounts.set_grant(&grant("group-manager"), true);
        town.accounts.set_grant(&grant("user-manager"), true);
    }
    let check = |name: &str, change: ChangeFn, expected: &str| {
        assert_eq!(
            code(change(&town.facts(&town.principal("mia")))),
            "would_escalate",
            "{name}, by who is none"
        );
        assert_eq!(code(change(&town.facts(&town.principal("otto")))), expected, "{name}, by one of them");
        assert_eq!(code(change(&town.facts(&town.principal("carol")))), "ok", "{name}, by an administrator");
    };
    check("join", |w| groups::set_member(w, "postmasters", "zoe", true).map(drop), "ok");
    check("leave", |w| groups::set_member(w, "postmasters", "otto", false).map(drop), "ok");
    check("rename away", |w| edited(w, "postmasters", |g| g.name = "clerks".into()), "ok");
    check("rename into", |w| edited(w, "hikers", |g| g.name = "wardens".into()), "would_escalate");
    check("make", |w| made(w, "WARDENS", None), "would_escalate");
    check("make below", |w| made(w, "clerks", Some("postmasters")), "ok");
    check("move below", |w| edited(w, "hikers", |g| g.parent = Some("g-postmasters".into())), "ok");
    check("delete", |w| groups::delete(w, "postmasters").map(drop), "ok");
    // Taking over an account in it, which for otto is his own.
    let code_of = |by: &str, change: ChangeFn| code(change(&town.facts(&town.principal(by))));
    let ways: [(&str, ChangeFn); 3] = [
        ("password", |w| users::set_password(w, "otto", true).map(drop)),
        ("invitation", |w| users::invite(w, "otto").map(drop)),
        ("token", |w| {
            let owner = super::super::tokens::owner(w, "otto")?;
            super::super::tokens::create(w, owner, bounds(&[("mail", FULL)], None, &[]), None).map(drop)
        }),
    ];
    for (name, change) in ways {
        assert_eq!(code_of("mia", change), "would_escalate", "{name}");
        assert_eq!(code_of("carol", change), "ok", "{name}");
    }
}

#[test]
fn readers_are_told_of_unless_a_service_is_told_nothing() {
    let town = Town::new();
    let of = |login: &str| {
        let account = town.accounts.user_by_login(login).unwrap();
        Power::of_user(&town.accounts, &town.rules, account).identity_groups.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(of("otto"), ["all-users", "postmasters"]);
    assert_eq!(of("alice"), ["all-users", "developers"]);
    assert_eq!(of("bob"), ["all-users", "support"], "by an ancestor");
    assert_eq!(of("erin"), ["all-users"], "a role is none");
}

#[test]
fn names_that_differ_by_a_joiner_alone_are_one() {
    let (plain, joined) = ("\u{645}\u{6cc}\u{62e}", "\u{645}\u{6cc}\u{200c}\u{62e}");
    for (first, second) in [(plain, joined), (joined, plain)] {
        let mut town = Town::new();
        town.accounts.put_group(GroupRecord { id: "g".into(), ..group(first, None) });
        assert_eq!(code(made(&town.facts(&town.principal("carol")), second, None)), "name_taken");
        assert_eq!(groups::find(&town.accounts, second).unwrap().record.name, first);
    }
}
