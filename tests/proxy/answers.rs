//! The gateway's own responses: status, format, fields, and whether the connection stays open.

use std::{num::NonZeroU32, time::Duration};

use permgate::settings::BadTokenLimit;
use serde_json::Value;

use crate::harness::{CloseKind, Origin, RawConnection, field};

fn json(body: &str) -> Value {
    serde_json::from_str(body).unwrap()
}

#[test]
fn refusal_is_uncacheable_json() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send("GET /api/x HTTP/1.1\r\nHost: gate\r\n\r\n");
    let (status, head, body) = client.answer();
    assert_eq!(status, 401);
    assert_eq!(field(&head, "content-type"), Some("application/json"));
    assert_eq!(field(&head, "cache-control"), Some("no-store"));
    assert_eq!(field(&head, "www-authenticate"), Some("Bearer realm=\"permgate\""));
    let body = json(&body);
    assert_eq!(body["error"], "unauthorized");
    assert_eq!(body["status"], 401);
    assert_eq!(body["request_id"].as_str(), field(&head, "x-request-id"));
    assert_eq!(body.as_object().unwrap().len(), 4, "{body}");
    // The connection stays usable.
    client.send(gate.request("GET /other", &[]));
    assert_eq!(client.refused(), (404, "not_found".into()));
}

#[test]
fn problem_json_is_sent_when_accepted() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send(
        "GET /api/x HTTP/1.1\r\nHost: gate\r\nAccept: text/html, Application/Problem+JSON;q=0.9\r\n\r\n",
    );
    let (_, head, body) = client.answer();
    assert_eq!(field(&head, "content-type"), Some("application/problem+json"));
    let body = json(&body);
    assert_eq!((&body["type"], &body["title"]), (&"about:blank".into(), &"Unauthorized".into()));
    assert_eq!(body["status"], 401);
    assert_eq!(body["error"], "unauthorized");
}

#[test]
fn refused_body_closes_the_connection() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send("POST /api/x HTTP/1.1\r\nHost: gate\r\nContent-Length: 5\r\n\r\nhello");
    let (status, head, _) = client.answer();
    assert_eq!((status, field(&head, "connection")), (401, Some("close")));
    client.wait_for_close();
    assert!(!origin.has_pending_connection());
}

/// Checks the response to a raw request that must not reach the upstream.
fn check(row: &str, request: &str, expected: (u16, &str)) {
    let origin = Origin::new();
    let gate =
        origin.setup().with(|setup| setup.service.methods = Some(vec!["GET".parse().unwrap()])).start();
    let request = request.replace("TOKEN", &format!("Authorization: Bearer {}", gate.bearer));
    let mut client = gate.client();
    client.send(&request);
    assert_eq!(client.refused(), (expected.0, expected.1.to_owned()), "{row}");
    assert!(!origin.has_pending_connection(), "{row}");
}

#[test]
fn malformed_and_misdirected_requests_are_refused() {
    let bad = (400, "invalid_request");
    check("no Host", "GET /api/x HTTP/1.1\r\nTOKEN\r\n\r\n", bad);
    check("two Hosts", "GET /api/x HTTP/1.1\r\nHost: a\r\nHost: a\r\nTOKEN\r\n\r\n", bad);
    check("an invalid Host", "GET /api/x HTTP/1.1\r\nHost: a b\r\nTOKEN\r\n\r\n", bad);
    check("target and Host disagree", "GET http://b/api/x HTTP/1.1\r\nHost: a\r\nTOKEN\r\n\r\n", bad);
    check(
        "two codings",
        "GET /api/x HTTP/1.1\r\nHost: a\r\nTOKEN\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        bad,
    );
    check(
        "a folded framing name",
        "GET /api/x HTTP/1.1\r\nHost: a\r\nTOKEN\r\nContent_Length: 5\r\n\r\n",
        bad,
    );
    check("OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: a\r\nTOKEN\r\n\r\n", bad);
    check("two Authorization fields", "GET /api/x HTTP/1.1\r\nHost: a\r\nTOKEN\r\nTOKEN\r\n\r\n", bad);
    check("dot segments", "GET /api/../x HTTP/1.1\r\nHost: a\r\nTOKEN\r\n\r\n", bad);
    check("TRACE", "TRACE /api/x HTTP/1.1\r\nHost: a\r\nTOKEN\r\n\r\n", (405, "method_not_allowed"));
    check("CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nTOKEN\r\n\r\n", (405, "method_not_allowed"));
    check(
        "a method outside the service's",
        "PUT /api/x HTTP/1.1\r\nHost: a\r\nTOKEN\r\n\r\n",
        (405, "method_not_allowed"),
    );
    check("a path without an owner", "GET /x HTTP/1.1\r\nHost: a\r\nTOKEN\r\n\r\n", (404, "not_found"));
}

#[test]
fn response_405_names_the_methods() {
    let origin = Origin::new();
    let gate = origin
        .setup()
        .with(|setup| setup.service.methods = Some(vec!["GET".parse().unwrap(), "PUT".parse().unwrap()]))
        .start();
    let mut client = gate.client();
    client.send(gate.request("DELETE /api/x", &[]));
    let (status, head, _) = client.answer();
    assert_eq!((status, field(&head, "allow")), (405, Some("GET, PUT")));
    client.send(gate.request("TRACE /api/x", &[]));
    let (status, head, _) = client.answer();
    assert_eq!(status, 405);
    assert!(field(&head, "allow").is_some());
}

#[test]
fn http_1_0_needs_no_host() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send(format!("GET /api/x HTTP/1.0\r\nAuthorization: Bearer {}\r\n\r\n", gate.bearer));
    let mut upstream = origin.accept();
    let head = upstream.head();
    assert!(head.starts_with("GET /api/x HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(&head, "host"), Some(origin.address.to_string().as_str()));
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    assert_eq!(client.answer().2, "ok");
    assert_eq!(client.wait_for_close(), CloseKind::Closed);
}

fn ask(client: &mut RawConnection, bearer: &str) -> (u16, Option<String>) {
    client.send(format!("GET /x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {bearer}\r\n\r\n"));
    let (status, head, _) = client.answer();
    (status, field(&head, "retry-after").map(str::to_owned))
}

#[test]
fn client_with_many_bad_tokens_waits_but_valid_tokens_pass() {
    let origin = Origin::new();
    let limit = BadTokenLimit { count: NonZeroU32::new(2).unwrap(), window: Duration::from_secs(60) };
    let gate = origin.setup().with(|setup| setup.settings.bad_tokens = Some(limit)).start();
    let mut client = gate.client();
    assert_eq!(ask(&mut client, "nonsense"), (401, None));
    assert_eq!(ask(&mut client, "nonsense"), (401, None));
    let (status, wait) = ask(&mut client, "nonsense");
    assert_eq!(status, 429);
    assert!((1..=60).contains(&wait.unwrap().parse::<u32>().unwrap()));
    assert_eq!(ask(&mut client, &gate.bearer).0, 404, "a valid token gets its own answer");
    // Off by default.
    let gate = origin.start();
    let mut client = gate.client();
    for _ in 0..50 {
        assert_eq!(ask(&mut client, "nonsense"), (401, None));
    }
}

#[test]
fn malformed_head_is_answered_and_logged() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send("nonsense\r\n\r\n");
    let (code, error) = client.refused();
    assert_eq!((code, error.as_str()), (400, "invalid_request"));
    assert_eq!(client.wait_for_close(), CloseKind::Closed);
    assert_eq!(gate.next_outcome(), ("rejected".into(), "bad_request".into(), 400));
}

#[test]
fn refusal_of_a_malformed_request_says_what_is_malformed() {
    let origin = Origin::new();
    let gate = origin.start();
    let check = |request: &str, what: &str| {
        let mut client = gate.client();
        client.send(request);
        let (status, _, body) = client.answer();
        let expected = format!("The request is malformed: {what}");
        assert_eq!((status, json(&body)["error_description"].as_str()), (400, Some(&*expected)), "{request}");
    };
    check("nonsense\r\n\r\n", "the head cannot be parsed");
    check("\r\n\r\n\r\n\r\n\r\n", "too many empty lines precede it");
    let check_fields =
        |fields: &str, what: &str| check(&format!("GET /api/x HTTP/1.1\r\n{fields}\r\n"), what);
    check_fields("", "Host is missing");
    check_fields("Host: a/b\r\n", "Host is malformed");
    check_fields("Host: g\r\nHost: g\r\n", "Host was sent more than once");
    check_fields("Host: g\r\nTransfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding is not \"chunked\"");
    let alias = "servers may read a field as Content-Length or Transfer-Encoding";
    check_fields("Host: g\r\nContent_Length: 1\r\n", alias);
    let hosts = "the target and Host name different hosts";
    check("GET http://other/api HTTP/1.1\r\nHost: g\r\n\r\n", hosts);
    check("GET api HTTP/1.1\r\nHost: g\r\n\r\n", "the request target is malformed");
}

#[test]
fn contradictory_fields_of_a_trusted_proxy_have_a_reason_of_their_own() {
    let origin = Origin::new();
    let setup = origin.setup();
    let gate = setup
        .with(|setup| setup.rules.trusted_proxies.networks = vec!["127.0.0.0/8".parse().unwrap()])
        .start();
    let check = |fields: &[&str]| {
        let mut client = gate.client();
        client.send(gate.request("GET /api/x", fields));
        let (status, _, body) = client.answer();
        let said = json(&body)["error_description"].as_str().unwrap().to_owned();
        assert!(status == 400 && said.contains("overwrite the Forwarded and X-Forwarded-* fields"), "{said}");
        assert_eq!(gate.next_outcome(), ("rejected".into(), "bad_forwarded".into(), 400), "{fields:?}");
    };
    check(&["X-Forwarded-For: 192.0.2.1", "Forwarded: for=192.0.2.2"]);
    check(&["Forwarded: host=\"open"]);
    check(&["Forwarded: host=a..b"]);
}
