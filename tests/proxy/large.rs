//! Responses that are too large to be buffered.

use std::thread;

use crate::harness::{CloseKind, Gate, Origin, RawConnection, eventually, status};

const LARGE: usize = 1 << 20;

/// Text in which no two positions look alike.
fn text(length: usize) -> String {
    (0..length / 8).map(|at| format!("{at:07} ")).collect()
}

/// A response of `length` bytes that has begun: its head, and `said` of its body.
fn begin_response(origin: &Origin, gate: &Gate, length: usize, said: &str) -> (RawConnection, RawConnection) {
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"));
    assert_eq!(status(&client.head()), 200);
    upstream.send(said);
    client.bytes(said.len());
    (client, upstream)
}

#[test]
fn large_response_passes_and_both_connections_stay_open() {
    let origin = Origin::new();
    let gate = origin.start();
    let (mut client, mut upstream) = begin_response(&origin, &gate, LARGE, "");
    for _ in 0..2 {
        let rest = text(LARGE);
        let sent = rest.clone();
        let sending = thread::spawn(move || {
            upstream.send(sent);
            upstream
        });
        assert!(client.bytes(LARGE) == rest, "other bytes came");
        upstream = sending.join().unwrap();
        let line = gate.line();
        assert_eq!((line["status"].as_u64(), line["bytes_out"].as_u64()), (Some(200), Some(LARGE as u64)));
        client.send(gate.request("GET /api/y", &[]));
        upstream.head();
        upstream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n"));
        client.head();
    }
    assert_eq!(gate.live(), 1);
}

#[test]
fn pipelined_requests_wait_for_a_large_response() {
    let origin = Origin::new();
    let gate = origin.start();
    let (mut client, mut upstream) = begin_response(&origin, &gate, LARGE, &text(64 << 10));
    client.send(gate.request("GET /api/y", &[]));
    upstream.assert_silent();
    upstream.send(text(LARGE - (64 << 10)));
    client.bytes(LARGE - (64 << 10));
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext");
    assert_eq!(client.answer().2, "next");
}

#[test]
fn large_response_is_cut_midway() {
    let origin = Origin::new();
    let gate = origin.start();
    let (mut client, mut upstream) = begin_response(&origin, &gate, 1 << 30, &text(64 << 10));
    // More than the kernel buffers for a client that does not read, so some of it is in the gateway.
    upstream.fill_up(text(64 << 10).as_bytes());
    assert_eq!(gate.revoke().0, 1);
    assert_eq!(client.wait_for_close(), CloseKind::Reset);
    upstream.wait_for_close();
    gate.wait_until_empty();
}

#[test]
fn client_that_disconnects_ends_a_large_response() {
    let origin = Origin::new();
    let gate = origin.start();
    let (client, mut upstream) = begin_response(&origin, &gate, LARGE, &text(64 << 10));
    drop(client);
    eventually("the upstream hears of it", || {
        std::io::Write::write_all(&mut upstream.socket, text(64 << 10).as_bytes()).is_err()
    });
    gate.wait_until_empty();
}
