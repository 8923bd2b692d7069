//! Request lines, versions, line ends, methods with bodies, and Expect.

use super::{HIDDEN, Passes, Refused, Safe, check, finish, send};
use crate::stage::Stage;

#[test]
fn request_lines_and_line_ends_are_read_in_one_way() {
    let stage = Stage::with_sibling_services();
    let (mut failed, mut rows) = (Vec::new(), 0);
    let fields = "Host: g\r\n{bearer}\r\n";
    let lines = [
        ("GET /api/x HTTP/1.1\r\n", Passes("")),
        ("\r\nGET /api/x HTTP/1.1\r\n", Passes("")),
        ("GET /api/x HTTP/1.0\r\n", Passes("")),
        ("GET /api/x HTTP/0.9\r\n", Refused(400)),
        ("GET /api/x HTTP/1.2\r\n", Refused(400)),
        ("GET /api/x HTTP/2.0\r\n", Refused(400)),
        ("GET /api/x HTTP/2\r\n", Refused(400)),
        ("GET /api/x HTTP/3.0\r\n", Refused(400)),
        ("GET /api/x HTTP/1\r\n", Refused(400)),
        ("GET /api/x HTTP/1.\r\n", Refused(400)),
        ("GET /api/x HTTP/1.10\r\n", Refused(400)),
        ("GET /api/x HTTP/01.1\r\n", Refused(400)),
        ("GET /api/x HTTP/1.1x\r\n", Refused(400)),
        ("GET /api/x http/1.1\r\n", Refused(400)),
        ("GET /api/x HTTPS/1.1\r\n", Refused(400)),
        ("GET /api/x HTTP /1.1\r\n", Refused(400)),
        ("GET /api/x HTTP/ 1.1\r\n", Refused(400)),
        ("GET /api/x HTTP/1.1 \r\n", Refused(400)),
        ("GET /api/x  HTTP/1.1\r\n", Refused(400)),
        ("GET  /api/x HTTP/1.1\r\n", Refused(400)),
        ("GET\t/api/x HTTP/1.1\r\n", Refused(400)),
        ("GET /api/x\tHTTP/1.1\r\n", Refused(400)),
        (" GET /api/x HTTP/1.1\r\n", Refused(400)),
        ("\tGET /api/x HTTP/1.1\r\n", Refused(400)),
        ("GET /api/x\r\n", Refused(400)),
        ("GET\r\n", Refused(400)),
        ("GET /api/x HTTP/1.1\n", Passes("")),
        ("GET /api/x HTTP/1.1\r", Refused(400)),
        ("GET /api/x HTTP/1.1\r\r\n", Refused(400)),
        ("\nGET /api/x HTTP/1.1\r\n", Passes("")),
        ("\r\n\r\n\r\n\r\n\r\n\r\nGET /api/x HTTP/1.1\r\n", Refused(400)),
        ("GET /api/x y HTTP/1.1\r\n", Refused(400)),
        ("GET /api/x HTTP/1.1 HTTP/1.1\r\n", Refused(400)),
        ("GET /api/x\u{b}HTTP/1.1\r\n", Refused(400)),
        ("GET /api/x\u{a0}HTTP/1.1\r\n", Refused(400)),
        ("GET /api/\u{0}x HTTP/1.1\r\n", Refused(400)),
        ("GE\u{0}T /api/x HTTP/1.1\r\n", Refused(400)),
        ("G(E)T /api/x HTTP/1.1\r\n", Refused(400)),
        ("GÉT /api/x HTTP/1.1\r\n", Refused(400)),
        ("GET: /api/x HTTP/1.1\r\n", Refused(400)),
        ("PRI * HTTP/2.0\r\n", Refused(400)),
        ("\u{16}\u{3}\u{1}\u{2} /api/x HTTP/1.1\r\n", Refused(400)),
        ("GET api/x HTTP/1.1\r\n", Refused(400)),
        ("GET * HTTP/1.1\r\n", Refused(400)),
        ("GET /api/x#y HTTP/1.1\r\n", Passes("")),
        ("GET http://g/api/x HTTP/1.1\r\n", Passes("")),
        ("GET http://h/api/x HTTP/1.1\r\n", Refused(400)),
        ("GET http:///api/x HTTP/1.1\r\n", Refused(400)),
        ("GET //g/api/x HTTP/1.1\r\n", Safe),
    ];
    for (line, fate) in lines {
        rows += 1;
        failed.extend(check(
            &stage,
            &format!("{line:?}"),
            &send(&stage, &format!("{line}{fields}\r\n"), b""),
            fate,
        ));
    }
    let methods_with_bodies = ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "PUT", "PATCH", "PROPFIND"];
    for method in methods_with_bodies {
        for framing in
            ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
        {
            rows += 1;
            let heard = send(&stage, &format!("{method} /api/x HTTP/1.1\r\n{fields}{framing}"), b"");
            let row = format!("{method} {framing:?}");
            let received = stage.recorder.take();
            match &received[..] {
                [one] if one.body == b"hello" && one.method == method && one.fault.is_none() => {}
                other => failed.push(format!("{row}: {other:?} {heard:?}")),
            }
        }
    }
    for (row, fields, body, fate) in [
        ("TE in HTTP/1.0", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", Refused(400)),
        ("a length in HTTP/1.0", "Content-Length: 5\r\n", "hello", Passes("hello")),
        ("keep-alive in HTTP/1.0", "Connection: keep-alive\r\n", "", Passes("")),
        ("no length, a body in HTTP/1.0", "", HIDDEN, Passes("")),
        ("Expect in HTTP/1.0", "Expect: 100-continue\r\nContent-Length: 5\r\n", "hello", Passes("hello")),
    ] {
        rows += 1;
        let head = format!("POST /api/x HTTP/1.0\r\nHost: g\r\n{{bearer}}\r\n{fields}\r\n");
        failed.extend(check(&stage, row, &send(&stage, &head, body.as_bytes()), fate));
    }
    for expect in
        ["100-continue", "100-Continue", "100-continue, x", "x", "", "100-continue\r\nExpect: 100-continue"]
    {
        for (framing, body) in
            [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")]
        {
            rows += 1;
            let head = format!(
                "POST /api/x HTTP/1.1\r\nHost: g\r\n{{bearer}}\r\nExpect: {expect}\r\n{framing}\r\n\r\n"
            );
            failed.extend(check(
                &stage,
                &format!("Expect: {expect} {framing}"),
                &send(&stage, &head, body.as_bytes()),
                Passes("hello"),
            ));
        }
    }
    finish(&failed, rows);
}
