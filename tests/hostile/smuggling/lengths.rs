//! Content-Length and Transfer-Encoding in every notation, alone, repeated and together.

use super::{ExpectedOutcome, HIDDEN, Passes, Refused, Safe, check, check_pipelined, finish, send};
use crate::stage::Stage;

#[test]
fn lengths_and_codings_are_read_in_one_way() {
    let stage = Stage::with_sibling_services();
    let (mut failed, mut rows) = (Vec::new(), 0);
    let lengths: Vec<(String, ExpectedOutcome)> = [
        ("5", Passes("hello")),
        ("05", Passes("hello")),
        ("000005", Passes("hello")),
        ("+5", Refused(400)),
        ("-5", Refused(400)),
        ("-0", Refused(400)),
        ("5.0", Refused(400)),
        ("5e0", Refused(400)),
        ("0x5", Refused(400)),
        ("0X5", Refused(400)),
        ("5h", Refused(400)),
        ("5 5", Refused(400)),
        ("5,5", Refused(400)),
        ("5, 5", Refused(400)),
        ("5, 6", Refused(400)),
        ("0, 5", Refused(400)),
        (",5", Refused(400)),
        ("5,", Refused(400)),
        ("\"5\"", Refused(400)),
        ("5;a=b", Refused(400)),
        ("", Refused(400)),
        (" ", Refused(400)),
        ("five", Refused(400)),
        ("٥", Refused(400)),
        ("5\u{a0}", Refused(400)),
        ("5_0", Refused(400)),
        ("1_0", Refused(400)),
        ("18446744073709551616", Refused(400)),
        ("18446744073709551621", Refused(400)),
        ("9223372036854775808", Refused(400)),
        ("4294967301", Safe),
        ("99999999999999999999999999", Refused(400)),
        ("5\u{b}", Refused(400)),
        ("\u{b}5", Refused(400)),
        ("5\u{0}", Refused(400)),
        ("5\r", Refused(400)),
        ("\r\n 5", Refused(400)),
        ("5\r\n 0", Refused(400)),
        // The head ends here.
        ("5\n", Safe),
    ]
    .map(|(value, fate)| (value.to_owned(), fate))
    .into();
    for (value, fate) in &lengths {
        for name in ["Content-Length", "content-length"] {
            rows += 1;
            let head = format!("POST /api/x HTTP/1.1\r\nHost: g\r\n{{bearer}}\r\n{name}: {value}\r\n\r\n");
            let heard = send(&stage, &head, b"hello");
            failed.extend(check(&stage, &format!("{name}: {value:?}"), &heard, *fate));
        }
    }
    let pairs = [("5", "5"), ("5", "6"), ("5", "0"), ("0", "5"), ("", "5")];
    for (one, two) in pairs {
        for other in ["Content-Length", "CONTENT-LENGTH", "Content_Length", "Content.Length"] {
            rows += 1;
            let head = format!(
                "POST /api/x HTTP/1.1\r\nHost: g\r\n{{bearer}}\r\nContent-Length: {one}\r\n{other}: {two}\r\n\r\n"
            );
            failed.extend(check(
                &stage,
                &format!("{one} and {other}: {two}"),
                &send(&stage, &head, b"hello"),
                // Equal lengths count as one.
                if one == two && other.contains('-') { Passes("hello") } else { Refused(400) },
            ));
        }
    }
    let chunked = format!("5\r\nhello\r\n0\r\n\r\n{HIDDEN}");
    let codings = [
        ("chunked", Safe),
        ("Chunked", Safe),
        ("CHUNKED", Safe),
        (" \tchunked \t", Safe),
        ("xchunked", Refused(400)),
        ("chunked1", Refused(400)),
        ("chunked, chunked", Refused(400)),
        ("chunked,", Refused(400)),
        (",chunked", Refused(400)),
        ("identity", Refused(400)),
        ("identity, chunked", Refused(400)),
        ("chunked, identity", Refused(400)),
        ("gzip", Refused(400)),
        ("gzip, chunked", Refused(400)),
        ("chunked, gzip", Refused(400)),
        ("deflate", Refused(400)),
        ("cow", Refused(400)),
        ("", Refused(400)),
        ("chunked;q=1", Refused(400)),
        ("chunked ; a=b", Refused(400)),
        ("\"chunked\"", Refused(400)),
        ("'chunked'", Refused(400)),
        ("chun ked", Refused(400)),
        ("chunked x", Refused(400)),
        ("\u{b}chunked", Refused(400)),
        ("chunked\u{b}", Refused(400)),
        ("chunked\u{c}", Refused(400)),
        ("chunked\u{0}", Refused(400)),
        ("\u{0}chunked", Refused(400)),
        ("chunked\u{a0}", Refused(400)),
        ("chun\u{212a}ed", Refused(400)),
        ("\r\n chunked", Refused(400)),
        ("chunked\r\n\tx", Refused(400)),
        ("chunked\n", Refused(400)),
        ("x\nTransfer-Encoding: chunked", Refused(400)),
        ("chunked\rX: y", Refused(400)),
    ];
    for (value, fate) in codings {
        for name in ["Transfer-Encoding", "transfer-encoding", "TRANSFER-ENCODING"] {
            rows += 1;
            let head = format!("POST /api/x HTTP/1.1\r\nHost: g\r\n{{bearer}}\r\n{name}: {value}\r\n\r\n");
            failed.extend(check_pipelined(
                &stage,
                &format!("{name}: {value:?}"),
                &send(&stage, &head, chunked.as_bytes()),
                fate,
            ));
        }
        // Never two of them.
        for (first, second) in [
            (format!("Transfer-Encoding: {value}"), "Content-Length: 5".to_owned()),
            ("Content-Length: 5".to_owned(), format!("Transfer-Encoding: {value}")),
            (format!("Transfer-Encoding: {value}"), "Transfer-Encoding: chunked".to_owned()),
            ("Transfer-Encoding: chunked".to_owned(), format!("Transfer-Encoding: {value}")),
            (format!("Transfer-Encoding: {value}"), "Transfer-Encoding: identity".to_owned()),
        ] {
            rows += 1;
            let head =
                format!("POST /api/x HTTP/1.1\r\nHost: g\r\n{{bearer}}\r\n{first}\r\n{second}\r\n\r\n");
            failed.extend(check(
                &stage,
                &format!("{first:?} and {second:?}"),
                &send(&stage, &head, chunked.as_bytes()),
                // Together with a length the coding applies, and the connection ends after the request.
                if first.contains("Length") || second.contains("Length") { fate } else { Refused(400) },
            ));
        }
    }
    let names = [
        "Transfer-Encoding ",
        "Transfer-Encoding\t",
        " Transfer-Encoding",
        "\tTransfer-Encoding",
        "Transfer_Encoding",
        "Transfer.Encoding",
        "TRANSFER_ENCODING",
        "Transfer Encoding",
        "Transfer-Encoding\u{0}",
        "Transfer-Encoding\u{b}",
        "\u{b}Transfer-Encoding",
        "Transfer-Enc\u{0}oding",
        "\"Transfer-Encoding\"",
        "Transfer-Encoding:\r\nX",
        "X\rTransfer-Encoding",
        "X: y\rTransfer-Encoding",
        "X: y\nTransfer-Encoding",
        "X\r\n Transfer-Encoding",
        "X: y\r\n Transfer-Encoding",
        "Transfer\u{2010}Encoding",
        "Content-Length ",
        "Content-Length\t",
        " Content-Length",
        "Content Length",
        "Content\u{ad}-Length",
        "X: y\nContent-Length",
        "Host: x\rContent-Length",
    ];
    for name in names {
        for (length, value) in [("Content-Length: 5\r\n", "chunked"), ("", "chunked"), ("", "70")] {
            rows += 1;
            let head =
                format!("POST /api/x HTTP/1.1\r\nHost: g\r\n{{bearer}}\r\n{length}{name}: {value}\r\n\r\n");
            failed.extend(check(
                &stage,
                &format!("{name:?} beside {length:?}"),
                &send(&stage, &head, chunked.as_bytes()),
                // A bare LF ends a line, and the forwarded fields are written anew.
                if name.contains('\n') && !name.contains('\r') { Safe } else { Refused(400) },
            ));
        }
    }
    finish(&failed, rows);
}
