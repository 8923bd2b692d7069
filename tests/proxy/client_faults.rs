//! Each way in which a client can fail, and what the upstream and the log see of it.

use std::time::Duration;

use crate::harness::{
    CloseKind, Gate, Origin, RawConnection, eventually,
    frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, INTERNAL_ERROR, block},
};

/// The client sends this; once the upstream has the head, the client does that. The upstream must not mistake
/// what it received for a complete request.
fn check(
    row: &str,
    line: &str,
    fields: &[&str],
    play: impl FnOnce(RawConnection) -> Option<RawConnection>,
    expected: Option<(u16, &str)>,
    logged: (&str, u64),
) {
    let origin = Origin::new();
    let gate = origin
        .setup()
        .with(|setup| {
            setup.limits.body_timeout = Duration::from_millis(100);
            setup.settings.max_body = Some(1000);
        })
        .start();
    let mut client = gate.client();
    client.send(gate.request(line, fields));
    let mut upstream = origin.accept();
    upstream.head();
    let rest = play(client);
    upstream.wait_for_close();
    assert!(!upstream.unread().ends_with("0\r\n\r\n"), "{row}: the body looks complete");
    if let (Some(mut client), Some((status, error))) = (rest, expected) {
        assert_eq!(client.refused(), (status, error.to_owned()), "{row}");
        client.wait_for_close();
    }
    let (_, reason, status) = gate.next_outcome();
    assert_eq!((reason.as_str(), status), logged, "{row}");
    gate.wait_until_empty();
}

#[test]
fn failing_client_ends_the_upstream_exchange() {
    let reset = |client: RawConnection| {
        client.reset();
        None
    };
    let (chunked, length) = ("Transfer-Encoding: chunked", "Content-Length: 100");
    check("gone while it waits", "GET /api/x", &[], reset, None, ("client_closed", 499));
    let half = |mut client: RawConnection| {
        client.send("half");
        client.reset();
        None
    };
    check("gone within its body", "POST /api/x", &[length], half, None, ("client_closed", 400));
    let broken = |mut client: RawConnection| {
        client.send("zz\r\n");
        Some(client)
    };
    check(
        "a malformed chunk",
        "POST /api/x",
        &[chunked],
        broken,
        Some((400, "invalid_request")),
        ("bad_body", 400),
    );
    let stops = |mut client: RawConnection| {
        client.send("half").finish_sending();
        Some(client)
    };
    check(
        "half a body, then no more",
        "POST /api/x",
        &[length],
        stops,
        Some((400, "invalid_request")),
        ("client_closed", 400),
    );
    let stalls = |mut client: RawConnection| {
        client.send("half");
        Some(client)
    };
    check(
        "half a body, then silence",
        "POST /api/x",
        &[length],
        stalls,
        Some((408, "request_timeout")),
        ("request_timeout", 408),
    );
    let long = |mut client: RawConnection| {
        client.send(format!("3e9\r\n{}\r\n0\r\n\r\n", "a".repeat(1001)));
        Some(client)
    };
    check(
        "more than is allowed",
        "POST /api/x",
        &[chunked],
        long,
        Some((413, "content_too_large")),
        ("body_too_large", 413),
    );
}

#[test]
fn oversized_content_length_does_not_reach_the_upstream() {
    let origin = Origin::new();
    let gate = origin.setup().with(|setup| setup.settings.max_body = Some(10)).start();
    let mut client = gate.client();
    client.send(gate.request("POST /api/x", &["Content-Length: 11"]));
    assert_eq!(client.refused().0, 413);
    assert_eq!(client.wait_for_close(), CloseKind::Closed);
    assert!(!origin.has_pending_connection());
    // A body of exactly the limit passes, and a service's own limit takes precedence.
    let gate = origin
        .setup()
        .with(|setup| {
            setup.settings.max_body = Some(10);
            setup.service.max_body = Some(11);
        })
        .start();
    let mut client = gate.client();
    client.send(gate.request("POST /api/x", &["Content-Length: 11"])).send("hello world");
    let mut upstream = origin.accept();
    upstream.head();
    assert_eq!(upstream.bytes(11), "hello world");
}

#[test]
fn stalled_client_is_distinguished_from_a_disconnected_one() {
    let origin = Origin::new();
    let soon = Duration::from_millis(100);
    let gate = origin.setup().with(|setup| setup.limits.write_timeout = soon).start();
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(64 << 10));
    while std::io::Write::write_all(&mut upstream.socket, chunk.as_bytes()).is_ok() {}
    assert_eq!(gate.next_outcome(), ("rejected".into(), "client_too_slow".into(), 200));
    assert_eq!(client.wait_for_close(), CloseKind::Reset);
    gate.wait_until_empty();
}

#[test]
fn client_disconnecting_during_a_response_stops_the_upstream() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
    client.until("first");
    client.reset();
    upstream.wait_for_close();
    assert_eq!(gate.next_outcome(), ("rejected".into(), "client_closed".into(), 200));
    gate.wait_until_empty();
}

#[test]
fn rest_of_a_body_after_an_early_response_is_no_request() {
    let origin = Origin::new();
    let gate = origin.start();
    for pause in [0, 1, 5] {
        let mut client = gate.client();
        client.send(gate.request("POST /api/x", &["Content-Length: 200000"]));
        client.send("begins");
        let mut upstream = origin.accept();
        upstream.head();
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
        drop(upstream);
        assert_eq!(client.answer().2, "ok");
        std::thread::sleep(Duration::from_millis(pause));
        client.send([b'x'; 60_000]);
        client.wait_for_close();
        assert_eq!(client.unread(), "", "a second answer to one request");
        gate.line();
    }
    assert!(!gate.log_text().contains("target_too_long"), "{}", gate.log_text());
}

#[test]
fn client_that_leaves_as_its_tunnel_is_accepted_leaves_nothing_behind() {
    let origin = Origin::new();
    let gate = origin.start();
    // Paths that take long to judge keep the worker busy, so that it learns of both events at once.
    let path = format!("/api/a%25252541bbc%2fa%5cb%2fc%E2%80%8Ba;x=1b//c%3Ba+{}", "x".repeat(400));
    let busy = gate.request(&format!("GET {path}"), &[]).repeat(12);
    for _ in 0..20 {
        let mut client = gate.client();
        client.send(gate.request("GET /api/socket", &["Connection: Upgrade", "Upgrade: websocket"]));
        let mut upstream = origin.accept();
        upstream.head();
        let mut other = gate.client();
        other.send(busy.replace(&gate.bearer, "nobody's"));
        std::thread::sleep(Duration::from_millis(5));
        upstream
            .send("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n");
        client.reset();
    }
    eventually("no exchange is left", || gate.budget.open() == 0 && gate.live() == 0);
}

fn http2_request(gate: &Gate, method: &str) -> Vec<u8> {
    let bearer = format!("Bearer {}", gate.bearer);
    let (scheme, host) = ((":scheme", "http"), (":authority", "gate.example"));
    block(&[(":method", method), scheme, host, (":path", "/api/x"), ("authorization", &bearer)])
}

#[test]
fn http2_client_is_not_reset_while_it_sends_the_rest_after_an_early_response() {
    let origin = Origin::new();
    let gate = origin.start();
    for round in 0..10 {
        let mut client = Frames::to(gate.address, &[]);
        client.send(HEADERS, END_HEADERS, 1, &http2_request(&gate, "POST")).data(1, "begins");
        let mut upstream = origin.accept();
        upstream.head();
        upstream.until("begins");
        let early = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 4\r\nconnection: close\r\n\r\nlong";
        upstream.send(early);
        assert_eq!(client.request(), (1, false));
        assert_eq!(client.next().payload, b"long");
        client.data(1, "more").send(DATA, END_STREAM, 1, b"ends");
        drop(upstream);
        // The answer to another request is next, not a reset.
        client.send(HEADERS, END_HEADERS | END_STREAM, 3, &http2_request(&gate, "GET"));
        let mut upstream = origin.accept();
        upstream.head();
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
        let next = client.next();
        assert_eq!((next.kind, next.stream), (HEADERS, 3), "round {round}: {next:?}");
    }
}

#[test]
fn connect_that_announces_a_body_ends_no_other_stream() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = Frames::to(gate.address, &[]);
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &http2_request(&gate, "GET"));
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbegin");
    assert_eq!(client.request(), (1, false));
    assert_eq!(client.next().payload, b"begin");
    let mut connect = block(&[(":method", "CONNECT"), (":protocol", "websocket")]);
    connect.extend(&http2_request(&gate, "GET")[block(&[(":method", "GET")]).len()..]);
    connect.extend(block(&[("content-length", "5")]));
    for stream in [3, 5] {
        client.send(HEADERS, END_HEADERS, stream, &connect);
    }
    assert_eq!((client.was_reset(3), client.was_reset(5)), (INTERNAL_ERROR, INTERNAL_ERROR));
    upstream.send("ended");
    assert_eq!(client.next().payload, b"ended");
}

#[test]
fn pause_of_a_client_is_not_the_upstreams_silence() {
    let origin = Origin::new();
    let soon = Duration::from_millis(200);
    let gate = origin.setup().with(|setup| setup.upstream.first_byte_timeout = soon).start();
    let mut client = gate.client();
    client.send(gate.request("POST /api/x", &["Content-Length: 4"])).send("ab");
    let mut upstream = origin.accept();
    upstream.head();
    assert_eq!(upstream.bytes(2), "ab");
    // Does not restart the timeout either.
    upstream.send("HTTP/1.1 102 Processing\r\n\r\n");
    std::thread::sleep(soon * 3);
    client.send("cd");
    assert_eq!(upstream.bytes(2), "cd");
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    assert_eq!(client.answer().2, "ok");
    gate.next_outcome();

    client.send(gate.request("POST /api/x", &["Content-Length: 4"])).send("ab");
    upstream.head();
    std::thread::sleep(soon * 3);
    client.send("cd");
    assert_eq!(upstream.bytes(4), "abcd");
    assert_eq!(client.answer().0, 504, "the upstream is silent after the whole body");
    assert_eq!(gate.next_outcome().1, "upstream_timeout");
}
