//! Bodies in both directions: passed piece by piece, with back-pressure, and framed anew.

use std::time::Duration;

use crate::harness::{
    Origin, RawConnection, eventually, field,
    frames::{DATA, END_STREAM, Frames, HEADERS},
    status,
};

#[test]
fn data_is_streamed_both_ways() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send(gate.request("POST /api/x", &["Transfer-Encoding: chunked"])).send("3\r\none\r\n");
    let mut upstream = origin.accept();
    let head = upstream.head();
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
    assert_eq!(field(&head, "content-length"), None);
    upstream.until("one");
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nuno\r\n");
    assert_eq!(status(&client.head()), 200);
    client.until("uno");
    client.send("3\r\ntwo\r\n");
    upstream.until("two");
    upstream.send("3\r\ndos\r\n");
    client.until("dos");
    client.send("0\r\n\r\n");
    upstream.until("0\r\n\r\n");
    upstream.send("0\r\n\r\n");
    client.until("0\r\n\r\n");
    let line = gate.line();
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(6), Some(6)), "{line}");
}

/// In a call both sides send when they like. Only a body that the response waits for must arrive in time.
#[test]
fn client_may_be_silent_after_the_response_has_begun() {
    let soon = Duration::from_millis(50);
    let origin = Origin::new();
    let gate = origin.setup().with(|setup| setup.limits.body_timeout = soon).start();
    let begin = |origin: &Origin| {
        let mut upstream = origin.accept();
        upstream.until("one");
        upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nuno\r\n");
        upstream
    };

    let mut client = gate.client();
    client.send(gate.request("POST /api/x", &["Transfer-Encoding: chunked"])).send("3\r\none\r\n");
    let mut upstream = begin(&origin);
    client.until("uno");
    client.assert_silent();
    client.send("3\r\ntwo\r\n");
    upstream.until("two");
    client.send("0\r\n\r\n");
    upstream.send("0\r\n\r\n");
    client.until("0\r\n\r\n");
    assert_eq!(gate.next_outcome(), ("forwarded".into(), "ok".into(), 200));
    // The body of the next request on the connection has its own timeout.
    client.send(gate.request("POST /api/x", &["Content-Length: 9"])).send("one");
    assert_eq!(client.refused().0, 408);
    drop((upstream, gate.line()));

    let mut client = Frames::to(gate.address, &[]);
    let bearer = format!("Bearer {}", gate.bearer);
    let head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "gate.example"),
        (":path", "/api/x"),
        ("content-type", "application/grpc"),
        ("authorization", bearer.as_str()),
    ];
    client.head(1, &head).data(1, "one");
    let mut upstream = begin(&origin);
    assert_eq!(client.next().kind, HEADERS);
    assert_eq!(client.next().payload, b"uno");
    upstream.assert_silent();
    client.send(DATA, END_STREAM, 1, b"two");
    upstream.until("two");
    upstream.send("0\r\n\r\n");
    assert_eq!(client.next().flags, END_STREAM);
    assert_eq!(gate.next_outcome(), ("forwarded".into(), "ok".into(), 200));
}

/// A server may begin its response only when it has read the first message, or all of them.
#[test]
fn client_of_a_stream_may_be_silent_before_the_response() {
    let soon = Duration::from_millis(50);
    let origin = Origin::new();
    let gate = origin.setup().with(|setup| setup.limits.body_timeout = soon).start();
    let bearer = format!("Bearer {}", gate.bearer);
    let send = |kind: &str| {
        let mut client = Frames::to(gate.address, &[]);
        let pseudo =
            [(":method", "POST"), (":scheme", "http"), (":authority", "gate.example"), (":path", "/api/x")];
        client.head(1, &[&pseudo[..], &[("content-type", kind), ("authorization", &bearer)]].concat());
        let mut upstream = origin.accept();
        upstream.head();
        (client, upstream)
    };
    for kind in ["application/grpc", "application/grpc+proto", "application/connect+proto"] {
        let (mut client, mut upstream) = send(kind);
        upstream.assert_silent();
        client.data(1, "one");
        upstream.until("one");
        upstream.assert_silent();
        client.send(DATA, END_STREAM, 1, b"two");
        upstream.until("two");
        upstream.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
        assert_eq!(client.next().kind, HEADERS, "{kind}");
        assert_eq!(client.next().payload, b"ok", "{kind}");
        assert_eq!(gate.next_outcome(), ("forwarded".into(), "ok".into(), 200), "{kind}");
    }
    let (_client, _upstream) = send("application/json");
    assert_eq!(gate.next_outcome().1, "request_timeout");
}

#[test]
fn slow_client_applies_backpressure_to_the_upstream() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
    client.head();
    // The kernel's buffers take their part; the gateway adds none that grows.
    upstream.fill_up(&[b'x'; 64 << 10]);
}

#[test]
fn slow_upstream_applies_backpressure_to_the_client() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send(gate.request("POST /api/x", &["Content-Length: 1000000000"]));
    let mut upstream = origin.accept();
    upstream.head();
    client.fill_up(&[b'x'; 64 << 10]);
}

#[test]
fn get_with_a_body_keeps_it() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send(gate.request("GET /api/x", &["Transfer-Encoding: chunked"])).send("4\r\nbody\r\n0\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.head();
    upstream.until("body");
    upstream.until("0\r\n\r\n");
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(client.answer().0, 200);
}

/// Checks a response without a body, whatever its fields say about one. Both connections stay usable.
fn check_bodiless(row: &str, method: &str, answer: &str, length: Option<&str>) {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send(gate.request(&format!("{method} /api/x"), &[]));
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send(answer);
    let head = client.head();
    assert_eq!(field(&head, "content-length"), length, "{row}");
    assert_eq!(field(&head, "transfer-encoding"), None, "{row}");
    client.send(gate.request("GET /api/y", &[]));
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext");
    assert_eq!(client.answer().2, "next", "{row}");
    assert_eq!(gate.next_outcome(), ("forwarded".into(), "ok".into(), u64::from(status(&head))), "{row}");
}

#[test]
fn bodiless_responses_end_with_their_head() {
    check_bodiless("HEAD", "HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", Some("5"));
    check_bodiless("HEAD of unknown length", "HEAD", "HTTP/1.1 200 OK\r\n\r\n", None);
    check_bodiless("204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", None);
    check_bodiless("304", "GET", "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n", None);
    check_bodiless("empty", "GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Some("0"));
}

#[test]
fn response_delimited_by_close_is_reframed() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.0 200 OK\r\n\r\nall of it");
    drop(upstream);
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
    client.until("all of it");
    client.until("0\r\n\r\n");
}

#[test]
fn expect_is_not_forwarded() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send(gate.request("PUT /api/x", &["Content-Length: 4", "Expect: 100-continue"]));
    let mut upstream = origin.accept();
    assert_eq!(field(&upstream.head(), "expect"), None);
    assert_eq!(status(&client.head()), 100);
    client.send("body");
    assert_eq!(upstream.bytes(4), "body");
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(client.answer().0, 200);
    // A refusal sends no 100 and closes the connection.
    let mut client = gate.client();
    client.send("PUT /api/x HTTP/1.1\r\nHost: gate\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
    let (status, head, _) = client.answer();
    assert_eq!((status, field(&head, "connection")), (401, Some("close")));
    client.wait_for_close();
}

#[test]
fn trailers_are_filtered_and_passed_both_ways() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    let fields = ["Transfer-Encoding: chunked", "Trailer: x-sum, x-permgate-user", "TE: trailers"];
    client.send(gate.request("POST /api/x", &fields));
    client.send("1\r\na\r\n0\r\nx-sum: 1\r\nx-permgate-user: root\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.head();
    let end = upstream.until("\r\n\r\n");
    assert!(end.contains("x-sum: 1"), "{end}");
    assert!(!end.contains("root"), "{end}");
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n");
    upstream.send("1\r\nb\r\n0\r\nx-sum: 2\r\n\r\n");
    client.head();
    let end = client.until("\r\n\r\n");
    assert!(end.contains("x-sum: 2"), "{end}");
    eventually("the exchange has left", || gate.live() == 0);
}

/// Server-sent events: each reaches the client before the next one is sent.
#[test]
fn server_sent_events_pass_one_by_one_over_both_versions() {
    const EVENTS: usize = 20;
    let origin = Origin::new();
    let gate = origin.start();
    let event = |number: usize| format!("data: <{number}>\n\n");
    let begin = |origin: &Origin| {
        let mut upstream = origin.accept();
        upstream.head();
        upstream
            .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
        upstream
    };
    let say = |upstream: &mut RawConnection, number: usize| {
        let event = event(number);
        upstream.send(format!("{:x}\r\n{event}\r\n", event.len()));
    };
    let mut client = gate.client_with_get();
    let mut upstream = begin(&origin);
    client.head();
    for number in 0..EVENTS {
        say(&mut upstream, number);
        client.until(&event(number));
    }
    drop((client, upstream));

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let events = async {
        let socket = tokio::net::TcpStream::connect(gate.address).await.unwrap();
        let (mut requests, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get("http://gate.example/api/events")
            .header("authorization", format!("Bearer {}", gate.bearer))
            .body(())
            .unwrap();
        let (answer, _) = requests.send_request(request, true).unwrap();
        // The upstream's side blocks its thread, so it runs on another one; the head must be out by then.
        let accepted = tokio::task::spawn_blocking(move || (begin(&origin), origin));
        let answer = answer.await.unwrap();
        let (mut upstream, _origin) = accepted.await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let mut body = answer.into_body();
        for number in 0..EVENTS {
            say(&mut upstream, number);
            let mut heard = Vec::new();
            while !heard.ends_with(event(number).as_bytes()) {
                heard.extend_from_slice(&body.data().await.unwrap().unwrap());
            }
        }
    };
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), events).await }).unwrap();
}
