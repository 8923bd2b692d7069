//! Legitimate behaviour of real upstreams that other proxies treat as faults, and what
//! they require of clients.

use std::time::Duration;

use permgate::{authz::rules::Authorization, settings::Health};

use crate::harness::{CloseKind, Gate, Origin, RawConnection, Setup, eventually, field, fields, status};

const SOON: Duration = Duration::from_millis(150);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn client_with_request(gate: &Gate, line: &str, with: &[&str]) -> RawConnection {
    let mut client = gate.client();
    client.send(gate.request(line, with));
    client
}

/// Answers the request of the client, which comes on the same connection as the one before only if it may.
fn answer_next(
    origin: &Origin,
    mut upstream: RawConnection,
    mut client: RawConnection,
    is_shared: bool,
    before: &str,
) {
    if !is_shared {
        upstream.wait_for_close();
        upstream = origin.accept();
    }
    upstream.head();
    upstream.send(OK);
    let (status, _, body) = client.answer();
    assert_eq!((status, body.as_str()), (200, "ok"), "{before}");
}

#[test]
fn method_with_content_sends_content_length() {
    let check = |line: &str, expected: Option<&str>| {
        let origin = Origin::new();
        let gate = origin.start();
        let mut client = client_with_request(&gate, line, &[]);
        let mut upstream = origin.accept();
        let head = upstream.head();
        assert_eq!(
            (field(&head, "content-length"), field(&head, "transfer-encoding")),
            (expected, None),
            "{line}"
        );
        upstream.send(OK);
        assert_eq!(client.answer().2, "ok", "{line}");
    };
    check("POST /api/x", Some("0"));
    check("PUT /api/x", Some("0"));
    check("PATCH /api/x", Some("0"));
    check("GET /api/x", None);
    check("DELETE /api/x", None);
    check("OPTIONS /api/x", None);
}

#[test]
fn space_before_a_colon_is_dropped() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\nX-Xss-Protection : 1\r\ncontent-length\t: 2\r\n\r\nok");
    let (status, head, body) = client.answer();
    assert_eq!((status, body.as_str()), (200, "ok"));
    assert_eq!(field(&head, "x-xss-protection"), Some("1"));
    assert!(!head.contains(" :"), "{head}");
}

#[test]
fn response_head_is_limited_by_bytes_alone() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    let cookies: Vec<String> = (0..150).map(|at| format!("c{at}={}", "v".repeat(40))).collect();
    let lines: String = cookies.iter().map(|cookie| format!("Set-Cookie: {cookie}\r\n")).collect();
    upstream.send(format!("HTTP/1.1 200 OK\r\n{lines}content-length: 2\r\n\r\nok"));
    let (status, head, _) = client.answer();
    assert_eq!((status, fields(&head, "set-cookie")), (200, cookies.iter().map(String::as_str).collect()));
}

#[test]
fn interim_response_restarts_the_timeout() {
    let origin = Origin::new();
    let gate = origin.setup().with(|setup| setup.upstream.first_byte_timeout = SOON * 2).start();
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    for _ in 0..6 {
        std::thread::sleep(SOON);
        upstream.send("HTTP/1.1 102 Processing\r\n\r\n");
    }
    upstream.send(OK);
    assert_eq!(client.answer().2, "ok");
    client.send(gate.request("GET /api/x", &[]));
    upstream.head();
    upstream.send("HTTP/1.1 102 Processing\r\n\r\n");
    assert_eq!(client.refused(), (504, "gateway_timeout".into()), "after the last one");
}

/// The keep-alive timeout that the upstream announces is respected, so that no request is
/// sent on a connection that it is about to close.
#[test]
fn connection_is_kept_as_long_as_the_upstream_announces() {
    let check = |announced: &str, reused: bool| {
        let origin = Origin::new();
        let gate = origin.start();
        let mut client = gate.client_with_get();
        let mut upstream = origin.accept();
        upstream.head();
        upstream.send(format!("HTTP/1.1 200 OK\r\n{announced}content-length: 2\r\n\r\nok"));
        assert_eq!(client.answer().2, "ok");
        std::thread::sleep(Duration::from_millis(800));
        client.send(gate.request("POST /api/x", &["Content-Length: 0"]));
        let mut second = if reused { upstream } else { origin.accept() };
        second.head();
        second.send(OK);
        assert_eq!(client.answer().2, "ok", "{announced}");
    };
    check("", true);
    check("Keep-Alive: timeout=5, max=9\r\n", true);
    check("Keep-Alive: timeout=1\r\n", false);
    check("keep-alive: max=9, timeout=0\r\n", false);
}

#[test]
fn health_check_response_is_read_to_its_end() {
    let origin = Origin::new();
    let _gate = origin
        .setup()
        .with(|setup| {
            setup.upstream.health = Some(Health {
                path: "/health".parse().unwrap(),
                interval: Duration::from_secs(60),
                timeout: Duration::from_secs(5),
                rise: 1,
                fall: 1,
                status: None,
            });
        })
        .start();
    let mut check = origin.accept();
    check.head();
    let length = 512 << 10;
    check.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")).send("x".repeat(length));
    assert_eq!(check.wait_for_close(), CloseKind::Closed, "in peace");
}

/// Whether a response of this type to this request may be quiet for longer than others.
fn check_quiet(line: &str, kind: &str, expected: bool) {
    let origin = Origin::new();
    let gate = origin.setup().with(|setup| setup.upstream.body_timeout = SOON).start();
    let mut client = client_with_request(&gate, line, &[]);
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send(format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: 4\r\n\r\nok"));
    assert_eq!(status(&client.head()), 200, "{line}");
    client.until("ok");
    std::thread::sleep(SOON * 4);
    if expected {
        upstream.send("ay");
        client.until("ay");
    } else {
        assert_eq!(client.wait_for_close(), CloseKind::Reset, "{line}, {kind}");
        assert_eq!(gate.next_outcome().1, "upstream_timeout");
    }
}

#[test]
fn streaming_responses_may_be_silent() {
    check_quiet("GET /api/x", "text/event-stream", true);
    check_quiet("GET /api/x", "text/event-stream; charset=utf-8", true);
    check_quiet("GET /api/x?a=1&watch=true", "application/json", true);
    check_quiet("GET /api/x?watch=1", "application/json", true);
    check_quiet("GET /api/x?watch=false", "application/json", false);
    check_quiet("GET /api/x?watch=0", "application/json", false);
    check_quiet("GET /api/x?container=a&follow=true", "text/plain", true);
    check_quiet("GET /api/x?follow=1&stdout=1", "application/octet-stream", true);
    check_quiet("GET /api/x?follow=false", "text/plain", false);
    check_quiet("GET /api/x?follow=", "text/plain", false);
    check_quiet("GET /api/x?stopwatch=1", "application/json", false);
    check_quiet("GET /api/x", "text/event-streams", false);
    check_quiet("GET /api/x", "application/grpc-web+proto", true);
    check_quiet("GET /api/x", "application/connect+json", true);
    check_quiet("GET /api/x", "application/connection", false);
    check_quiet("GET /api/x", "application/json", false);
}

#[test]
fn stream_silent_for_too_long_ends() {
    let origin = Origin::new();
    let gate: Gate = Setup::start(origin.setup().with(|setup| setup.upstream.stream_idle_timeout = SOON));
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n");
    client.until("data: 1");
    assert_eq!(client.wait_for_close(), CloseKind::Reset);
    assert_eq!(gate.next_outcome().1, "upstream_timeout");
    eventually("gone", || gate.live() == 0);
}

#[test]
fn request_loop_is_stopped() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = client_with_request(&gate, "GET /api/x", &["Via: 1.0 front"]);
    let mut upstream = origin.accept();
    let head = upstream.head();
    upstream.send(OK);
    client.answer();
    let [front, own] = fields(&head, "via")[..] else { panic!("two entries: {head}") };
    assert_eq!(front, "1.0 front");
    assert!(own.starts_with("1.1 permgate-"), "{own}");
    client.send(
        gate.request("GET /api/x", &[&format!("Via: {own}, 1.1 front, {own}"), &format!("Via: {own}")]),
    );
    assert_eq!(fields(&upstream.head(), "via").len(), 3);
    upstream.send(OK);
    assert_eq!(client.answer().0, 200, "somebody may mean it");
    client.send(gate.request("GET /api/x", &[&format!("Via: {own}, {own}, {own}, {own}")]));
    assert_eq!(client.refused(), (502, "bad_gateway".into()));
    assert!(!origin.has_pending_connection());
}

#[test]
fn connection_on_which_a_user_signs_in_is_used_for_no_other_request() {
    let check = |authorization: &str, is_shared: bool| {
        let origin = Origin::new();
        let setup = origin.setup().public("/api/public");
        let gate = setup.with(|setup| setup.service.authorization = Authorization::Keep).start();
        let request = |fields: &str| format!("GET /api/public HTTP/1.1\r\nHost: g\r\n{fields}\r\n");
        let mut client = gate.client();
        client.send(request(&format!("Authorization: {authorization}\r\n")));
        let mut upstream = origin.accept();
        assert_eq!(field(&upstream.head(), "authorization"), Some(authorization));
        upstream.send(OK);
        assert_eq!(client.answer().0, 200, "{authorization}");
        let mut other = gate.client();
        other.send(request(""));
        answer_next(&origin, upstream, other, is_shared, authorization);
    };
    check("NTLM TlRMTVNTUAABAAAA", false);
    check("negotiate YIIJvwYGKwYBBQ", false);
    check("NTLM\tTlRMTVNTUAABAAAA", false);
    check("Basic YTpi", true);
    check("Digest username=\"a\"", true);
}

/// Some servers do not read the body of a GET, and take it for the next request.
#[test]
fn body_that_servers_may_not_read_is_the_last_of_its_connection() {
    let check = |method: &str, framing: &str, body: &str, is_shared: bool| {
        let origin = Origin::new();
        let gate = origin.start();
        let mut client = gate.client();
        client.send(gate.request(&format!("{method} /api/x"), &[framing]) + body);
        let mut upstream = origin.accept();
        let expected = (!is_shared).then_some("close");
        assert_eq!(field(&upstream.head(), "connection"), expected, "{method}, {framing}");
        if !body.is_empty() {
            upstream.until(body);
        }
        let length = if method == "HEAD" { "" } else { "content-length: 0\r\n" };
        upstream.send(format!("HTTP/1.1 200 OK\r\n{length}\r\n"));
        client.head();
        answer_next(&origin, upstream, gate.client_with_get(), is_shared, &format!("{method}, {framing}"));
    };
    let chunked = ("Transfer-Encoding: chunked", "4\r\nbody\r\n0\r\n\r\n");
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        check(method, "Content-Length: 4", "body", false);
        check(method, chunked.0, chunked.1, false);
    }
    for method in ["POST", "PUT", "PROPFIND"] {
        check(method, "Content-Length: 4", "body", true);
        check(method, chunked.0, chunked.1, true);
    }
    check("GET", "Content-Length: 0", "", true);
    check("HEAD", "Content-Length: 0", "", true);
    // An operator may distrust an upstream.
    let origin = Origin::new();
    let gate = origin.setup().with(|setup| setup.upstream.idle_timeout = Duration::ZERO).start();
    let _client = client_with_request(&gate, "POST /api/x", &["Content-Length: 0"]);
    assert_eq!(field(&origin.accept().head(), "connection"), Some("close"));
}

#[test]
fn content_after_a_response_without_any_is_no_response_to_others() {
    let check = |head: &str, is_shared: bool| {
        let origin = Origin::new();
        let gate = origin.start();
        let mut client = gate.client_with_get();
        let mut upstream = origin.accept();
        upstream.head();
        upstream.send(format!("HTTP/1.1 {head}\r\n\r\n"));
        client.head();
        answer_next(&origin, upstream, gate.client_with_get(), is_shared, head);
    };
    check("204 No Content", true);
    check("204 No Content\r\ncontent-length: 0", true);
    check("204 No Content\r\ncontent-length: 4", false);
    check("204 No Content\r\ntransfer-encoding: chunked", false);
    check("304 Not Modified\r\ncontent-length: 4", true);
    check("304 Not Modified\r\ntransfer-encoding: chunked", false);
}
