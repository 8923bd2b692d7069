//! WebSockets to an upstream as HTTP/2 streams.

use super::h2c;
use crate::harness::{
    CloseKind, Origin, field,
    frames::{CANCEL, DATA, END_STREAM},
    status,
};

/// RFC 8441: a stream becomes a tunnel, and the fence cuts it like any other.
#[test]
fn websocket_uses_http2_where_the_upstream_supports_it() {
    const ENABLE_CONNECT_PROTOCOL: u16 = 8;
    let upgrade = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ];
    let origin = Origin::new();
    let gate = h2c(&origin).start();
    let mut client = gate.client();
    client.send(gate.request("GET /api/socket", &upgrade));
    let mut upstream = origin.accept_h2(&[(ENABLE_CONNECT_PROTOCOL, 1)]);
    assert_eq!(upstream.request(), (1, false), "it stays open");
    upstream.head(1, &[(":status", "200")]);
    let head = client.head();
    assert_eq!(status(&head), 101);
    assert_eq!(field(&head, "upgrade"), Some("websocket"));
    assert_eq!(field(&head, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    client.send("ping");
    assert_eq!(upstream.next().payload, b"ping");
    upstream.data(1, "pong");
    assert_eq!(client.bytes(4), "pong");

    let mut other = gate.client();
    other.send(gate.request("GET /api/socket", &upgrade));
    assert_eq!(upstream.request(), (3, false), "on the same connection");
    upstream.head(3, &[(":status", "200")]);
    assert_eq!(status(&other.head()), 101);
    other.finish_sending();
    let end = upstream.next();
    assert_eq!((end.kind, end.stream, end.flags & END_STREAM), (DATA, 3, END_STREAM));
    upstream.send(DATA, END_STREAM, 3, b"bye");
    assert_eq!(other.bytes(3), "bye");
    assert_eq!(other.wait_for_close(), CloseKind::Closed);
    gate.line();

    assert_eq!(gate.revoke().0, 1);
    assert_eq!(upstream.was_reset(1), CANCEL);
    assert_eq!(client.wait_for_close(), CloseKind::Reset);
    gate.wait_until_empty();
}

#[test]
fn upstream_refusing_a_websocket_is_passed_on() {
    let origin = Origin::new();
    let gate = h2c(&origin).start();
    let mut client = gate.client();
    let upgrade =
        ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="];
    client.send(gate.request("GET /api/socket", &upgrade));
    let mut upstream = origin.accept_h2(&[(8, 1)]);
    assert_eq!(upstream.request(), (1, false));
    upstream.head(1, &[(":status", "403"), ("content-length", "2")]).send(DATA, END_STREAM, 1, b"no");
    let (status, _, body) = client.answer();
    assert_eq!((status, body.as_str()), (403, "no"));
}
