//! WebSockets over HTTP/2 (RFC 8441): turns an HTTP/1.1 upgrade into an extended CONNECT,
//! and its response back.

use aws_lc_rs::digest;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
    request::Parts,
};
use hyper::ext::Protocol;

/// The value of `Sec-WebSocket-Accept` for the client's handshake.
pub struct Handshake {
    accept: HeaderValue,
}

const WEBSOCKET: &str = "websocket";
/// RFC 6455, section 4.2.2.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether a request asks for a WebSocket and no other protocol.
pub fn is_requested(headers: &HeaderMap) -> bool {
    let asked = headers.get(UPGRADE).map(HeaderValue::as_bytes);
    asked.is_some_and(|asked| asked.eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
        && headers.contains_key(SEC_WEBSOCKET_KEY)
}

impl Handshake {
    /// Turns a request that [asks](is_requested) for a WebSocket into an extended CONNECT.
    pub fn begin(head: &mut Parts) -> Option<Self> {
        let key = head.headers.remove(SEC_WEBSOCKET_KEY)?;
        let accept = HeaderValue::try_from(accept(key.as_bytes())).ok()?;
        head.headers.remove(http::header::CONTENT_LENGTH);
        head.method = Method::CONNECT;
        head.extensions.insert(Protocol::from_static(WEBSOCKET));
        Some(Self { accept })
    }

    /// Turns a 200 into the 101 of HTTP/1.1. Any other response is passed on.
    pub fn end<B>(self, response: &mut Response<B>) {
        if response.status() != StatusCode::OK {
            return;
        }
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let fields: [(HeaderName, HeaderValue); 3] = [
            (CONNECTION, HeaderValue::from_static("upgrade")),
            (UPGRADE, HeaderValue::from_static(WEBSOCKET)),
            (SEC_WEBSOCKET_ACCEPT, self.accept),
        ];
        response.headers_mut().extend(fields);
    }
}

fn accept(key: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(key);
    context.update(GUID);
    BASE64_STANDARD.encode(context.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn websocket_key_is_accepted_as_in_rfc_6455() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
