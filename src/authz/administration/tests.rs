//! Every row of the table, as who asks, what for, and what comes of it.

use super::*;
use crate::authz::{
    accounts::{GrantRecord, Grantee, GroupRecord, RoleRecord, UserKind, UserRecord, first_grant},
    fixture,
    rules::{ServiceIds, ServiceKey},
    secret::TokenId,
    subject::{Access, Ending, Scope},
};

const NOW: Timestamp = fixture::NOW;

struct Town {
    accounts: Accounts,
    rules: Rules,
    ids: ServiceIds,
}

fn user(login: &str) -> UserRecord {
    UserRecord {
        id: format!("id-{login}"),
        login: login.into(),
        name: login.into(),
        email: None,
        kind: UserKind::Human,
        password: None,
        banned: None,
        created_at: NOW,
        deleted_at: None,
        revision: 1,
    }
}

fn group(name: &str, parent: Option<&str>) -> GroupRecord {
    GroupRecord {
        id: format!("g-{name}"),
        name: name.into(),
        parent: parent.map(|p| format!("g-{p}")),
        revision: 1,
    }
}

fn role(key: &str, permissions: &[Permission]) -> RoleRecord {
    RoleRecord { key: key.into(), name: key.into(), permissions: permissions.to_vec(), revision: 1 }
}

impl Town {
    /// carol administers; grace manages users, mia groups, rita roles; alice develops, dave is
    /// banned; erin audits, which lets her read every service; zoe sees but changes nothing.
    fn new() -> Self {
        use Permission as P;
        let mut accounts = Accounts::new();
        for login in ["alice", "bob", "carol", "dave", "erin", "grace", "mia", "rita", "zoe"] {
            accounts.put_user(user(login));
        }
        accounts.put_user(UserRecord { kind: UserKind::Service, ..user("ci-bot") });
        accounts.put_user(UserRecord { banned: Some("left".into()), ..user("dave") });
        for (name, parent) in [
            ("developers", None),
            ("support", None),
            ("l2", Some("support")),
            ("auditors", None),
            ("hikers", None),
        ] {
            accounts.put_group(group(name, parent));
        }
        for (name, member) in
            [("developers", "alice"), ("developers", "dave"), ("l2", "bob"), ("auditors", "erin")]
        {
            accounts.set_member(&format!("g-{name}"), &format!("id-{member}"), true);
        }
        accounts.put_role(role("auditor", &[P::ReadService, P::ReadAudit]));
        accounts.put_role(role("user-manager", &[P::CreateUser, P::UpdateUser]));
        accounts.put_role(role("group-manager", &[P::CreateGroup, P::UpdateGroup, P::DeleteGroup]));
        accounts.put_role(role("role-manager", &[P::ManageRole, P::ReadUser]));
        accounts.put_role(role("viewer", &[P::AdminRead]));
        accounts.set_grant(&first_grant(), true);
        for (role, to) in [
            ("system-admin", "carol"),
            ("user-manager", "grace"),
            ("group-manager", "mia"),
            ("role-manager", "rita"),
            ("viewer", "zoe"),
        ] {
            accounts
                .set_grant(&GrantRecord { role: role.into(), to: Grantee::User(format!("id-{to}")) }, true);
        }
        accounts.set_grant(
            &GrantRecord { role: "auditor".into(), to: Grantee::Group("g-auditors".into()) },
            true,
        );
        let mut ids = ServiceIds::default();
        let services = [
            ("youtrack", "/api", &["Developers", "support"][..]),
            ("hub", "/hub", &["developers"]),
            ("wiki", "/wiki", &["all-users"]),
            ("vault", "/vault", &[]),
            ("ghost", "/ghost", &["ghosts"]),
        ];
        let services = services.map(|(key, path, readers)| {
            let mut service = fixture::service(key, &[path]);
            service.readers = readers.iter().map(|reader| (*reader).to_owned()).collect();
            service
        });
        let settings = crate::authz::rules::Settings { perm_alias: true, trusted_proxies: Vec::new() };
        let rules = Rules::compile(services.into(), Vec::new(), settings, &mut ids).unwrap();
        Self { accounts, rules, ids }
    }

    fn world(&self) -> World<'_> {
        World { accounts: &self.accounts, rules: &self.rules, now: NOW, max_lifetime: None }
    }

    fn acting(&self, login: &str) -> Acting<'static> {
        match login {
            "operator" => Acting::operator(&self.rules),
            login => Acting::user(&self.world(), &format!("id-{login}"), None).unwrap(),
        }
    }

    fn readable(&self, login: &str) -> Vec<&str> {
        let account = self.accounts.user_by_login(login).unwrap();
        let power = Power::of(&self.accounts, &self.rules, account);
        let services = self.rules.services().iter().filter(|s| power.readable.contains(s.id));
        services.map(|service| service.spec.key.as_str()).collect()
    }

    fn token(&mut self, scope: &[(&str, Access)], expires_at: Option<Timestamp>, networks: &[&str]) -> Token {
        let entries = scope
            .iter()
            .map(|(key, access)| (self.ids.intern(&ServiceKey::parse(key).unwrap()).unwrap(), *access));
        Token {
            id: TokenId::parse("000000000001").unwrap(),
            owner: self.accounts.user_by_login("alice").unwrap().ix,
            scope: Scope::new(entries.collect::<Vec<_>>()).unwrap(),
            not_before: None,
            expires_at,
            end: Ending::None,
            allow_ips: networks.iter().map(|net| net.parse().unwrap()).collect(),
        }
    }
}

fn reach(scope: &[(&str, Access)], expires_at: Option<Timestamp>, networks: &[&str]) -> tokens::Reach {
    tokens::Reach {
        scope: scope.iter().map(|(key, access)| ((*key).to_owned(), *access)).collect(),
        expires_at,
        allow_ips: networks.iter().map(|net| net.parse().unwrap()).collect(),
    }
}

fn code<T>(result: Result<T, Refusal>) -> &'static str {
    result.map_or_else(|refusal| refusal.code.word(), |_| "ok")
}

const FULL: Access = Access::Full;

#[test]
fn services_are_read_in_two_ways_only() {
    let town = Town::new();
    let check = |login: &str, expected: &[&str]| assert_eq!(town.readable(login), expected, "{login}");
    check("alice", &["youtrack", "hub", "wiki", "permgate"]);
    check("bob", &["youtrack", "wiki", "permgate"]);
    check("grace", &["wiki", "permgate"]);
    check("erin", &["youtrack", "hub", "wiki", "vault", "ghost", "permgate"]);
    check("carol", &["youtrack", "hub", "wiki", "vault", "ghost", "permgate"]);
}

#[test]
fn who_sees_whom() {
    let town = Town::new();
    let check = |by: &str, whom: &str, expected: &str| {
        let whom = town.accounts.user_by_login(whom).unwrap().ix;
        assert_eq!(code(town.acting(by).require_sight(whom)), expected, "{by}");
    };
    check("alice", "alice", "ok");
    check("alice", "bob", "permission_denied");
    check("zoe", "bob", "ok");
    check("grace", "bob", "ok");
    check("rita", "bob", "permission_denied");
}

#[test]
fn making_tokens() {
    let town = Town::new();
    let check = |by: &str, owner: &str, scope: &[(&str, Access)], expected: &str| {
        let (world, acting) = (town.world(), town.acting(by));
        let made = tokens::owner(&world, &acting, owner)
            .and_then(|owner| tokens::create(&world, &acting, owner, reach(scope, None, &[]), None));
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
    town.accounts.set_grant(&first_grant(), false);
    let (world, acting) = (town.world(), town.acting("alice"));
    assert_eq!(code(tokens::owner(&world, &acting, "alice")), "permission_denied");
    assert_eq!(code(users::set_password(&world, &acting, "alice", true)), "permission_denied");
    let alice = users::find(&world, "alice").unwrap();
    assert_eq!(code(tokens::revoke(&acting, alice)), "ok", "revoking one's own needs nothing");
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
    let check = |name: &str, parent: &Token, child: tokens::Reach, expected: &str| {
        let world = town.world();
        let acting = Acting::user(&world, "id-alice", Some(parent)).unwrap();
        let alice = users::find(&world, "alice").unwrap();
        assert_eq!(code(tokens::create(&world, &acting, alice, child.clone(), None)), expected, "{name}");
        assert_eq!(code(tokens::rotate(&world, &acting, alice, &child, None)), expected, "{name}, rotated");
    };
    let inside = ["10.1.0.0/16"];
    check("within", &parent, reach(&[("youtrack", FULL)], Some(end), &inside), "ok");
    check("wider", &parent, reach(&[("hub", FULL)], Some(end), &inside), "exceeds_parent_token");
    check("more access", &parent, reach(&[("wiki", FULL)], Some(end), &inside), "exceeds_parent_token");
    check(
        "longer",
        &parent,
        reach(&[("youtrack", FULL)], Some(end.plus_seconds(1)), &inside),
        "exceeds_parent_token",
    );
    check("endless", &parent, reach(&[("youtrack", FULL)], None, &inside), "exceeds_parent_token");
    check("from anywhere", &parent, reach(&[("youtrack", FULL)], Some(end), &[]), "exceeds_parent_token");
    check(
        "from elsewhere",
        &parent,
        reach(&[("youtrack", FULL)], Some(end), &["10.0.0.0/7"]),
        "exceeds_parent_token",
    );
    parent.end = Ending::Rotated { grace_until: NOW.plus_seconds(10) };
    check(
        "beyond its grace",
        &parent,
        reach(&[("youtrack", FULL)], Some(end), &inside),
        "exceeds_parent_token",
    );
    let soon = Some(NOW.plus_seconds(10));
    check("within its grace", &parent, reach(&[("youtrack", FULL)], soon, &inside), "ok");
}

#[test]
fn changing_and_replacing_tokens() {
    let town = Town::new();
    let end = NOW.plus_seconds(1000);
    let before = reach(&[("hub", Access::Read), ("youtrack", FULL)], Some(end), &["10.0.0.0/8"]);
    let check = |name: &str, by: &str, after: tokens::Reach, expected: &str| {
        let world = town.world();
        let alice = users::find(&world, "alice").unwrap();
        assert_eq!(code(tokens::edit(&world, &town.acting(by), alice, &before, after)), expected, "{name}");
    };
    let net = ["10.0.0.0/8"];
    check("nothing", "alice", before.clone(), "ok");
    check("narrower", "alice", reach(&[("youtrack", Access::Read)], Some(end), &net), "ok");
    check("another's", "bob", before.clone(), "permission_denied");
    check("a manager with less", "grace", before.clone(), "would_escalate");
    check("an administrator", "carol", reach(&[("youtrack", FULL)], Some(end), &net), "ok");
    check(
        "a service more",
        "alice",
        reach(&[("hub", Access::Read), ("wiki", FULL), ("youtrack", FULL)], Some(end), &net),
        "cannot_widen",
    );
    check("more access", "alice", reach(&[("hub", FULL)], Some(end), &net), "cannot_widen");
    check("empty", "alice", reach(&[], Some(end), &net), "empty_scope");
    check("longer", "alice", reach(&[("youtrack", FULL)], Some(end.plus_seconds(1)), &net), "cannot_widen");
    check("shorter", "alice", reach(&[("youtrack", FULL)], Some(NOW.plus_seconds(1)), &net), "ok");
    check("ended", "alice", reach(&[("youtrack", FULL)], Some(NOW), &net), "expiry_in_past");
    check("from anywhere", "alice", reach(&[("youtrack", FULL)], Some(end), &[]), "cannot_widen");
    check("from fewer", "alice", reach(&[("youtrack", FULL)], Some(end), &["10.9.0.0/16"]), "ok");

    let check = |name: &str, by: &str, grace: u64, expected: &str| {
        let (world, grace) = (town.world(), Some(Duration::from_secs(grace)));
        let alice = users::find(&world, "alice").unwrap();
        assert_eq!(code(tokens::rotate(&world, &town.acting(by), alice, &before, grace)), expected, "{name}");
    };
    check("own", "alice", 0, "ok");
    check("a week", "alice", 7 * 86400, "ok");
    check("more than a week", "alice", 7 * 86400 + 1, "invalid_value");
    check("another's", "bob", 0, "permission_denied");
    check("a manager with less", "grace", 0, "would_escalate");
    check("an administrator", "carol", 0, "ok");
}

#[test]
fn lifetimes() {
    let town = Town::new();
    let day = 86400;
    let check = |name: &str, max_lifetime: Option<u64>, expires: Option<i64>, expected: &str| {
        let world = World { max_lifetime: max_lifetime.map(Duration::from_secs), ..town.world() };
        let expires = expires.map(|seconds| NOW.plus_seconds(seconds));
        let alice = users::find(&world, "alice").unwrap();
        let made = tokens::create(
            &world,
            &town.acting("alice"),
            alice,
            reach(&[("wiki", FULL)], expires, &[]),
            None,
        );
        assert_eq!(code(made), expected, "{name}");
    };
    check("endless", None, None, "ok");
    check("already over", None, Some(0), "expiry_in_past");
    check("endless where lives are limited", Some(90 * 86400), None, "lifetime_too_long");
    check("at the limit", Some(90 * 86400), Some(90 * day), "ok");
    check("beyond it", Some(90 * 86400), Some(90 * day + 1), "lifetime_too_long");
}

#[test]
fn users_are_managed() {
    let town = Town::new();
    let world = town.world();
    let check = |name: &str, result: Result<(), Refusal>, expected: &str| {
        assert_eq!(code(result), expected, "{name}")
    };
    let create = |by: &str, login: &str| {
        users::create(&world, &town.acting(by), UserRecord { id: "new".into(), ..user(login) }).map(drop)
    };
    check("create", create("grace", "new"), "ok");
    check("create without", create("alice", "new"), "permission_denied");
    check("create, taken", create("grace", "Alice"), "name_taken");
    check("create, reserved", create("grace", "me"), "invalid_name");

    let edit = |by: &str, whom: &str, change: fn(&mut UserRecord)| {
        let acting = town.acting(by);
        let before = users::find_to_edit(&world, &acting, whom)?;
        let mut after = before.record.clone();
        change(&mut after);
        users::edit(&world, &acting, before, after).map(drop)
    };
    check("own name", edit("alice", "alice", |u| u.name = "A.".into()), "ok");
    check("own login", edit("alice", "alice", |u| u.login = "root".into()), "permission_denied");
    check("another's name", edit("alice", "bob", |u| u.name = "B.".into()), "permission_denied");
    check("managed", edit("grace", "carol", |u| u.name = "C.".into()), "ok");
    check("a login of more power", edit("grace", "carol", |u| u.login = "c".into()), "would_escalate");
    check("a login of no more power", edit("grace", "ci-bot", |u| u.login = "ci".into()), "ok");
    check("a login that is taken", edit("carol", "bob", |u| u.login = "alice".into()), "name_taken");

    let ban = |by: &str, whom: &str, reason: Option<&str>| {
        users::ban(&world, &town.acting(by), whom, reason).map(drop)
    };
    check("ban", ban("grace", "bob", Some("x")), "ok");
    check("ban without", ban("alice", "bob", Some("x")), "permission_denied");
    check("ban oneself", ban("grace", "grace", Some("x")), "cannot_ban_self");
    check("unban oneself", ban("grace", "grace", None), "cannot_ban_self");
    check("ban the last administrator", ban("grace", "carol", Some("x")), "last_admin");
    check("... from the socket", ban("operator", "carol", Some("x")), "last_admin");
    check("unban", ban("grace", "dave", None), "ok");
    check("ban nobody", ban("grace", "nobody", Some("x")), "not_found");

    let delete = |by: &str, whom: &str| users::delete(&world, &town.acting(by), whom).map(drop);
    check("delete", delete("carol", "bob"), "ok");
    check("delete without", delete("grace", "bob"), "permission_denied");
    check("delete the last administrator", delete("operator", "carol"), "last_admin");

    let password = |by: &str, whom: &str| users::set_password(&world, &town.acting(by), whom, true).map(drop);
    check("own password", password("alice", "alice"), "ok");
    check("another's password", password("alice", "bob"), "permission_denied");
    check("a password of more power", password("grace", "carol"), "would_escalate");
    check("a password of other services", password("grace", "alice"), "would_escalate");
    check("a service's password", password("carol", "ci-bot"), "invalid_value");
}

#[test]
fn groups_that_carry_power_need_it() {
    let town = Town::new();
    let world = town.world();
    let check = |name: &str, result: Result<(), Refusal>, expected: &str| {
        assert_eq!(code(result), expected, "{name}")
    };
    let create = |by: &str, name: &str, parent: Option<&str>| {
        groups::create(&world, &town.acting(by), GroupRecord { id: "new".into(), ..group(name, parent) })
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
        let before = groups::find(&world, name)?;
        let mut after = before.record.clone();
        change(&mut after);
        groups::edit(&world, &town.acting(by), before, after).map(drop)
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
        groups::set_member(&world, &town.acting(by), name, "grace", put_in).map(drop)
    };
    check("into a plain one", member("mia", "hikers", true), "ok");
    check("without", member("alice", "hikers", true), "permission_denied");
    check("into power", member("mia", "developers", true), "would_escalate");
    check("into power above", member("mia", "l2", true), "would_escalate");
    check("into a role", member("mia", "auditors", true), "would_escalate");
    check("out of power", member("mia", "developers", false), "would_escalate");
    check("by an administrator", member("carol", "auditors", true), "ok");
    check("into everybody", member("carol", "all-users", true), "invalid_value");

    let delete = |by: &str, name: &str| groups::delete(&world, &town.acting(by), name).map(drop);
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
        let made = groups::create(&town.world(), &town.acting("carol"), group(name, parent)).unwrap();
        town.accounts.put_group(made);
    }
    let (world, carol) = (town.world(), town.acting("carol"));
    assert_eq!(code(groups::create(&world, &carol, group("level-9", Some("level-8")))), "invalid_value");
    let top = groups::find(&world, "level-1").unwrap();
    let below = GroupRecord { parent: Some("g-hikers".into()), ..top.record.clone() };
    assert_eq!(code(groups::edit(&world, &carol, top, below)), "invalid_value", "a tree moved down");
}

#[test]
fn roles_hold_only_what_one_has() {
    let town = Town::new();
    let world = town.world();
    let check = |name: &str, result: Result<(), Refusal>, expected: &str| {
        assert_eq!(code(result), expected, "{name}")
    };
    let create = |by: &str, key: &str, permissions: &[Permission]| {
        roles::create(&world, &town.acting(by), role(key, permissions)).map(drop)
    };
    check("create", create("rita", "x", &[Permission::ReadUser]), "ok");
    check("create without", create("grace", "x", &[]), "permission_denied");
    check("create more", create("rita", "x", &[Permission::UpdateUser]), "would_escalate");
    check("create, taken", create("carol", "observer", &[]), "name_taken");
    check("create, bad key", create("carol", "X y", &[]), "invalid_name");

    let grant = |by: &str, key: &str, granted: bool| {
        let grant = GrantRecord { role: key.into(), to: Grantee::User("id-carol".into()) };
        roles::grant(&world, &town.acting(by), &grant, granted).map(drop)
    };
    check("grant", grant("rita", "contributor", true), "ok");
    check("grant without", grant("grace", "contributor", true), "permission_denied");
    check("grant more", grant("rita", "auditor", true), "would_escalate");
    check("grant everything", grant("rita", "system-admin", true), "would_escalate");
    check("take more", grant("rita", "system-admin", false), "would_escalate");
    check("take from the last administrator", grant("operator", "system-admin", false), "last_admin");
    check("unknown", grant("carol", "no-such", true), "not_found");

    let delete = |by: &str, key: &str| roles::delete(&world, &town.acting(by), key).map(drop);
    check("delete", delete("carol", "auditor"), "ok");
    check("delete more", delete("rita", "auditor"), "would_escalate");
    check("delete a built-in one", delete("carol", "contributor"), "invalid_value");
    check("delete nothing", delete("carol", "no-such"), "not_found");
}

#[test]
fn who_is_disabled_does_nothing() {
    let mut town = Town::new();
    let acts = |town: &Town, id: &str| code(Acting::user(&town.world(), id, None));
    assert_eq!(acts(&town, "id-dave"), "permission_denied");
    assert_eq!(acts(&town, "id-nobody"), "permission_denied");
    assert_eq!(acts(&town, "id-bob"), "ok");
    town.accounts.put_user(UserRecord { deleted_at: Some(NOW), ..user("bob") });
    assert_eq!(acts(&town, "id-bob"), "permission_denied");
}
