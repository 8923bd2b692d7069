//! What an upstream may answer; anything else is 502, so that nothing ambiguous reaches a client.

use http::{HeaderMap, StatusCode, header};

/// Whether the head of an answer is one that can be passed on.
pub fn acceptable(status: StatusCode, headers: &HeaderMap) -> bool {
    (200..600).contains(&status.as_u16()) && framing_is_plain(headers)
}

/// One length or one `chunked`, never both.
fn framing_is_plain(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (lengths.next(), codings.next()) {
        (None, None) => true,
        (Some(length), None) => {
            lengths.next().is_none() && !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit)
        }
        (None, Some(coding)) => {
            codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked")
        }
        (Some(_), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn check(row: &str, status: u16, fields: &[(&'static str, &'static str)], expected: bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let status = StatusCode::from_u16(status).expect("three digits");
        assert_eq!(acceptable(status, &headers), expected, "{row}");
    }

    #[test]
    fn only_plain_answers_are_acceptable() {
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
