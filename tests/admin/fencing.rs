//! A request on the admin listener is cut by a change that forbids it, but not by the change it makes itself.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    exchange::Request,
    harness::{Credentials, Fixture, PASSWORD, id, text},
};

/// Begins a request whose body is incomplete. Returns once the operator sees it among the live requests.
fn begin(fixture: &Fixture, credential: &str) -> (TcpStream, Value) {
    let rest = "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    begin_with(fixture, "POST", "/v1/users/me/tokens", &format!("{credential}\r\n{rest}"))
}

/// The same with these fields and this part of the body.
fn begin_with(fixture: &Fixture, method: &str, target: &str, rest: &str) -> (TcpStream, Value) {
    let mut stream = TcpStream::connect(fixture.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{rest}").as_bytes()).unwrap();
    let path = target.split('?').next().unwrap();
    loop {
        let live = fixture.must("GET", "/v1/live", None);
        let mut rows = live["items"].as_array().unwrap().iter();
        // The operator's own request has no user.
        if let Some(row) = rows.find(|row| row["path"] == path && row["user"].is_string()) {
            return (stream, row.clone());
        }
        std::thread::yield_now();
    }
}

/// Whether the connection ends without an answer.
fn is_cut(mut stream: TcpStream) -> bool {
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    // Or it still waits after the timeout.
    bytes.is_empty() && !ended.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn change_cuts_requests_that_it_forbids() {
    type Change = fn(&Fixture, &str);
    let check = |name: &str, change: Change, cut: bool| {
        let fixture = Fixture::start();
        fixture.user("alice", &["developers"]);
        fixture.user("bob", &[]);
        let token = fixture.token("alice", "session", &["permgate"]);
        let (stream, row) = begin(&fixture, &format!("Authorization: Bearer {}", text(&token)));
        assert_eq!(
            (&row["user"], &row["token"], &row["service"]),
            (&json!("alice"), &token["id"], &json!("permgate"))
        );
        change(&fixture, &id(&token));
        let live = fixture.must("GET", "/v1/live", None).to_string();
        assert_eq!(!live.contains("\"POST\""), cut, "{name}: {live}");
        if cut {
            assert!(is_cut(stream), "{name}");
        }
    };
    let revoke: Change = |fixture, token| {
        let answer = fixture.must("DELETE", &format!("/v1/tokens/{token}"), None);
        assert_eq!(answer, json!({"revoked": true, "cut": 1}));
    };
    check("the token is revoked", revoke, true);
    let ban: Change = |fixture, _| {
        assert_eq!(fixture.must("POST", "/v1/users/alice/ban", None)["cut"], 1);
    };
    check("the owner is banned", ban, true);
    let delete: Change = |fixture, _| {
        assert_eq!(fixture.must("DELETE", "/v1/users/alice", None)["cut"], 1);
    };
    check("the owner is deleted", delete, true);
    let other: Change = |fixture, _| {
        assert_eq!(fixture.must("POST", "/v1/users/bob/ban", None)["cut"], 0);
        assert_eq!(fixture.must("DELETE", "/v1/groups/developers", None)["cut"], 0);
        assert_eq!(fixture.must("POST", "/v1/reload", None)["cut"], 0);
    };
    check("nothing of it changed", other, false);
}

#[test]
fn time_that_a_change_has_shortened_cuts_when_it_is_over() {
    for (name, method, call, body) in [
        ("expiry", "PATCH", "", json!({"expires_in": "1s"})),
        ("grace", "POST", "/rotate", json!({"grace": "1s"})),
    ] {
        let fixture = Fixture::start();
        fixture.user("alice", &[]);
        let token = fixture.token("alice", "session", &["permgate"]);
        let (stream, _) = begin(&fixture, &format!("Authorization: Bearer {}", text(&token)));
        let changed = fixture.must(method, &format!("/v1/tokens/{}{call}", id(&token)), Some(body));
        assert_eq!(changed["cut"], 0, "{name}");
        assert!(is_cut(stream), "{name}");
    }
}

#[test]
fn revoking_ones_own_token_is_answered() {
    let fixture = Fixture::start();
    fixture.user("alice", &["developers"]);
    let token = fixture.token("alice", "session", &["permgate"]);
    let alice = Credentials::Bearer(text(&token));
    let revoked = fixture.call(&alice, "DELETE", &format!("/v1/tokens/{}", id(&token)), None);
    assert_eq!((revoked.status, revoked.json()), (200, json!({"revoked": true, "cut": 0})));
    assert_eq!(fixture.call(&alice, "GET", "/v1/whoami", None).status, 401, "and not once more");
}

#[test]
fn request_is_cut_by_its_id() {
    let fixture = Fixture::start();
    fixture.user("alice", &[]);
    let token = fixture.token("alice", "session", &["permgate"]);
    let (stream, row) = begin(&fixture, &format!("Authorization: Bearer {}", text(&token)));
    let path = format!("/v1/live/{}", id(&row));
    assert_eq!(fixture.must("DELETE", &path, None), json!({"cut": 1}));
    assert!(is_cut(stream));
    let events = fixture.must("GET", "/v1/audit?limit=1", None);
    let event = &events["items"][0];
    assert_eq!(
        (&event["event"], &event["actor"], &event["target"]),
        (&json!("live.cut"), &json!("operator"), &json!(format!("token:{}", id(&token)))),
        "{event}"
    );
    let again = fixture.send(&Credentials::Operator, Request::new("DELETE", &path));
    assert_eq!(again.outcome(), (404, "not_found".into()));
    let next = fixture.call(&Credentials::Bearer(text(&token)), "GET", "/v1/whoami", None);
    assert_eq!(next.status, 200, "the token itself lives on");
}

#[test]
fn session_replaced_by_a_sign_in_is_cut() {
    let check = |name: &str, replaces: bool, login: &str, cut: bool| {
        let fixture = Fixture::start();
        fixture.user("alice", &[]);
        fixture.user("bob", &[]);
        let (one, other) = (fixture.browser("alice"), fixture.browser("alice"));
        drop(fixture.browser("bob"));
        let (stream, _) = begin(&fixture, &format!("Cookie: {}", one.cookie));
        let old = if replaces { &one } else { &other };
        let body = json!({"login": login, "password": PASSWORD});
        let request = Request::new("POST", "/v1/session").field("Cookie", &old.cookie).json(&body);
        assert_eq!(fixture.send(&Credentials::Anonymous, request).status, 201, "{name}");
        let live = fixture.must("GET", "/v1/live", None).to_string();
        assert_eq!(!live.contains("\"POST\""), cut, "{name}: {live}");
        if cut {
            assert!(is_cut(stream), "{name}");
        }
        let events = fixture.must("GET", "/v1/audit?limit=2", None);
        let end = &events["items"][1];
        assert_eq!(end["change"]["from"], json!({"client": "127.0.0.1"}), "{name}: {events}");
        assert_eq!(
            (&end["event"], &end["actor"], &end["target"]),
            (&json!("session.end"), &json!(login), &json!("user:alice")),
            "{name}: {events}"
        );
    };
    check("one's own", true, "alice", true);
    check("somebody else's", true, "bob", true);
    check("another one", false, "bob", false);
}

#[test]
fn requests_end_with_their_session() {
    for (name, method, target, body) in [
        ("signed out", "DELETE", "/v1/users/alice/sessions", None),
        (
            "a new password",
            "PUT",
            "/v1/users/alice/password",
            Some(json!({"password": "another passphrase"})),
        ),
    ] {
        let fixture = Fixture::start();
        fixture.user("alice", &[]);
        let (stream, _) = begin(&fixture, &format!("Cookie: {}", fixture.browser("alice").cookie));
        assert_eq!(fixture.must(method, target, body)["cut"], 1, "{name}");
        assert!(is_cut(stream), "{name}");
    }
}

/// The fence does not cut a request that has not asked for a permission yet, but such a request must not go
/// on with what its caller was allowed when its head arrived.
#[test]
fn request_is_judged_when_its_body_is_there() {
    type Change = fn(&Fixture, &str);
    let check_after = |change: Change, method, target: &str, kind, body: &str, expected: (u16, &str)| {
        let fixture = Fixture::start();
        fixture.user("alice", &["developers"]);
        fixture.user("bob", &["developers"]);
        // Somebody has to stay.
        fixture.user("carol", &[]);
        fixture.allow("carol", &["admin-write"]);
        fixture.allow("bob", &["admin-read", "admin-write", "read-audit", "read-user", "introspect"]);
        let bearer = |login: &str| {
            let token = fixture.token(login, "session", &["permgate"]);
            (format!("Authorization: Bearer {}\r\n", text(&token)), id(&token))
        };
        let (alice, (bob, token)) = (bearer("alice").0, bearer("bob"));
        let rest = format!("{alice}Content-Length: 1\r\n\r\n");
        let (_victim, row) = begin_with(&fixture, "GET", "/v1/session", &rest);
        let target = target.replace("LIVE", &id(&row));
        let length = body.len();
        let fields = format!("Content-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
        let (mut stream, _) = begin_with(&fixture, method, &target, &format!("{bob}{fields}"));
        change(&fixture, &token);
        stream.write_all(body.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        let status = answer.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
        assert_eq!(status, Some(expected.0), "{method} {target}: {answer}");
        assert!(answer.contains(expected.1), "{method} {target}: {answer}");
        let live = fixture.must("GET", "/v1/live", None).to_string();
        assert!(live.contains(&id(&row)), "{method} {target}: {live}");
    };
    let withdraw: Change = |fixture, _| {
        fixture.must("DELETE", "/v1/grants", Some(json!({"role": "role-bob", "user": "bob"})));
        fixture.must("DELETE", "/v1/groups/developers/members/bob", None);
    };
    let narrow: Change = |fixture, token| {
        let scope = json!({"scope": [{"service": "permgate", "access": "read"}]});
        fixture.must("PATCH", &format!("/v1/tokens/{token}"), Some(scope));
    };
    let check = |method, target, kind, body, expected| {
        check_after(withdraw, method, target, kind, body, expected);
    };
    let (plain, json, form) = ("text/plain", "application/json", "application/x-www-form-urlencoded");
    for target in [
        "/v1/backup",
        "/v1/store/verify",
        "/v1/config",
        "/v1/users",
        "/v1/users/alice",
        "/v1/users/alice/tokens",
        "/v1/live",
        "/v1/audit",
        "/users",
        "/audit",
        "/configuration",
        "/audit/export?format=csv",
    ] {
        check("GET", target, plain, "x", (403, "permission"));
    }
    let denied = (403, "permission_denied");
    check("POST", "/v1/explain", json, r#"{"method": "GET", "url": "/api", "user": "alice"}"#, denied);
    check("POST", "/v1/config/check", json, r#"{"text": "version = 1"}"#, denied);
    check("POST", "/v1/reload", plain, "x", denied);
    check("DELETE", "/v1/live/LIVE", plain, "x", denied);
    check("POST", "/oauth2/introspect", form, "token=x", denied);
    check("GET", "/v1/services", plain, "x", (200, r#"{"items":[{"key":"wiki""#));
    check("GET", "/v1/whoami", plain, "x", (200, r#""permissions":["update-self"]"#));
    check_after(narrow, "GET", "/v1/backup", plain, "x", (403, "insufficient_scope"));
    check_after(narrow, "GET", "/v1/whoami", plain, "x", (200, r#""access":"read""#));
}
