//! Builds the `Upgrade` field for the upstream from the client's, which is never copied.

use http::{HeaderMap, HeaderValue, Request, Version, header};
use http_body::Body;

use crate::authz::forwarding::{is_token_char, list_elements};

/// Protocols that carry HTTP requests, which would bypass authorization.
const REFUSED_PROTOCOLS: [&str; 5] = ["h2c", "h2", "http", "https", "tls"];

/// Returns the `Upgrade` field for the upstream. `None`: the upgrade is ignored, as RFC 9110, section 7.8
/// allows. That includes HTTP/1.0, and requests with a body, whose bytes could not be told from the tunnel's.
pub fn requested_protocols<B: Body>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let meant = request.version() == Version::HTTP_11
        && request.body().is_end_stream()
        && list_elements(headers, header::CONNECTION).any(|option| option.eq_ignore_ascii_case(b"upgrade"));
    if !meant {
        return None;
    }
    let mut asked = Vec::new();
    for protocol in list_elements(headers, header::UPGRADE) {
        let mut parts = protocol.split(|byte| *byte == b'/');
        let (name, version) = (parts.next().unwrap_or_default(), parts.next());
        if parts.next().is_some() || !is_token(name) || !version.is_none_or(is_token) {
            return None;
        }
        if REFUSED_PROTOCOLS.iter().any(|never| name.eq_ignore_ascii_case(never.as_bytes())) {
            continue;
        }
        if !asked.is_empty() {
            asked.extend_from_slice(b", ");
        }
        asked.extend_from_slice(protocol);
    }
    if asked.is_empty() { None } else { HeaderValue::from_bytes(&asked).ok() }
}

/// Sets `Upgrade`, and `Connection: upgrade`.
pub fn set(headers: &mut HeaderMap, protocols: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocols);
}

/// Whether a list of protocols contains this one.
pub fn contains(asked: &HeaderValue, protocol: &[u8]) -> bool {
    let mut listed = asked.as_bytes().split(|byte| *byte == b',');
    listed.any(|one| one.trim_ascii().eq_ignore_ascii_case(protocol))
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(is_token_char)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body::Frame;

    use super::*;

    /// A body of this many bytes.
    struct Sized(u64);

    impl Body for Sized {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }

        fn is_end_stream(&self) -> bool {
            self.0 == 0
        }
    }

    fn check_as(row: &str, version: Version, body: u64, fields: &[(&str, &str)], expected: Option<&str>) {
        let mut request = http::Request::builder().version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Sized(body)).expect("a sound head");
        let found = requested_protocols(&request);
        assert_eq!(found.as_ref().map(|found| found.to_str().expect("tokens")), expected, "{row}");
    }

    fn check(row: &str, fields: &[(&str, &str)], expected: Option<&str>) {
        check_as(row, Version::HTTP_11, 0, fields, expected);
    }

    #[test]
    fn upgrade_field_is_rewritten_or_dropped() {
        let meant = ("connection", "keep-alive, Upgrade");
        check("WebSocket", &[("upgrade", "websocket"), meant], Some("websocket"));
        check("as the client writes it", &[("upgrade", "WebSocket"), meant], Some("WebSocket"));
        check("any other", &[("upgrade", "SPDY/3.1"), meant], Some("SPDY/3.1"));
        check("several", &[("upgrade", "a,b/1 ,"), ("upgrade", "c"), meant], Some("a, b/1, c"));
        check("h2c", &[("upgrade", "h2c"), meant], None);
        check("H2C", &[("upgrade", "H2C"), meant], None);
        check("h2c beside another", &[("upgrade", "h2c, websocket"), meant], Some("websocket"));
        check("another HTTP", &[("upgrade", "HTTP/2.0"), meant], None);
        check("TLS, and HTTP within", &[("upgrade", "TLS/1.0, HTTP/1.1"), meant], None);
        check("not in Connection", &[("upgrade", "websocket")], None);
        check("another in Connection", &[("upgrade", "websocket"), ("connection", "upgraded")], None);
        check("no Upgrade", &[meant], None);
        check("an empty one", &[("upgrade", ""), meant], None);
        check("no protocol", &[("upgrade", "web socket"), meant], None);
        check("a version without a name", &[("upgrade", "/1"), meant], None);
        check("a name without a version", &[("upgrade", "a/"), meant], None);
        check("two versions", &[("upgrade", "a/1/2"), meant], None);
        let fields = [("upgrade", "websocket"), meant];
        check_as("HTTP/1.0", Version::HTTP_10, 0, &fields, None);
        check_as("with a body", Version::HTTP_11, 1, &fields, None);
    }
}
