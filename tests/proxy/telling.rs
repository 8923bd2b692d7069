//! Records of an exchange: the access log, last use, audited refusals.

use permgate::authz::{reason::Reason, time::Timestamp};

use crate::harness::{Origin, RawConnection, eventually};

fn serve(origin: &Origin) -> RawConnection {
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello");
    upstream
}

#[test]
fn each_request_is_logged_once_at_its_end() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send(gate.request("POST /api/x?query=1", &["Content-Length: 3"])).send("abc");
    let _upstream = serve(&origin);
    client.answer();
    let line = gate.line();
    let names: Vec<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names.len(), 16, "{line}");
    for (name, value) in [
        ("outcome", "forwarded"),
        ("reason", "ok"),
        ("method", "POST"),
        ("path", "/api/x"),
        ("service", "main"),
        ("user", "alice"),
        ("client", "127.0.0.1"),
        ("upstream", &origin.address.to_string()),
        ("token_id", &gate.bearer[4..16]),
    ] {
        assert_eq!(line[name], value, "{name}: {line}");
    }
    assert_eq!((&line["status"], &line["bytes_in"], &line["bytes_out"]), (&200.into(), &3.into(), &5.into()));
    assert!(line["upstream_ms"].as_f64() <= line["duration_ms"].as_f64(), "{line}");
}

#[test]
fn token_in_the_url_is_redacted() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send(gate.request(&format!("GET /api/{}", gate.bearer), &[]));
    assert_eq!(client.refused(), (400, "invalid_request".into()));
    let line = gate.line();
    assert_eq!(line["reason"], "token_in_url");
    assert_eq!(line["path"], format!("/api/{}_...", &gate.bearer[..16]));
    assert!(!gate.log_text().contains(&gate.bearer[17..60]));
}

#[test]
fn only_permitted_requests_count_as_last_use() {
    let origin = Origin::new();
    let gate = origin.start();
    let rules = gate.state.snapshot().rules.clone();
    let mut client = gate.client();
    client.send(gate.request("GET /elsewhere", &[]));
    assert_eq!(client.refused().0, 404);
    assert_eq!(gate.uses.last(&gate.digest, &rules), None);
    client.send(gate.request("GET /api/x", &[]));
    let _upstream = serve(&origin);
    client.answer();
    let last = gate.uses.last(&gate.digest, &rules).unwrap();
    assert_eq!((last.service.as_str(), last.from.to_string().as_str()), ("main", "127.0.0.1"));
    assert_eq!(gate.uses.take(&rules), [(gate.digest, last)]);
    assert_eq!(gate.uses.take(&rules), []);
}

#[test]
fn use_of_a_revoked_token_is_audited() {
    let origin = Origin::new();
    let gate = origin.start();
    let _ = gate.revoke();
    for _ in 0..3 {
        assert_eq!(gate.client_with_get().refused().0, 401);
    }
    let mut events = Vec::new();
    eventually("the refusal is due", || {
        events.extend(gate.refusals.borrow_mut().due(Timestamp::from_millis(0)));
        !events.is_empty()
    });
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].sample.reason, Reason::TokenRevoked);
    assert_eq!(events[0].sample.token.unwrap().as_str(), &gate.bearer[4..16]);
}
