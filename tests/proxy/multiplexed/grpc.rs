//! gRPC calls whose upstream fails: the client gets a status, since a reset with CANCEL would say that the
//! call was cancelled.

use super::{SOON, h2c};
use crate::harness::{
    Origin,
    frames::{CANCEL, DATA, END_STREAM, Frames, HEADERS, INTERNAL_ERROR, NO_ERROR},
};

/// The upstream does this after the head and one message of its response.
fn check(row: &str, play: impl FnOnce(&mut Frames), reason: &str) {
    let origin = Origin::new();
    let gate = h2c(&origin).with(|setup| setup.upstream.stream_idle_timeout = SOON).start();
    let bearer = format!("Bearer {}", gate.bearer);
    let mut client = Frames::to(gate.address, &[]);
    let pseudo =
        [(":method", "POST"), (":scheme", "http"), (":authority", "gate.example"), (":path", "/api/x")];
    let fields = [("content-type", "application/grpc"), ("te", "trailers"), ("authorization", &bearer)];
    client.trailers(1, &[&pseudo[..], &fields[..]].concat());
    let mut upstream = origin.accept_h2(&[]);
    assert_eq!(upstream.request(), (1, true));
    upstream.head(1, &[(":status", "200"), ("content-type", "application/grpc")]).data(1, "message");
    let head = client.next();
    assert_eq!((head.kind, head.flags & END_STREAM), (HEADERS, 0), "{row}");
    assert_eq!(client.next().payload, b"message", "{row}");
    play(&mut upstream);
    let trailers = client.next();
    assert_eq!((trailers.kind, trailers.flags & END_STREAM), (HEADERS, END_STREAM), "{row}: {trailers:?}");
    assert_eq!(gate.next_outcome(), ("failed".into(), reason.into(), 200), "{row}");
    drop(client);
    gate.wait_until_empty();
}

#[test]
fn call_that_breaks_off_ends_with_a_status() {
    let reset = "upstream_reset";
    check("silent", |upstream| assert_eq!(upstream.was_reset(1), CANCEL), "upstream_timeout");
    check("reset", |upstream| _ = upstream.reset(1, INTERNAL_ERROR), reset);
    check("cancelled", |upstream| _ = upstream.reset(1, CANCEL), reset);
    check("reset as if done", |upstream| _ = upstream.reset(1, NO_ERROR), reset);
    check("closed", Frames::close, reset);
    check("garbage", |upstream| _ = upstream.send(DATA, 0, 0, b"on no stream"), reset);
}
