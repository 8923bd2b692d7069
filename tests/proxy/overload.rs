//! Limits of an upstream, and their queues.

use std::{num::NonZeroUsize, time::Duration};

use crate::{
    harness::{CloseKind, Gate, Origin, RawConnection, Server, Setup, eventually, field},
    http2::{END_HEADERS, HEADERS, SETTINGS, block, frame},
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const LONG: Duration = Duration::from_secs(60);
const QUEUED: &str = "permgate_upstream_requests_queued{upstream=\"origin\"}";
const IN_FLIGHT: &str = "permgate_upstream_requests_in_flight{upstream=\"origin\"}";
const CONNECTIONS: &str = "permgate_upstream_connections{upstream=\"origin\"}";

fn one_at_a_time(origin: &Origin) -> Setup {
    origin.setup().with(|setup| {
        setup.upstream.max_in_flight = NonZeroUsize::new(1);
        setup.upstream.queue = 2;
        setup.upstream.queue_timeout = LONG;
    })
}

/// A client whose request waits in the queue after this many others.
fn queued(gate: &Gate, path: &str, others: u64) -> RawConnection {
    let mut client = gate.client();
    client.send(gate.request(&format!("GET /api/{path}"), &[]));
    eventually("it waits", || gate.gauge(QUEUED) == Some(others + 1));
    client
}

#[test]
fn in_flight_and_queue_limits_are_enforced() {
    let origin = Origin::new();
    let gate = one_at_a_time(&origin).start();
    let mut first = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    let mut second = queued(&gate, "second", 0);
    let mut third = queued(&gate, "third", 1);
    let mut fourth = gate.client_with_get();
    let (status, head, _) = fourth.answer();
    assert_eq!((status, field(&head, "retry-after")), (503, Some("1")), "{head}");
    assert_eq!(gate.next_outcome(), ("failed".into(), "upstream_overloaded".into(), 503));
    assert_eq!(gate.gauge(IN_FLIGHT), Some(1));

    // In the order of arrival, over the one connection.
    for (client, path) in [(&mut first, None), (&mut second, Some("second")), (&mut third, Some("third"))] {
        if let Some(path) = path {
            assert!(upstream.head().starts_with(&format!("GET /api/{path} ")));
        }
        upstream.send(OK);
        assert_eq!(client.answer().2, "ok");
    }
    assert_eq!((gate.gauge(IN_FLIGHT), gate.gauge(QUEUED)), (Some(0), Some(0)));
    assert!(!origin.has_pending_connection());
}

#[test]
fn queue_wait_ends_at_the_deadline() {
    let origin = Origin::new();
    let gate = one_at_a_time(&origin).with_queue_timeout(Duration::from_millis(100)).start();
    let _first = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    assert_eq!(gate.client_with_get().refused(), (503, "service_unavailable".into()));
    assert_eq!(gate.next_outcome().1, "upstream_overloaded");
    assert_eq!(gate.gauge(QUEUED), Some(0));
}

#[test]
fn permit_is_held_until_the_last_byte() {
    let origin = Origin::new();
    let gate = one_at_a_time(&origin).start();
    let mut first = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nha");
    first.until("ha");
    let mut second = queued(&gate, "second", 0);
    upstream.send("lf");
    first.until("lf");
    upstream.head();
    upstream.send(OK);
    assert_eq!(second.answer().2, "ok");
}

#[test]
fn cut_or_disconnected_request_leaves_the_queue() {
    let origin = Origin::new();
    let gate = one_at_a_time(&origin).start();
    let first = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    let leaves = queued(&gate, "leaves", 0);
    drop(leaves);
    eventually("it has left the line", || gate.gauge(QUEUED) == Some(0));
    let mut waits = queued(&gate, "waits", 0);
    assert_eq!(gate.revoke().0, 2);
    assert_eq!(gate.gauge(QUEUED), Some(0), "cut, and still in line");
    assert_eq!(waits.wait_for_close(), CloseKind::Reset);
    drop(first);
    upstream.wait_for_close();
    eventually("its place is free", || gate.gauge(IN_FLIGHT) == Some(0));
    assert!(!origin.has_pending_connection(), "sent though it was cut");
    gate.wait_until_empty();
}

#[test]
fn connections_never_exceed_the_limit() {
    let (origin, other) = (Origin::new(), Origin::new());
    let capped = |setup: &mut Setup| {
        setup.upstream.max_connections = NonZeroUsize::new(1);
        setup.upstream.queue_timeout = LONG;
    };
    let gate = origin.setup().with(capped).start();
    let mut first = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    let mut second = queued(&gate, "second", 0);
    assert_eq!(gate.gauge(CONNECTIONS), Some(1));
    upstream.send(OK);
    assert_eq!(first.answer().2, "ok");
    assert!(upstream.head().starts_with("GET /api/second "), "passed on");
    // A connection that ends makes room for another.
    let mut third = queued(&gate, "third", 0);
    upstream.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    assert_eq!(second.answer().2, "ok");
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send(OK);
    assert_eq!(third.answer().2, "ok");
    drop(gate);

    // An idle connection to one URL is closed for a request to another.
    let gate = Setup::to(&[origin.address, other.address]).with(capped).start();
    for origin in [&origin, &other, &origin] {
        let mut client = gate.client_with_get();
        let mut upstream = origin.accept();
        upstream.head();
        upstream.send(OK);
        assert_eq!(client.answer().2, "ok");
        assert_eq!(gate.gauge(CONNECTIONS), Some(1));
    }
}

#[test]
fn a_thousand_failures_leave_nothing_behind() {
    let server = Server::new("a");
    server.set_healthy(false);
    let gate = Setup::to(&[server.address])
        .with(|setup| {
            setup.upstream.max_in_flight = NonZeroUsize::new(3);
            setup.upstream.max_connections = NonZeroUsize::new(2);
            setup.upstream.queue = 1;
        })
        .start();
    let (address, request) = (gate.address, gate.request("GET /api/x", &["Connection: close"]));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..250 {
                    let mut client = RawConnection::to(address);
                    client.send(&request);
                    assert!(matches!(client.answer().0, 502 | 503));
                }
            });
        }
    });
    gate.wait_until_empty();
    eventually("every place is free", || {
        [IN_FLIGHT, CONNECTIONS, QUEUED].iter().all(|gauge| gate.gauge(gauge) == Some(0))
    });
    server.set_healthy(true);
    assert_eq!(gate.client_with_get().answer().2, "a");
}

impl Setup {
    fn with_queue_timeout(self, timeout: Duration) -> Self {
        self.with(|setup| setup.upstream.queue_timeout = timeout)
    }
}

#[test]
fn every_idle_connection_makes_room_for_an_upgrade() {
    const COUNT: usize = 6;
    let origin = Origin::new();
    let gate = origin
        .setup()
        .with(|setup| {
            setup.upstream.max_connections = NonZeroUsize::new(COUNT);
            (setup.upstream.queue_timeout, setup.upstream.idle_timeout) = (LONG, LONG);
        })
        .start();
    let mut clients: Vec<_> = (0..COUNT).map(|_| gate.client_with_get()).collect();
    let mut idle: Vec<_> = (0..COUNT).map(|_| origin.accept()).collect();
    for upstream in &mut idle {
        upstream.head();
        upstream.send(OK);
    }
    for client in &mut clients {
        assert_eq!(client.answer().2, "ok");
    }
    // In one packet over HTTP/2, so that all wait before the first idle connection closes.
    let bearer = format!("Bearer {}", gate.bearer);
    let connect = block(&[
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "gate.example"),
        (":path", "/api/socket"),
        ("sec-websocket-version", "13"),
        ("authorization", &bearer),
    ]);
    let streams = (0..6).flat_map(|number| frame(HEADERS, END_HEADERS, 2 * number + 1, &connect));
    let mut packet = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat();
    packet.extend(streams);
    let mut client = gate.client();
    client.send(&packet);
    let tunnels: Vec<_> = (0..COUNT).map(|_| origin.accept()).collect();
    assert_eq!((tunnels.len(), gate.gauge(CONNECTIONS)), (COUNT, Some(COUNT as u64)));
}
