//! Browser sessions: signing in and out, what a cookie permits, and what ends a session.

use std::io::{Read, Write};

use permgate::admin::{SignIn, UserHeader};
use serde_json::{Value, json};

use crate::{
    exchange::Request,
    harness::{Browser, Credentials, Fixture, PASSWORD, id, new_token, text},
};

const OTHER: &str = "another passphrase of mine";

fn secure() -> SignIn {
    SignIn { url: Some("https://gate.example".into()), ..SignIn::default() }
}

/// A fixture in which alice can sign in.
fn with_alice() -> Fixture {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    fixture.must("PUT", "/v1/users/alice/password", Some(json!({"password": PASSWORD})));
    fixture
}

#[test]
fn cookie_is_bound_and_new_at_each_sign_in() {
    let check = |name: &str, sign_in: SignIn, cookie: &str, mark: bool| {
        let fixture = Fixture::signed_in_by(None, sign_in);
        fixture.user("alice", &[]);
        let first = fixture.browser("alice");
        let body = json!({"login": "alice", "password": PASSWORD});
        let request = Request::new("POST", "/v1/session").field("Cookie", &first.cookie).json(&body);
        let again = fixture.send(&Credentials::Anonymous, request);
        assert_eq!(again.status, 201, "{name}: {}", again.text());
        let set = again.field("set-cookie").unwrap();
        let (value, attributes) = set.split_once(';').unwrap();
        assert!(value.starts_with(&format!("{cookie}=")), "{name}: {set}");
        assert_ne!(value, first.cookie, "{name}: a cookie that was there before is not the session");
        for attribute in ["Path=/", "HttpOnly", "SameSite=Strict"] {
            assert!(attributes.contains(attribute), "{name}: {set}");
        }
        assert_eq!(attributes.contains("Secure"), mark, "{name}: {set}");
        assert!(!attributes.contains("Domain"), "{name}: {set}");
        assert!(!again.text().contains(value.split_once('=').unwrap().1), "{name}: in the body, too");
        let whoami = |browser| fixture.call(&Credentials::Browser(browser), "GET", "/v1/whoami", None).status;
        assert_eq!(whoami(Browser::of(&again)), 200, "{name}");
        assert_eq!(whoami(first), 401, "{name}: the one that was replaced");
    };
    check("plain text", SignIn::default(), "permgate", false);
    check("TLS in front", secure(), "__Host-permgate", true);
}

#[test]
fn session_id_chosen_by_a_client_is_ignored() {
    let fixture = with_alice();
    let planted = format!("permgate={}", "0".repeat(64));
    let body = json!({"login": "alice", "password": PASSWORD});
    let request = Request::new("POST", "/v1/session").field("Cookie", &planted).json(&body);
    assert_eq!(fixture.send(&Credentials::Anonymous, request).status, 201);
    let request = Request::new("GET", "/v1/whoami").field("Cookie", &planted);
    assert_eq!(fixture.send(&Credentials::Anonymous, request).outcome(), (401, "unauthorized".into()));
}

#[test]
fn failed_sign_in_does_not_reveal_its_cause() {
    let fixture = Fixture::start();
    fixture.user("unset", &[]);
    fixture.must("POST", "/v1/users", Some(json!({"login": "robot", "kind": "service"})));
    for login in ["alice", "banned", "gone"] {
        fixture.user(login, &[]);
        let path = format!("/v1/users/{login}/password");
        fixture.must("PUT", &path, Some(json!({"password": PASSWORD})));
    }
    fixture.must("POST", "/v1/users/banned/ban", None);
    fixture.must("DELETE", "/v1/users/gone", None);
    let mut told: Option<Value> = None;
    let mut check = |name: &str, login: &str, password: &str| {
        let answer = fixture.sign_in(login, password);
        assert_eq!(answer.outcome(), (401, "sign_in_failed".into()), "{name}: {}", answer.text());
        assert_eq!(answer.field("set-cookie"), None, "{name}");
        let mut body = answer.json();
        body["request_id"] = Value::Null;
        assert_eq!(*told.get_or_insert(body.clone()), body, "{name}");
    };
    check("wrong password", "alice", OTHER);
    check("no password", "alice", "");
    check("an endless one", "alice", &"x".repeat(10_000));
    check("nobody", "mallory", PASSWORD);
    check("no login", "", PASSWORD);
    check("a strange login", "\u{202e}../\u{0}", PASSWORD);
    check("banned, the right password", "banned", PASSWORD);
    check("deleted, the right password", "gone", PASSWORD);
    check("who has none yet", "unset", PASSWORD);
    check("a service account", "robot", PASSWORD);
    assert_eq!(fixture.sign_in("ALICE", PASSWORD).status, 201, "a login has no case");
}

/// A client that has not signed in may send 16 KiB, whoever it claims to be.
#[test]
fn unauthenticated_body_is_small() {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    for login in ["alice", "mallory"] {
        let outcome = fixture.sign_in(login, &"x".repeat(16 << 10)).outcome();
        assert_eq!(outcome, (413, "content_too_large".into()), "{login}");
    }
    let chunked = "POST /v1/invitation HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                   Transfer-Encoding: chunked\r\n\r\n4001\r\n";
    let mut socket = std::net::TcpStream::connect(fixture.address).unwrap();
    socket.write_all([chunked.as_bytes(), &[b' '; 0x4001]].concat().as_slice()).unwrap();
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    let long = "x".repeat(20 << 10);
    let note = fixture.call(&Credentials::Operator, "POST", "/v1/groups", Some(&json!({"name": long})));
    assert_ne!(note.status, 413, "users may send more");
}

#[test]
fn failed_sign_ins_are_in_the_log_by_account_and_count() {
    let fixture = with_alice();
    fixture.sign_in("Alice", OTHER);
    fixture.sign_in("not a login but a password", OTHER);
    let events = || {
        let audit = fixture.must("GET", "/v1/audit", None);
        let rows = audit["items"].as_array().unwrap().iter().filter(|row| row["event"] == "session.refused");
        rows.cloned().collect::<Vec<_>>()
    };
    let told = (0..).map(|_| events()).find(|events| events.len() >= 2).unwrap();
    let mut targets: Vec<_> = told.iter().map(|row| row["target"].as_str().unwrap()).collect();
    targets.sort_unstable();
    assert_eq!(targets, ["nobody", "user:alice"]);
    for row in &told {
        assert_eq!((&row["outcome"], &row["actor"]), (&json!("refused"), &json!("address:127.0.0.1")));
        assert!(row["change"].to_string().contains("count"), "{row}");
    }
    fixture.sign_in("alice", OTHER);
    fixture.sign_in("mallory", OTHER);
    let audit = fixture.must("GET", "/v1/audit", None).to_string();
    for secret in ["not a login", "mallory", OTHER] {
        assert!(!audit.contains(secret), "{audit}");
    }
    assert_eq!(events().len(), 2, "once an hour");
    assert_eq!(fixture.must("GET", "/v1/audit/verify", None)["valid"], true);
}

#[test]
fn guessing_is_delayed_for_known_and_unknown_logins() {
    let fixture = with_alice();
    let tries = |login: &str| {
        let wrong = (1..).find(|_| fixture.sign_in(login, OTHER).status == 429).unwrap();
        let answer = fixture.sign_in(login, PASSWORD);
        assert_eq!(answer.outcome(), (429, "too_many_attempts".into()), "{login}");
        let wait: u64 = answer.field("retry-after").unwrap().parse().unwrap();
        assert!((1..=300).contains(&wait), "{wait}");
        wrong
    };
    assert_eq!(tries("alice"), tries("mallory"));
}

#[test]
fn cookie_change_requires_a_csrf_token() {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    fixture.user("bob", &[]);
    let (alice, bob) = (fixture.browser("alice"), fixture.browser("bob"));
    let token = text(&fixture.token("alice", "script", &["permgate"]));
    let rename = json!({"name": "Alice"});
    let edit = || Request::new("PATCH", "/v1/users/me").json(&rename);
    let cookie = || edit().field("Cookie", &alice.cookie);
    let check = |name: &str, request: Request, expected: (u16, &str)| {
        let answer = request.over_tcp(fixture.address);
        assert_eq!(answer.outcome(), (expected.0, expected.1.to_owned()), "{name}: {}", answer.text());
    };
    check("a read", Request::new("GET", "/v1/users/me").field("Cookie", &alice.cookie), (200, ""));
    check("nothing repeated", cookie(), (403, "csrf"));
    check("repeated", cookie().field("X-CSRF-Token", &alice.csrf), (200, ""));
    check("somebody else's", cookie().field("X-CSRF-Token", &bob.csrf), (403, "csrf"));
    let twice = cookie().field("X-CSRF-Token", &alice.csrf).field("X-CSRF-Token", &alice.csrf);
    check("twice", twice, (403, "csrf"));
    check("the cookie itself", cookie().field("X-CSRF-Token", &alice.cookie[9..]), (403, "csrf"));
    let elsewhere = || cookie().field("X-CSRF-Token", &alice.csrf);
    check("another origin", elsewhere().field("Origin", "https://evil.example"), (403, "cross_origin"));
    check("another site", elsewhere().field("Sec-Fetch-Site", "same-site"), (403, "cross_origin"));
    check("a rebound name", elsewhere().field("Host", "evil.example"), (421, "misdirected_request"));
    let form = |body: &str| {
        let form = "application/x-www-form-urlencoded";
        let request = Request::new("DELETE", "/v1/sessions").body(form, body.to_owned());
        request.field("Cookie", &bob.cookie)
    };
    check("a form without", form("a=b"), (403, "csrf"));
    check("a form with two", form(&format!("csrf={}&csrf={}", bob.csrf, bob.csrf)), (403, "csrf"));
    check("a form with it", form(&format!("csrf={}", bob.csrf)), (200, ""));
    let bearer = || edit().field("Authorization", &format!("Bearer {token}"));
    check("a bearer has nothing to repeat", bearer(), (200, ""));
    check("a bearer beside a cookie", bearer().field("Cookie", &alice.cookie), (200, ""));
    let bad = edit().field("Authorization", "Bearer nonsense").field("Cookie", &alice.cookie);
    check("a bad bearer beside a cookie", bad, (401, "invalid_token"));
    let two = format!("{}; {}", alice.cookie, bob.cookie);
    check("two cookies", Request::new("GET", "/v1/whoami").field("Cookie", &two), (401, "unauthorized"));
}

#[test]
fn sign_out_ban_deletion_and_new_password_end_sessions() {
    let check = |name: &str, end: &dyn Fn(&Fixture, &Browser), other_lives: bool| {
        let fixture = Fixture::start();
        fixture.user("alice", &[]);
        let (one, other) = (fixture.browser("alice"), fixture.browser("alice"));
        let whoami = |browser: &Browser| {
            fixture.call(&Credentials::Browser(browser.clone()), "GET", "/v1/whoami", None).outcome()
        };
        assert_eq!((whoami(&one).0, whoami(&other).0), (200, 200), "{name}");
        end(&fixture, &one);
        assert_eq!(whoami(&one), (401, "unauthorized".into()), "{name}");
        assert_eq!(whoami(&other).0 == 200, other_lives, "{name}");
    };
    let by = |fixture: &Fixture, browser: &Browser, method: &str, target: &str, body: Option<Value>| {
        let answer = fixture.call(&Credentials::Browser(browser.clone()), method, target, body.as_ref());
        assert!(answer.status < 300, "{method} {target}: {}", answer.text());
        answer
    };
    check(
        "sign-out",
        &|fixture, one| {
            let answer = by(fixture, one, "DELETE", "/v1/session", None);
            assert!(answer.field("set-cookie").unwrap().starts_with("permgate=; Path=/; Max-Age=0"));
            assert_eq!(answer.field("clear-site-data"), Some("\"cache\", \"storage\""));
        },
        true,
    );
    let everywhere =
        |fixture: &Fixture, one: &Browser| drop(by(fixture, one, "DELETE", "/v1/sessions", None));
    check("sign-out everywhere", &everywhere, false);
    let signed_out =
        |fixture: &Fixture, _: &Browser| drop(fixture.must("DELETE", "/v1/users/alice/sessions", None));
    check("by an administrator", &signed_out, false);
    check("a ban", &|fixture, _| drop(fixture.must("POST", "/v1/users/alice/ban", None)), false);
    check(
        "a ban that was lifted",
        &|fixture, _| {
            fixture.must("POST", "/v1/users/alice/ban", None);
            fixture.must("POST", "/v1/users/alice/unban", None);
        },
        false,
    );
    check("deletion", &|fixture, _| drop(fixture.must("DELETE", "/v1/users/alice", None)), false);
    check(
        "another password",
        &|fixture, one| {
            let body = json!({"password": OTHER, "current": PASSWORD});
            by(fixture, one, "PUT", "/v1/users/me/password", Some(body));
        },
        false,
    );
    check(
        "an administrator's reset",
        &|fixture, _| drop(fixture.must("PUT", "/v1/users/alice/password", Some(json!({"password": OTHER})))),
        false,
    );
}

#[test]
fn user_sees_own_sessions_and_the_log_has_no_secret() {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    let (one, _) = (fixture.browser("alice"), fixture.browser("alice"));
    let list = fixture.call(&Credentials::Browser(one.clone()), "GET", "/v1/sessions", None).json();
    let rows = list["items"].as_array().unwrap();
    assert_eq!(rows.iter().filter(|row| row["current"] == true).count(), 1, "{list}");
    assert_eq!(rows.len(), 2);
    let session = fixture.call(&Credentials::Browser(one.clone()), "GET", "/v1/session", None).json();
    assert_eq!((&session["user"], &session["by"]), (&json!("alice"), &json!("password")));
    assert_eq!(session["csrf"], one.csrf);
    let alice = fixture.credentials("alice");
    assert_eq!(fixture.call(&alice, "GET", "/v1/session", None).status, 404, "a token is no session");
    let audit = fixture.must("GET", "/v1/audit", None).to_string();
    assert!(audit.contains("session.begin"), "{audit}");
    let secret = one.cookie.split_once('=').unwrap().1;
    assert!(!audit.contains(secret) && !audit.contains(PASSWORD));
}

#[test]
fn an_invitation_sets_a_password_once() {
    let fixture = Fixture::signed_in_by(None, secure());
    for login in ["alice", "manager", "admin", "plain"] {
        fixture.user(login, &[]);
    }
    fixture.must("POST", "/v1/users", Some(json!({"login": "robot", "kind": "service"})));
    fixture.allow("manager", &["update-user"]);
    fixture.must("POST", "/v1/grants", Some(json!({"role": "system-admin", "user": "admin"})));
    let manager = Credentials::Browser(fixture.browser("manager"));
    let plain = Credentials::Browser(fixture.browser("plain"));
    let invite = |sender: &Credentials, login: &str| {
        fixture.call(sender, "POST", &format!("/v1/users/{login}/invitation"), None)
    };
    let refused = |name: &str, sender: &Credentials, login: &str, expected: (u16, &str)| {
        let answer = invite(sender, login);
        assert_eq!(answer.outcome(), (expected.0, expected.1.to_owned()), "{name}: {}", answer.text());
    };
    refused("without the right", &plain, "alice", (403, "permission_denied"));
    refused("oneself", &manager, "manager", (403, "permission_denied"));
    refused("somebody who may more", &manager, "admin", (403, "would_escalate"));
    refused("a service account", &manager, "robot", (422, "invalid_value"));
    refused("nobody", &manager, "nobody", (404, "not_found"));
    let answer = invite(&manager, "alice");
    assert_eq!(answer.status, 201, "{}", answer.text());
    let first = answer.json();
    let second = invite(&manager, "alice").json();
    let secret = second["invitation"].as_str().unwrap();
    assert_eq!(second["link"], format!("https://gate.example/invitation#{secret}"));
    let redeem = |invitation: &Value, password: &str| {
        let body = json!({"invitation": invitation, "password": password});
        fixture.call(&Credentials::Anonymous, "POST", "/v1/invitation", Some(&body)).outcome()
    };
    assert_eq!(redeem(&first["invitation"], OTHER), (403, "permission_denied".into()), "replaced");
    assert_eq!(redeem(&json!("x"), OTHER), (403, "permission_denied".into()), "no invitation");
    assert_eq!(redeem(&second["invitation"], "short"), (422, "invalid_value".into()));
    assert_eq!(redeem(&second["invitation"], OTHER), (200, String::new()));
    assert_eq!(redeem(&second["invitation"], OTHER), (403, "permission_denied".into()), "twice");
    assert_eq!(fixture.sign_in("alice", OTHER).status, 201);
    let third = invite(&manager, "alice").json();
    fixture.must("POST", "/v1/users/alice/ban", None);
    assert_eq!(redeem(&third["invitation"], PASSWORD), (403, "permission_denied".into()), "banned");
    let audit = fixture.must("GET", "/v1/audit", None).to_string();
    assert!(audit.contains("user.invite") && !audit.contains(secret), "{audit}");
}

#[test]
fn changing_ones_password_requires_the_current_one() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let alice = fixture.browser("alice");
    let set = |sender: &Credentials, body: Value| {
        fixture.call(sender, "PUT", "/v1/users/me/password", Some(&body)).outcome()
    };
    let browser = Credentials::Browser(alice);
    let wrong = || (403, "wrong_password".to_owned());
    assert_eq!(set(&browser, json!({"password": OTHER})), wrong());
    assert_eq!(set(&browser, json!({"password": OTHER, "current": OTHER})), wrong());
    assert_eq!(set(&browser, json!({"password": null})), wrong(), "nor is it taken away without");
    assert_eq!(set(&browser, json!({"password": OTHER, "current": PASSWORD})), (200, String::new()));
    let less = [
        json!({"name": "few services", "scope": [{"service": "permgate"}]}),
        json!({"name": "short", "scope": new_token("", &["permgate", "wiki", "status", "youtrack", "hub"])["scope"], "expires_in": "1d"}),
        json!({"name": "near", "scope": new_token("", &["permgate", "wiki", "status", "youtrack", "hub"])["scope"], "allow_ips": ["127.0.0.0/8"]}),
    ];
    for body in less {
        let made = fixture.must("POST", "/v1/users/alice/tokens", Some(body));
        let token = Credentials::Bearer(text(&made));
        let outcome = set(&token, json!({"password": PASSWORD, "current": OTHER}));
        assert_eq!(outcome, (403, "exceeds_parent_token".into()), "{}", made["name"]);
        fixture.must("DELETE", &format!("/v1/tokens/{}", id(&made)), None);
    }
    assert_eq!(set(&fixture.credentials("alice"), json!({"password": PASSWORD})), wrong());
}

#[test]
fn trusted_header_counts_only_from_a_listed_proxy() {
    let start = |from: &str| {
        let (name, from) = ("x-remote-user".parse().unwrap(), vec![from.parse().unwrap()]);
        let header = UserHeader { name, from };
        let fixture = Fixture::signed_in_by(None, SignIn { header: Some(header), ..SignIn::default() });
        fixture.user("alice", &[]);
        fixture.user("bob", &[]);
        fixture
    };
    let listed = start("127.0.0.0/8");
    let whoami = |fixture: &Fixture, fields: &[(&str, &str)]| {
        let request = Request::new("GET", "/v1/whoami");
        let request = fields.iter().fold(request, |request, (name, value)| request.field(name, value));
        let answer = request.over_tcp(fixture.address);
        (answer.status, answer.json()["user"].as_str().map(str::to_owned))
    };
    let check = |name: &str, fixture: &Fixture, fields: &[(&str, &str)], expected: Option<&str>| {
        let expected = expected.map_or((401, None), |user| (200, Some(user.to_owned())));
        assert_eq!(whoami(fixture, fields), expected, "{name}");
    };
    let bob = listed.browser("bob");
    check("listed", &listed, &[("X-Remote-User", "alice")], Some("alice"));
    check("nobody here", &listed, &[("X-Remote-User", "mallory")], None);
    check("twice", &listed, &[("X-Remote-User", "alice"), ("X-Remote-User", "bob")], None);
    check("silent", &listed, &[], None);
    check("before a cookie", &listed, &[("X-Remote-User", "alice"), ("Cookie", &bob.cookie)], Some("alice"));
    let token = format!("Bearer {}", text(&listed.token("bob", "t", &["permgate"])));
    check("behind a bearer", &listed, &[("X-Remote-User", "alice"), ("Authorization", &token)], Some("bob"));
    let name = json!({"name": "A"});
    let edit = || Request::new("PATCH", "/v1/users/me").json(&name).field("X-Remote-User", "alice");
    assert_eq!(edit().over_tcp(listed.address).outcome(), (403, "csrf".into()));
    let session = Request::new("GET", "/v1/session").field("X-Remote-User", "alice");
    let session = session.over_tcp(listed.address).json();
    assert_eq!(session["by"], "header");
    let csrf = session["csrf"].as_str().unwrap();
    assert_eq!(edit().field("X-CSRF-Token", csrf).over_tcp(listed.address).status, 200);
    listed.must("POST", "/v1/users/alice/ban", None);
    check("banned", &listed, &[("X-Remote-User", "alice")], None);
    check("not listed", &start("10.0.0.0/8"), &[("X-Remote-User", "alice")], None);
}
