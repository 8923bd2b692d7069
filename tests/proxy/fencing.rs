//! A change cuts what it no longer permits before it is answered, whatever state the exchange is in.

use std::{
    net::{Shutdown, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
};

use permgate::{authz::time::Timestamp, fence::Cut};

use crate::harness::{CloseKind, Gate, Origin, RawConnection, Setup, eventually};

/// Revokes an exchange in some state. Both ends are cut, and the cut is counted.
fn check(row: &str, play: impl FnOnce(&Origin, &Gate) -> (RawConnection, Option<RawConnection>)) {
    let origin = Origin::new();
    let gate = origin.start();
    let (mut client, upstream) = play(&origin, &gate);
    eventually("the exchange is live", || gate.live() == 1);
    assert_eq!(gate.revoke(), Cut(1), "{row}");
    assert_eq!(gate.live(), 0, "{row}");
    let mut late = upstream.map(|upstream| (upstream, "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate"));
    if let Some((upstream, answer)) = &mut late {
        // Too late, so it must not be forwarded.
        let _ = std::io::Write::write_all(&mut upstream.socket, answer.as_bytes());
        upstream.wait_for_close();
    }
    assert_eq!(client.wait_for_close(), CloseKind::Reset, "{row}");
    assert!(!client.unread().contains("late"), "{row}");
    let (outcome, reason, _) = gate.next_outcome();
    assert_eq!((outcome.as_str(), reason.as_str()), ("cut", "token_revoked"), "{row}");
    gate.wait_until_empty();
    let mut client = gate.client_with_get();
    assert_eq!(client.refused(), (401, "invalid_token".into()), "{row}");
}

#[test]
fn revocation_cuts_an_exchange_in_any_state() {
    check("waiting for the answer", |origin, gate| {
        let client = gate.client_with_get();
        let mut upstream = origin.accept();
        upstream.head();
        (client, Some(upstream))
    });
    check("within the request's body", |origin, gate| {
        let mut client = gate.client();
        client.send(gate.request("POST /api/x", &["Content-Length: 100"])).send("part");
        let mut upstream = origin.accept();
        upstream.head();
        upstream.bytes(4);
        (client, Some(upstream))
    });
    check("within the answer", |origin, gate| {
        let mut client = gate.client_with_get();
        let mut upstream = origin.accept();
        upstream.head();
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart");
        client.until("part");
        (client, Some(upstream))
    });
    check("within the answer, to a client that has said everything", |origin, gate| {
        let client = gate.client_with_get();
        client.socket.shutdown(Shutdown::Write).unwrap();
        let mut upstream = origin.accept();
        upstream.head();
        upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n");
        (client, Some(upstream))
    });
    check("the client stalls with full buffers", |origin, gate| {
        let mut client = gate.client_with_get();
        let mut upstream = origin.accept();
        upstream.head();
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
        client.head();
        upstream.fill_up(&[b'x'; 64 << 10]);
        (client, Some(upstream))
    });
}

#[test]
fn exchange_does_not_keep_the_directory_from_which_it_was_forwarded() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut streams = Vec::new();
    let mut directories = Vec::new();
    for _ in 0..5 {
        let mut client = gate.client_with_get();
        let mut upstream = origin.accept();
        upstream.head();
        upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart");
        client.until("part");
        directories.push(gate.renew_directory());
        streams.push((client, upstream));
    }
    // The worker reads the newest.
    let mut client = gate.client();
    client.send("GET /elsewhere HTTP/1.1\r\nHost: a\r\n\r\n");
    client.refused();
    let kept = directories.iter().filter(|directory| directory.strong_count() > 0).count();
    assert_eq!((gate.live(), kept), (5, 0));
    assert_eq!(gate.revoke(), Cut(5));
}

#[test]
fn cut_exchange_is_not_retried() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    client.answer();
    client.send(gate.request("GET /api/y", &[]));
    upstream.head();
    assert_eq!(gate.revoke(), Cut(1));
    drop(upstream);
    assert_eq!(client.wait_for_close(), CloseKind::Reset);
    assert!(!origin.has_pending_connection());
}

#[test]
fn unaffected_exchanges_continue() {
    let origin = Origin::new();
    let gate = origin.setup().public("/api/public").start();
    let mut anonymous = gate.client();
    anonymous.send("GET /api/public/x HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\npart");
    anonymous.until("part");
    assert_eq!(gate.revoke(), Cut(0));
    gate.restore();
    assert_eq!(gate.reload(origin.setup().public("/api/public")), Cut(0));
    upstream.send("rest");
    anonymous.until("rest");
    // Its public rule is removed, and it has no token, so it is cut.
    anonymous.send("GET /api/public/x HTTP/1.1\r\nHost: a\r\n\r\n");
    upstream.head();
    assert_eq!(gate.reload(origin.setup()), Cut(1));
    assert_eq!(anonymous.wait_for_close(), CloseKind::Reset);
}

#[test]
fn reload_that_keeps_the_permission_keeps_streams_even_if_the_upstream_changes() {
    let (before, after) = (Origin::new(), Origin::new());
    let gate = before.start();
    let mut client = gate.client_with_get();
    let mut upstream = before.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\npart");
    client.until("part");
    assert_eq!(gate.reload(Setup::to(&[after.address])), Cut(0));
    upstream.send("rest");
    client.until("rest");
    client.send(gate.request("GET /api/x", &[]));
    let mut upstream = after.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnew");
    assert_eq!(client.answer().2, "new");
}

#[test]
fn stream_ends_when_its_token_expires() {
    let origin = Origin::new();
    let gate = origin.start();
    let soon = Timestamp::from_millis(jiff::Timestamp::now().as_millisecond() + 700);
    gate.change_token(|token| token.expires_at = Some(soon));
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept();
    upstream.head();
    upstream.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n");
    client.until("part");
    assert_eq!(client.wait_for_close(), CloseKind::Reset);
    assert_eq!(gate.next_outcome().1, "token_expired");
}

#[test]
fn registry_lists_requests_in_flight() {
    let origin = Origin::new();
    let gate = origin.start();
    let mut client = gate.client();
    client.send(gate.request("GET /api/x?secret", &[]));
    let mut upstream = origin.accept();
    upstream.head();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let rows = runtime.block_on(gate.fence.list());
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((row.service.as_str(), row.method.as_str(), row.path.as_str()), ("main", "GET", "/api/x"));
    assert_eq!((row.user, row.client.to_string().as_str()), (Some(gate.user), "127.0.0.1"));
    assert!(runtime.block_on(gate.fence.cut(&row.id)).unwrap());
    assert_eq!(client.wait_for_close(), CloseKind::Reset);
    assert_eq!(gate.next_outcome().1, "cut_by_admin");
}

/// Requests that begin after the answer to a revocation are refused, even when they race with it.
#[test]
fn acknowledged_revocation_applies_to_every_later_request() {
    let origin = Origin::new();
    let gate = origin.start();
    let (address, request) = (gate.address, gate.request("GET /api/x", &[]));
    let revoked = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| origin.answer_all(&revoked));
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| hammer(address, &request, &revoked))).collect();
        eventually("requests are under way", || gate.live() > 0);
        let _ = gate.revoke();
        revoked.store(true, Ordering::SeqCst);
        for client in clients {
            assert!(client.join().unwrap() > 0, "a client never came to be refused");
        }
    });
    gate.wait_until_empty();
}

/// Sends requests until several were refused after the revocation. Returns how many.
fn hammer(address: SocketAddr, request: &str, revoked: &AtomicBool) -> usize {
    let mut refused = 0;
    let mut client = RawConnection::to(address);
    while refused < 5 {
        let after = revoked.load(Ordering::SeqCst);
        match client.try_get(request) {
            Some(status) => {
                assert!(!after || status == 401, "{status} after the revocation");
                refused += usize::from(after);
            }
            None => {
                assert!(!after, "cut after the revocation");
                client = RawConnection::to(address);
            }
        }
    }
    refused
}
