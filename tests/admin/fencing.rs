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
    let mut stream = TcpStream::connect(fixture.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let head = format!(
        "POST /v1/users/me/tokens HTTP/1.1\r\nHost: localhost\r\n{credential}\r\n\
         Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).unwrap();
    loop {
        let live = fixture.must("GET", "/v1/live", None);
        let mut rows = live["items"].as_array().unwrap().iter();
        if let Some(row) = rows.find(|row| row["method"] == "POST") {
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
