//! Each way in which an upstream can fail, and what the client, the log and the upstream see of it.

use std::{io::Write, time::Duration};

use crate::harness::{CloseKind, Gate, Origin, RawConnection, Setup, nobody};

const SOON: Duration = Duration::from_millis(100);

fn impatient(origin: &Origin) -> Setup {
    origin.setup().with(|setup| {
        setup.upstream.first_byte_timeout = SOON;
        setup.upstream.body_timeout = SOON;
    })
}

/// The upstream does this to its first request.
fn check(
    row: &str,
    play: impl FnOnce(RawConnection) -> Option<RawConnection>,
    expected: (u16, &str),
    reason: &str,
) {
    let origin = Origin::new();
    let gate = impatient(&origin).start();
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    let rest = play(upstream);
    let (status, error) = client.refused();
    assert_eq!((status, error.as_str()), expected, "{row}");
    let logged = gate.next_outcome();
    assert_eq!((logged.1.as_str(), logged.2), (reason, u64::from(status)), "{row}");
    if let Some(mut upstream) = rest {
        // The gateway has closed the connection, so nothing more is read.
        upstream.wait_for_close();
    }
    assert!(!origin.has_pending_connection(), "{row}: asked a second time");
    drop(client);
    gate.wait_until_empty();
}

fn says(text: impl AsRef<[u8]>) -> impl FnOnce(RawConnection) -> Option<RawConnection> {
    move |mut upstream| {
        // The gateway may have read enough before the end.
        let _ = upstream.socket.write_all(text.as_ref());
        Some(upstream)
    }
}

#[test]
fn fault_before_a_response_is_answered_by_the_gateway() {
    let bad = (502, "bad_gateway");
    let slow = (504, "gateway_timeout");
    check(
        "closes",
        |upstream| {
            drop(upstream);
            None
        },
        bad,
        "upstream_reset",
    );
    check(
        "resets",
        |upstream| {
            upstream.reset();
            None
        },
        bad,
        "upstream_reset",
    );
    check(
        "closes within the head",
        |mut upstream| {
            upstream.send("HTTP/1.1 200 OK\r\ncontent-le");
            drop(upstream);
            None
        },
        bad,
        "upstream_reset",
    );
    check("says nothing", Some, slow, "upstream_timeout");
    check("stops within the head", says("HTTP/1.1 200 OK\r\nconte"), slow, "upstream_timeout");
    check("speaks another protocol", says("220 mail.example ESMTP\r\n\r\n"), bad, "upstream_invalid");
    check(
        "two lengths",
        says("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        bad,
        "upstream_invalid",
    );
    check(
        "two equal lengths",
        says("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na"),
        bad,
        "upstream_invalid",
    );
    check(
        "length and chunked",
        says("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"),
        bad,
        "upstream_invalid",
    );
    check(
        "another coding",
        says("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        bad,
        "upstream_invalid",
    );
    check(
        "chunked in HTTP/1.0",
        says("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        bad,
        "upstream_invalid",
    );
    check(
        "an upgrade nobody asked for",
        says("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
        bad,
        "upstream_invalid",
    );
    check(
        "a status of no class",
        says("HTTP/1.1 700 Odd\r\ncontent-length: 0\r\n\r\n"),
        bad,
        "upstream_invalid",
    );
    check(
        "seventeen interim answers",
        says("HTTP/1.1 100 Continue\r\n\r\n".repeat(17)),
        bad,
        "upstream_invalid",
    );
    let long = format!("HTTP/1.1 200 OK\r\nx-long: {}\r\ncontent-length: 0\r\n\r\n", "a".repeat(64 << 10));
    check("a head beyond 64 KiB", says(long), bad, "upstream_invalid");
}

#[test]
fn sixteen_interim_answers_are_skipped() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(16));
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    assert_eq!(client.answer().2, "ok");
}

#[test]
fn unreachable_upstream_is_a_bad_gateway() {
    let gate = Setup::to(&[nobody()]).start();
    assert_eq!(gate.client_with_get().refused(), (502, "bad_gateway".into()));
    assert_eq!(gate.next_outcome(), ("failed".into(), "upstream_connect".into(), 502));
}

/// The upstream does this after the head and the first piece of a response. Whatever its framing, the client
/// must not take the response for complete.
fn check_broken(
    row: &str,
    head: &str,
    piece: &str,
    play: impl FnOnce(RawConnection) -> Option<RawConnection>,
    reason: &str,
) {
    let origin = Origin::new();
    let gate = impatient(&origin).start();
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n{piece}"));
    client.head();
    client.until("piece");
    let rest = play(upstream);
    assert_eq!(client.wait_for_close(), CloseKind::Reset, "{row}");
    let logged = gate.next_outcome();
    assert_eq!((logged.1.as_str(), logged.2), (reason, 200), "{row}");
    if let Some(mut upstream) = rest {
        upstream.wait_for_close();
    }
    gate.wait_until_empty();
}

#[test]
fn fault_within_a_response_never_looks_like_its_end() {
    let length = "content-length: 100\r\n";
    let large = "content-length: 1000000\r\n";
    let chunked = "transfer-encoding: chunked\r\n";
    let reset = |upstream: RawConnection| {
        upstream.reset();
        None
    };
    let close = |upstream: RawConnection| {
        drop(upstream);
        None
    };
    check_broken("length, reset", length, "piece", reset, "upstream_reset");
    check_broken("length, closed", length, "piece", close, "upstream_reset");
    check_broken("length, silent", length, "piece", Some, "upstream_timeout");
    check_broken("large, reset", large, "piece", reset, "upstream_reset");
    check_broken("large, closed", large, "piece", close, "upstream_reset");
    let more = |mut upstream: RawConnection| {
        upstream.send(vec![b'x'; 64 << 10]);
        None
    };
    check_broken("large, closed further on", large, "piece", more, "upstream_reset");
    check_broken("large, silent", large, "piece", Some, "upstream_timeout");
    check_broken("chunked, reset", chunked, "5\r\npiece\r\n", reset, "upstream_reset");
    check_broken("chunked, closed", chunked, "5\r\npiece\r\n", close, "upstream_reset");
    check_broken("chunked, silent", chunked, "5\r\npiece\r\n", Some, "upstream_timeout");
    check_broken("chunked, malformed", chunked, "5\r\npiece\r\n", says("zz\r\n"), "upstream_reset");
    check_broken("until the end, reset", "", "piece", reset, "upstream_reset");
    check_broken("until the end, silent", "", "piece", Some, "upstream_timeout");
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An exchange that leaves the upstream's connection open.
fn warm(origin: &Origin, gate: &Gate) -> (RawConnection, RawConnection) {
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send(OK);
    assert_eq!(client.answer().2, "ok");
    (client, upstream)
}

/// Sends a request on a connection that the upstream closes at that moment.
fn check_retry(row: &str, line: &str, fields: &[&str], body: &str, expected: bool) {
    let origin = Origin::new();
    let gate = origin.start();
    let (mut client, mut upstream) = warm(&origin, &gate);
    client.send(gate.request(line, fields)).send(body);
    let first = upstream.head();
    drop(upstream);
    if expected {
        let mut second = origin.accept();
        assert_eq!(second.head(), first, "{row}: not the same request");
        second.send(OK);
        assert_eq!(client.answer().2, "ok", "{row}");
    } else {
        assert_eq!(client.refused(), (502, "bad_gateway".into()), "{row}");
        assert!(!origin.has_pending_connection(), "{row}: sent twice");
    }
    drop(client);
    gate.wait_until_empty();
}

#[test]
fn only_idempotent_requests_are_retried() {
    check_retry("GET", "GET /api/y?q=%20", &["X-One: 1", "X-One: 2"], "", true);
    check_retry("HEAD-like OPTIONS", "OPTIONS /api/y", &[], "", true);
    check_retry("DELETE", "DELETE /api/y", &[], "", true);
    check_retry("PUT without a body", "PUT /api/y", &["Content-Length: 0"], "", true);
    check_retry("POST", "POST /api/y", &["Content-Length: 0"], "", false);
    check_retry("PATCH", "PATCH /api/y", &["Content-Length: 0"], "", false);
    check_retry("GET with a body", "GET /api/y", &["Content-Length: 1"], "x", false);
    check_retry("GET that hides a POST", "GET /api/y?_method=POST", &[], "", false);
    check_retry("GET that hides one in a field", "GET /api/y", &["X-HTTP-Method: POST"], "", false);
    check_retry("an unknown method", "BREW /api/y", &[], "", false);
}

#[test]
fn request_is_sent_at_most_twice() {
    let origin = Origin::new();
    let gate = origin.start();
    let (mut client, mut upstream) = warm(&origin, &gate);
    client.send(gate.request("GET /api/y", &[]));
    upstream.head();
    drop(upstream);
    let mut second = origin.accept();
    second.head();
    drop(second);
    assert_eq!(client.refused(), (502, "bad_gateway".into()));
    assert!(!origin.has_pending_connection());
}

#[test]
fn begun_response_is_not_retried() {
    let origin = Origin::new();
    let gate = origin.start();
    let (mut client, mut upstream) = warm(&origin, &gate);
    client.send(gate.request("GET /api/y", &[]));
    upstream.head();
    upstream.send("H");
    drop(upstream);
    assert_eq!(client.refused(), (502, "bad_gateway".into()));
    assert!(!origin.has_pending_connection());
}

#[test]
fn connection_with_excess_bytes_is_not_reused() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send(format!("{OK}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"));
    assert_eq!(client.answer().2, "ok");
    client.send(gate.request("GET /api/y", &[]));
    let mut second = origin.accept();
    second.head();
    second.send(OK);
    assert_eq!(client.answer().2, "ok");
}

#[test]
fn early_response_reaches_the_client_although_the_upstream_closes() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send(gate.request("POST /api/x", &["Content-Length: 1000000"]));
    client.send("begins");
    let mut upstream = origin.accept();
    upstream.head();
    upstream.bytes(6);
    upstream.send("HTTP/1.1 413 Content Too Large\r\ncontent-length: 4\r\nconnection: close\r\n\r\nlong");
    drop(upstream);
    let (status, _, body) = client.answer();
    assert_eq!((status, body.as_str()), (413, "long"));
    drop(client);
    gate.wait_until_empty();
}

#[test]
fn failing_url_is_ejected_unless_it_is_the_last() {
    let origin = Origin::new();
    let setup = Setup::to(&[nobody(), origin.address]).with(|setup| {
        setup.upstream.ejection.failures = 1;
        setup.upstream.idle_timeout = Duration::ZERO;
    });
    let gate = setup.start();
    // One URL refuses the first connection, so the request goes to the other; nothing was
    // sent, so a POST may, too.
    for method in ["POST", "GET", "GET", "GET"] {
        let mut client = gate.client();
        client.send(gate.request(&format!("{method} /api/x"), &["Connection: close", "Content-Length: 0"]));
        let mut upstream = origin.accept();
        upstream.head();
        upstream.send("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
        assert_eq!(client.answer().2, "ok");
    }
    let page = gate.metrics_text();
    let failed = page.lines().find(|line| line.starts_with("permgate_upstream_connects_failed_total"));
    let ejected = page.lines().find(|line| line.starts_with("permgate_upstream_ejections_total"));
    assert_eq!(ejected, Some("permgate_upstream_ejections_total 1"), "{page}");
    assert!(failed.is_none_or(|line| line.ends_with(" 1")), "{page}");
}

#[test]
fn connection_closed_while_idle_is_not_used() {
    let origin = Origin::new();
    let gate = origin.start();
    let (mut client, upstream) = warm(&origin, &gate);
    drop(upstream);
    // Not retried, so it must not be sent on a closed connection.
    client.send(gate.request("POST /api/y", &["Content-Length: 1"])).send("x");
    let mut second = origin.accept();
    second.head();
    assert_eq!(second.bytes(1), "x");
    second.send(OK);
    assert_eq!(client.answer().2, "ok");
}

#[test]
fn idle_connection_is_closed_after_its_timeout() {
    let origin = Origin::new();
    let gate = origin.setup().with(|setup| setup.upstream.idle_timeout = SOON).start();
    let (_client, mut upstream) = warm(&origin, &gate);
    assert_eq!(upstream.wait_for_close(), CloseKind::Closed);
}

#[test]
fn upstream_can_be_a_host_name() {
    let origin = Origin::new();
    let setup = origin.setup().with(|setup| {
        let url = format!("http://localhost:{}", origin.address.port());
        setup.upstream.urls = vec![permgate::settings::UpstreamUrl::parse(&url).unwrap().into()];
    });
    let gate = setup.start();
    warm(&origin, &gate);
    assert_eq!(gate.line()["upstream"], format!("localhost:{}", origin.address.port()));
}
