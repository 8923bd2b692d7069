//! Users, groups, roles and grants.

use super::*;
use crate::authz::fixture::cpu_time;

#[test]
fn users_are_managed() {
    let town = Town::new();
    let check = |name: &str, result: Result<(), AdminError>, expected: &str| {
        assert_eq!(code(result), expected, "{name}");
    };
    let create = |by: &str, login: &str| {
        users::create(&town.facts(&town.principal(by)), UserRecord { id: "new".into(), ..user(login) })
            .map(drop)
    };
    check("create", create("grace", "new"), "ok");
    check("create without", create("alice", "new"), "permission_denied");
    check("create, taken", create("grace", "Alice"), "name_taken");
    check("create, reserved", create("grace", "me"), "invalid_name");

    let edit = |by: &str, whom: &str, change: fn(&mut UserRecord)| {
        let principal = town.principal(by);
        let before = users::find_to_edit(&town.facts(&principal), whom)?;
        let mut after = before.record.clone();
        change(&mut after);
        users::edit(&town.facts(&principal), before, after).map(drop)
    };
    check("own name", edit("alice", "alice", |u| u.name = "A.".into()), "ok");
    check("own login", edit("alice", "alice", |u| u.login = "a".into()), "permission_denied");
    check("a manager's own login", edit("grace", "grace", |u| u.login = "g".into()), "permission_denied");
    check("an administrator's own", edit("carol", "carol", |u| u.login = "c".into()), "permission_denied");
    check(
        "own login in other letters",
        edit("carol", "carol", |u| u.login = "Carol".into()),
        "permission_denied",
    );
    check("a reserved login", edit("grace", "ci-bot", |u| u.login = "Root".into()), "permission_denied");
    check("a reserved login, by who may", edit("carol", "ci-bot", |u| u.login = "root".into()), "ok");
    check("a reserved login, made", create("grace", "ROOT"), "permission_denied");
    check("a reserved login, made by who may", create("operator", "root"), "ok");
    let provided = |login: &str| {
        users::provision(&town.facts(&Principal::nobody()), UserRecord { id: "new".into(), ..user(login) })
            .map(drop)
    };
    check("a provider's new login", provided("new"), "ok");
    check("a provider's reserved login", provided("root"), "permission_denied");
    check("a provider's login that is taken", provided("alice"), "name_taken");
    check("another's name", edit("alice", "bob", |u| u.name = "B.".into()), "permission_denied");
    check("managed", edit("grace", "carol", |u| u.name = "C.".into()), "ok");
    check("a login of more power", edit("grace", "carol", |u| u.login = "c".into()), "would_escalate");
    check("a login of no more power", edit("grace", "ci-bot", |u| u.login = "ci".into()), "ok");
    check("a login that is taken", edit("carol", "bob", |u| u.login = "alice".into()), "name_taken");

    let ban = |by: &str, whom: &str, reason: Option<&str>| {
        users::ban(&town.facts(&town.principal(by)), whom, reason).map(drop)
    };
    check("ban", ban("grace", "bob", Some("x")), "ok");
    check("ban without", ban("alice", "bob", Some("x")), "permission_denied");
    check("ban oneself", ban("grace", "grace", Some("x")), "cannot_ban_self");
    check("unban oneself", ban("grace", "grace", None), "cannot_ban_self");
    check("ban the last administrator", ban("grace", "carol", Some("x")), "last_admin");
    check("... from the socket", ban("operator", "carol", Some("x")), "last_admin");
    check("unban", ban("grace", "dave", None), "ok");
    check("ban nobody", ban("grace", "nobody", Some("x")), "not_found");

    let delete = |by: &str, whom: &str| users::delete(&town.facts(&town.principal(by)), whom).map(drop);
    check("delete", delete("carol", "bob"), "ok");
    check("delete without", delete("grace", "bob"), "permission_denied");
    check("delete oneself", delete("carol", "carol"), "permission_denied");
    check("delete oneself, in other letters", delete("carol", "CAROL"), "permission_denied");
    check("delete the last administrator", delete("operator", "carol"), "last_admin");

    let password =
        |by: &str, whom: &str| users::set_password(&town.facts(&town.principal(by)), whom, true).map(drop);
    check("own password", password("alice", "alice"), "ok");
    check("another's password", password("alice", "bob"), "permission_denied");
    check("a password of more power", password("grace", "carol"), "would_escalate");
    check("a password of other services", password("grace", "alice"), "would_escalate");
    check("a service's password", password("carol", "ci-bot"), "invalid_value");
}

#[test]
fn who_only_creates_users_signs_in_as_none() {
    let mut town = Town::new();
    town.accounts.put_role(role("clerk", &[Permission::CreateUser]));
    let clerk = GrantRecord { role: "clerk".into(), to: Grantee::User("id-zoe".into()) };
    town.accounts.set_grant(&clerk, true);
    let check = |name: &str, by: &str, kind: UserKind, password: Option<&str>, expected: &str| {
        let new = UserRecord { kind, password: password.map(str::to_owned), ..user("new") };
        assert_eq!(code(users::create(&town.facts(&town.principal(by)), new)), expected, "{name}");
    };
    check("a user", "zoe", UserKind::Human, None, "ok");
    check("with a password", "zoe", UserKind::Human, Some("phc"), "permission_denied");
    check("... by who may set it", "grace", UserKind::Human, Some("phc"), "ok");
    check("a service with a password", "grace", UserKind::Service, Some("phc"), "invalid_value");
}

#[test]
fn groups_that_carry_power_need_it() {
    let town = Town::new();
    let check = |name: &str, result: Result<(), AdminError>, expected: &str| {
        assert_eq!(code(result), expected, "{name}");
    };
    let create = |by: &str, name: &str, parent: Option<&str>| {
        groups::create(
            &town.facts(&town.principal(by)),
            GroupRecord { id: "new".into(), ..group(name, parent) },
        )
        .map(drop)
    };
    check("a plain group", create("mia", "knitters", None), "ok");
    check("without", create("alice", "knitters", None), "permission_denied");
    check("taken, in other letters", create("mia", "DEVELOPERS", None), "name_taken");
    check("built in", create("mia", "All-Users", None), "name_taken");
    check("a name that readers wait for", create("mia", "Ghosts", None), "would_escalate");
    check("... by who reads it", create("carol", "ghosts", None), "ok");
    check("below power", create("mia", "l3", Some("l2")), "would_escalate");
    check("below a role", create("mia", "juniors", Some("auditors")), "would_escalate");
    check("below nothing", create("mia", "climbers", Some("hikers")), "ok");

    let edit = |by: &str, name: &str, change: fn(&mut GroupRecord)| {
        let before = groups::find(&town.accounts, name)?;
        let mut after = before.record.clone();
        change(&mut after);
        groups::edit(&town.facts(&town.principal(by)), before, after).map(drop)
    };
    check("rename a plain one", edit("mia", "hikers", |g| g.name = "walkers".into()), "ok");
    check("rename into power", edit("mia", "hikers", |g| g.name = "ghosts".into()), "would_escalate");
    check("rename out of power", edit("mia", "developers", |g| g.name = "devs".into()), "would_escalate");
    check(
        "move into power",
        edit("mia", "hikers", |g| g.parent = Some("g-support".into())),
        "would_escalate",
    );
    check("move out of power", edit("mia", "l2", |g| g.parent = None), "would_escalate");
    check("below itself", edit("carol", "support", |g| g.parent = Some("g-l2".into())), "invalid_value");
    check(
        "its own parent",
        edit("carol", "support", |g| g.parent = Some("g-support".into())),
        "invalid_value",
    );
    check("built in", edit("carol", "all-users", |g| g.name = "everybody".into()), "invalid_value");

    let member = |by: &str, name: &str, put_in: bool| {
        groups::set_member(&town.facts(&town.principal(by)), name, "grace", put_in).map(drop)
    };
    check("into a plain one", member("mia", "hikers", true), "ok");
    check("without", member("alice", "hikers", true), "permission_denied");
    check("into power", member("mia", "developers", true), "would_escalate");
    check("into power above", member("mia", "l2", true), "would_escalate");
    check("into a role", member("mia", "auditors", true), "would_escalate");
    check("out of power", member("mia", "developers", false), "would_escalate");
    check("by an administrator", member("carol", "auditors", true), "ok");
    check("into everybody", member("carol", "all-users", true), "invalid_value");

    let delete = |by: &str, name: &str| groups::delete(&town.facts(&town.principal(by)), name).map(drop);
    check("delete a plain one", delete("mia", "hikers"), "ok");
    check("delete without", delete("alice", "hikers"), "permission_denied");
    check("delete power", delete("mia", "l2"), "would_escalate");
    check("delete a parent", delete("carol", "support"), "invalid_value");
    check("delete everybody", delete("carol", "all-users"), "invalid_value");
}

#[test]
fn groups_are_nested_eight_deep_at_most() {
    let mut town = Town::new();
    let names: Vec<String> = (1..=8).map(|level| format!("level-{level}")).collect();
    for (at, name) in names.iter().enumerate() {
        let parent = at.checked_sub(1).map(|above| names[above].as_str());
        let made = groups::create(&town.facts(&town.principal("carol")), group(name, parent)).unwrap();
        town.accounts.put_group(made);
    }
    let carol = town.principal("carol");
    let facts = town.facts(&carol);
    assert_eq!(code(groups::create(&facts, group("level-9", Some("level-8")))), "invalid_value");
    let top = groups::find(&town.accounts, "level-1").unwrap();
    let below = GroupRecord { parent: Some("g-hikers".into()), ..top.record.clone() };
    assert_eq!(code(groups::edit(&facts, top, below)), "invalid_value", "a tree moved down");
    let fits = GroupRecord { parent: None, ..top.record.clone() };
    assert_eq!(code(groups::edit(&facts, top, fits)), "ok");
    let lowest = groups::find(&town.accounts, "level-8").unwrap();
    let higher = GroupRecord { parent: Some("g-level-6".into()), ..lowest.record.clone() };
    assert_eq!(code(groups::edit(&facts, lowest, higher)), "ok");
}

/// The thread that makes every change checks an edit, so many children must not make it slow.
#[test]
fn group_with_many_children_is_edited_quickly() {
    let took = |children: usize| {
        let mut town = Town::new();
        town.accounts.put_group(group("top", Some("hikers")));
        for number in 0..children {
            town.accounts.put_group(group(&format!("child-{number}"), Some("top")));
        }
        let carol = town.principal("carol");
        let facts = town.facts(&carol);
        let top = groups::find(&town.accounts, "top").unwrap();
        let edited = || groups::edit(&facts, top, GroupRecord { name: "Top".into(), ..top.record.clone() });
        let begun = cpu_time();
        assert_eq!(code(edited()), "ok");
        cpu_time() - begun
    };
    let (few, many) = (took(200), took(10_000));
    // Fifty times as many children; with a search for each of them, it would take 2,500 times as long.
    assert!(many < 500 * few, "{few:?}, {many:?}");
}

#[test]
fn roles_hold_only_what_one_has() {
    let town = Town::new();
    let check = |name: &str, result: Result<(), AdminError>, expected: &str| {
        assert_eq!(code(result), expected, "{name}");
    };
    let create = |by: &str, key: &str, permissions: &[Permission]| {
        roles::create(&town.facts(&town.principal(by)), role(key, permissions)).map(drop)
    };
    check("create", create("rita", "x", &[Permission::ReadUser]), "ok");
    check("create without", create("grace", "x", &[]), "permission_denied");
    check("create more", create("rita", "x", &[Permission::UpdateUser]), "would_escalate");
    check("create, taken", create("carol", "observer", &[]), "name_taken");
    check("create, bad key", create("carol", "X y", &[]), "invalid_name");

    let grant = |by: &str, key: &str, granted: bool| {
        let grant = GrantRecord { role: key.into(), to: Grantee::User("id-carol".into()) };
        roles::grant(&town.facts(&town.principal(by)), &grant, granted).map(drop)
    };
    check("grant", grant("rita", "contributor", true), "ok");
    check("grant without", grant("grace", "contributor", true), "permission_denied");
    check("grant more", grant("rita", "auditor", true), "would_escalate");
    check("grant everything", grant("rita", "system-admin", true), "would_escalate");
    check("take more", grant("rita", "system-admin", false), "would_escalate");
    check("take from the last administrator", grant("operator", "system-admin", false), "last_admin");
    check("unknown", grant("carol", "no-such", true), "not_found");

    let edit = |by: &str, key: &str, permissions: &[Permission]| {
        let before = roles::find(&town.accounts, key)?;
        roles::edit(&town.facts(&town.principal(by)), before, role(key, permissions)).map(drop)
    };
    check("edit", edit("carol", "auditor", &[Permission::ReadUser]), "ok");
    check("edit without", edit("grace", "auditor", &[]), "permission_denied");
    check("edit more, to less", edit("rita", "auditor", &[]), "would_escalate");
    check("edit a built-in one", edit("carol", "contributor", &[]), "invalid_value");
    check("edit nothing", edit("carol", "no-such", &[]), "not_found");

    let delete = |by: &str, key: &str| roles::delete(&town.facts(&town.principal(by)), key).map(drop);
    check("delete", delete("carol", "auditor"), "ok");
    check("delete more", delete("rita", "auditor"), "would_escalate");
    check("delete a built-in one", delete("carol", "contributor"), "invalid_value");
    check("delete nothing", delete("carol", "no-such"), "not_found");
}
