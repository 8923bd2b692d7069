//! Upstreams that misbehave: the client gets 502 or 504, or a response that is visibly truncated, never one
//! that only looks complete, and never bytes of another response.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use crate::{
    stage::{ConnectionState, exchange_bytes},
    support::gateway::Gateway,
};

/// What the upstream does with one request.
#[derive(Clone)]
enum UpstreamStep {
    Say(Vec<u8>),
    Drip(Vec<u8>),
    Reset,
    Hold,
}

/// What the client must see.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Status(u16),
    Whole(u16, &'static str),
    /// A head, then an end that no client takes for a complete response.
    Aborted,
}

use Outcome::{Aborted, Status, Whole};

const BAD: Outcome = Status(502);
const OK: &str = "HTTP/1.1 200 OK\r\n";

fn send_text(text: &str) -> Vec<UpstreamStep> {
    vec![UpstreamStep::Say(text.as_bytes().to_vec())]
}

fn rows() -> Vec<(String, Vec<UpstreamStep>, Outcome)> {
    let mut rows: Vec<(String, Vec<UpstreamStep>, Outcome)> = Vec::new();
    let mut row =
        |name: &str, acts: Vec<UpstreamStep>, outcome: Outcome| rows.push((name.to_owned(), acts, outcome));
    for (name, text, outcome) in [
        ("plain", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Whole(200, "ok")),
        ("HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", Whole(200, "ok")),
        ("until the end", "HTTP/1.1 200 OK\r\n\r\nok", Whole(200, "ok")),
        ("no reason", "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", Whole(200, "ok")),
        ("599", "HTTP/1.1 599 X\r\nContent-Length: 2\r\n\r\nok", Whole(599, "ok")),
        (
            "chunked",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            Whole(200, "ok"),
        ),
        ("204", "HTTP/1.1 204 No Content\r\n\r\n", Whole(204, "")),
        ("304 with a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 70\r\n\r\n", Whole(304, "")),
        (
            "one interim",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            Whole(200, "ok"),
        ),
        ("nothing", "", BAD),
        ("garbage", "garbage\r\n\r\n", BAD),
        ("binary", "\u{0}\u{1}\u{2}\u{3}\u{16}\u{3}\u{1}\r\n\r\n", BAD),
        ("HTTP/0.9", "<html>hello</html>", BAD),
        ("HTTP/2.0", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", BAD),
        ("HTTP/9.9", "HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\nok", BAD),
        ("no status", "HTTP/1.1\r\n\r\n", BAD),
        ("a status of letters", "HTTP/1.1 abc OK\r\n\r\n", BAD),
        ("a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", BAD),
        ("a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", BAD),
        ("status 0", "HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n", BAD),
        ("status 600", "HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n", BAD),
        ("status 999", "HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n", BAD),
        (
            "101 that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw",
            BAD,
        ),
        (
            "101 and an answer",
            "HTTP/1.1 101 Switching Protocols\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            BAD,
        ),
        ("only interim", "HTTP/1.1 100 Continue\r\n\r\n", BAD),
        ("cut in the status", "HTTP/1.1 20", BAD),
        ("cut behind the status", "HTTP/1.1 200 OK\r\n", BAD),
        ("cut in a name", "HTTP/1.1 200 OK\r\nConte", BAD),
        ("cut in a value", "HTTP/1.1 200 OK\r\nContent-Length: 2", BAD),
        ("cut before the last line", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", BAD),
        ("cut in the last line", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r", BAD),
        ("cut behind the head", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", Aborted),
        ("cut in the body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok", Aborted),
        (
            "cut in a chunk's size",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n5",
            Aborted,
        ),
        ("cut in a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", Aborted),
        ("cut behind a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok", Aborted),
        (
            "cut before the last chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
            Aborted,
        ),
        (
            "cut in the last chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
            Aborted,
        ),
        (
            "a chunk's size of letters",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
            Aborted,
        ),
        (
            "a negative chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n",
            Aborted,
        ),
        (
            "a huge chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nok\r\n0\r\n\r\n",
            Aborted,
        ),
        (
            "a chunk too long",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nok\r\n0\r\n\r\n",
            Aborted,
        ),
        ("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", BAD),
        ("two lengths, the same", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", BAD),
        ("a list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", BAD),
        ("a signed length", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", BAD),
        ("a negative length", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", BAD),
        ("a length of letters", "HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok", BAD),
        ("a hexadecimal length", "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok", BAD),
        ("an empty length", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nok", BAD),
        ("a length beyond 64 bits", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok", BAD),
        (
            "length and chunked",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            BAD,
        ),
        (
            "chunked and length",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            BAD,
        ),
        (
            "chunked twice",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            BAD,
        ),
        ("gzip, chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", BAD),
        ("gzip", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", BAD),
        ("xchunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\nok", BAD),
        (
            "chunked in HTTP/1.0",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            BAD,
        ),
        (
            "an alias of Content-Length",
            "HTTP/1.1 200 OK\r\nContent_Length: 70\r\nContent-Length: 2\r\n\r\nok",
            Whole(200, "ok"),
        ),
        ("folded", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", BAD),
        ("a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", Whole(200, "ok")),
        ("no colon", "HTTP/1.1 200 OK\r\nX\r\nContent-Length: 2\r\n\r\nok", BAD),
        ("NUL in a value", "HTTP/1.1 200 OK\r\nX: a\u{0}b\r\nContent-Length: 2\r\n\r\nok", BAD),
        ("CR in a value", "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nok", BAD),
        (
            "a split answer",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            Whole(200, "ok"),
        ),
        (
            "a split empty answer",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            Whole(200, ""),
        ),
        ("204 with a body", "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", Whole(204, "")),
        (
            "204 that is chunked",
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
            Whole(204, ""),
        ),
        ("304 with a body", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil", Whole(304, "")),
        (
            "behind the last chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\nevil",
            Whole(200, "ok"),
        ),
    ] {
        row(name, send_text(text), outcome);
    }
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let last = format!("{OK}Content-Length: 2\r\n\r\nok");
    row("sixteen interim", send_text(&(interim.repeat(16) + &last)), Whole(200, "ok"));
    row("seventeen interim", send_text(&(interim.repeat(17) + &last)), BAD);
    row("a flood of interim", send_text(&interim.repeat(10_000)), BAD);
    row(
        "a head of 60,000 bytes",
        send_text(&format!("{OK}X: {}\r\nContent-Length: 2\r\n\r\nok", "a".repeat(60_000))),
        Whole(200, "ok"),
    );
    row(
        "a head beyond 64 KiB",
        send_text(&format!("{OK}X: {}\r\nContent-Length: 2\r\n\r\nok", "a".repeat(70_000))),
        BAD,
    );
    row("a head of a megabyte", send_text(&format!("{OK}{}\r\n", "X: aaaaaaaaaa\r\n".repeat(70_000))), BAD);
    row("a status line without an end", send_text(&"HTTP/1.1 200 OOOO".repeat(10_000)), BAD);
    row(
        "a thousand fields",
        send_text(&format!("{OK}{}Content-Length: 2\r\n\r\nok", "X: a\r\n".repeat(1000))),
        BAD,
    );
    row("silence", vec![UpstreamStep::Hold], Status(504));
    row("silence in the head", [send_text(OK), vec![UpstreamStep::Hold]].concat(), Status(504));
    row("silence after an interim", [send_text(interim), vec![UpstreamStep::Hold]].concat(), Status(504));
    row(
        "silence in the body",
        [send_text(&format!("{OK}Content-Length: 5\r\n\r\nok")), vec![UpstreamStep::Hold]].concat(),
        Aborted,
    );
    row(
        "silence between chunks",
        [send_text(&format!("{OK}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")), vec![UpstreamStep::Hold]]
            .concat(),
        Aborted,
    );
    row(
        "silence before the end",
        [send_text(&format!("{OK}\r\nok")), vec![UpstreamStep::Hold]].concat(),
        Aborted,
    );
    row("a reset at once", vec![UpstreamStep::Reset], BAD);
    row("a reset in the head", [send_text(OK), vec![UpstreamStep::Reset]].concat(), BAD);
    row(
        "a reset in the body",
        [send_text(&format!("{OK}Content-Length: 500\r\n\r\nok")), vec![UpstreamStep::Reset]].concat(),
        Aborted,
    );
    row("byte by byte", vec![UpstreamStep::Drip(last.into_bytes())], Whole(200, "ok"));
    row("byte by byte, cut", vec![UpstreamStep::Drip(format!("{OK}Content-Le").into_bytes())], BAD);
    let chunked = format!("{OK}Transfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n");
    row("chunks byte by byte", vec![UpstreamStep::Drip(chunked.into_bytes())], Whole(200, "ok"));
    rows
}

/// An upstream that acts by the row whose number is in the target. Other targets get `sound`.
fn start(rows: Vec<Vec<UpstreamStep>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let rows = Arc::new(rows);
    thread::spawn(move || {
        for socket in listener.incoming() {
            let (socket, rows) = (socket.unwrap(), rows.clone());
            thread::spawn(move || serve(socket, &rows));
        }
    });
    address
}

fn serve(mut socket: TcpStream, rows: &[Vec<UpstreamStep>]) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(socket.try_clone().ok()?);
    loop {
        let mut target = String::new();
        reader.read_line(&mut target).ok().filter(|read| *read > 0)?;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        }
        let number = target.split(' ').nth(1)?.rsplit('/').next()?.parse::<usize>().ok();
        let Some(acts) = number.map(|number| &rows[number]) else {
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsound").ok()?;
            continue;
        };
        for act in acts {
            match act {
                UpstreamStep::Say(bytes) => socket.write_all(bytes).ok()?,
                UpstreamStep::Drip(bytes) => {
                    for byte in bytes {
                        socket.write_all(&[*byte]).ok()?;
                        thread::yield_now();
                    }
                }
                UpstreamStep::Reset => {
                    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).ok()?;
                    return None;
                }
                // Until the gateway disconnects.
                UpstreamStep::Hold => drop(reader.read_line(&mut line)),
            }
        }
        return None;
    }
}

#[test]
fn every_upstream_fault_has_its_outcome() {
    let rows = rows();
    let address = start(rows.iter().map(|(_, acts, _)| acts.clone()).collect());
    let gateway = Gateway::with(&format!(
        r#"
[upstream.one]
urls = ["http://{address}"]
timeouts.first_byte = "2s"
timeouts.body_idle = "2s"
[service.tracker]
title = "Tracker"
upstream = "one"
paths = ["/api"]
readers = ["developers"]
"#
    ));
    gateway.developer("alice");
    let (_, token) = gateway.token("alice", "tracker", &["tracker"]);
    let ask = |method: &str, target: &str| {
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        exchange_bytes(gateway.proxy, head.as_bytes(), false)
    };
    let mut failed = Vec::new();
    for (number, (name, _, outcome)) in rows.iter().enumerate() {
        for method in ["GET", "POST"] {
            let mut heard = ask(method, &format!("/api/{number}"));
            if method == "POST" && matches!(outcome, Whole(..)) && heard.answers()[0].status == 502 {
                // The upstream closed the connection silently after the previous response, and the gateway
                // does not retry a request that is not idempotent.
                heard = ask(method, &format!("/api/{number}"));
            }
            let answers = heard.answers();
            let seen =
                answers.first().map(|a| (a.status, String::from_utf8_lossy(&a.body).into_owned(), a.whole));
            let sound = match (outcome, &seen) {
                (Status(status), Some((seen, body, true))) => {
                    let error = if *status == 504 { "gateway_timeout" } else { "bad_gateway" };
                    seen == status && body.contains(error) && heard.end == ConnectionState::Closed
                }
                (Whole(status, body), Some((seen, got, true))) => {
                    seen == status && body == got && heard.end == ConnectionState::Closed
                }
                (Aborted, Some((200, _, whole))) => heard.end == ConnectionState::Reset && !whole,
                // The reset may come before any of the head was flushed.
                (Aborted, None) => heard.end == ConnectionState::Reset,
                _ => false,
            };
            if !sound || answers.len() > 1 || String::from_utf8_lossy(&heard.bytes).contains("evil") {
                failed.push(format!("{method} {name}: {outcome:?}, but {seen:?} {:?}", heard.end));
            }
            // The next request gets its own response.
            let next = ask("GET", "/api/sound");
            let body = next.answers().first().map(|a| (a.status, a.body.clone()));
            if body != Some((200, b"sound".to_vec())) {
                failed.push(format!("{method} {name}: the next answer was {body:?}"));
            }
        }
    }
    assert!(failed.is_empty(), "{} faults in {} rows:\n{}", failed.len(), rows.len() * 2, failed.join("\n"));
    println!("{} rows", rows.len() * 2);
}
