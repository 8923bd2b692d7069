//! Heads that never become a request: the exact status, the handler's body, and the end of the connection.

use std::sync::atomic::Ordering;

use permgate::net::Limits;

use crate::harness::{CloseKind, Gate};

/// Checks that a head is answered with this status and the handler's body, and that the connection closes.
/// 0: the handler is called.
fn check(gate: &Gate, name: &str, head: impl AsRef<[u8]>, expected: u16) {
    let served = gate.seen.requests.load(Ordering::SeqCst);
    // Also after another request, because the outcome must not depend on where a head begins.
    for first in [false, true] {
        let mut client = gate.client();
        if first {
            client.send(b"POST /echo HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\nhi");
            assert_eq!(client.answer().0, 200, "{name}");
        }
        client.send(head.as_ref());
        let (status, body) = client.answer();
        if expected == 0 {
            assert_eq!(status, 200, "{name}");
            continue;
        }
        assert_eq!(status, expected, "{name}, after a request: {first}");
        assert!(body.starts_with(&format!("refused {status}")), "{name}: {body}");
        client.socket.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.wait_for_close(), CloseKind::Closed, "{name}");
        assert_eq!(client.unread(), b"", "{name}");
    }
    let calls = gate.seen.requests.load(Ordering::SeqCst) - served;
    assert_eq!(calls, if expected == 0 { 3 } else { 1 }, "{name}");
}

fn get(fields: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: g\r\n{fields}\r\n")
}

#[test]
fn ambiguous_framing_is_refused() {
    let gate = Gate::new(&Limits::default());
    let check = |name: &str, fields: &str, expected| check(&gate, name, get(fields), expected);
    check("nothing odd", "A: b\r\n", 0);
    check("chunked", "Transfer-Encoding: chunked\r\n\r\n0\r\n", 0);
    check("chunked in capitals", "TRANSFER-ENCODING: Chunked\r\n\r\n0\r\n", 0);
    check("two lengths that differ", "Content-Length: 1\r\nContent-Length: 2\r\n", 400);
    check("two equal lengths", "Content-Length: 0\r\nContent-Length: 0\r\n", 0);
    check("a list of lengths", "Content-Length: 0, 0\r\n", 400);
    check("a signed length", "Content-Length: +1\r\n", 400);
    check("a negative length", "Content-Length: -1\r\n", 400);
    check("a hexadecimal length", "Content-Length: 0x1\r\n", 400);
    check("an empty length", "Content-Length:\r\n", 400);
    check("a length beyond integers", "Content-Length: 18446744073709551616\r\n", 400);
    check("length, then chunked", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", 0);
    check("chunked, then length", "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n", 0);
    check("chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400);
    check("chunked, chunked", "Transfer-Encoding: chunked, chunked\r\n", 400);
    check("gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n", 400);
    check("identity", "Transfer-Encoding: identity\r\n", 400);
    check("xchunked", "Transfer-Encoding: xchunked\r\n", 400);
    check("an empty encoding", "Transfer-Encoding:\r\n", 400);
    check("a vertical tab", "Transfer-Encoding: \x0bchunked\r\n", 400);
    check("a blank before the colon", "Content-Length : 1\r\n", 400);
    check("an encoding with a blank", "Transfer-Encoding : chunked\r\n", 400);
    check("a folded line", "A: b\r\n c\r\n", 400);
    check("a folded encoding", "Transfer-Encoding:\r\n chunked\r\n", 400);
    check("a tab in front", "\tA: b\r\n", 400);
    check("content_length", "Content_Length: 1\r\n", 400);
    check("transfer.encoding", "Transfer.Encoding: chunked\r\n", 400);
    check("TRANSFER_ENCODING", "TRANSFER_ENCODING: chunked\r\n", 400);
    check("a second Host", "Host: g\r\n", 400);
    check("no colon", "Content-Length\r\n", 400);
    check("no name", ": b\r\n", 400);
    check("a NUL in a value", "A: b\0c\r\n", 400);
    check("a bare CR in a value", "A: b\rc\r\n", 400);
    check("a bare LF after a value", "A: b\nC: d\r\n", 0);
    check("a bare LF at the end", "A: b\r\n\n", 0);
    check("a name that is no token", "A(b): c\r\n", 400);
    check("a long name that is no token", "Content\u{2010}Length: 1\r\n", 400);
}

#[test]
fn request_lines_and_hosts_are_parsed_strictly() {
    let gate = Gate::new(&Limits::default());
    let line = |name: &str, line: &str, expected| {
        check(&gate, name, format!("{line}\r\nHost: g\r\n\r\n"), expected);
    };
    line("a plain line", "GET / HTTP/1.1", 0);
    line("a query", "GET /?a=b HTTP/1.1", 0);
    line("an absolute target", "GET http://g/ HTTP/1.1", 0);
    line("a fragment", "GET /a#b HTTP/1.1", 0);
    line("a fragment in a query", "GET /a?b#c HTTP/1.1", 0);
    line("two blanks", "GET  / HTTP/1.1", 400);
    line("a blank behind", "GET / HTTP/1.1 ", 400);
    line("a blank in front", " GET / HTTP/1.1", 400);
    line("a tab", "GET\t/ HTTP/1.1", 400);
    line("a blank in the target", "GET /a b HTTP/1.1", 400);
    line("no target", "GET HTTP/1.1", 400);
    line("no version", "GET /", 400);
    line("HTTP/0.9", "GET / HTTP/0.9", 400);
    line("HTTP/1.2", "GET / HTTP/1.2", 400);
    line("HTTP/2.0", "GET / HTTP/2.0", 400);
    line("a version in small letters", "GET / http/1.1", 400);
    line("a method that is no token", "GE(T / HTTP/1.1", 400);
    line("a control character", "GET /\x01 HTTP/1.1", 400);
    line("a DEL", "GET /\x7f HTTP/1.1", 400);
    line("a relative path", "GET a HTTP/1.1", 400);
    line("an authority", "GET g:80 HTTP/1.1", 400);
    line("another scheme", "GET ftp://g/ HTTP/1.1", 400);
    line("an absolute target, in capitals", "GET HTTP://G HTTP/1.1", 0);
    line("a target that disagrees with Host", "GET http://h/ HTTP/1.1", 400);
    line("a user in the target", "GET http://u@g/ HTTP/1.1", 400);
    line("a port that Host lacks", "GET http://g:8080/ HTTP/1.1", 400);
    line("no authority", "GET http:///a HTTP/1.1", 400);
    line("no method's target", "GET * HTTP/1.1", 400);
    line("OPTIONS for all", "OPTIONS * HTTP/1.1", 0);
    check(&gate, "a bare LF", "GET / HTTP/1.1\nHost: g\r\n\r\n", 0);
    check(&gate, "empty lines without end", "\r\n\r\n\r\n\r\n\r\n\r\n", 400);
    check(&gate, "not quite the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n", 400);
    check(&gate, "TLS on a plain port", b"\x16\x03\x01\x02\x00\x01\x00\x01\n", 400);
    let host = |name: &str, host: &str, expected| {
        check(&gate, name, format!("GET / HTTP/1.1\r\n{host}\r\n"), expected);
    };
    host("a port", "Host: g:80\r\n", 0);
    host("an address", "Host: [2001:db8::1]\r\n", 0);
    host("none", "", 400);
    host("an empty one", "Host:\r\n", 400);
    host("a user", "Host: u@g\r\n", 400);
    host("a path", "Host: g/x\r\n", 400);
    host("a list", "Host: g, h\r\n", 400);
    host("a blank", "Host: g h\r\n", 400);
    host("no number", "Host: g:port\r\n", 400);
    host("two ports", "Host: g:80:80\r\n", 400);
    host("half an address", "Host: [::1\r\n", 400);
    host("an escape", "Host: g%2f\r\n", 400);
    check(&gate, "none beside an absolute target in HTTP/1.0", "GET http://g/ HTTP/1.0\r\n\r\n", 400);
    check(&gate, "none in HTTP/1.0", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 0);
    check(
        &gate,
        "an encoding in HTTP/1.0",
        "POST / HTTP/1.0\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    );
}

#[test]
fn size_limits_are_exact_to_the_byte() {
    let gate = Gate::new(&Limits::default());
    let fields = |count: usize| "A: b\r\n".repeat(count);
    // One of the 200 fields is Host.
    check(&gate, "as many fields as may be", get(&fields(199)), 0);
    check(&gate, "one field more", get(&fields(200)), 431);
    let field = |len: usize| format!("A: {}\r\n", "v".repeat(len - 3));
    check(&gate, "the longest field", get(&field(16 << 10)), 0);
    check(&gate, "a longer field", get(&field((16 << 10) + 1)), 431);
    check(&gate, "a field without end", get(&field(20 << 10)).trim_end(), 431);
    let frame = get("").len();
    let head = |len: usize| {
        let half = len - frame - (16 << 10);
        get(&format!("{}{}", field((16 << 10) - 2), field(half - 2)))
    };
    assert_eq!(head(32 << 10).len(), 32 << 10);
    check(&gate, "the longest head", head(32 << 10), 0);
    check(&gate, "a longer head", head((32 << 10) + 1), 431);
    let endless = get(&format!("A: {}\r\n", "x".repeat(395)).repeat(90));
    check(&gate, "a head without end", endless.trim_end(), 431);
    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: g\r\n\r\n", "t".repeat(len - 1));
    check(&gate, "the longest target", target(16 << 10), 0);
    check(&gate, "a longer target", target((16 << 10) + 1), 414);
    check(&gate, "a target longer than any head", target(40 << 10), 414);
    check(&gate, "a target without end", format!("GET /{}", "t".repeat(20 << 10)), 414);
}

#[test]
fn refusal_follows_earlier_pipelined_responses() {
    let gate = Gate::new(&Limits::default());
    let mut client = gate.client();
    client
        .send("GET /a HTTP/1.1\r\nHost: g\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /c HTTP/1.1\r\nHost: g\r\n\r\n");
    assert_eq!(client.answer(), (200, "/a".to_owned()));
    assert_eq!(client.answer().0, 400);
    client.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.wait_for_close(), CloseKind::Closed);
    assert_eq!(client.unread(), b"", "nothing behind a refused head is read");
    assert_eq!(gate.seen.requests.load(Ordering::SeqCst), 1);
}

#[test]
fn malformed_chunked_body_is_an_error_and_ends_the_connection() {
    let gate = Gate::new(&Limits::default());
    let long_size = format!("5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(20_000));
    let long_trailers = format!("0\r\n{}\r\n", "A: b\r\n".repeat(4000));
    for (name, body) in [
        ("no size", "\r\nhello"),
        ("no digit", "g\r\n"),
        ("a sign", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("too many digits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("a bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
        ("a bare LF in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("a bare LF after the data", "5\r\nhello\n0\r\n\r\n"),
        ("data that is longer than said", "5\r\nhello!\r\n0\r\n\r\n"),
        ("a bare LF at the end", "5\r\nhello\r\n0\r\n\n"),
        ("a bare LF in the trailers", "5\r\nhello\r\n0\r\nA: b\n\r\n"),
        ("an endless extension", &long_size),
        ("endless trailers", &long_trailers),
    ] {
        let mut client = gate.client();
        client.send(format!("POST /echo HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        // hyper waits for more if it does not recognise the end.
        client.socket.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.answer().0, 400, "{name}");
        assert_eq!(client.wait_for_close(), CloseKind::Closed, "{name}");
        assert!(gate.seen.body_errors.lock().unwrap().pop().is_some(), "{name}");
    }
}
