//! HTTP/2 to an upstream: many exchanges on one connection, which end independently.

mod faults;
mod grpc;
mod websockets;

use std::time::Duration;

use permgate::settings::HttpVersion;

use crate::harness::{
    CloseKind, Gate, Origin, RawConnection, Setup, field,
    frames::{CANCEL, DATA, END_STREAM, Frames, GOAWAY, HEADERS, NO_ERROR, WINDOW_UPDATE},
    status,
};

const SOON: Duration = Duration::from_millis(100);

fn h2c(origin: &Origin) -> Setup {
    origin.setup().with(|setup| {
        let url = format!("h2c://{}", origin.address);
        setup.upstream.urls = vec![permgate::settings::UpstreamUrl::parse(&url).unwrap().into()];
    })
}

/// The text of a chunked body whose pieces contain neither digits nor line ends.
fn unchunk(chunked: &str) -> String {
    chunked.lines().filter(|line| !line.starts_with(|c: char| c.is_ascii_digit())).collect()
}

/// A gateway and its connection after a first exchange on stream 1.
fn with_open_connection(origin: &Origin, setup: Setup) -> (Gate, RawConnection, Frames) {
    let gate = setup.start();
    let mut client = gate.client_with_get();
    let mut upstream = origin.accept_h2(&[]);
    assert_eq!(upstream.request(), (1, true));
    upstream.answer(1, "ok");
    assert_eq!(client.answer().2, "ok");
    gate.line();
    (gate, client, upstream)
}

#[test]
fn requests_share_one_connection() {
    let origin = Origin::new();
    let gate = h2c(&origin).start();
    let mut one = gate.client_with_get();
    let mut upstream = origin.accept_h2(&[]);
    assert_eq!(upstream.request(), (1, true));
    let mut other = gate.client_with_get();
    assert_eq!(upstream.request(), (3, true));
    upstream.head(3, &[(":status", "201"), ("content-length", "5")]).head(1, &[(":status", "200")]);
    upstream.data(1, "un").send(DATA, END_STREAM, 3, b"other");
    let (status, _, body) = other.answer();
    assert_eq!((status, body.as_str()), (201, "other"));
    upstream.send(DATA, END_STREAM, 1, b"o");
    one.head();
    assert_eq!(unchunk(&one.until("0\r\n\r\n")), "uno");
    assert!(!origin.has_pending_connection(), "a second connection");
    drop((one, other));
    gate.wait_until_empty();
}

#[test]
fn data_is_streamed_both_ways() {
    let origin = Origin::new();
    let gate = h2c(&origin).start();
    let mut client = gate.client();
    client.send(gate.request("POST /api/x", &["Transfer-Encoding: chunked"])).send("3\r\none\r\n");
    let mut upstream = origin.accept_h2(&[]);
    assert_eq!(upstream.request(), (1, false));
    assert_eq!(upstream.next().payload, b"one");
    upstream.head(1, &[(":status", "200")]).data(1, "uno");
    assert_eq!(status(&client.head()), 200);
    client.until("uno");
    client.send("3\r\ntwo\r\n");
    assert_eq!(upstream.next().payload, b"two");
    upstream.data(1, "dos");
    client.until("dos");
    client.send("0\r\n\r\n");
    let last = upstream.next();
    assert_eq!((last.kind, last.flags, last.payload.len()), (DATA, END_STREAM, 0));
    upstream.send(DATA, END_STREAM, 1, b"");
    client.until("0\r\n\r\n");
    let line = gate.line();
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(6), Some(6)), "{line}");
    drop(client);
    gate.wait_until_empty();
}

#[test]
fn trailers_pass_both_ways() {
    let origin = Origin::new();
    let gate = h2c(&origin).start();
    let mut client = gate.client();
    let fields = ["Transfer-Encoding: chunked", "TE: trailers", "Connection: TE", "Trailer: x-sum"];
    client.send(gate.request("POST /api/x", &fields)).send("1\r\na\r\n0\r\nx-sum: 1\r\n\r\n");
    let mut upstream = origin.accept_h2(&[]);
    assert_eq!(upstream.request(), (1, false));
    assert_eq!(upstream.next().payload, b"a");
    let trailers = upstream.next();
    assert_eq!((trailers.kind, trailers.flags & END_STREAM), (HEADERS, END_STREAM));
    upstream.head(1, &[(":status", "200"), ("trailer", "grpc-status")]).data(1, "b");
    upstream.trailers(1, &[("grpc-status", "0")]);
    assert_eq!(field(&client.head(), "trailer"), Some("grpc-status"));
    client.until("grpc-status: 0\r\n\r\n");
    assert_eq!(gate.next_outcome(), ("forwarded".into(), "ok".into(), 200));
}

#[test]
fn goaway_lets_open_streams_finish() {
    let origin = Origin::new();
    let (gate, mut client, mut upstream) = with_open_connection(&origin, h2c(&origin));
    client.send(gate.request("GET /api/x", &[]));
    assert_eq!(upstream.request(), (3, true));
    upstream.head(3, &[(":status", "200")]).data(3, "begins").go_away(3, NO_ERROR);
    client.head();
    client.until("begins");
    let mut other = gate.client_with_get();
    let mut second = origin.accept_h2(&[]);
    second.request();
    second.answer(1, "new");
    assert_eq!(other.answer().2, "new");
    upstream.send(DATA, END_STREAM, 3, b"ends");
    client.until("ends");
    client.until("0\r\n\r\n");
    assert_eq!(upstream.try_next().map(|frame| frame.kind), Some(GOAWAY));
    assert_eq!(upstream.try_next(), None, "closed after the last one");
}

#[test]
fn cut_resets_only_its_own_stream() {
    let origin = Origin::new();
    let setup = h2c(&origin).public("/api/open");
    let (gate, mut client, mut upstream) = with_open_connection(&origin, setup);
    client.send(gate.request("POST /api/x", &["Transfer-Encoding: chunked"])).send("3\r\none\r\n");
    assert_eq!(upstream.request(), (3, false));
    assert_eq!(upstream.next().payload, b"one");
    upstream.head(3, &[(":status", "200")]).data(3, "begins");
    client.head();
    client.until("begins");
    let mut open = gate.client();
    open.send("GET /api/open HTTP/1.1\r\nHost: gate.example\r\n\r\n");
    assert_eq!(upstream.request(), (5, true));
    upstream.head(5, &[(":status", "200")]).data(5, "public");
    open.head();
    open.until("public");
    assert_eq!(gate.revoke().0, 1);
    assert_eq!(upstream.was_reset(3), CANCEL);
    // What was still on its way affects no other stream.
    upstream.data(3, "late").data(3, "later");
    assert_eq!(client.wait_for_close(), CloseKind::Reset);
    upstream.send(DATA, END_STREAM, 5, b"goes on");
    open.until("goes on");
    open.until("0\r\n\r\n");
    assert!(!origin.has_pending_connection());
    drop((client, open));
    gate.wait_until_empty();
}

/// A reset cannot reach an upstream that reads nothing, so its connection ends instead.
#[test]
fn cut_closes_a_blocked_connection() {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    const LARGEST: u32 = 0x7fff_ffff;
    let origin = Origin::new();
    let gate = h2c(&origin).public("/api/open").start();
    let mut client = gate.client();
    client.send(gate.request("POST /api/x", &["Transfer-Encoding: chunked"])).send("4000000\r\n");
    let mut upstream = origin.accept_h2(&[(INITIAL_WINDOW_SIZE, LARGEST)]);
    upstream.send(WINDOW_UPDATE, 0, 0, &(LARGEST - 0xffff).to_be_bytes());
    assert_eq!(upstream.request(), (1, false));
    client.fill_up(&[b'x'; 16 << 10]);
    assert_eq!(gate.revoke().0, 1);
    // This request gets the blocked connection, and is retried once that has ended.
    let mut open = gate.client();
    open.send("GET /api/open HTTP/1.1\r\nHost: gate.example\r\n\r\n");
    let mut second = origin.accept_h2(&[]);
    assert_eq!(second.request(), (1, true));
    second.answer(1, "ok");
    assert_eq!(open.answer().2, "ok");
    drop((client, open));
    gate.wait_until_empty();
}

#[test]
fn disconnected_client_resets_its_stream() {
    let origin = Origin::new();
    let (gate, client, mut upstream) = with_open_connection(&origin, h2c(&origin));
    let before_the_head = gate.client_with_get();
    assert_eq!(upstream.request(), (3, true));
    drop(before_the_head);
    assert_eq!(upstream.was_reset(3), CANCEL);
    let mut within_the_answer = gate.client_with_get();
    assert_eq!(upstream.request(), (5, true));
    upstream.head(5, &[(":status", "200")]).data(5, "begins");
    within_the_answer.head();
    drop(within_the_answer);
    // Noticed at the next byte at the latest.
    upstream.data(5, "goes on");
    assert_eq!(upstream.was_reset(5), CANCEL);
    let mut within_the_request = gate.client();
    within_the_request.send(gate.request("POST /api/x", &["Content-Length: 9"])).send("half");
    assert_eq!(upstream.request(), (7, false));
    assert_eq!(upstream.next().payload, b"half");
    drop(within_the_request);
    assert_eq!(upstream.was_reset(7), CANCEL);
    drop(client);
    gate.wait_until_empty();
}

#[test]
fn backpressure_is_limited_to_one_stream() {
    let origin = Origin::new();
    let (gate, mut client, mut upstream) = with_open_connection(&origin, h2c(&origin));
    let mut lazy = gate.client_with_get();
    assert_eq!(upstream.request(), (3, true));
    upstream.head(3, &[(":status", "200")]);
    lazy.head();
    let taken = upstream.fill_up(3);
    assert!(taken < 32 << 20, "{taken}");
    client.send(gate.request("GET /api/x", &[]));
    assert_eq!(upstream.request(), (5, true));
    upstream.answer(5, "ok");
    assert_eq!(client.answer().2, "ok");
}

#[test]
fn unread_small_frames_do_not_block_other_streams() {
    const WINDOW: u16 = 4;
    let origin = Origin::new();
    let (gate, mut client, mut upstream) = with_open_connection(&origin, h2c(&origin));
    let bearer = format!("Bearer {}", gate.bearer);
    let (method, target) = ((":method", "GET"), (":path", "/api/x"));
    let (scheme, authority) = ((":scheme", "http"), (":authority", "gate.example"));
    let mut lazy = Frames::to(gate.address, &[(WINDOW, 0)]);
    lazy.trailers(1, &[method, scheme, authority, target, ("authorization", &bearer)]);
    assert_eq!(upstream.request(), (3, true));
    upstream.head(3, &[(":status", "200")]);
    let taken = upstream.fill_up_by(3, 4);
    assert!(taken >= 64 << 10, "{taken}");
    client.send(gate.request("GET /api/x", &[]));
    assert_eq!(upstream.request(), (5, true));
    upstream.answer(5, "ok");
    assert_eq!(client.answer().2, "ok");
}

#[test]
fn excess_streams_open_another_connection() {
    let origin = Origin::new();
    let gate = h2c(&origin).start();
    let _one = gate.client_with_get();
    const MOST_STREAMS: u16 = 3;
    let mut first = origin.accept_h2(&[(MOST_STREAMS, 1)]);
    first.request();
    let mut other = gate.client_with_get();
    let mut second = origin.accept_h2(&[(MOST_STREAMS, 1)]);
    second.request();
    second.answer(1, "ok");
    assert_eq!(other.answer().2, "ok");
    other.send(gate.request("GET /api/x", &[]));
    assert_eq!(second.request(), (3, true), "a free place is taken again");
}

#[test]
fn idle_connection_is_closed_after_its_timeout() {
    let origin = Origin::new();
    let setup = h2c(&origin).with(|setup| setup.upstream.idle_timeout = SOON);
    let (_gate, _client, mut upstream) = with_open_connection(&origin, setup);
    assert_eq!(upstream.try_next().map(|frame| frame.kind), Some(GOAWAY));
    assert_eq!(upstream.try_next(), None);
}

#[test]
fn upstream_without_http2_is_a_bad_gateway() {
    let origin = Origin::new();
    let gate = h2c(&origin).start();
    let mut client = gate.client_with_get();
    origin.accept().send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert_eq!(client.refused(), (502, "bad_gateway".into()));
    assert_eq!(gate.next_outcome().1, "upstream_connect");
}

#[test]
fn silent_upstream_times_out() {
    let origin = Origin::new();
    let gate = h2c(&origin).with(|setup| setup.upstream.connect_timeout = SOON).start();
    let mut client = gate.client_with_get();
    let mut mute = origin.accept();
    assert_eq!(client.refused(), (502, "bad_gateway".into()));
    assert_eq!(gate.next_outcome().1, "upstream_connect");
    mute.wait_for_close();
}

#[test]
fn unix_socket_upstream_works_over_both_versions() {
    for (http, expected) in [(HttpVersion::Auto, "h1"), (HttpVersion::Http2, "h2")] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            if expected == "h1" {
                use std::io::{Read, Write};
                let mut head = [0; 4096];
                assert!(stream.read(&mut head).unwrap() > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nh1").unwrap();
                return;
            }
            stream.set_nonblocking(true).unwrap();
            runtime.block_on(async {
                let stream = tokio::net::UnixStream::from_std(stream).unwrap();
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let answer = http::Response::builder().header("content-length", "2").body(()).unwrap();
                    let mut body = respond.send_response(answer, false).unwrap();
                    body.send_data("h2".into(), true).unwrap();
                }
            });
        });
        let setup = Setup::to(&[]).with(|setup| {
            let url = format!("unix:{}", path.display());
            setup.upstream.urls = vec![permgate::settings::UpstreamUrl::parse(&url).unwrap().into()];
            setup.upstream.http = http;
            setup.upstream.idle_timeout = SOON;
        });
        let gate = setup.start();
        assert_eq!(gate.client_with_get().answer().2, expected);
        assert_eq!(gate.line()["upstream"], format!("unix:{}", path.display()));
        server.join().unwrap();
    }
}

#[test]
fn upstream_is_pinged_while_streams_are_open() {
    let origin = Origin::new();
    let setup = h2c(&origin).with(|setup| setup.upstream.ping_interval = SOON);
    let (gate, mut client, mut upstream) = with_open_connection(&origin, setup);
    assert_eq!(upstream.pings(SOON * 5), 0, "nothing is under way");
    client.send(gate.request("GET /api/x", &[]));
    assert_eq!(upstream.request(), (3, true));
    let pings = upstream.pings(SOON * 5);
    assert!((1..=6).contains(&pings), "{pings}");
    upstream.answer(3, "ok");
    assert_eq!(client.answer().2, "ok");
    upstream.pings(SOON * 2);
    assert_eq!(upstream.pings(SOON * 5), 0, "it is over");
    drop(client);
    gate.wait_until_empty();
}
