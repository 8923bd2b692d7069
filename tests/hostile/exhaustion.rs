//! Clients that try to exhaust the gateway: they are disconnected in time, memory stays
//! bounded, and other clients are served meanwhile.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::{
    stage::{ConnectionState, Stage, exchange_bytes, read_to_end},
    support::gateway::Gateway,
};

const SHORT: &str = r#"
[server.limits]
connections = 300
[server.timeouts]
head = "600ms"
body = "600ms"
idle = "900ms"
write = "900ms"
"#;

/// A gateway with short timeouts. A test has only one at a time, because memory is measured.
fn gateway_with_short_timeouts(upstream: SocketAddr) -> (Gateway, String) {
    let services = Gateway::services(upstream)
        .replace("[service.tracker]", "timeouts.first_byte = \"1500ms\"\n[service.tracker]");
    let gateway = Gateway::with(&format!("{SHORT}{services}"));
    gateway.developer("alice");
    let (_, token) = gateway.token("alice", "tracker", &["tracker"]);
    (gateway, format!("Authorization: Bearer {token}\r\n"))
}

/// Resident memory of this process in MiB: gateway, upstream and clients.
fn memory() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4 / 1024
}

fn check_served(row: &str, gateway: &Gateway, bearer: &str) {
    let began = Instant::now();
    let head = format!("GET /api/x HTTP/1.1\r\nHost: g\r\n{bearer}Connection: close\r\n\r\n");
    let heard = exchange_bytes(gateway.proxy, head.as_bytes(), false);
    assert_eq!(heard.answers().first().map(|a| a.status), Some(200), "{row}: others are served: {heard:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "{row}: {:?}", began.elapsed());
}

fn connect(gateway: &Gateway, bytes: &[u8]) -> TcpStream {
    let mut socket = TcpStream::connect(gateway.proxy).unwrap();
    socket.set_nodelay(true).unwrap();
    let _ = socket.write_all(bytes);
    socket
}

#[test]
fn timeouts_and_memory_limits_hold() {
    let recorder = crate::recorder::Recorder::without_recording();
    let (gateway, bearer) = gateway_with_short_timeouts(recorder.address);
    slow_clients(&gateway, &bearer);
    endless_messages(&gateway, &bearer);
    many_requests(&gateway, &bearer);
    many_connections(&gateway, &bearer);
    drop(gateway);
    peers_that_do_not_read();
    tiny_chunks();
}

/// Heads and bodies that arrive byte by byte, or not at all.
fn slow_clients(gateway: &Gateway, bearer: &str) {
    // (row, what is sent first, what follows repeatedly, the status)
    let body = format!("POST /api/x HTTP/1.1\r\nHost: g\r\n{bearer}Content-Length: 1000\r\n\r\nabc");
    let chunk =
        format!("POST /api/x HTTP/1.1\r\nHost: g\r\n{bearer}Transfer-Encoding: chunked\r\n\r\n5\r\nab");
    type Row<'a> = (&'a str, &'a [u8], &'a [u8], Option<u16>);
    let rows: [Row<'_>; 6] = [
        ("silent", b"", b"", None),
        ("a head that stops", b"GET /api/x HT", b"", Some(408)),
        ("a head that drips", b"GET /api/x HTTP/1.1\r\nX: ", b"a", Some(408)),
        ("empty lines", b"\r\n", b"", Some(408)),
        ("a body that stops", body.as_bytes(), b"", Some(408)),
        ("a chunk that stops", chunk.as_bytes(), b"", Some(408)),
    ];
    for (row, first, drip, status) in rows {
        let began = Instant::now();
        let mut sockets: Vec<TcpStream> = (0..40).map(|_| connect(gateway, first)).collect();
        check_served(row, gateway, bearer);
        if !drip.is_empty() {
            while began.elapsed() < Duration::from_millis(1000) {
                sockets.iter_mut().for_each(|socket| drop(socket.write_all(drip)));
                thread::sleep(Duration::from_millis(50));
            }
        }
        for socket in sockets {
            let heard = read_to_end(socket);
            assert_ne!(heard.end, ConnectionState::Open, "{row}: let go");
            if heard.end == ConnectionState::Closed {
                assert_eq!(heard.answers().first().map(|a| a.status), status, "{row}: {heard:?}");
            }
        }
        assert!(began.elapsed() < Duration::from_secs(4), "{row}: {:?}", began.elapsed());
    }
}

/// Parts of a message that never end are refused after a bounded number of bytes.
fn endless_messages(gateway: &Gateway, bearer: &str) {
    let chunked = format!("POST /api/x HTTP/1.1\r\nHost: g\r\n{bearer}Transfer-Encoding: chunked\r\n\r\n");
    let rows: [(&str, String, &str, u16); 9] = [
        ("a method", String::new(), "A", 400),
        ("a target", "GET /".into(), "a", 414),
        ("a query", "GET /api?".into(), "%41", 414),
        ("a name", "GET /api HTTP/1.1\r\n".into(), "a", 431),
        ("a value", "GET /api HTTP/1.1\r\nX: ".into(), " ", 431),
        ("fields", "GET /api HTTP/1.1\r\n".into(), "X: y\r\n", 431),
        ("empty lines", String::new(), "\r\n", 400),
        ("a chunk extension", chunked.clone() + "5;", "a", 400),
        ("trailers", chunked + "0\r\n", "X: y\r\n", 400),
    ];
    // Refused at once; what follows is discarded for a moment, and then the connection is closed.
    let before = memory();
    thread::scope(|scope| {
        for (row, first, unit, _) in &rows {
            scope.spawn(move || {
                let began = Instant::now();
                let mut socket = connect(gateway, first.as_bytes());
                let piece = unit.repeat(16_000 / unit.len());
                while socket.write_all(piece.as_bytes()).is_ok() {
                    assert!(began.elapsed() < Duration::from_secs(5), "{row} goes on and on");
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
    });
    assert!(memory() < before + 100, "endless messages: {before} to {} MiB", memory());
    for (row, first, unit, status) in rows {
        // Sends no more than a moment's bytes before it reads the answer.
        let mut polite = connect(gateway, first.as_bytes());
        let _ = polite.write_all(unit.repeat(40_000 / unit.len()).as_bytes());
        let heard = read_to_end(polite);
        let seen = heard.answers().first().map(|a| a.status);
        // The method may also be read as the start of a long target.
        assert!(
            seen == Some(status) || row == "a method" && seen == Some(414),
            "{row}: {seen:?} {:?}",
            heard.end
        );
        check_served(row, gateway, bearer);
    }
}

fn many_requests(gateway: &Gateway, bearer: &str) {
    let before = memory();
    let one = format!("GET /api/x HTTP/1.1\r\nHost: g\r\n{bearer}\r\n");
    // Sent without reading any answer: the gateway stops reading, and finally closes the connection.
    let mut socket = connect(gateway, b"");
    socket.set_write_timeout(Some(Duration::from_millis(700))).unwrap();
    let mut sent = 0;
    while sent < 256 << 20 && socket.write_all(one.repeat(100).as_bytes()).is_ok() {
        sent += one.len() * 100;
    }
    assert!(memory() < before + 100, "pipelined: {before} to {} MiB", memory());
    check_served("pipelined requests", gateway, bearer);
    drop(socket);
    // Refused requests cost no more.
    let refused = "GET /api/x HTTP/1.1\r\nHost: g\r\n\r\n".repeat(2000);
    let heard = exchange_bytes(gateway.proxy, refused.as_bytes(), true);
    assert!(heard.answers().iter().all(|a| a.status == 401), "refused: {:?}", heard.end);
    check_served("refused requests", gateway, bearer);
}

fn many_connections(gateway: &Gateway, bearer: &str) {
    // More than the limit: idle connections are closed for one with a request.
    let idle: Vec<TcpStream> = (0..400).map(|_| connect(gateway, b"")).collect();
    check_served("too many connections", gateway, bearer);
    drop(idle);
    let before = memory();
    for _ in 0..1500 {
        drop(connect(gateway, b"GET /api"));
    }
    check_served("connections that come and go", gateway, bearer);
    assert!(memory() < before + 100, "come and go: {before} to {} MiB", memory());
}

/// Nothing is buffered without bound: neither a response that the client does not read,
/// nor an upload that the upstream does not read.
fn peers_that_do_not_read() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            thread::spawn(move || {
                let mut socket = socket.unwrap();
                let mut head = [0; 4096];
                let read = socket.read(&mut head).unwrap_or(0);
                if head[..read].starts_with(b"GET") {
                    let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n");
                    while socket.write_all(&[b'x'; 65_536]).is_ok() {}
                } else {
                    thread::sleep(Duration::from_secs(5));
                }
            });
        }
    });
    let (gateway, bearer) = gateway_with_short_timeouts(upstream);
    let before = memory();
    let get = format!("GET /api/x HTTP/1.1\r\nHost: g\r\n{bearer}\r\n");
    let readers: Vec<TcpStream> = (0..20).map(|_| connect(&gateway, get.as_bytes())).collect();
    let post = format!("POST /api/x HTTP/1.1\r\nHost: g\r\n{bearer}Content-Length: 10000000000\r\n\r\n");
    let mut writer = connect(&gateway, post.as_bytes());
    writer.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) && writer.write_all(&[b'y'; 65_536]).is_ok() {}
    assert!(memory() < before + 100, "{before} to {} MiB", memory());
    let status = read_to_end(writer).answers().first().map(|a| a.status);
    assert!(matches!(status, Some(408 | 504) | None), "{status:?}");
    // The responses have been blocked for longer than the gateway's timeout.
    thread::sleep(Duration::from_millis(1200));
    for socket in readers {
        // The kernel's buffers are still delivered, then the reset.
        let mut socket = socket;
        socket.set_read_timeout(Some(Duration::from_secs(4))).unwrap();
        let mut buffer = vec![0; 1 << 20];
        let mut left = 256 << 20;
        while left > 0 {
            match socket.read(&mut buffer) {
                Ok(0) => panic!("a clean end of an answer that nobody took"),
                Ok(read) => left -= read.min(left),
                Err(_) => break,
            }
        }
    }
}

fn tiny_chunks() {
    let stage = Stage::with_sibling_services();
    let before = memory();
    let count = 20_000;
    let body = "1\r\nx\r\n".repeat(count);
    let head = format!(
        "POST /api/x HTTP/1.1\r\nHost: g\r\n{}Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        stage.bearer()
    );
    let began = Instant::now();
    let heard = exchange_bytes(stage.gateway.proxy, format!("{head}{body}0\r\n\r\n").as_bytes(), false);
    assert_eq!(heard.answers().first().map(|a| a.status), Some(200), "{heard:?}");
    assert!(stage.recorder.take().iter().all(|one| one.body.len() == count));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(memory() < before + 100, "{before} to {} MiB", memory());
}
