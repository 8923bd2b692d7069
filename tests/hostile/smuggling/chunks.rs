//! Chunk sizes, extensions, ends and trailers.

use super::{ExpectedOutcome, HIDDEN, Passes, Refused, Safe, check, finish, send};
use crate::stage::Stage;

#[test]
fn chunked_bodies_are_read_in_one_way() {
    let stage = Stage::with_sibling_services();
    let (mut failed, mut rows) = (Vec::new(), 0);
    let ok = Passes("hello");
    let bad = Refused(400);
    let bodies: Vec<(&str, String, ExpectedOutcome)> = [
        ("plain", "5\r\nhello\r\n0\r\n\r\n", ok),
        ("leading zeros", "0005\r\nhello\r\n000\r\n\r\n", ok),
        ("two chunks", "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", ok),
        ("an extension", "5;a=b\r\nhello\r\n0\r\n\r\n", ok),
        ("a quoted extension", "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n", ok),
        ("an extension at the end", "5\r\nhello\r\n0;a\r\n\r\n", ok),
        ("an extension with a line feed", "5;a\nb\r\nhello\r\n0\r\n\r\n", bad),
        ("an extension ended by LF", "5;a\nhello\r\n0\r\n\r\n", bad),
        ("an extension with CR", "5;a\rb\r\nhello\r\n0\r\n\r\n", bad),
        ("an extension with NUL", "5;a\0b\r\nhello\r\n0\r\n\r\n", ok),
        ("a size ended by LF", "5\nhello\r\n0\r\n\r\n", bad),
        ("a size ended by CR", "5\rhello\r\n0\r\n\r\n", bad),
        ("data ended by LF", "5\r\nhello\n0\r\n\r\n", bad),
        ("data ended by nothing", "5\r\nhello0\r\n\r\n", bad),
        ("data ended by two other bytes", "5\r\nhelloxx0\r\n\r\n", bad),
        ("data too long", "4\r\nhello\r\n0\r\n\r\n", bad),
        ("the end by LF", "5\r\nhello\r\n0\n\n", bad),
        ("the last line by LF", "5\r\nhello\r\n0\r\n\n", bad),
        ("no size", "\r\nhello\r\n0\r\n\r\n", bad),
        ("a prefix 0x", "0x5\r\nhello\r\n0\r\n\r\n", bad),
        ("a sign", "+5\r\nhello\r\n0\r\n\r\n", bad),
        ("a minus", "-5\r\nhello\r\n0\r\n\r\n", bad),
        ("a blank in front", " 5\r\nhello\r\n0\r\n\r\n", bad),
        ("a tab in front", "\t5\r\nhello\r\n0\r\n\r\n", bad),
        ("letters", "5g\r\nhello\r\n0\r\n\r\n", bad),
        ("an underscore", "0_5\r\nhello\r\n0\r\n\r\n", bad),
        ("a comma", "5,5\r\nhello\r\n0\r\n\r\n", bad),
        ("two sizes", "5 5\r\nhello\r\n0\r\n\r\n", bad),
        ("a full-width five", "５\r\nhello\r\n0\r\n\r\n", bad),
        ("more than 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n", bad),
        ("64 bits", "FFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", bad),
        ("32 bits and five", "100000005\r\nhello\r\n0\r\n\r\n", bad),
        ("63 bits", "7FFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", bad),
        ("minus one", "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", bad),
        ("an empty line before the size", "\r\n5\r\nhello\r\n0\r\n\r\n", bad),
        ("CR CR LF", "5\r\r\nhello\r\n0\r\n\r\n", bad),
        ("a vertical tab", "5\u{b}\r\nhello\r\n0\r\n\r\n", bad),
        ("NUL behind the size", "5\0\r\nhello\r\n0\r\n\r\n", bad),
        ("NUL in front", "\u{0}5\r\nhello\r\n0\r\n\r\n", bad),
        ("cut off in the size", "5", bad),
        ("cut off behind the size", "5\r\n", bad),
        ("cut off in data", "5\r\nhel", bad),
        ("cut off behind data", "5\r\nhello", bad),
        ("cut off before the end", "5\r\nhello\r\n", bad),
        ("cut off in the end", "5\r\nhello\r\n0", bad),
        ("cut off behind the last size", "5\r\nhello\r\n0\r\n", bad),
        ("cut off in the last line", "5\r\nhello\r\n0\r\n\r", bad),
        ("cut off in a trailer", "5\r\nhello\r\n0\r\nX: ", bad),
        ("nothing at all", "", bad),
        ("a folded trailer", "5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n", bad),
        ("a trailer with a bare LF", "5\r\nhello\r\n0\r\nX: y\n\r\n", bad),
        ("a trailer with a bare CR", "5\r\nhello\r\n0\r\nX: y\rz\r\n\r\n", bad),
        ("a trailer without a colon", "5\r\nhello\r\n0\r\nX\r\n\r\n", bad),
        ("a trailer with a blank in its name", "5\r\nhello\r\n0\r\nX : y\r\n\r\n", bad),
        ("a trailer with NUL", "5\r\nhello\r\n0\r\nX: \0\r\n\r\n", bad),
        ("a trailer that frames", "5\r\nhello\r\n0\r\nContent-Length: 70\r\n\r\n", ok),
        ("a trailer that codes", "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", ok),
        ("a trailer that routes", "5\r\nhello\r\n0\r\nHost: hidden\r\n\r\n", ok),
    ]
    .map(|(row, body, fate)| (row, body.to_owned(), fate))
    .into_iter()
    .chain([
        ("a long extension", format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(900)), ok),
        ("too long an extension", format!("5;{}\r\nhello\r\n0\r\n\r\n", "a".repeat(20_000)), bad),
        (
            "too many extensions",
            format!("{}0\r\n\r\n", "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nx\r\n".repeat(20_000)),
            Safe,
        ),
        ("too many zeros", format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(5000)), ok),
        ("too many trailers", format!("5\r\nhello\r\n0\r\n{}\r\n", "X: y\r\n".repeat(5000)), bad),
        ("a trailer too long", format!("5\r\nhello\r\n0\r\nX: {}\r\n\r\n", "y".repeat(40_000)), bad),
    ])
    .collect();
    for (row, body, fate) in bodies {
        for method in ["POST", "GET", "DELETE"] {
            rows += 1;
            let head = format!(
                "{method} /api/x HTTP/1.1\r\nHost: g\r\n{{bearer}}\r\nTransfer-Encoding: chunked\r\n\r\n"
            );
            let heard = send(&stage, &head, body.as_bytes());
            failed.extend(check(&stage, &format!("{method} {row}"), &heard, fate));
        }
        // What follows a malformed body is not a request.
        if fate == bad && !row.starts_with("cut off") && row != "nothing at all" {
            rows += 1;
            let head = "POST /api/x HTTP/1.1\r\nHost: g\r\n{bearer}\r\nTransfer-Encoding: chunked\r\n\r\n";
            let heard = send(&stage, head, format!("{body}{HIDDEN}").as_bytes());
            // hyper reads the request as a part of the trailers, which end with it.
            let fate = if row.ends_with("LF") && body.contains("0\r\n") && !body.contains("0\n") {
                Safe
            } else {
                fate
            };
            failed.extend(check(&stage, &format!("{row}, and a request behind"), &heard, fate));
        }
    }
    finish(&failed, rows);
}
