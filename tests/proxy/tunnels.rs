//! Upgrades: what reaches the upstream, when bytes pass, and how a tunnel ends.

use std::{net::Shutdown, time::Duration};

use permgate::{
    authz::{rules::PublicPath, time::Timestamp},
    fence::Cut,
};

use crate::harness::{CloseKind, Gate, Origin, RawConnection, Setup, eventually, field, fields, status};

const UPGRADE: [&str; 4] = [
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
];

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A tunnel: the client's end and the upstream's.
fn open(origin: &Origin, gate: &Gate) -> (RawConnection, RawConnection) {
    let mut client = gate.client();
    client.send(gate.request("GET /api/socket", &UPGRADE));
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send(SWITCHED);
    assert_eq!(status(&client.head()), 101);
    (client, upstream)
}

#[test]
fn tunnel_opens_with_the_upstreams_101_and_relays_both_ways() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send(gate.request("GET /api/socket", &UPGRADE));
    let mut upstream = origin.accept();
    let head = upstream.head();
    assert_eq!((field(&head, "connection"), field(&head, "upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!(field(&head, "sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(field(&head, "sec-websocket-version"), Some("13"));
    assert_eq!(field(&head, "x-permgate-user"), Some("alice"));
    assert_eq!(field(&head, "authorization"), None);
    // What the upstream sends after its head follows the gateway's head.
    upstream.send(format!("{SWITCHED}hello"));
    let head = client.head();
    assert_eq!(status(&head), 101);
    assert_eq!((field(&head, "connection"), field(&head, "upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!(field(&head, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!((field(&head, "content-length"), field(&head, "transfer-encoding")), (None, None));
    assert_eq!(client.bytes(5), "hello");
    for _ in 0..3 {
        client.send("ping");
        assert_eq!(upstream.bytes(4), "ping");
        upstream.send("pong!");
        assert_eq!(client.bytes(5), "pong!");
    }
    assert_eq!(gate.live(), 1);
    assert!(gate.metrics_text().contains("permgate_tunnels_open 1\n"));
    client.finish_sending();
    assert_eq!(upstream.wait_for_close(), CloseKind::Closed);
    drop(upstream);
    assert_eq!(client.wait_for_close(), CloseKind::Closed);
    let line = gate.line();
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(101), Some("ok")), "{line}");
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(12), Some(20)), "{line}");
    gate.wait_until_empty();
    assert!(gate.metrics_text().contains("permgate_tunnels_open 0\n"));
}

#[test]
fn bytes_after_the_head_wait_for_the_upstreams_101() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send(gate.request("GET /api/socket", &UPGRADE) + "early");
    let mut upstream = origin.accept();
    upstream.head();
    client.send(" and GET /api/smuggled HTTP/1.1\r\n\r\n");
    upstream.assert_silent();
    upstream.send(SWITCHED);
    upstream.until("early and GET /api/smuggled HTTP/1.1\r\n\r\n");
    client.head();
    upstream.send("x");
    assert_eq!(client.bytes(1), "x");
}

/// An upstream that does not switch is answered normally, and both connections continue.
fn check_refused(row: &str, answer: &str, expected: u16) {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send(gate.request("GET /api/socket", &UPGRADE));
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send(answer);
    assert_eq!(client.answer().0, expected, "{row}");
    client.send(gate.request("GET /api/x", &[]));
    let mut upstream = if expected == 502 { origin.accept() } else { upstream };
    assert_eq!(field(&upstream.head(), "upgrade"), None, "{row}");
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext");
    assert_eq!(client.answer().2, "next", "{row}");
    assert_eq!(gate.next_outcome().2, u64::from(expected), "{row}");
}

#[test]
fn upstream_may_refuse_an_upgrade() {
    check_refused("200", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno", 200);
    check_refused("400", "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno", 400);
    let required = "HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                    content-length: 2\r\n\r\nno";
    check_refused("426", required, 426);
    let other = SWITCHED.replace("websocket", "tcp");
    check_refused("101 to something else", &other, 502);
    let nothing = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n";
    check_refused("101 to nothing", nothing, 502);
    let unsaid = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    check_refused("101 that Connection does not name", unsaid, 502);
}

/// An upgrade that is not forwarded: the upstream sees an ordinary request.
fn check_plain(row: &str, request: impl FnOnce(&Gate) -> String) {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send(request(&gate));
    let mut upstream = origin.accept();
    let head = upstream.head();
    for name in ["upgrade", "http2-settings", "connection"] {
        assert_eq!(fields(&head, name), Vec::<&str>::new(), "{row}: {head}");
    }
    upstream.send(SWITCHED);
    assert_eq!(client.refused().0, 502, "{row}");
}

#[test]
fn unauthorizable_upgrade_is_ignored() {
    let get = |fields: &'static [&'static str]| move |gate: &Gate| gate.request("GET /api/x", fields);
    check_plain(
        "h2c",
        get(&["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"]),
    );
    check_plain("TLS", get(&["Connection: Upgrade", "Upgrade: TLS/1.0"]));
    check_plain("not in Connection", get(&["Upgrade: websocket"]));
    check_plain("with a body", |gate| {
        gate.request("POST /api/x", &["Connection: Upgrade", "Upgrade: websocket", "Content-Length: 4"])
            + "body"
    });
    check_plain("HTTP/1.0", |gate| gate.request("GET /api/x", &UPGRADE).replace("HTTP/1.1", "HTTP/1.0"));
}

#[test]
fn public_rule_with_methods_permits_tunnels() {
    let origin = Origin::new();
    let named = |setup: &mut Setup| {
        let rule = setup.public.last_mut().unwrap();
        rule.path = PublicPath::Exact("/api/socket".into());
        rule.methods = Some(vec!["GET".parse().unwrap()]);
    };
    let gate = origin.setup().public("/api/socket").with(named).start();
    let request = format!("GET /api/socket HTTP/1.1\r\nHost: gate\r\n{}\r\n\r\n", UPGRADE.join("\r\n"));
    let mut client = gate.client();
    client.send(&request);
    let mut upstream = origin.accept();
    assert_eq!(field(&upstream.head(), "x-permgate-user"), None);
    upstream.send(SWITCHED);
    client.head();
    client.send("ping");
    assert_eq!(upstream.bytes(4), "ping");
    // A public rule that only permits reading does not open one.
    assert_eq!(gate.reload(origin.setup().public("/api/socket")), Cut(1));
    assert_eq!(client.wait_for_close(), CloseKind::Reset);
    let mut client = gate.client();
    client.send(&request);
    assert_eq!(client.refused(), (401, "unauthorized".into()));
}

/// A tunnel in use is cut: after the answer to the change not a byte passes in either direction.
fn check_cut(row: &str, reason: &str, cut: impl FnOnce(&Gate)) {
    let origin = Origin::new();
    let gate = origin.start();
    let (mut client, mut upstream) = open(&origin, &gate);
    client.send("ping");
    assert_eq!(upstream.bytes(4), "ping");
    cut(&gate);
    for end in [&mut upstream, &mut client] {
        // A socket that has seen the reset reports it once, to the first call.
        if std::io::Write::write_all(&mut end.socket, b"late").is_ok() {
            assert_eq!(end.wait_for_close(), CloseKind::Reset, "{row}");
        }
    }
    upstream.wait_for_close();
    client.wait_for_close();
    assert!(!client.unread().contains("late") && !upstream.unread().contains("late"), "{row}");
    let (outcome, logged, status) = gate.next_outcome();
    assert_eq!((outcome.as_str(), logged.as_str(), status), ("cut", reason, 101), "{row}");
    gate.wait_until_empty();
}

#[test]
fn change_cuts_tunnels_that_it_forbids() {
    check_cut("revoked", "token_revoked", |gate| assert_eq!(gate.revoke(), Cut(1)));
    check_cut("by an administrator", "cut_by_admin", |gate| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let rows = runtime.block_on(gate.fence.list());
        assert!(runtime.block_on(gate.fence.cut(&rows[0].id)).unwrap());
    });
    check_cut("by a reload", "no_service", |gate| {
        let moved = Setup::to(&[]).with(|setup| setup.service.paths = vec!["/other".into()]);
        assert_eq!(gate.reload(moved), Cut(1));
    });
    check_cut("by another identity", "identity_changed", |gate| {
        let untold = Setup::to(&[]).with(|setup| setup.service.identity_groups = Some(Vec::new()));
        assert_eq!(gate.reload(untold), Cut(1));
    });
    check_cut("in time", "token_expired", |gate| {
        let soon = Timestamp::from_millis(jiff::Timestamp::now().as_millisecond() + 100);
        gate.change_token(|token| token.expires_at = Some(soon));
        gate.reload(Setup::to(&[]));
        eventually("the tunnel has expired", || gate.live() == 0);
    });
}

#[test]
fn tunnel_with_a_stalled_client_is_cut() {
    let origin = Origin::new();
    let gate = origin.start();
    let (mut client, mut upstream) = open(&origin, &gate);
    upstream.fill_up(&[b'x'; 64 << 10]);
    assert_eq!(gate.revoke(), Cut(1));
    assert_eq!(upstream.wait_for_close(), CloseKind::Reset);
    assert_eq!(client.wait_for_close(), CloseKind::Reset);
    gate.wait_until_empty();
}

/// If one side has closed its end, that side is not read any more.
#[test]
fn half_closed_tunnel_is_cut() {
    for client_ends in [true, false] {
        for drained in [false, true] {
            let row = format!("the client ends: {client_ends}, drained: {drained}");
            let origin = Origin::new();
            let gate = origin.start();
            let (mut client, mut upstream) = open(&origin, &gate);
            let (ends, stays) =
                if client_ends { (&mut client, &mut upstream) } else { (&mut upstream, &mut client) };
            ends.socket.shutdown(Shutdown::Write).unwrap();
            assert_eq!(stays.wait_for_close(), CloseKind::Closed, "{row}");
            let reason = if drained {
                gate.drain(Duration::from_millis(100));
                "shutting_down"
            } else {
                assert_eq!(gate.revoke(), Cut(1), "{row}");
                "token_revoked"
            };
            assert_eq!(ends.wait_for_close(), CloseKind::Reset, "{row}");
            assert_eq!(gate.next_outcome(), ("cut".into(), reason.into(), 101), "{row}");
        }
    }
}

/// A tunnel ends by what one side does. Checks what the other side sees and what the log says.
fn check_end(
    row: &str,
    change: impl FnOnce(&mut Setup),
    play: impl FnOnce(RawConnection, RawConnection) -> (Option<RawConnection>, CloseKind),
    logged: (&str, &str),
) {
    let origin = Origin::new();
    let gate = origin.setup().with(change).start();
    let (client, upstream) = open(&origin, &gate);
    let (left, expected) = play(client, upstream);
    if let Some(mut left) = left {
        assert_eq!(left.wait_for_close(), expected, "{row}");
    }
    let (outcome, reason, status) = gate.next_outcome();
    assert_eq!((outcome.as_str(), reason.as_str(), status), (logged.0, logged.1, 101), "{row}");
    gate.wait_until_empty();
}

#[test]
fn tunnel_passes_on_how_each_side_ends() {
    let same = |_: &mut Setup| {};
    check_end(
        "the client resets",
        same,
        |client, upstream| {
            client.reset();
            (Some(upstream), CloseKind::Reset)
        },
        ("rejected", "client_closed"),
    );
    check_end(
        "the upstream resets",
        same,
        |client, upstream| {
            upstream.reset();
            (Some(client), CloseKind::Reset)
        },
        ("failed", "upstream_reset"),
    );
    check_end(
        "the upstream ends, then the client",
        same,
        |mut client, mut upstream| {
            upstream.send("bye").finish_sending();
            assert_eq!(client.wait_for_close(), CloseKind::Closed);
            assert_eq!(client.unread(), "bye");
            client.send("bye bye").finish_sending();
            assert_eq!(upstream.bytes(7), "bye bye");
            (Some(upstream), CloseKind::Closed)
        },
        ("forwarded", "ok"),
    );
    let soon = Duration::from_millis(100);
    check_end(
        "nothing passes",
        |setup| setup.upstream.tunnel_idle_timeout = soon,
        |client, mut upstream| {
            assert_eq!(upstream.wait_for_close(), CloseKind::Closed);
            (Some(client), CloseKind::Closed)
        },
        ("forwarded", "tunnel_idle"),
    );
    check_end(
        "the client takes nothing",
        |setup| setup.limits.write_timeout = soon,
        |client, mut upstream| {
            while std::io::Write::write_all(&mut upstream.socket, &[b'x'; 64 << 10]).is_ok() {}
            drop(upstream);
            (Some(client), CloseKind::Reset)
        },
        ("rejected", "client_too_slow"),
    );
    check_end(
        "the upstream takes nothing",
        |setup| setup.upstream.first_byte_timeout = soon,
        |mut client, upstream| {
            while std::io::Write::write_all(&mut client.socket, &[b'x'; 64 << 10]).is_ok() {}
            drop(client);
            (Some(upstream), CloseKind::Reset)
        },
        ("failed", "upstream_timeout"),
    );
}

#[test]
fn tunnel_in_use_is_not_idle() {
    let origin = Origin::new();
    let idle = Duration::from_millis(300);
    let gate = origin.setup().with(|setup| setup.upstream.tunnel_idle_timeout = idle).start();
    let (mut client, mut upstream) = open(&origin, &gate);
    let begun = std::time::Instant::now();
    while begun.elapsed() < idle * 3 {
        client.send("x");
        upstream.bytes(1);
    }
    assert_eq!(gate.live(), 1);
}

#[test]
fn tunnel_applies_backpressure_both_ways() {
    let origin = Origin::new();
    let gate = origin.start();
    let (mut client, mut upstream) = open(&origin, &gate);
    let sent = upstream.fill_up(&[b'd'; 64 << 10]);
    let said = client.fill_up(&[b'u'; 64 << 10]);
    // Nothing is lost or duplicated.
    assert_eq!(client.bytes(sent), "d".repeat(sent));
    assert_eq!(upstream.bytes(said), "u".repeat(said));
    client.socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(upstream.wait_for_close(), CloseKind::Closed);
}

#[test]
fn drain_waits_for_a_tunnel_until_its_deadline() {
    let origin = Origin::new();
    let gate = origin.start();
    let (mut client, mut upstream) = open(&origin, &gate);
    gate.drain(Duration::from_millis(600));
    let begun = std::time::Instant::now();
    client.send("still");
    assert_eq!(upstream.bytes(5), "still");
    assert_eq!(client.wait_for_close(), CloseKind::Reset);
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert_eq!(upstream.wait_for_close(), CloseKind::Reset);
    assert_eq!(gate.next_outcome(), ("cut".into(), "shutting_down".into(), 101));
}
