//! Requests that pass: one after another, pipelined, in pieces, with bodies.

use std::{sync::atomic::Ordering, time::Duration};

use permgate::net::Limits;

use crate::harness::{CloseKind, Gate, eventually};

/// Sends `pieces` one by one on one connection and expects these responses in order.
fn check(name: &str, pieces: &[&str], expected: &[(u16, &str)]) {
    let gate = Gate::new(&Limits::default());
    let mut client = gate.client();
    client.socket.set_nodelay(true).unwrap();
    for piece in pieces {
        client.send(piece);
    }
    for (status, body) in expected {
        assert_eq!(client.answer(), (*status, (*body).to_owned()), "{name}");
    }
    assert_eq!(gate.seen.requests.load(Ordering::SeqCst), expected.len(), "{name}");
    client.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.wait_for_close(), CloseKind::Closed, "{name}");
    assert_eq!(client.unread(), b"", "{name}: more than was asked for");
}

#[test]
fn requests_are_answered_in_order() {
    let get = "GET /a HTTP/1.1\r\nHost: gate\r\n\r\n";
    let other = "GET /b HTTP/1.1\r\nHost: gate\r\n\r\n";
    let sized = "POST /echo HTTP/1.1\r\nHost: gate\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "POST /echo HTTP/1.1\r\nHost: gate\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;ext=1\r\nhello\r\n1 \r\n!\r\n0\r\nX-Trailer: t\r\n\r\n";
    let both = format!("{sized}{chunked}{get}");
    check("one", &[get], &[(200, "/a")]);
    check("one after another", &[get, other], &[(200, "/a"), (200, "/b")]);
    check("pipelined", &[&format!("{get}{other}{get}")], &[(200, "/a"), (200, "/b"), (200, "/a")]);
    check("a sized body", &[sized], &[(200, "hello")]);
    check("a chunked body", &[chunked], &[(200, "hello!")]);
    check("bodies, pipelined", &[&both], &[(200, "hello"), (200, "hello!"), (200, "/a")]);
    check("an empty line before", &[&format!("\r\n{get}")], &[(200, "/a")]);
    check("an empty line between", &[&format!("{sized}\r\n{get}")], &[(200, "hello"), (200, "/a")]);
    check("HTTP/1.0 that stays", &["GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"], &[(200, "/a")]);
    check("an IPv6 Host", &["GET /a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"], &[(200, "/a")]);
    let letters: Vec<String> = both.chars().map(String::from).collect();
    let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
    check("letter by letter", &letters, &[(200, "hello"), (200, "hello!"), (200, "/a")]);
}

#[test]
fn every_split_of_pipelined_requests_is_parsed_alike() {
    let all = "POST /echo HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n\
        3\r\nabc\r\n0\r\n\r\nPOST /echo HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\nhiGET /z HTTP/1.1\r\nHost: g\r\n\r\n";
    let gate = Gate::new(&Limits::default());
    for split in 1..all.len() {
        let mut client = gate.client();
        client.socket.set_nodelay(true).unwrap();
        let before = gate.budget.open();
        client.send(&all[..split]);
        // So that the first piece is usually read on its own.
        eventually("the connection is open", || gate.budget.open() >= before.min(1));
        client.send(&all[split..]);
        assert_eq!(client.answer(), (200, "abc".to_owned()), "split at {split}");
        assert_eq!(client.answer(), (200, "hi".to_owned()), "split at {split}");
        assert_eq!(client.answer(), (200, "/z".to_owned()), "split at {split}");
    }
}

#[test]
fn a_head_and_a_body_larger_than_any_buffer_pass() {
    let gate = Gate::new(&Limits::default());
    let mut client = gate.client();
    let field = format!("X-Long: {}\r\n", "v".repeat(15 << 10));
    client.send(format!("GET /long HTTP/1.1\r\nHost: gate\r\n{field}{field}\r\n"));
    assert_eq!(client.answer(), (200, "/long".to_owned()));
    let body = "0123456789abcdef".repeat(64 << 10);
    let mut writer = client.socket.try_clone().unwrap();
    let sent = body.clone();
    let writing = std::thread::spawn(move || {
        use std::io::Write;
        let head = format!("POST /echo HTTP/1.1\r\nHost: g\r\nContent-Length: {}\r\n\r\n", sent.len());
        writer.write_all(head.as_bytes()).unwrap();
        writer.write_all(sent.as_bytes()).unwrap();
        writer.write_all(b"POST /echo HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        for piece in sent.as_bytes().chunks(7777) {
            write!(writer, "{:x}\r\n", piece.len()).unwrap();
            writer.write_all(piece).unwrap();
            writer.write_all(b"\r\n").unwrap();
        }
        writer.write_all(b"0\r\n\r\n").unwrap();
    });
    assert!(client.answer() == (200, body.clone()), "sized");
    assert!(client.answer() == (200, body), "chunked");
    writing.join().unwrap();
    assert_eq!(client.get("/after").answer(), (200, "/after".to_owned()));
}

#[test]
fn continue_is_sent_only_when_the_body_is_read() {
    let gate = Gate::new(&Limits::default());
    let head = |path: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    };
    let mut client = gate.client();
    client.send(head("/echo"));
    assert_eq!(client.head().1, 100);
    assert_eq!(client.send("hello").answer(), (200, "hello".to_owned()));
    assert_eq!(client.send(head("/refuse")).head().1, 401, "no 100 before a refusal");
    assert_eq!(client.wait_for_close(), CloseKind::Closed);
}

#[test]
fn unread_body_is_never_parsed_as_a_request() {
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: g\r\n\r\n";
    let gate = Gate::new(&Limits::default());
    let mut client = gate.client();
    client.send(format!(
        "POST /refuse HTTP/1.1\r\nHost: g\r\nContent-Length: {}\r\n\r\n{smuggled}",
        smuggled.len() + 1_000_000
    ));
    let (head, status) = client.head();
    assert_eq!(status, 401);
    assert!(head.contains("connection: close\r\n"), "{head}");
    client.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.wait_for_close(), CloseKind::Closed);
    assert_eq!(client.unread(), b"no");
    assert_eq!(gate.seen.requests.load(Ordering::SeqCst), 1);
}

#[test]
fn refused_upload_gets_its_response_before_the_connection_closes() {
    let gate = Gate::new(&Limits::default());
    for path in ["/refuse", "/taste"] {
        let mut client = gate.client();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: g\r\nContent-Length: 3000000\r\n\r\n"));
        // The gateway reads and discards the whole body, so that no reset overtakes the response.
        client.send(vec![b'x'; 2_000_000]);
        let (_, status) = client.head();
        assert_eq!(status, if path == "/refuse" { 401 } else { 413 });
        client.socket.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.wait_for_close(), CloseKind::Closed);
    }
}

#[test]
fn endless_refused_upload_is_not_read_for_long() {
    let gate = Gate::new(&Limits::default());
    let mut client = gate.client();
    client.send("POST /refuse HTTP/1.1\r\nHost: g\r\nContent-Length: 3000000000\r\n\r\n");
    client.socket.set_write_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    let (piece, mut sent) = (vec![b'x'; 64 << 10], 0_usize);
    let error = loop {
        match std::io::Write::write(&mut client.socket, &piece) {
            Ok(taken) => sent += taken,
            Err(error) => break error.kind(),
        }
        // What is read, and what the kernel's buffers hold in addition.
        assert!(sent < 32 << 20, "nobody stops it");
    };
    assert!(matches!(error, std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe), "{error}");
}

#[test]
fn response_body_lives_until_its_last_byte_is_sent() {
    let gate = Gate::new(&Limits::default());
    let mut client = gate.client();
    client.get("/endless").head();
    assert_eq!(gate.seen.bodies.load(Ordering::SeqCst), 1);
    drop(client);
    eventually("the body is dropped", || gate.seen.bodies.load(Ordering::SeqCst) == 0);
    let mut client = gate.client();
    client.get("/x").answer();
    // The connection stays open; the body is dropped.
    eventually("the body is dropped", || gate.seen.bodies.load(Ordering::SeqCst) == 0);
    assert_eq!(gate.end(Duration::from_secs(5)), 0);
}

#[test]
fn response_is_over_although_a_pipelined_request_is_served() {
    let gate = Gate::new(&Limits::default());
    let mut client = gate.client();
    client.send("GET /x HTTP/1.1\r\nHost: g\r\n\r\nGET /never HTTP/1.1\r\nHost: g\r\n\r\n");
    assert_eq!(client.answer().0, 200);
    eventually("the second one is served", || gate.seen.requests.load(Ordering::SeqCst) == 2);
    assert_eq!(gate.seen.running.load(Ordering::SeqCst), 1);
    assert_eq!(gate.seen.bodies.load(Ordering::SeqCst), 0, "the first body is dropped");
}
