//! Who may do what: the table of the rules, row by row, on oneself and on others.

use std::{cell::RefCell, collections::HashMap};

use serde_json::{Value, json};

use crate::harness::{Browser, Credentials, Fixture, PASSWORD, id, new_token};

mod identities;

struct Accounts {
    fixture: Fixture,
    /// The signed-in browsers; `None`: calls use tokens.
    browsers: Option<RefCell<HashMap<String, Browser>>>,
    /// Each user's token id, by login.
    tokens: Vec<(&'static str, String)>,
}

impl Accounts {
    /// Runs a check with tokens and with browsers.
    fn each(check: impl Fn(&Self)) {
        check(&Self::new(None));
        check(&Self::new(Some(RefCell::default())));
    }

    /// `plain` has the permissions that everyone has; the others are named for their one
    /// additional permission.
    fn new(browsers: Option<RefCell<HashMap<String, Browser>>>) -> Self {
        let fixture = Fixture::start();
        for (login, permissions) in [
            ("plain", &[][..]),
            ("admin", &["admin-write"]),
            ("viewer", &["admin-read"]),
            ("manager", &["create-user", "update-user", "delete-user"]),
            ("grouper", &["create-group", "update-group", "delete-group"]),
            ("roler", &["manage-role"]),
            ("auditor", &["read-audit"]),
        ] {
            fixture.user(login, &[]);
            if !permissions.is_empty() {
                fixture.allow(login, permissions);
            }
        }
        fixture.user("victim", &[]);
        fixture.user("dev", &["developers"]);
        let tokens =
            ["plain", "victim", "admin"].map(|login| (login, id(&fixture.token(login, "ci", &["wiki"]))));
        Self { fixture, browsers, tokens: tokens.to_vec() }
    }

    fn token(&self, login: &str) -> String {
        let found = self.tokens.iter().find(|(owner, _)| *owner == login);
        format!("/v1/tokens/{}", found.unwrap().1)
    }

    /// Signs in again if the session has ended.
    fn browser(&self, browsers: &RefCell<HashMap<String, Browser>>, login: &str) -> Browser {
        let known = browsers.borrow().get(login).cloned();
        let lives = |browser: &Browser| {
            let sender = Credentials::Browser(browser.clone());
            self.fixture.call(&sender, "GET", "/v1/session", None).status == 200
        };
        known.filter(lives).unwrap_or_else(|| {
            let browser = self.fixture.browser(login);
            browsers.borrow_mut().insert(login.to_owned(), browser.clone());
            browser
        })
    }

    fn check(&self, name: &str, login: &str, call: (&str, &str, Value), expected: (u16, &str)) {
        let sender = match &self.browsers {
            _ if login == "operator" => Credentials::Operator,
            None => self.fixture.cached_credentials(login),
            Some(browsers) => Credentials::Browser(self.browser(browsers, login)),
        };
        let (method, target, body) = call;
        let body = Some(&body).filter(|body| !body.is_null());
        let answer = self.fixture.call(&sender, method, target, body);
        assert_eq!(
            answer.outcome(),
            (expected.0, expected.1.to_owned()),
            "{login}, {name}, {}: {}",
            if self.browsers.is_some() { "browser" } else { "token" },
            answer.text()
        );
    }
}

const DENIED: (u16, &str) = (403, "permission_denied");
const ESCALATES: (u16, &str) = (403, "would_escalate");
const OK: (u16, &str) = (200, "");
const MADE: (u16, &str) = (201, "");

#[test]
fn profiles_and_tokens_are_visible_to_owner_and_permitted_users() {
    Accounts::each(|cast| {
        let get = |target: &'static str| ("GET", target, Value::Null);
        for (login, expected) in
            [("plain", DENIED), ("auditor", DENIED), ("viewer", OK), ("manager", OK), ("admin", OK)]
        {
            cast.check("a profile", login, get("/v1/users/victim"), expected);
            cast.check("all profiles", login, get("/v1/users"), expected);
            cast.check("tokens", login, get("/v1/users/victim/tokens"), expected);
            cast.check("tokens by filter", login, get("/v1/tokens?user=victim"), expected);
            cast.check("a token", login, ("GET", &cast.token("victim"), Value::Null), expected);
            cast.check("own profile", login, get("/v1/users/me"), OK);
            cast.check("own tokens", login, get("/v1/users/me/tokens"), OK);
        }
        cast.check("an own token", "plain", ("GET", &cast.token("plain"), Value::Null), OK);
        let own =
            cast.fixture.call(&cast.fixture.cached_credentials("plain"), "GET", "/v1/tokens", None).json();
        let owners: Vec<&Value> =
            own["items"].as_array().unwrap().iter().map(|token| &token["user"]).collect();
        assert!(!owners.is_empty() && owners.iter().all(|owner| *owner == "plain"), "{owners:?}");
    });
}

#[test]
fn tokens_are_created_for_oneself_or_within_ones_own_power() {
    Accounts::each(|cast| {
        let make = |target: &'static str, service: &str| ("POST", target, new_token("new", &[service]));
        cast.check("own", "plain", make("/v1/users/me/tokens", "wiki"), MADE);
        cast.check(
            "own, unreadable",
            "plain",
            make("/v1/users/me/tokens", "hub"),
            (403, "service_not_readable"),
        );
        cast.check("other's", "plain", make("/v1/users/victim/tokens", "wiki"), DENIED);
        cast.check("other's, seeing only", "viewer", make("/v1/users/victim/tokens", "wiki"), DENIED);
        cast.check("other's", "manager", make("/v1/users/victim/tokens", "wiki"), MADE);
        cast.check("an administrator's", "manager", make("/v1/users/admin/tokens", "wiki"), ESCALATES);
        cast.check(
            "of who reads more",
            "manager",
            make("/v1/users/dev/tokens", "hub"),
            (403, "service_not_readable"),
        );
        cast.check("other's", "admin", make("/v1/users/dev/tokens", "hub"), MADE);
        cast.check(
            "unreadable by the owner",
            "admin",
            make("/v1/users/victim/tokens", "vault"),
            (403, "service_not_readable"),
        );
        cast.fixture.must("POST", "/v1/users/victim/ban", None);
        cast.check("of the banned", "admin", make("/v1/users/victim/tokens", "wiki"), (409, "user_banned"));
    });
}

#[test]
fn rotating_and_editing_need_the_rights_of_creation_and_revoking_fewer() {
    Accounts::each(|cast| {
        let rename = |owner: &str| cast.token(owner);
        let body = || json!({"note": "seen"});
        cast.check("edit own", "plain", ("PATCH", &rename("plain"), body()), OK);
        cast.check("edit other's", "plain", ("PATCH", &rename("victim"), body()), DENIED);
        cast.check("edit other's", "manager", ("PATCH", &rename("victim"), body()), OK);
        cast.check("edit an administrator's", "manager", ("PATCH", &rename("admin"), body()), ESCALATES);
        let rotate = |owner: &str| format!("{}/rotate", cast.token(owner));
        cast.check("rotate other's", "viewer", ("POST", &rotate("victim"), Value::Null), DENIED);
        cast.check(
            "rotate an administrator's",
            "manager",
            ("POST", &rotate("admin"), Value::Null),
            ESCALATES,
        );
        cast.check("rotate own", "plain", ("POST", &rotate("plain"), Value::Null), MADE);
        cast.check("revoke other's", "plain", ("DELETE", &cast.token("victim"), Value::Null), DENIED);
        cast.check("revoke own", "plain", ("DELETE", &cast.token("plain"), Value::Null), OK);
        cast.check("revoke an administrator's", "manager", ("DELETE", &cast.token("admin"), Value::Null), OK);
    });
}

#[test]
fn accounts_are_changed_only_within_ones_own_power() {
    Accounts::each(|cast| {
        let bare = |method: &'static str, target: &'static str| (method, target, Value::Null);
        let password = || json!({"password": PASSWORD, "current": PASSWORD});
        cast.check("make", "plain", ("POST", "/v1/users", json!({"login": "x"})), DENIED);
        cast.check("make", "manager", ("POST", "/v1/users", json!({"login": "x"})), MADE);
        cast.check("own name", "plain", ("PATCH", "/v1/users/me", json!({"name": "P"})), OK);
        cast.check("other's name", "plain", ("PATCH", "/v1/users/victim", json!({"name": "P"})), DENIED);
        cast.check("own password", "plain", ("PUT", "/v1/users/me/password", password()), OK);
        cast.check("other's password", "plain", ("PUT", "/v1/users/victim/password", password()), DENIED);
        cast.check("other's password", "manager", ("PUT", "/v1/users/victim/password", password()), OK);
        cast.check(
            "an administrator's",
            "manager",
            ("PUT", "/v1/users/admin/password", password()),
            ESCALATES,
        );
        cast.check("ban", "plain", bare("POST", "/v1/users/victim/ban"), DENIED);
        cast.check("ban oneself", "manager", bare("POST", "/v1/users/me/ban"), (409, "cannot_ban_self"));
        cast.check("ban", "manager", bare("POST", "/v1/users/victim/ban"), OK);
        cast.check("unban", "manager", bare("POST", "/v1/users/victim/unban"), OK);
        cast.check(
            "ban the last administrator",
            "operator",
            bare("POST", "/v1/users/admin/ban"),
            (409, "last_admin"),
        );
        cast.check("delete", "plain", bare("DELETE", "/v1/users/victim"), DENIED);
        cast.check("delete", "manager", bare("DELETE", "/v1/users/victim"), OK);
    });
}

#[test]
fn groups_with_power_require_that_power() {
    Accounts::each(|cast| {
        let put = |target: &'static str| ("PUT", target, Value::Null);
        cast.check("make", "plain", ("POST", "/v1/groups", json!({"name": "club"})), DENIED);
        cast.check("make", "grouper", ("POST", "/v1/groups", json!({"name": "club"})), MADE);
        cast.check("join", "grouper", put("/v1/groups/club/members/plain"), OK);
        cast.check("join", "plain", put("/v1/groups/club/members/victim"), DENIED);
        cast.check("join who reads hub", "grouper", put("/v1/groups/developers/members/plain"), ESCALATES);
        cast.check(
            "take hub's name",
            "grouper",
            ("PATCH", "/v1/groups/club", json!({"name": "auditors"})),
            ESCALATES,
        );
        cast.check(
            "make hub's name",
            "grouper",
            ("POST", "/v1/groups", json!({"name": "support"})),
            ESCALATES,
        );
        cast.check(
            "go below",
            "grouper",
            ("PATCH", "/v1/groups/club", json!({"parent": "developers"})),
            ESCALATES,
        );
        cast.check("join who reads hub", "admin", put("/v1/groups/developers/members/plain"), OK);
        cast.check("see", "plain", ("GET", "/v1/groups", Value::Null), DENIED);
        cast.check("see", "grouper", ("GET", "/v1/groups", Value::Null), OK);
        cast.check("delete", "grouper", ("DELETE", "/v1/groups/club", Value::Null), OK);
    });
}

#[test]
fn roles_grant_only_what_the_granter_has() {
    Accounts::each(|cast| {
        let role = |permission: &str| {
            ("POST", "/v1/roles", json!({"key": "r", "name": "R", "permissions": [permission]}))
        };
        let grant = |role: &str| ("POST", "/v1/grants", json!({"role": role, "user": "plain"}));
        cast.check("make", "plain", role("update-self"), DENIED);
        cast.check("make a stronger one", "roler", role("admin-write"), ESCALATES);
        cast.check("make", "roler", role("manage-role"), MADE);
        cast.check("grant", "plain", grant("r"), DENIED);
        cast.check("grant", "roler", grant("r"), OK);
        cast.check("grant a stronger one", "roler", grant("system-admin"), ESCALATES);
        cast.check("grant", "admin", grant("system-admin"), OK);
        cast.check("see", "auditor", ("GET", "/v1/roles", Value::Null), DENIED);
        cast.check("see", "roler", ("GET", "/v1/grants", Value::Null), OK);
    });
}

#[test]
fn operations_require_global_read_or_write_permission() {
    Accounts::each(|cast| {
        let get = |target: &'static str| ("GET", target, Value::Null);
        let explain = || ("POST", "/v1/explain", json!({"method": "GET", "url": "/wiki", "user": "victim"}));
        for (login, read, write, audit) in [
            ("plain", DENIED, DENIED, DENIED),
            ("auditor", DENIED, DENIED, OK),
            ("manager", DENIED, DENIED, DENIED),
            ("viewer", OK, DENIED, OK),
            ("admin", OK, OK, OK),
            ("operator", OK, OK, OK),
        ] {
            cast.check("the log", login, get("/v1/audit"), audit);
            cast.check("the chain", login, get("/v1/audit/verify"), audit);
            cast.check("the configuration", login, get("/v1/config"), read);
            cast.check(
                "another text",
                login,
                ("POST", "/v1/config/check", json!({"text": "version = 1"})),
                read,
            );
            cast.check("live", login, get("/v1/live"), read);
            cast.check("explain for others", login, explain(), read);
            cast.check("reload", login, ("POST", "/v1/reload", Value::Null), write);
            let gone = if write == OK { (404, "not_found") } else { write };
            cast.check("cut", login, ("DELETE", "/v1/live/0-999999", Value::Null), gone);
            cast.check("import", login, ("POST", "/v1/tokens/import", json!({"tokens": []})), write);
        }
        let own = json!({"method": "GET", "url": "/wiki", "user": "me"});
        cast.check("explain for oneself", "plain", ("POST", "/v1/explain", own), OK);
    });
}

#[test]
fn user_without_update_self_only_views_and_revokes() {
    Accounts::each(|cast| {
        let bare = |method: &'static str, target: &str| (method, target.to_owned(), Value::Null);
        let check = |name: &str, call: (&str, String, Value), expected| {
            cast.check(name, "plain", (call.0, &call.1, call.2), expected);
        };
        check("sign in or make a token while that is allowed", bare("GET", "/v1/users/me"), OK);
        cast.fixture.must("DELETE", "/v1/grants", Some(json!({"role": "contributor", "group": "all-users"})));
        let own = cast.token("plain");
        check("see the profile", bare("GET", "/v1/users/me"), OK);
        check("see a token", bare("GET", &own), OK);
        check("make one", ("POST", "/v1/users/me/tokens".into(), new_token("n", &["wiki"])), DENIED);
        check("rename it", ("PATCH", own.clone(), json!({"name": "x"})), DENIED);
        check(
            "narrow it",
            ("PATCH", own.clone(), json!({"scope": [{"service": "wiki", "access": "read"}]})),
            DENIED,
        );
        check("shorten it", ("PATCH", own.clone(), json!({"expires_in": "1d"})), DENIED);
        check("rotate it", bare("POST", &format!("{own}/rotate")), DENIED);
        check("the own name", ("PATCH", "/v1/users/me".into(), json!({"name": "P"})), DENIED);
        let password = json!({"password": PASSWORD, "current": PASSWORD});
        check("the own password", ("PUT", "/v1/users/me/password".into(), password), DENIED);
        check("revoke it", bare("DELETE", &own), OK);
        check("sign out everywhere", bare("DELETE", "/v1/users/victim/sessions"), DENIED);
    });
}

#[test]
fn signing_out_inviting_and_reducing_others_require_permission() {
    Accounts::each(|cast| {
        let sessions = ("DELETE", "/v1/users/victim/sessions", Value::Null);
        let invite = |login: &'static str| ("POST", login, Value::Null);
        let shorten = json!({"expires_in": "1d", "scope": [{"service": "wiki", "access": "read"}]});
        for (login, update, end) in
            [("plain", DENIED, DENIED), ("viewer", DENIED, DENIED), ("manager", OK, OK)]
        {
            cast.check("sign out", login, sessions.clone(), end);
            let made = if update == OK { MADE } else { update };
            cast.check("invite", login, invite("/v1/users/victim/invitation"), made);
            cast.check(
                "shorten and narrow",
                login,
                ("PATCH", &cast.token("victim"), shorten.clone()),
                update,
            );
        }
        cast.check("invite who may more", "manager", invite("/v1/users/admin/invitation"), ESCALATES);
        cast.check(
            "sign out who may more",
            "manager",
            ("DELETE", "/v1/users/admin/sessions", Value::Null),
            OK,
        );
        let widen = json!({"scope": [{"service": "wiki"}, {"service": "status"}]});
        cast.check("widen", "plain", ("PATCH", &cast.token("plain"), widen), (422, "cannot_widen"));
        cast.check(
            "lift an own ban",
            "manager",
            ("POST", "/v1/users/me/unban", Value::Null),
            (409, "cannot_ban_self"),
        );
        for path in ["/v1/users/me", "/v1/users/admin", "/v1/users/ADMIN"] {
            cast.check("delete oneself", "admin", ("DELETE", path, Value::Null), DENIED);
        }
        let built_in = ("DELETE", "/v1/roles/system-admin", Value::Null);
        cast.check("delete a role that is built in", "admin", built_in, (422, "invalid_value"));
        cast.check("back up", "viewer", ("GET", "/v1/backup", Value::Null), DENIED);
    });
}

#[test]
fn token_creates_no_token_beyond_its_own_scope() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let parent = json!({
        "name": "parent",
        "scope": [{"service": "permgate"}, {"service": "youtrack", "access": "read"}],
        "expires_in": "10d",
        "allow_ips": ["127.0.0.0/8"],
    });
    let made = fixture.must("POST", "/v1/users/alice/tokens", Some(parent));
    let sender = Credentials::Bearer(crate::harness::text(&made));
    let check = |name: &str, change: Value, expected: (u16, &str)| {
        let mut body = json!({
            "name": name,
            "scope": [{"service": "youtrack", "access": "read"}],
            "expires_in": "1d",
            "allow_ips": ["127.0.0.1"],
        });
        for (field, value) in change.as_object().unwrap() {
            body[field] = value.clone();
        }
        let answer = fixture.call(&sender, "POST", "/v1/users/me/tokens", Some(&body));
        assert_eq!(answer.outcome(), (expected.0, expected.1.to_owned()), "{name}: {}", answer.text());
    };
    let exceeds = (403, "exceeds_parent_token");
    check("another service", json!({"scope": [{"service": "hub", "access": "read"}]}), exceeds);
    check("more access", json!({"scope": [{"service": "youtrack"}]}), exceeds);
    check("a later end", json!({"expires_in": "20d"}), exceeds);
    check("no end", json!({"expires_in": null}), exceeds);
    check("more addresses", json!({"allow_ips": ["10.0.0.0/8"]}), exceeds);
    check("from anywhere", json!({"allow_ips": []}), exceeds);
    check("within", json!({}), MADE);
}
