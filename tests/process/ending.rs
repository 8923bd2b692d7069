//! SIGTERM: the gateway is not ready, requests under way may finish, and the exit code is 0.

use std::{
    io::Write,
    net::TcpStream,
    sync::{Mutex, mpsc},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    harness::{Process, TestDirectory, services},
    support::{
        http::Client,
        upstream::{Upstream, json},
    },
};

#[test]
fn request_in_flight_finishes_on_sigterm() {
    let (arrived, arrival) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let upstream = Upstream::start(move |_, socket| {
        arrived.send(()).unwrap();
        released.lock().unwrap().recv().unwrap();
        json(socket, "{\"late\": true}")
    });
    let directory = TestDirectory::new(&services(upstream.address));
    let mut process = directory.run();
    let token = directory.token("alice", "tracker");
    let ready = process.operator("GET", "/readyz", None);
    assert_eq!((ready.status, ready.json()["status"].as_str()), (200, Some("ready")));

    let mut held = process.open("/api/slow", &token);
    arrival.recv().unwrap();
    process.signal(Signal::TERM);
    process.words.wait_for("draining");
    assert_eq!(process.operator("GET", "/readyz", None).status, 503);
    assert_eq!(process.operator("GET", "/healthz", None).status, 200);
    let (data, _) = directory.check("health", 1);
    assert_eq!(data, "not ready\n");
    refused(&process);

    release.send(()).unwrap();
    let answer = held.answer("GET");
    assert_eq!((answer.status, answer.text()), (200, "{\"late\": true}"));
    assert_eq!(process.end().code(), Some(0));
    assert!(!directory.path().join("permgate.sock").exists(), "the socket's file is gone");
}

/// Readiness ends first, so that a load balancer sends nothing more before connections are refused.
#[test]
fn connections_are_accepted_until_the_drain_delay_is_over() {
    let upstream = Upstream::start(|_, socket| json(socket, "{}"));
    let directory = TestDirectory::new(&services(upstream.address));
    directory.write_all(&directory.read().replace("drain = \"30s\"", "drain_delay = \"1h\""));
    let mut process = directory.run();
    let token = directory.token("alice", "tracker");
    process.signal(Signal::TERM);
    process.words.wait_for("not ready, accepting connections until the drain");
    assert_eq!(process.operator("GET", "/readyz", None).status, 503);
    assert_eq!(process.open("/api/new", &token).answer("GET").status, 200);
    directory.token("alice", "tracker:read");
    // A second signal does not wait for the rest of the delay.
    process.signal(Signal::TERM);
    process.words.wait_for("draining");
    refused(&process);
    assert_eq!(process.end().code(), Some(0));
}

#[test]
fn drain_begins_when_its_delay_is_over() {
    let directory = TestDirectory::new("");
    directory.write_all(&directory.read().replace("drain = \"30s\"", "drain_delay = \"300ms\""));
    let mut process = directory.run();
    let asked = Instant::now();
    process.signal(Signal::TERM);
    assert_eq!(process.end().code(), Some(0));
    assert!(asked.elapsed() >= Duration::from_millis(300), "{:?}", asked.elapsed());
    assert!(process.words.text().contains("draining"), "{}", process.words.text());
}

#[test]
fn a_hanging_stream_is_cut_at_the_deadline() {
    let (upstream, _over) = Upstream::endless();
    let directory = TestDirectory::new(&services(upstream.address));
    directory.write_all(&directory.read().replace("drain = \"30s\"", "drain = \"500ms\""));
    let mut process = directory.run();
    let token = directory.token("alice", "tracker");
    let mut stream = process.open("/api/stream", &token);
    assert_eq!(stream.head().status, 200);
    let asked = Instant::now();
    process.signal(Signal::TERM);
    cut(&mut stream);
    assert_eq!(process.end().code(), Some(0));
    assert!(asked.elapsed() >= Duration::from_millis(500), "it had its time: {:?}", asked.elapsed());
}

#[test]
fn second_sigterm_stops_at_once() {
    let (upstream, _over) = Upstream::endless();
    let directory = TestDirectory::new(&services(upstream.address));
    directory.write_all(&directory.read().replace("drain = \"30s\"", "drain = \"1h\""));
    let mut process = directory.run();
    let token = directory.token("alice", "tracker");
    let mut stream = process.open("/api/stream", &token);
    assert_eq!(stream.head().status, 200);
    process.signal(Signal::TERM);
    process.words.wait_for("draining");
    assert_eq!(stream.chunk().unwrap(), b"event", "it is under way and has its time");
    process.signal(Signal::TERM);
    cut(&mut stream);
    assert_eq!(process.end().code(), Some(0));
}

#[test]
fn signals_are_handled_from_the_start() {
    // The listener lines are the first output, so a supervisor may send signals from then on.
    let directory = TestDirectory::new("");
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut process = directory.run();
        process.signal(Signal::HUP);
        process.signal(signal);
        assert_eq!(process.end().code(), Some(0), "{signal:?}: {}", process.words.text());
    }
}

/// Waits until new connections are refused.
fn refused(process: &Process) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Ok(mut socket) = TcpStream::connect(process.proxy) {
        let _ = socket.write_all(b"GET / HTTP/1.1\r\n");
        assert!(Instant::now() < deadline, "connections are still taken");
        std::thread::yield_now();
    }
}

/// Reads a stream until it is cut, which must not look like a complete response.
fn cut(stream: &mut Client) {
    while let Ok(chunk) = stream.chunk() {
        assert!(!chunk.is_empty(), "a stream that is cut does not end like a whole one");
    }
}
