//! Timeouts of slow clients: in a head, between requests, in a body, and while they read a response.

use std::{
    io::{Read, Write},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use permgate::net::{Limits, RequestError};

use crate::{
    frames::{END_HEADERS, END_STREAM, Frames, GET, HEADERS, block, frame},
    harness::{CloseKind, Gate, eventually},
    tls,
};

const SHORT: Duration = Duration::from_millis(200);

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

#[test]
fn slow_head_gets_408_while_bytes_keep_arriving() {
    let gate = Gate::new(&limits(|limits| limits.head_timeout = SHORT));
    for first in [false, true] {
        let mut client = gate.client();
        if first {
            client.get("/x").answer();
        }
        client.send("GET /x HTTP/1.1\r\nHost: g\r\nX: ");
        let mut writer = client.socket.try_clone().unwrap();
        let dripping = std::thread::spawn(move || {
            use std::io::Write;
            while writer.write_all(b"y").is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        assert_eq!(client.answer(), (408, "refused 408 Request Timeout".to_owned()));
        drop(client);
        dripping.join().unwrap();
        assert_eq!(gate.seen.refusals.lock().unwrap().pop(), Some(RequestError::HeadTimeout));
    }
}

#[test]
fn idle_connections_are_closed_without_a_response() {
    let gate = Gate::new(&limits(|limits| limits.idle_timeout = SHORT));
    let mut fresh = gate.client();
    let mut used = gate.client();
    used.get("/x").answer();
    for client in [&mut fresh, &mut used] {
        assert_eq!(client.wait_for_close(), CloseKind::Closed);
        assert_eq!(client.unread(), b"");
    }
    assert!(gate.seen.refusals.lock().unwrap().is_empty());
    eventually("no connection is left", || gate.budget.open() == 0);
}

#[test]
fn slow_handler_is_not_timed_out() {
    let gate = Gate::new(&limits(|limits| {
        limits.idle_timeout = SHORT;
        limits.head_timeout = SHORT;
        limits.body_timeout = SHORT;
        limits.write_timeout = SHORT;
    }));
    let mut waiting = gate.client();
    waiting.get("/never");
    let mut streaming = gate.client();
    streaming.get("/first").head();
    let mut idle = gate.client();
    assert_eq!(idle.wait_for_close(), CloseKind::Closed);
    idle = gate.client();
    assert_eq!(idle.wait_for_close(), CloseKind::Closed);
    assert_eq!(gate.seen.running.load(Ordering::SeqCst), 1);
    assert_eq!(gate.seen.bodies.load(Ordering::SeqCst), 1);
}

#[test]
fn missing_body_is_a_408_from_the_handler() {
    let gate = Gate::new(&limits(|limits| limits.body_timeout = SHORT));
    for sent in ["", "abc"] {
        let mut client = gate.client();
        client.send(format!("POST /echo HTTP/1.1\r\nHost: g\r\nContent-Length: 10\r\n\r\n{sent}"));
        let (head, status) = client.head();
        assert_eq!(status, 408);
        assert!(head.contains("connection: close\r\n"), "{head}");
    }
    let mut client = gate.client();
    client.send("POST /echo HTTP/1.1\r\nHost: g\r\nContent-Length: 30\r\n\r\n");
    let begun = Instant::now();
    for _ in 0..30 {
        // Each pause is far below the limit, their sum above it.
        std::thread::sleep(SHORT / 25);
        client.send("x");
    }
    assert_eq!(client.answer().0, 200, "a slow body that keeps coming is none that stays out");
    assert!(begun.elapsed() > SHORT);
}

#[test]
fn unread_response_is_cut() {
    let gate = Gate::new(&limits(|limits| limits.write_timeout = SHORT));
    let mut client = gate.client();
    client.get("/endless");
    eventually("the connection is gone", || {
        gate.seen.requests.load(Ordering::SeqCst) == 1 && gate.budget.open() == 0
    });
    assert_eq!(gate.seen.bodies.load(Ordering::SeqCst), 0);
    assert_eq!(client.wait_for_close(), CloseKind::Reset);
}

#[test]
fn slow_reader_is_not_cut() {
    let gate = Gate::new(&limits(|limits| limits.write_timeout = 2 * SHORT));
    let mut client = gate.client();
    client.get("/endless").head();
    let mut piece = vec![0; 100_000];
    for _ in 0..30 {
        std::thread::sleep(SHORT / 4);
        std::io::Read::read_exact(&mut client.socket, &mut piece).expect("it goes on");
    }
    assert_eq!(gate.budget.open(), 1);
}

#[test]
fn client_that_keeps_sending_after_the_last_response_is_closed() {
    let gate = Gate::new(&Limits::default());
    let mut client = gate.client();
    client.send("POST /refuse HTTP/1.1\r\nHost: g\r\nContent-Length: 100000000\r\n\r\n");
    assert_eq!(client.head().1, 401);
    eventually("no connection is left", || gate.budget.open() == 0);
}

#[test]
fn new_limits_apply_to_open_connections() {
    let gate = Gate::new(&Limits::default());
    let mut client = gate.client();
    client.get("/x").answer();
    gate.set_limits(&limits(|limits| limits.idle_timeout = SHORT));
    assert_eq!(client.wait_for_close(), CloseKind::Closed);
}

#[test]
fn tls_client_that_has_read_everything_is_not_cut() {
    let certificates = tls::certificates(&["one"]);
    let gate = Gate::with(1, &limits(|limits| limits.write_timeout = 3 * SHORT), |listener| {
        listener.with_tls(certificates.clone())
    });
    let mut client = tls::connect(gate.client().socket, "one");
    let piece = "~".repeat(8 << 10);
    let request =
        format!("POST /echo HTTP/1.1\r\nHost: one.test\r\nContent-Length: {}\r\n\r\n{piece}", piece.len());
    // Until the kernel has no room for a response, which the TLS session has taken.
    let waits_for_room = || {
        let until = Instant::now() + SHORT / 2;
        while gate.seen.bodies.load(Ordering::SeqCst) > 0 {
            if Instant::now() > until {
                return true;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        false
    };
    let mut sent = 0;
    while !waits_for_room() {
        client.write_all(request.as_bytes()).unwrap();
        sent += 1;
        eventually("it is received", || gate.seen.requests.load(Ordering::SeqCst) == sent);
    }
    let (mut left, mut read) = (sent * piece.len(), vec![0; 64 << 10]);
    while left > 0 {
        let count = client.read(&mut read).unwrap();
        assert!(count > 0, "closed within a response");
        left -= read[..count].iter().filter(|byte| **byte == b'~').count();
    }
    std::thread::sleep(5 * SHORT);
    client.write_all(b"GET /x HTTP/1.1\r\nHost: one.test\r\n\r\n").unwrap();
    assert!(client.read(&mut read).unwrap() > 0, "the connection is idle, not stalled");
}

#[test]
fn head_timeout_of_http2_is_that_of_one_head() {
    let gate = Gate::new(&limits(|limits| limits.head_timeout = 2 * SHORT));
    let mut client = Frames::to(&gate);
    let mut rest = Vec::new();
    for number in 0..12 {
        let head = frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &block(&GET));
        let (begun, end) = head.split_at(12);
        // Each packet ends one head and begins the next.
        client.raw(&[&rest[..], begun].concat());
        rest = end.to_vec();
        std::thread::sleep(SHORT / 4);
    }
    assert_eq!(client.raw(&rest).end_of(23), "answered");
}
