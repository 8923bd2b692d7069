//! The gateway's own routes under its reserved prefix.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use permgate::{
    authz::{
        subject::{Access, Scope, TokenEnd},
        time::Timestamp,
    },
    settings::ExchangeRule,
};
use serde_json::{Value, json};

use crate::harness::{
    CloseKind, Gate, Origin, RawConnection, field,
    frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, WINDOW_UPDATE, block},
};

/// Status, head and body of the response to a request.
fn ask(gate: &Gate, line: &str, lines: &[&str]) -> (u16, String, Value) {
    let mut client = gate.client();
    client.send(gate.request(line, lines));
    json_answer(&mut client)
}

fn json_answer(client: &mut RawConnection) -> (u16, String, Value) {
    let (status, head, body) = client.answer();
    (status, head, serde_json::from_str(&body).unwrap_or_default())
}

#[test]
fn whoami_describes_the_token_and_its_services() {
    let origin = Origin::new();
    let gate = origin.start();
    let (status, head, body) = ask(&gate, "GET /.permgate/whoami?x=1", &[]);
    assert_eq!(status, 200, "{body}");
    for (name, value) in [("content-type", "application/json"), ("cache-control", "no-store")] {
        assert_eq!(field(&head, name), Some(value), "{head}");
    }
    let line = gate.line();
    let id = &gate.bearer[4..16];
    for (name, value) in [
        ("outcome", "answered"),
        ("reason", "answered"),
        ("service", "permgate"),
        ("path", "/.permgate/whoami"),
        ("user", "alice"),
        ("token_id", id),
    ] {
        assert_eq!(line[name], value, "{name}: {line}");
    }
    let main = json!({
        "service": "main", "title": "Main", "access": "full", "reachable": true,
        "hosts": [], "paths": ["/api"], "groups": ["all-users"],
    });
    assert_eq!(
        body,
        json!({
            "user": {"login": "alice", "id": "0190a000-0000-7000-8000-000000000001", "kind": "human"},
            "token": {
                "id": id, "name": "nightly", "expires_at": null, "grace_until": null,
                "scope": [{"service": "gone", "access": "full"}, {"service": "main", "access": "full"}],
            },
            "services": [
                {
                    "service": "gone", "access": "full", "reachable": false, "reason": "no_service",
                    "description": "There is no service of this name",
                },
                main,
            ],
        })
    );
    let rules = gate.state.snapshot().rules.clone();
    assert_eq!(gate.uses.last(&gate.digest, &rules).unwrap().service, "permgate");
    gate.wait_until_empty();
}

/// Where no connection is left, the response to a valid token is not cut for a new client. That to somebody
/// without a token is, also by a public rule.
#[test]
fn response_to_a_valid_token_does_not_make_room() {
    let origin = Origin::new();
    let full = || origin.setup().public("/api/public").with(|setup| setup.limits.connections = 1).start();
    let ask_waiting = |gate: &Gate, path: &str| {
        let bearer = format!("Bearer {}", gate.bearer);
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "gate.example"),
            (":path", path),
            ("authorization", &bearer),
        ];
        // With a window of 0, the response waits for its client.
        let mut client = Frames::to(gate.address, &[(4, 0)]);
        client.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields));
        while client.next().kind != HEADERS {}
        client
    };
    let gate = full();
    let mut client = ask_waiting(&gate, "/.permgate/whoami");
    assert_eq!(gate.client().wait_for_close(), CloseKind::Reset);
    client.send(WINDOW_UPDATE, 0, 1, &[0, 0, 16, 0]);
    while client.next().kind != DATA {}

    let gate = full();
    let mut stranger = gate.client();
    stranger.send("GET /api/public HTTP/1.1\r\nHost: gate.example\r\n\r\n");
    let _asked = origin.accept();
    assert_eq!(ask(&gate, "GET /.permgate/whoami", &[]).0, 200);
    assert_eq!(stranger.wait_for_close(), CloseKind::Reset);
}

#[test]
fn whoami_reflects_the_current_state() {
    let origin = Origin::new();
    let gate = origin.start();
    let main = gate.state.snapshot().rules.service_by_key("main").unwrap().id;
    gate.change_token(|token| {
        token.scope = Scope::new([(main, Access::Read)]).unwrap();
        token.restrictions.end = TokenEnd::Rotated { grace_until: Timestamp::from_millis(4_102_444_800_000) };
    });
    let (_, _, body) = ask(&gate, "GET /.permgate/whoami", &[]);
    assert_eq!(body["services"][1]["access"], "read");
    assert_eq!(body["token"]["grace_until"], "2100-01-01T00:00:00.000Z");

    let _ = gate.reload(origin.setup().with(|setup| setup.service.readers = vec!["nobody".into()]));
    let (_, _, body) = ask(&gate, "GET /.permgate/whoami", &[]);
    let unreadable = &body["services"][1];
    assert_eq!(
        (&unreadable["reachable"], &unreadable["reason"]),
        (&json!(false), &json!("read_service_denied"))
    );
    assert!(unreadable.get("title").is_none() && unreadable.get("paths").is_none(), "{unreadable}");

    let _ = gate.revoke();
    let (status, _, body) = ask(&gate, "GET /.permgate/whoami", &[]);
    assert_eq!((status, &body["error"]), (401, &json!("invalid_token")));
}

#[test]
fn prefix_is_reserved_for_the_gateway() {
    let origin = Origin::new();
    // Even beside a public service that owns everything else.
    let gate = origin.setup().with(|setup| setup.service.paths = vec!["/".into()]).public("/").start();
    let check = |name: &str, line: &str, fields: &[&str], expected: (u16, &str), reason: &str| {
        let (status, _, body) = ask(&gate, line, fields);
        assert_eq!((status, body["error"].as_str().unwrap_or_default()), expected, "{name}");
        assert_eq!(gate.line()["reason"], reason, "{name}");
    };
    let (missing, ambiguous) = ((404, "not_found"), (400, "invalid_request"));
    check("the prefix itself", "GET /.permgate", &[], missing, "no_service");
    check("nothing there", "GET /.permgate/x", &[], missing, "no_service");
    check("another spelling", "GET /.permgate/who%61mi", &[], missing, "no_service");
    check("a slash behind", "GET /.permgate/whoami/", &[], missing, "no_service");
    check("out of it", "GET /.permgate/..%2fapi", &[], ambiguous, "bad_path");
    check("into it by an escape", "GET /%2epermgate/whoami", &[], ambiguous, "ambiguous_path");
    check("into it by a parameter", "GET /.permgate;x/whoami", &[], ambiguous, "ambiguous_path");
    check("into it by letters", "GET /.Permgate/whoami", &[], ambiguous, "ambiguous_path");
    check("into it by slashes", "GET //.permgate/whoami", &[], ambiguous, "ambiguous_path");
    check("into it by an encoded slash", "GET /.permgate%2fwhoami", &[], ambiguous, "ambiguous_path");
    check("TRACE", "TRACE /.permgate/whoami", &[], (405, "method_not_allowed"), "method_not_supported");
    check(
        "two bearers",
        "GET /.permgate/whoami",
        &["Authorization: Bearer x"],
        ambiguous,
        "ambiguous_authorization",
    );
    check(
        "POST",
        "POST /.permgate/whoami",
        &["Content-Length: 0"],
        (405, "method_not_allowed"),
        "method_not_allowed",
    );
    let url = format!("GET /.permgate/whoami?t={}", gate.bearer);
    check("a token in the URL", &url, &[], ambiguous, "token_in_url");
    assert!(!origin.has_pending_connection(), "something was forwarded");
}

#[test]
fn unauthenticated_client_learns_nothing_of_the_prefix() {
    let origin = Origin::new();
    let gate = origin.setup().with(|setup| setup.service.paths = vec!["/".into()]).public("/").start();
    let check = |line: &str, bearer: &str, expected: u16| {
        let mut client = gate.client();
        client.send(format!("{line} HTTP/1.1\r\nHost: gate.example\r\n{bearer}\r\n"));
        assert_eq!(json_answer(&mut client).0, expected, "{line} {bearer}");
    };
    for path in ["/.permgate", "/.permgate/whoami", "/.permgate/x"] {
        check(&format!("GET {path}"), "", 401);
        check(&format!("GET {path}"), "Authorization: Basic eDp5\r\n", 401);
        check(&format!("GET {path}"), "Authorization: Bearer nonsense\r\n", 401);
        check(&format!("DELETE {path}"), "", 401);
    }
    let mut client = gate.client();
    client.send(gate.request("POST /.permgate/whoami", &["Content-Length: 5"]));
    let (status, head, _) = json_answer(&mut client);
    assert_eq!(status, 405);
    for (name, value) in [("allow", "GET, HEAD"), ("connection", "close")] {
        assert_eq!(field(&head, name), Some(value), "{head}");
    }
    assert!(!origin.has_pending_connection(), "something was forwarded");
}

#[test]
fn request_whose_client_leaves_before_the_answer_is_logged() {
    let (origin, issuer) = (Origin::new(), Origin::new());
    let url = format!("http://{}", issuer.address);
    let rule = ExchangeRule {
        name: "ci".into(),
        issuer: url.clone(),
        audience: "gate".into(),
        claims: vec![("sub".into(), "ci".into())],
        account: "alice".into(),
        scope: vec![("main".into(), Access::Full)],
        lifetime: Duration::from_secs(60),
        max_tokens: 1,
        tls: None,
    };
    let gate = origin.setup().with(|setup| setup.settings.exchange = vec![Arc::new(rule)]).start();
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let token = [part(json!({"alg": "RS256"})), part(json!({"iss": url})), "AA".to_owned()].join(".");
    let form = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange\
         &subject_token_type=urn:ietf:params:oauth:token-type:jwt&subject_token={token}"
    );
    let mut client = gate.client();
    client.send(format!(
        "POST /.permgate/token HTTP/1.1\r\nHost: gate.example\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}",
        form.len()
    ));
    // The gateway asks the issuer, which does not answer.
    let mut asked = issuer.accept();
    asked.head();
    client.reset();
    assert_eq!(gate.next_outcome(), ("rejected".into(), "client_closed".into(), 499));
}
