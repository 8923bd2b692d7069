//! Checks the head of an upstream's response. An unacceptable one becomes 502, so that
//! nothing ambiguous reaches a client.

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE},
};

use crate::{
    authz::forwarding::{at_most_one, list_elements},
    proxy::upgrade,
};

/// Whether the head of a response can be passed on. `asked` lists the protocols that the
/// request may switch to.
pub fn is_acceptable(status: StatusCode, headers: &HeaderMap, asked: Option<&HeaderValue>) -> bool {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return asked.is_some_and(|asked| is_requested_switch(headers, asked));
    }
    (200..600).contains(&status.as_u16()) && framing_is_plain(headers)
}

/// Whether a 101 switches only to requested protocols.
fn is_requested_switch(headers: &HeaderMap, asked: &HeaderValue) -> bool {
    let mut protocols = list_elements(headers, UPGRADE).peekable();
    let mut connection = list_elements(headers, CONNECTION);
    protocols.peek().is_some()
        && protocols.all(|protocol| upgrade::contains(asked, protocol))
        && connection.any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// Whether the body has one Content-Length, or one `chunked`, or neither.
fn framing_is_plain(headers: &HeaderMap) -> bool {
    match (at_most_one(headers, &CONTENT_LENGTH), at_most_one(headers, &TRANSFER_ENCODING)) {
        (Ok(None), Ok(None)) => true,
        (Ok(Some(length)), Ok(None)) => {
            !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit)
        }
        (Ok(None), Ok(Some(coding))) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(status: u16, fields: &[(&'static str, &'static str)], asked: Option<&HeaderValue>) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        is_acceptable(StatusCode::from_u16(status).expect("three digits"), &headers, asked)
    }

    fn check(row: &str, status: u16, fields: &[(&'static str, &'static str)], expected: bool) {
        assert_eq!(accepts(status, fields, None), expected, "{row}");
    }

    fn check_switch(row: &str, asked: &'static str, fields: &[(&'static str, &'static str)], expected: bool) {
        let asked = HeaderValue::from_static(asked);
        assert_eq!(accepts(101, fields, Some(&asked)), expected, "{row}");
    }

    #[test]
    fn upstream_switches_only_to_requested_protocols() {
        let connection = ("connection", "Upgrade");
        let to = |protocol| [("upgrade", protocol), connection];
        check_switch("as asked", "websocket", &to("websocket"), true);
        check_switch("in other letters", "websocket", &to("WebSocket"), true);
        check_switch("one of several", "websocket, tcp", &to("tcp"), true);
        check_switch("a version", "irc/6.9", &to("IRC/6.9"), true);
        check_switch("among other options", "tcp", &[("upgrade", "tcp"), ("connection", "x, upgrade")], true);
        check_switch("another", "websocket", &to("tcp"), false);
        check_switch("another version", "irc/6.9", &to("irc/7"), false);
        check_switch("a part of it", "websocket", &to("web"), false);
        check_switch("another beside it", "websocket", &to("websocket, h2c"), false);
        check_switch(
            "another in a second field",
            "tcp",
            &[("upgrade", "tcp"), ("upgrade", "x"), connection],
            false,
        );
        check_switch("none", "websocket", &[connection], false);
        check_switch("an empty one", "websocket", &to(""), false);
        check_switch("not in Connection", "websocket", &[("upgrade", "websocket")], false);
    }

    #[test]
    fn only_plainly_framed_responses_are_acceptable() {
        check("a length", 200, &[("content-length", "5")], true);
        check("chunked", 404, &[("transfer-encoding", "Chunked")], true);
        check("until the end", 599, &[], true);
        check("an upgrade nobody asked for", 101, &[], false);
        check("beyond 599", 600, &[], false);
        check("two lengths, the same", 200, &[("content-length", "5"), ("content-length", "5")], false);
        check("two lengths in one field", 200, &[("content-length", "5, 5")], false);
        check("a signed length", 200, &[("content-length", "+5")], false);
        check("length and chunked", 200, &[("content-length", "5"), ("transfer-encoding", "chunked")], false);
        check("another coding", 200, &[("transfer-encoding", "gzip, chunked")], false);
        check(
            "chunked twice",
            200,
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            false,
        );
    }
}
