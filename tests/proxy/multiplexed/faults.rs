//! Faults of an upstream on one stream or on all, and which requests are retried.

use std::time::Duration;

use super::{SOON, h2c, with_open_connection};
use crate::harness::{
    CloseKind, Origin,
    frames::{
        CANCEL, DATA, END_STREAM, Frames, HEADERS, INTERNAL_ERROR, NO_ERROR, REFUSED_STREAM, RST_STREAM,
    },
};

/// The upstream does this to stream 3 while stream 1 is under way. The client of stream 3
/// gets this response; stream 1 is not affected.
fn check(row: &str, play: impl FnOnce(&mut Frames), expected: (u16, &str), reason: &str) {
    let origin = Origin::new();
    let gate =
        h2c(&origin).with(|setup| setup.upstream.first_byte_timeout = Duration::from_millis(400)).start();
    let mut other = gate.client_with_get();
    let mut upstream = origin.accept_h2(&[]);
    assert_eq!(upstream.request(), (1, true));
    upstream.head(1, &[(":status", "200")]).data(1, "begins");
    other.head();
    other.until("begins");
    let mut client = gate.client();
    client.send(gate.request("POST /api/x", &["Content-Length: 0"]));
    assert_eq!(upstream.request(), (3, true));
    play(&mut upstream);
    let (status, error) = client.refused();
    assert_eq!((status, error.as_str()), expected, "{row}");
    let logged = gate.next_outcome();
    assert_eq!((logged.1.as_str(), logged.2), (reason, u64::from(status)), "{row}");
    upstream.send(DATA, END_STREAM, 1, b"ends");
    other.until("ends");
    other.until("0\r\n\r\n");
    assert!(!origin.has_pending_connection(), "{row}: asked a second time");
    drop((client, other));
    gate.wait_until_empty();
}

fn says(fields: &'static [(&'static str, &'static str)]) -> impl FnOnce(&mut Frames) {
    move |upstream| _ = upstream.head(3, fields)
}

#[test]
fn stream_fault_affects_only_its_stream() {
    let bad = (502, "bad_gateway");
    check("reset", |upstream| _ = upstream.reset(3, INTERNAL_ERROR), bad, "upstream_reset");
    check("reset as if done", |upstream| _ = upstream.reset(3, NO_ERROR), bad, "upstream_reset");
    check(
        "says nothing",
        |upstream| assert_eq!(upstream.was_reset(3), CANCEL),
        (504, "gateway_timeout"),
        "upstream_timeout",
    );
    check("no status", says(&[("x", "y")]), bad, "upstream_invalid");
    check("a status of no class", says(&[(":status", "700")]), bad, "upstream_invalid");
    let late = (504, "gateway_timeout");
    // Treated like any interim response, because HTTP/2 has no such upgrade.
    check("an upgrade", says(&[(":status", "101")]), late, "upstream_timeout");
    let lengths = &[(":status", "200"), ("content-length", "1"), ("content-length", "2")];
    check("two lengths", says(lengths), bad, "upstream_invalid");
    let equal = &[(":status", "200"), ("content-length", "1"), ("content-length", "1")];
    check("two equal lengths", says(equal), bad, "upstream_invalid");
    let coding = &[(":status", "200"), ("transfer-encoding", "chunked")];
    check("a field of HTTP/1.1", says(coding), bad, "upstream_invalid");
    check(
        "interim answers and no other",
        |upstream| (0..17).for_each(|_| _ = upstream.head(3, &[(":status", "103")])),
        late,
        "upstream_timeout",
    );
    check(
        "a head beyond 64 KiB",
        |upstream| {
            let long = "a".repeat(15 << 10);
            let fields: Vec<(&str, &str)> = (0..5).map(|_| ("x-long", long.as_str())).collect();
            upstream.long_head(3, &[&[(":status", "200")], &fields[..]].concat());
        },
        bad,
        "upstream_invalid",
    );
}

#[test]
fn sixteen_interim_answers_are_skipped() {
    let origin = Origin::new();
    let (gate, mut client, mut upstream) = with_open_connection(&origin, h2c(&origin));
    client.send(gate.request("GET /api/x", &[]));
    assert_eq!(upstream.request(), (3, true));
    (0..16).for_each(|_| _ = upstream.head(3, &[(":status", "103"), ("link", "</a>")]));
    upstream.answer(3, "ok");
    assert_eq!(client.answer().2, "ok");
}

/// The upstream does this after the head and the first piece of a response.
fn check_broken(row: &str, length: Option<&str>, play: impl FnOnce(&mut Frames), reason: &str) {
    let origin = Origin::new();
    let setup = h2c(&origin).with(|setup| setup.upstream.body_timeout = SOON);
    let (gate, mut client, mut upstream) = with_open_connection(&origin, setup);
    client.send(gate.request("GET /api/x", &[]));
    assert_eq!(upstream.request(), (3, true));
    let mut fields = vec![(":status", "200")];
    fields.extend(length.map(|length| ("content-length", length)));
    upstream.head(3, &fields).data(3, "piece");
    client.head();
    client.until("piece");
    play(&mut upstream);
    assert_eq!(client.wait_for_close(), CloseKind::Reset, "{row}");
    let logged = gate.next_outcome();
    assert_eq!((logged.1.as_str(), logged.2), (reason, 200), "{row}");
    gate.wait_until_empty();
}

#[test]
fn fault_within_a_response_never_looks_like_its_end() {
    let reset = "upstream_reset";
    check_broken("reset", None, |upstream| _ = upstream.reset(3, INTERNAL_ERROR), reset);
    check_broken("reset as if done", Some("9"), |upstream| _ = upstream.reset(3, NO_ERROR), reset);
    check_broken("too short", Some("9"), |upstream| _ = upstream.send(DATA, END_STREAM, 3, b""), reset);
    check_broken("too long", Some("6"), |upstream| _ = upstream.data(3, "and more"), reset);
    check_broken("closed", None, Frames::close, reset);
    check_broken("garbage", None, |upstream| _ = upstream.send(DATA, 0, 0, b"on no stream"), reset);
    check_broken("silent", None, |upstream| assert_eq!(upstream.was_reset(3), CANCEL), "upstream_timeout");
}

/// To a client of HTTP/1.1 the response ends with its head, whatever the upstream does with the stream then.
#[test]
fn response_without_a_body_is_complete_with_its_head() {
    let check = |row: &str, method: &str, status: &str, play: fn(&mut Frames)| {
        let origin = Origin::new();
        let (gate, mut client, mut upstream) = with_open_connection(&origin, h2c(&origin));
        client.send(gate.request(&format!("{method} /api/x"), &[]));
        assert_eq!(upstream.request(), (3, true));
        upstream.head(3, &[(":status", status)]);
        play(&mut upstream);
        client.head();
        let logged = ("forwarded".into(), "ok".into(), status.parse().unwrap());
        assert_eq!(gate.next_outcome(), logged, "{row}");
        client.send(gate.request("GET /api/y", &[]));
        loop {
            match upstream.next() {
                frame if (frame.kind, frame.stream) == (HEADERS, 5) => break,
                frame => assert_eq!((frame.kind, frame.stream), (RST_STREAM, 3), "{row}: {frame:?}"),
            }
        }
        upstream.answer(5, "ok");
        assert_eq!(client.answer().2, "ok", "{row}");
        drop(client);
        gate.wait_until_empty();
    };
    for (method, status) in [("HEAD", "200"), ("GET", "204"), ("GET", "304"), ("DELETE", "204")] {
        check("ended by an empty frame", method, status, |upstream| {
            upstream.send(DATA, END_STREAM, 3, b"");
        });
        check("with a body", method, status, |upstream| _ = upstream.send(DATA, END_STREAM, 3, b"page"));
        check("not ended", method, status, |_| ());
        check("reset", method, status, |upstream| _ = upstream.reset(3, INTERNAL_ERROR));
    }
}

/// The upstream refuses stream 3 in this way, and the request is retried on a new stream.
fn check_again(row: &str, line: &str, play: impl FnOnce(&Origin, Frames) -> Frames, stream: u32) {
    let origin = Origin::new();
    let (gate, mut client, mut upstream) = with_open_connection(&origin, h2c(&origin));
    client.send(gate.request(line, &["Content-Length: 0"]));
    assert_eq!(upstream.request(), (3, true), "{row}");
    let mut second = play(&origin, upstream);
    assert_eq!(second.request(), (stream, true), "{row}");
    second.answer(stream, "ok");
    assert_eq!(client.answer().2, "ok", "{row}");
    drop(client);
    gate.wait_until_empty();
}

#[test]
fn unprocessed_request_is_retried() {
    check_again(
        "refused",
        "POST /api/x",
        |_, mut upstream| {
            upstream.reset(3, REFUSED_STREAM);
            upstream
        },
        5,
    );
    check_again(
        "beyond the last one that it takes",
        "POST /api/x",
        |origin, mut upstream| {
            upstream.go_away(1, NO_ERROR);
            origin.accept_h2(&[])
        },
        1,
    );
    check_again(
        "closed, and once more does no harm",
        "GET /api/x",
        |origin, upstream| {
            drop(upstream);
            origin.accept_h2(&[])
        },
        1,
    );
}

/// The upstream ends stream 3 in this way, and nothing is retried.
fn check_once(row: &str, line: &str, body: &str, play: impl FnOnce(Frames) -> Option<Frames>) {
    let origin = Origin::new();
    let (gate, mut client, mut upstream) = with_open_connection(&origin, h2c(&origin));
    client.send(gate.request(line, &[&format!("Content-Length: {}", body.len())])).send(body);
    assert_eq!(upstream.request(), (3, body.is_empty()), "{row}");
    if !body.is_empty() {
        assert_eq!(upstream.next().payload, body.as_bytes(), "{row}");
    }
    let _open = play(upstream);
    assert_eq!(client.refused(), (502, "bad_gateway".into()), "{row}");
    assert!(!origin.has_pending_connection(), "{row}: sent twice");
}

#[test]
fn possibly_processed_request_is_not_retried() {
    let closed = |upstream: Frames| {
        drop(upstream);
        None
    };
    check_once("POST, closed", "POST /api/x", "", closed);
    check_once("a body, closed", "PUT /api/x", "body", closed);
    check_once("reset", "GET /api/x", "", |mut upstream| {
        upstream.reset(3, INTERNAL_ERROR);
        Some(upstream)
    });
    check_once("a body that is gone, refused", "PUT /api/x", "body", |mut upstream| {
        upstream.reset(3, REFUSED_STREAM);
        Some(upstream)
    });
    check_once("begun, then going away", "POST /api/x", "", |mut upstream| {
        upstream.go_away(3, NO_ERROR);
        None
    });
}

/// Each connection carries one request. Requests that waited for a connection compete for its only stream with new
/// ones, more than once.
#[test]
fn request_waits_on_while_others_take_the_streams() {
    const CLIENTS: usize = 4;
    const ROUNDS: usize = 10;
    let origin = Origin::new();
    let gate = h2c(&origin)
        .with(|setup| {
            setup.upstream.max_connections = std::num::NonZeroUsize::new(1);
            setup.upstream.queue_timeout = Duration::from_secs(60);
        })
        .start();
    let request = &gate.request("GET /api/x", &[]);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let mut client = gate.client();
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    client.send(request);
                    assert_eq!(client.answer().0, 200);
                }
            });
        }
        let mut upstreams = Vec::new();
        for _ in 0..CLIENTS * ROUNDS {
            let mut upstream = origin.accept_h2(&[(3, 1)]);
            assert_eq!(upstream.request(), (1, true));
            upstream.go_away(1, NO_ERROR).answer(1, "ok");
            upstreams.push(upstream);
        }
    });
}
