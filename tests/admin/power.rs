//! Every API call that gives or takes power: by a session, by tokens with and without limits, by an account
//! that has lost its power, and by a banned one.

use serde_json::{Value, json};

use crate::harness::{Credentials, Fixture, PASSWORD, SERVICES, id, new_token, text};

type ApiCall = (&'static str, String, Value);

/// A row of the table in docs/security.md. `n` distinguishes the runs that succeed.
type Row = (&'static str, fn(n: usize) -> ApiCall);

const ROWS: [Row; 16] = [
    ("a password", |_| ("PUT", "/v1/users/victim/password".into(), json!({"password": PASSWORD}))),
    ("a user with a password", |n| {
        ("POST", "/v1/users".into(), json!({"login": format!("new-{n}"), "password": PASSWORD}))
    }),
    ("an invitation", |_| ("POST", "/v1/users/victim/invitation".into(), Value::Null)),
    ("an identity", |n| {
        ("POST", "/v1/users/victim/identities".into(), json!({"subject": n.to_string(), "issuer": "i"}))
    }),
    ("a login", |n| ("PATCH", format!("/v1/users/moving-{n}"), json!({"login": format!("moved-{n}")}))),
    ("a role", |n| {
        (
            "POST",
            "/v1/roles".into(),
            json!({"key": format!("r{n}"), "name": "R", "permissions": ["read-user"]}),
        )
    }),
    ("a permission of a role", |n| {
        let permissions = if n == 0 { ["read-user"] } else { ["read-group"] };
        ("PATCH", "/v1/roles/grown".into(), json!({"permissions": permissions}))
    }),
    ("a grant to a user", |_| {
        ("POST", "/v1/grants".into(), json!({"role": "system-admin", "user": "victim"}))
    }),
    ("a grant to a group", |n| {
        ("POST", "/v1/grants".into(), json!({"role": "system-admin", "group": format!("club-{n}")}))
    }),
    ("a group that readers wait for", |n| {
        ("POST", "/v1/groups".into(), json!({"name": if n == 0 { "support" } else { "bots" }}))
    }),
    ("a group below power", |n| {
        ("POST", "/v1/groups".into(), json!({"name": format!("below-{n}"), "parent": "developers"}))
    }),
    ("a group moved below power", |n| {
        ("PATCH", format!("/v1/groups/walkers-{n}"), json!({"parent": "developers"}))
    }),
    ("a member", |_| ("PUT", "/v1/groups/developers/members/victim".into(), Value::Null)),
    ("a token for somebody", |n| {
        ("POST", "/v1/users/victim/tokens".into(), new_token(&format!("made-{n}"), &["wiki"]))
    }),
    ("an imported token", |n| {
        let digest = format!("{n:064x}");
        let line = json!({"owner": "victim", "name": format!("old-{n}"), "scope": [{"service": "wiki"}], "digest": digest});
        ("POST", "/v1/tokens/import".into(), json!({"tokens": [line]}))
    }),
    ("a token rotated", |n| ("POST", format!("/v1/tokens/ROTATED-{n}/rotate"), Value::Null)),
];

#[test]
fn power_is_granted_only_by_its_holder_and_never_by_a_limited_token() {
    let fixture = Fixture::start();
    for login in ["admin", "former", "banned", "victim", "moving-0", "moving-1"] {
        fixture.user(login, &[]);
    }
    fixture.user("dev", &["developers"]);
    for name in ["club-0", "club-1", "walkers-0", "walkers-1"] {
        fixture.must("POST", "/v1/groups", Some(json!({"name": name})));
    }
    let grown = json!({"key": "grown", "name": "Grown", "permissions": []});
    fixture.must("POST", "/v1/roles", Some(grown));
    for login in ["admin", "former", "banned"] {
        fixture.must("POST", "/v1/grants", Some(json!({"role": "system-admin", "user": login})));
    }
    let rotated = [0, 1].map(|n| id(&fixture.token("victim", &format!("rotated-{n}"), &["wiki"])));
    let every: Vec<&str> = SERVICES.iter().map(|row| row.0).chain(["permgate"]).collect();
    let limited = |limit: Value| {
        let mut body = new_token(&limit.to_string(), &every);
        body.as_object_mut().unwrap().extend(limit.as_object().unwrap().clone());
        Credentials::Bearer(text(&fixture.must("POST", "/v1/users/admin/tokens", Some(body))))
    };
    let narrow = |scope: Value| limited(json!({"scope": scope}));
    let bounded = [
        ("of ten minutes", limited(json!({"expires_in": "10m"}))),
        ("from this machine", limited(json!({"allow_ips": ["127.0.0.0/8"]}))),
        ("of the admin API alone", narrow(json!([{"service": "permgate"}]))),
    ];
    let (former, banned) = (fixture.credentials("former"), fixture.credentials("banned"));
    fixture.must("DELETE", "/v1/grants", Some(json!({"role": "system-admin", "user": "former"})));
    fixture.must("POST", "/v1/users/banned/ban", None);

    let run = |row: &Row, n: usize, sender: &Credentials| {
        let (method, target, body) = row.1(n);
        let target = target.replace(&format!("ROTATED-{n}"), &rotated[n]);
        fixture.call(sender, method, &target, Some(&body).filter(|body| !body.is_null()))
    };
    for row in &ROWS {
        for (kind, sender) in &bounded {
            let answer = run(row, 0, sender);
            // An import refuses each line by itself.
            let refused = answer.text().contains("\"exceeds_parent_token\"");
            assert!(refused, "{}, by a token {kind}: {} {}", row.0, answer.status, answer.text());
            assert!(answer.status == 403 || row.0 == "an imported token", "{}: {}", row.0, answer.status);
        }
        let denied = run(row, 0, &former).outcome();
        assert_eq!(denied, (403, "permission_denied".to_owned()), "{}, by who has lost it", row.0);
        assert_eq!(run(row, 0, &banned).status, 401, "{}, by the banned", row.0);
    }
    let (session, unbounded) = (Credentials::Browser(fixture.browser("admin")), fixture.credentials("admin"));
    for (n, sender) in [&session, &unbounded].into_iter().enumerate() {
        for row in &ROWS {
            let answer = run(row, n, sender);
            assert!(answer.status < 300, "{}, {n}: {} {}", row.0, answer.status, answer.text());
        }
    }
}

#[test]
fn expiring_token_cannot_create_an_administrator() {
    let fixture = Fixture::start();
    fixture.user("admin", &[]);
    fixture.must("POST", "/v1/grants", Some(json!({"role": "system-admin", "user": "admin"})));
    let mut body = new_token("short", &["permgate"]);
    body["expires_in"] = "10m".into();
    let short = Credentials::Bearer(text(&fixture.must("POST", "/v1/users/admin/tokens", Some(body))));
    let call = |method: &str, target: &str, body: Value| {
        fixture.call(&short, method, target, Some(&body).filter(|body| !body.is_null())).outcome()
    };
    let refused = (403, "exceeds_parent_token".to_owned());
    assert_eq!(call("POST", "/v1/users", json!({"login": "eve"})).0, 201);
    assert_eq!(call("POST", "/v1/grants", json!({"role": "system-admin", "user": "eve"})), refused);
    assert_eq!(call("POST", "/v1/users/eve/invitation", Value::Null), refused);
    assert_eq!(call("PUT", "/v1/users/eve/password", json!({"password": PASSWORD})), refused);
    assert_eq!(call("POST", "/v1/users", json!({"login": "mallory", "password": PASSWORD})), refused);
    let absent = fixture.call(&Credentials::Operator, "GET", "/v1/users/mallory", None);
    assert_eq!(absent.status, 404, "no account is left behind");
    let own = json!({"password": PASSWORD});
    assert_eq!(call("PUT", "/v1/users/me/password", own), refused);
}

#[test]
fn token_in_its_grace_period_cannot_set_a_first_password() {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    let sender = fixture.credentials("alice");
    let own = fixture.call(&sender, "GET", "/v1/users/me/tokens", None).json();
    let rotate = format!("/v1/tokens/{}/rotate", id(&own["items"][0]));
    let fresh = text(&fixture.must("POST", &rotate, Some(json!({"grace": "1h"}))));
    let set = |sender: &Credentials| {
        let body = json!({"password": PASSWORD});
        fixture.call(sender, "PUT", "/v1/users/me/password", Some(&body)).outcome()
    };
    assert_eq!(set(&sender), (403, "exceeds_parent_token".to_owned()));
    assert_eq!(set(&Credentials::Bearer(fresh)).0, 200);
}

#[test]
fn login_is_changed_by_others_and_a_reserved_login_by_administrators() {
    let fixture = Fixture::start();
    for login in ["manager", "admin-2", "victim", "other"] {
        fixture.user(login, &[]);
    }
    fixture.allow("manager", &["create-user", "update-user"]);
    fixture.must("POST", "/v1/grants", Some(json!({"role": "system-admin", "user": "admin-2"})));
    let check = |by: &str, method: &str, target: &str, login: &str, expected: (u16, &str)| {
        let answer =
            fixture.call(&fixture.cached_credentials(by), method, target, Some(&json!({"login": login})));
        assert_eq!(answer.outcome(), (expected.0, expected.1.to_owned()), "{by} {target} {login}");
    };
    let denied = (403, "permission_denied");
    check("manager", "PATCH", "/v1/users/me", "boss", denied);
    check("manager", "PATCH", "/v1/users/manager", "Manager", denied);
    check("admin-2", "PATCH", "/v1/users/me", "boss", denied);
    check("manager", "PATCH", "/v1/users/victim", "ROOT", denied);
    check("manager", "PATCH", "/v1/users/victim", "chosen", (200, ""));
    check("manager", "POST", "/v1/users", "administrator", denied);
    check("admin-2", "POST", "/v1/users", "administrator", (201, ""));
    check("admin-2", "PATCH", "/v1/users/other", "root", (200, ""));
    check("manager", "PATCH", "/v1/users/me", "manager", (200, ""));
}
