//! Rate limits, quotas and concurrency limits: what they count, what the client is told,
//! and that a slot is released however an exchange ends.

use std::{num::NonZeroU32, time::Duration};

use permgate::{
    authz::rules::ServiceKey,
    settings::{Limit, LimitKey, Queue, Rate},
};

use crate::harness::{Gate, Origin, RawConnection, Setup, eventually, field, fields};

fn number(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap()
}

/// `count` requests per window, all of which may come at once.
fn rate(per: LimitKey, count: u32, window: Duration) -> Limit {
    let rate = Rate { count: number(count), window, burst: number(count) };
    Limit { per, rate: Some(rate), concurrent: None, queue: Queue::NONE }
}

fn hourly(per: LimitKey, count: u32) -> Limit {
    rate(per, count, Duration::from_secs(3600))
}

fn cap(per: LimitKey, count: u32) -> Limit {
    Limit { per, rate: None, concurrent: Some(number(count)), queue: Queue::NONE }
}

/// Like [`cap`], with a queue of this length.
fn queued(per: LimitKey, count: u32, length: usize, timeout: Duration) -> Limit {
    Limit { queue: Queue { length, timeout }, ..cap(per, count) }
}

fn limited(setup: Setup, limits: &[Limit]) -> Setup {
    setup.with(|setup| {
        let main = ServiceKey::parse("main").unwrap();
        setup.settings.limits.services.insert(main, limits.to_vec());
    })
}

/// Sends a request that reaches the upstream. Returns the head of its response.
fn passes(gate: &Gate, origin: &Origin, request: &str) -> String {
    let mut client = gate.client();
    client.send(request);
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    let (status, head, _) = client.answer();
    assert_eq!(status, 200);
    head
}

/// Sends a request that exceeds a limit. Returns the head of its response.
fn refused(gate: &Gate, request: &str) -> String {
    let mut client = gate.client();
    client.send(request);
    let (status, head, body) = client.answer();
    assert_eq!(status, 429, "{body}");
    assert!(body.contains("\"too_many_requests\""), "{body}");
    head
}

const ANONYMOUS: &str = "GET /api/public HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn rate_limit_counts_by_its_key() {
    let check = |per: LimitKey, anonymous_counts: bool| {
        let origin = Origin::new();
        let gate = limited(origin.setup().public("/api/public"), &[hourly(per, 2)]).start();
        let request = gate.request("GET /api/x", &[]);
        passes(&gate, &origin, &request);
        passes(&gate, &origin, &request);
        refused(&gate, &request);
        if anonymous_counts {
            refused(&gate, ANONYMOUS);
        } else {
            passes(&gate, &origin, ANONYMOUS);
        }
        // A bad token is refused as such.
        let mut client = gate.client();
        client.send("GET /api/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer nonsense\r\n\r\n");
        assert_eq!(client.refused().0, 401, "{per:?}");
    };
    check(LimitKey::Token, false);
    check(LimitKey::User, false);
    check(LimitKey::Address, true);
    check(LimitKey::Service, true);
}

#[test]
fn limit_by_address_uses_the_address_from_trusted_proxies() {
    let origin = Origin::new();
    let setup = limited(origin.setup(), &[hourly(LimitKey::Address, 1)]);
    let gate = setup
        .with(|setup| setup.rules.trusted_proxies.networks = vec!["127.0.0.0/8".parse().unwrap()])
        .start();
    let from = |address: &str| gate.request("GET /api/x", &[&format!("X-Forwarded-For: {address}")]);
    passes(&gate, &origin, &from("203.0.113.1"));
    refused(&gate, &from("203.0.113.1"));
    passes(&gate, &origin, &from("203.0.113.2"));
    passes(&gate, &origin, &from("2001:db8::1"));
    refused(&gate, &from("2001:db8::2"));
}

#[test]
fn rate_limited_client_gets_retry_after_and_passes_later() {
    let origin = Origin::new();
    let second = rate(LimitKey::Token, 1, Duration::from_secs(1));
    let gate = limited(origin.setup(), &[second, hourly(LimitKey::User, 100)]).start();
    let request = gate.request("GET /api/x", &[]);
    let head = passes(&gate, &origin, &request);
    let policy = "\"1/s per token\";q=1;w=1, \"100/h per user\";q=100;w=3600";
    assert_eq!(field(&head, "ratelimit-policy"), Some(policy));
    assert_eq!(field(&head, "ratelimit"), Some("\"1/s per token\";r=0;t=1, \"100/h per user\";r=99;t=36"));
    let head = refused(&gate, &request);
    assert_eq!(field(&head, "retry-after"), Some("1"));
    assert_eq!(field(&head, "ratelimit"), Some("\"1/s per token\";r=0;t=1"));
    assert_eq!(field(&head, "ratelimit-policy"), Some(policy));
    gate.next_outcome();
    assert_eq!(gate.next_outcome(), ("denied".into(), "rate_limited".into(), 429));
    // The wait itself is tested.
    std::thread::sleep(Duration::from_secs(1));
    let head = passes(&gate, &origin, &request);
    let left = fields(&head, "ratelimit").concat();
    assert!(left.contains("\"100/h per user\";r=98;"), "the refused one cost nothing: {left}");
}

#[test]
fn unchanged_limit_keeps_its_count_across_a_reload() {
    let origin = Origin::new();
    let gate = limited(origin.setup(), &[hourly(LimitKey::Token, 1)]).start();
    let request = gate.request("GET /api/x", &[]);
    passes(&gate, &origin, &request);
    gate.reload(limited(origin.setup(), &[hourly(LimitKey::Token, 1), hourly(LimitKey::User, 5)]));
    refused(&gate, &request);
    gate.reload(limited(origin.setup(), &[hourly(LimitKey::Token, 2)]));
    passes(&gate, &origin, &request);
    gate.reload(origin.setup());
    for _ in 0..3 {
        let head = passes(&gate, &origin, &request);
        assert!(!head.contains("ratelimit"), "{head}");
    }
    let everywhere = |setup: &mut Setup| setup.settings.limits.everywhere = vec![hourly(LimitKey::User, 1)];
    gate.reload(origin.setup().with(everywhere));
    passes(&gate, &origin, &request);
    refused(&gate, &request);
}

#[test]
fn slot_is_freed_however_the_exchange_ends() {
    let origin = Origin::new();
    let gate = limited(origin.setup(), &[cap(LimitKey::Token, 1)]).start();
    let check = |row: &str, end: &dyn Fn(RawConnection, RawConnection)| {
        let client = gate.client_with_get();
        let mut upstream = origin.accept();
        upstream.head();
        let head = refused(&gate, &gate.request("GET /api/x", &[]));
        assert_eq!(field(&head, "retry-after"), Some("1"), "{row}");
        end(client, upstream);
        gate.restore();
        eventually(row, || gate.live() == 0);
        passes(&gate, &origin, &gate.request("GET /api/x", &[]));
    };
    let begin = |client: &mut RawConnection, upstream: &mut RawConnection| {
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf ");
        client.until("half ");
    };
    check("the answer is complete", &|mut client, mut upstream| {
        upstream.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
        client.answer();
    });
    check("the client is gone before the head", &|client, _upstream| client.reset());
    check("the client is gone in the middle", &|mut client, mut upstream| {
        begin(&mut client, &mut upstream);
        client.reset();
    });
    check("the upstream is gone before the head", &|mut client, upstream| {
        drop(upstream);
        assert_eq!(client.refused().0, 502);
    });
    check("the upstream is gone in the middle", &|mut client, mut upstream| {
        begin(&mut client, &mut upstream);
        upstream.reset();
        client.wait_for_close();
    });
    check("the fence cuts it", &|mut client, mut upstream| {
        begin(&mut client, &mut upstream);
        gate.revoke();
        client.wait_for_close();
    });
    gate.next_outcome();
    assert_eq!(gate.next_outcome().1, "ok", "the second line is that of the exchange that held the place");
}

/// Returns once the worker has read what was sent before, because it serves connections in order.
fn barrier(gate: &Gate) {
    let mut client = gate.client();
    client.send(gate.request("GET /elsewhere", &[]));
    assert_eq!(client.refused().0, 404);
}

#[test]
fn requests_beyond_the_cap_queue_in_order() {
    let origin = Origin::new();
    let gate = limited(origin.setup(), &[queued(LimitKey::Token, 1, 2, Duration::from_secs(60))]).start();
    let mut first = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    let (mut second, third) = (gate.client_with_get(), gate.client_with_get());
    barrier(&gate);
    refused(&gate, &gate.request("GET /api/x", &[]));
    // A waiter that disconnects is skipped.
    third.reset();
    upstream.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    assert_eq!(first.answer().0, 200);
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
    assert_eq!(second.answer().0, 200);
    passes(&gate, &origin, &gate.request("GET /api/x", &[]));
}

#[test]
fn queued_request_is_decided_by_the_current_state() {
    let origin = Origin::new();
    let gate = limited(origin.setup(), &[queued(LimitKey::Service, 1, 2, Duration::from_secs(60))]).start();
    let mut first = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf ");
    first.until("half ");
    let mut second = gate.client_with_get();
    barrier(&gate);
    // The revocation cuts the first request, whose slot the second one would get.
    gate.revoke();
    assert_eq!(second.refused(), (401, "invalid_token".into()));
    gate.restore();
    passes(&gate, &origin, &gate.request("GET /api/x", &[]));
}

#[test]
fn queued_request_is_decided_by_the_current_rules() {
    let origin = Origin::new();
    let setup = || limited(origin.setup(), &[queued(LimitKey::Service, 1, 2, Duration::from_secs(60))]);
    let gate = setup().start();
    let mut first = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    let mut second = gate.client_with_get();
    barrier(&gate);
    // The reload cuts the first request, whose slot the second one gets.
    gate.reload(setup().with(|setup| setup.service.readers.clear()));
    first.wait_for_close();
    assert_eq!(second.refused(), (403, "insufficient_scope".into()));
}

#[test]
fn client_that_leaves_the_queue_is_logged() {
    let origin = Origin::new();
    let gate = limited(origin.setup(), &[queued(LimitKey::Service, 1, 2, Duration::from_secs(60))]).start();
    let _first = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    let second = gate.client_with_get();
    barrier(&gate);
    assert_eq!(gate.next_outcome().1, "no_service");
    second.reset();
    assert_eq!(gate.next_outcome(), ("rejected".into(), "client_closed".into(), 499));
}

#[test]
fn queue_timeout_ends_the_wait() {
    let origin = Origin::new();
    let gate = limited(origin.setup(), &[queued(LimitKey::Token, 1, 2, Duration::from_millis(20))]).start();
    let _first = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    refused(&gate, &gate.request("GET /api/x", &[]));
    assert_eq!(gate.next_outcome().1, "concurrency_limited");
}

#[test]
fn new_cap_counts_requests_in_progress() {
    let origin = Origin::new();
    let gate = limited(origin.setup(), &[cap(LimitKey::User, 2)]).start();
    let (_first, mut one) = (gate.client_with_get(), origin.accept());
    one.head();
    gate.reload(limited(origin.setup(), &[cap(LimitKey::User, 1)]));
    refused(&gate, &gate.request("GET /api/x", &[]));
    gate.reload(limited(origin.setup(), &[cap(LimitKey::User, 3)]));
    passes(&gate, &origin, &gate.request("GET /api/x", &[]));
}

#[test]
fn request_refused_by_one_limit_is_counted_by_none() {
    let origin = Origin::new();
    let gate = limited(origin.setup(), &[hourly(LimitKey::User, 2), cap(LimitKey::Token, 1)]).start();
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    for _ in 0..5 {
        refused(&gate, &gate.request("GET /api/x", &[]));
    }
    upstream.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    client.answer();
    eventually("the place is free", || gate.live() == 0);
    passes(&gate, &origin, &gate.request("GET /api/x", &[]));
    let head = refused(&gate, &gate.request("GET /api/x", &[]));
    assert!(field(&head, "ratelimit").is_some(), "{head}");
}
