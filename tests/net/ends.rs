//! Connections that are ended from outside: cut, broken off, vanished, drained.

use std::{
    io::{Read, Write},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use permgate::net::Limits;

use crate::harness::{CloseKind, Gate, eventually};

#[test]
fn aborted_connection_is_reset_at_once() {
    let gate = Gate::new(&Limits::default());
    // A stream that flows, one that waits, one whose client does not read, and a handler
    // that has not answered.
    let mut flowing = gate.client();
    flowing.get("/endless").head();
    let mut waiting = gate.client();
    waiting.get("/first").head();
    let mut stalled = gate.client();
    stalled.get("/endless");
    let mut unanswered = gate.client();
    unanswered.get("/never");
    let mut uploading = gate.client();
    uploading.send("POST /echo HTTP/1.1\r\nHost: g\r\nContent-Length: 100\r\n\r\nx");
    eventually("all are under way", || gate.seen.requests.load(Ordering::SeqCst) == 5);
    assert_eq!(gate.abort_all(), 5);
    eventually("no connection is left", || gate.budget.open() == 0);
    assert_eq!(gate.seen.bodies.load(Ordering::SeqCst), 0);
    assert_eq!(gate.seen.running.load(Ordering::SeqCst), 0);
    for mut client in [flowing, waiting, stalled, unanswered, uploading] {
        assert_eq!(client.wait_for_close(), CloseKind::Reset);
    }
}

#[test]
fn truncated_response_never_looks_complete() {
    let gate = Gate::new(&Limits::default());
    for version in ["1.0", "1.1"] {
        let mut client = gate.client();
        client.send(format!("GET /broken HTTP/{version}\r\nHost: g\r\n\r\n"));
        assert_eq!(client.wait_for_close(), CloseKind::Reset, "HTTP/{version}");
    }
}

#[test]
fn vanished_clients_leave_nothing_behind() {
    let gate = Gate::new(&Limits::default());
    for round in 0..10 {
        let mut clients: Vec<_> = (0..100).map(|_| gate.client()).collect();
        for (at, client) in clients.iter_mut().enumerate() {
            match at % 5 {
                0 => {}
                1 => drop(client.get("/never")),
                2 => drop(client.get("/endless")),
                3 => drop(client.send("GET /half HTTP/1.1\r\n")),
                _ => drop(client.send("POST /echo HTTP/1.1\r\nHost: g\r\nContent-Length: 9\r\n\r\nx")),
            }
        }
        let served = 60 * (round + 1);
        eventually("all are under way", || gate.seen.requests.load(Ordering::SeqCst) == served);
    }
    eventually("no connection is left", || gate.budget.open() == 0);
    assert_eq!(gate.seen.bodies.load(Ordering::SeqCst), 0);
    assert_eq!(gate.seen.running.load(Ordering::SeqCst), 0);
    assert_eq!(gate.client().get("/x").answer().0, 200);
}

#[test]
fn aborted_upload_is_distinguished_from_a_malformed_one() {
    let gate = Gate::new(&Limits::default());
    let check = |framing: &str, body: &str, expected: &str| {
        let mut client = gate.client();
        client.send(format!("POST /echo HTTP/1.1\r\nHost: g\r\n{framing}\r\n\r\n{body}"));
        client.socket.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.answer().0, 400);
        assert_eq!(gate.seen.body_errors.lock().unwrap().pop().unwrap(), expected, "{framing}");
    };
    check("Content-Length: 9", "x", "the client closed the connection");
    check("Transfer-Encoding: chunked", "5\r\nx", "the client closed the connection");
    check("Transfer-Encoding: chunked", "x\r\n", "the request body is malformed");
}

#[test]
fn drain_finishes_only_requests_in_progress() {
    let gate = Gate::new(&Limits::default());
    let mut idle = gate.client();
    idle.get("/x").answer();
    let mut uploading = gate.client();
    uploading.send("POST /echo HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\nhel");
    eventually("it is under way", || gate.seen.requests.load(Ordering::SeqCst) == 2);
    let address = gate.address;
    let ending = std::thread::spawn(move || gate.end(Duration::from_secs(10)));
    assert_eq!(idle.wait_for_close(), CloseKind::Closed);
    eventually("nobody is let in", || std::net::TcpStream::connect(address).is_err());
    let (head, status) = uploading.send("lo").head();
    assert_eq!(status, 200);
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert_eq!(uploading.wait_for_close(), CloseKind::Closed);
    assert_eq!(uploading.unread(), b"hello");
    assert_eq!(ending.join().unwrap(), 0);
}

#[test]
fn drain_serves_a_request_that_is_on_its_way() {
    // False if the rest was sent later than a drain waits for it.
    let attempt = |row: &str, head: &str, rest: &str| {
        let gate = Gate::new(&Limits::default());
        let mut busy = gate.client();
        let began = Instant::now();
        busy.get("/x").answer();
        busy.send(head);
        let address = gate.address;
        let ending = std::thread::spawn(move || gate.end(Duration::from_secs(10)));
        eventually("the drain has begun", || std::net::TcpStream::connect(address).is_err());
        let sent = busy.socket.write_all(rest.as_bytes());
        if began.elapsed() >= Duration::from_millis(250) {
            drop(busy);
            ending.join().unwrap();
            return false;
        }
        sent.unwrap();
        let (head, status) = busy.head();
        assert_eq!(status, 200, "{row}");
        assert!(head.contains("connection: close\r\n"), "{row}: {head}");
        assert_eq!(busy.wait_for_close(), CloseKind::Closed, "{row}");
        assert_eq!(ending.join().unwrap(), 0, "{row}");
        true
    };
    let check = |row: &str, head: &str, rest: &str| {
        assert!((0..20).any(|_| attempt(row, head, rest)), "{row}: no attempt was in time");
    };
    check("not sent yet", "", "GET /x HTTP/1.1\r\nHost: g\r\n\r\n");
    check("half of the head", "GET /x HTT", "P/1.1\r\nHost: g\r\n\r\n");
    check("half of the body", "POST /echo HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\nh", "i");
}

#[test]
fn drain_cuts_at_its_deadline() {
    let gate = Gate::new(&Limits::default());
    let mut client = gate.client();
    client.get("/endless").head();
    assert_eq!(gate.end(Duration::from_millis(50)), 1);
    assert_eq!(client.wait_for_close(), CloseKind::Reset);
}

#[test]
fn drain_without_connections_ends_at_once() {
    assert_eq!(Gate::new(&Limits::default()).end(Duration::from_secs(60)), 0);
}

#[test]
fn half_closed_client_gets_its_response() {
    let gate = Gate::new(&Limits::default());
    let mut client = gate.client();
    client.send("POST /echo HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\nhi");
    client.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.answer(), (200, "hi".to_owned()));
    assert_eq!(client.wait_for_close(), CloseKind::Closed);
    // A client without an answer in time counts as gone.
    let mut client = gate.client();
    client.get("/never").socket.shutdown(std::net::Shutdown::Write).unwrap();
    eventually("no connection is left", || gate.budget.open() == 0);
    assert_eq!(gate.seen.running.load(Ordering::SeqCst), 0);
    // What it has of a response does not look complete, although its length is unknown.
    let mut client = gate.client();
    client.send("GET /first HTTP/1.0\r\n\r\n").socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.head().1, 200);
    assert_eq!(client.wait_for_close(), CloseKind::Reset);
}

#[test]
fn half_closed_client_that_reads_slowly_is_not_cut() {
    let gate = Gate::new(&Limits::default());
    let mut client = gate.client();
    client.get("/endless").socket.shutdown(std::net::Shutdown::Write).unwrap();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        let mut piece = vec![0; 16 << 20];
        client.socket.read_exact(&mut piece).expect("it goes on");
    }
}

#[test]
fn drain_serves_connections_in_the_accept_queue() {
    let gate = Gate::with(2, &Limits::default(), |listener| listener);
    let mut clients: Vec<_> = (0..300).map(|_| gate.client()).collect();
    let mut early = gate.client();
    early.send("GET /ear");
    let ending = std::thread::spawn(move || gate.end(Duration::from_secs(10)));
    for client in &mut clients {
        client.get("/x");
    }
    early.send("ly HTTP/1.1\r\nHost: g\r\n\r\n");
    for client in clients.iter_mut().chain([&mut early]) {
        assert_eq!(client.answer().0, 200);
        assert_eq!(client.wait_for_close(), CloseKind::Closed);
    }
    assert_eq!(ending.join().unwrap(), 0);
}
