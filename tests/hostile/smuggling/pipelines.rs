//! Requests after requests, after refusals, and truncated at every byte.

use std::{
    io::Write,
    net::{Shutdown, TcpStream},
};

use super::HIDDEN;
use crate::stage::{ConnectionState, Stage, exchange_bytes, read_to_end};

#[test]
fn pipelined_requests_are_read_in_one_way() {
    let stage = Stage::with_sibling_services();
    let bearer = stage.bearer();
    let get = |n: usize| format!("GET /api/{n} HTTP/1.1\r\nHost: g\r\n{bearer}\r\n");
    let all: String = (0..20).map(get).collect();
    let heard = exchange_bytes(stage.gateway.proxy, all.as_bytes(), true);
    assert_eq!(heard.answers().len(), 20, "{heard:?}");
    let targets: Vec<String> = stage.recorder.take().into_iter().map(|one| one.target).collect();
    assert_eq!(targets, (0..20).map(|n| format!("/api/{n}")).collect::<Vec<_>>(), "in order, each once");

    // Each is decided by its own fields, whatever came before it.
    let mixed = [
        get(1),
        "GET /api/2 HTTP/1.1\r\nHost: g\r\n\r\n".into(),
        get(3),
        format!("GET /hub/api/4 HTTP/1.1\r\nHost: g\r\n{bearer}\r\n"),
        format!(
            "POST /api/5 HTTP/1.1\r\nHost: g\r\n{bearer}Content-Length: {}\r\n\r\n{HIDDEN}",
            HIDDEN.len()
        ),
        get(6),
    ];
    let heard = exchange_bytes(stage.gateway.proxy, mixed.concat().as_bytes(), true);
    let statuses: Vec<u16> = heard.answers().iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 401, 200, 403, 200, 200]);
    let targets: Vec<String> = stage.recorder.take().into_iter().map(|one| one.target).collect();
    assert_eq!(targets, ["/api/1", "/api/3", "/api/5", "/api/6"]);

    // Refusing a request with a body ends the connection, because the body is not a request.
    for framing in
        [format!("Content-Length: {}\r\n\r\n", HIDDEN.len()), "Content-Length: 1000\r\n\r\n".to_owned()]
    {
        for fields in [String::new(), "Authorization: Basic x\r\n".to_owned(), format!("{bearer}{bearer}")] {
            let bytes = format!("POST /api/x HTTP/1.1\r\nHost: g\r\n{fields}{framing}{HIDDEN}{}", get(9));
            let heard = exchange_bytes(stage.gateway.proxy, bytes.as_bytes(), true);
            let answers = heard.answers();
            assert!(!answers.is_empty() && answers[0].status >= 400, "{bytes}: {heard:?}");
            for one in stage.recorder.take() {
                assert_eq!(one.target, "/api/9", "{bytes}");
            }
        }
    }

    // Split in two it is the same request, and truncating it anywhere is harmless.
    let whole = format!(
        "POST /api/cut HTTP/1.1\r\nHost: g\r\n{bearer}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
    );
    for end in 1..whole.len() {
        let mut socket = TcpStream::connect(stage.gateway.proxy).unwrap();
        socket.set_nodelay(true).unwrap();
        let middle = end / 2;
        let _ = socket.write_all(&whole.as_bytes()[..middle]);
        let _ = socket.write_all(&whole.as_bytes()[middle..end]);
        let _ = socket.shutdown(Shutdown::Write);
        let heard = read_to_end(socket);
        assert_ne!(heard.end, ConnectionState::Open, "cut at {end}");
        assert!(heard.answers().iter().all(|a| a.status == 400), "cut at {end}: {heard:?}");
    }
    for one in stage.recorder.take() {
        assert!(one.fault.is_some(), "a request that was cut off passed for a whole one: {one:?}");
    }
    let mut socket = TcpStream::connect(stage.gateway.proxy).unwrap();
    socket.set_nodelay(true).unwrap();
    let whole = whole.replace("/api/cut", "/api/bytes");
    for byte in whole.as_bytes() {
        socket.write_all(&[*byte]).unwrap();
    }
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(socket).answers()[0].status, 200);
    // A truncated request may be noticed late.
    let mut received = stage.recorder.take();
    received.retain(|one| one.target == "/api/bytes");
    assert!(matches!(&received[..], [one] if one.body == b"hello" && one.fault.is_none()), "{received:?}");
}
