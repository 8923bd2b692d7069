//! One request over HTTP/2: a stream of a shared connection. Also WebSocket over it, as an extended CONNECT
//! (RFC 8441).

use std::{error::Error as _, pin::pin, rc::Rc, time::Duration};

use aws_lc_rs::digest;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{self, CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
    request::{self, Parts},
    uri,
};
use hyper::{body::Incoming, client::conn::http2::SendRequest, ext::Protocol};

use super::{Http2, socket_error};
use crate::{
    authz::reason::Reason,
    proxy::upstream::{body::OutgoingBody, call::Call, pool::Failure},
};

/// Counts as one of the connection's streams until it is dropped.
pub struct Http2Stream {
    connection: Rc<Http2>,
    /// Taken by `send`. hyper keeps the connection open as long as a sender exists.
    sender: Option<SendRequest<OutgoingBody>>,
    secure: bool,
    reused: bool,
    pub http11_required: bool,
    pub call: Rc<Call>,
}

impl Http2Stream {
    pub(super) fn new(connection: Rc<Http2>, sender: SendRequest<OutgoingBody>, secure: bool) -> Self {
        let (call, reused) = (Call::new(&connection.clock), connection.used.get());
        Self { connection, sender: Some(sender), secure, reused, http11_required: false, call }
    }

    /// `repeatable`: the request is idempotent and has no body.
    pub async fn send(
        &mut self,
        request: Box<Request<OutgoingBody>>,
        silence: Duration,
        repeatable: bool,
    ) -> Result<Response<Incoming>, Failure> {
        // The head is kept, because a refused stream may be retried whatever the method is.
        let kept = request.clone();
        let (mut head, body) = request.into_parts();
        head.uri = target(&head, self.secure).ok_or(Reason::BadRequest)?;
        head.version = Version::HTTP_2;
        let tunnel = self.connection.supports_extended_connect() && is_websocket(&head.headers);
        let handshake = if tunnel { WebSocketHandshake::begin(&mut head) } else { None };
        for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
            head.headers.remove(name);
        }
        let Some(mut sender) = self.sender.take() else {
            return Err(Failure { again: Some(kept), ..Reason::UpstreamReset.into() });
        };
        body.attach(&self.call, Some(&self.connection.executor));
        if handshake.is_some() {
            self.connection.executor.next_is_for(&self.call);
        }
        self.call.begin(silence);
        let sent = pin!(sender.try_send_request(Request::from_parts(head, body)));
        let (unsent, error) = match self.call.response(sent).await {
            Some(Ok(mut response)) => {
                self.call.response_began();
                if let Some(handshake) = handshake {
                    handshake.end(&mut response);
                }
                return Ok(response);
            }
            Some(Err(mut error)) => (error.take_message().is_some(), error.into_error()),
            None => {
                // The peer may have vanished, so it gets no new streams.
                self.connection.retire();
                return Err(Reason::UpstreamTimeout.into());
            }
        };
        let (harmless, reason) = self.classify_failure(&error, repeatable);
        let again = (unsent || harmless) && kept.body().is_unread();
        Err(Failure::new(again.then_some(kept), reason, &error))
    }

    /// Returns whether the request may be sent again, and the reason of the failure.
    fn classify_failure(&mut self, error: &hyper::Error, repeatable: bool) -> (bool, Reason) {
        if socket_error(error).is_some() {
            self.connection.retire();
            return (repeatable && self.reused, Reason::UpstreamReset);
        }
        let Some(error) = error.source().and_then(|source| source.downcast_ref::<h2::Error>()) else {
            return (false, Reason::UpstreamReset);
        };
        match error.reason() {
            // RFC 9113, section 7: for the whole connection, or only for this stream.
            Some(h2::Reason::HTTP_1_1_REQUIRED) if error.is_remote() => {
                let whole = !error.is_reset();
                self.http11_required = true;
                if whole {
                    self.connection.retire();
                }
                // For a single stream, nothing guarantees that the request was not processed.
                (whole || repeatable, Reason::UpstreamReset)
            }
            // Section 8.7: the upstream has not processed it.
            Some(h2::Reason::REFUSED_STREAM) if error.is_remote() && error.is_reset() => {
                self.connection.stop_opening();
                (true, Reason::UpstreamReset)
            }
            // The upstream closes the connection and has not processed this stream.
            _ if error.is_remote() && error.is_go_away() => {
                self.connection.retire();
                (true, Reason::UpstreamReset)
            }
            // The upstream has violated the protocol.
            _ if error.is_library() => (false, Reason::UpstreamInvalid),
            _ => (false, Reason::UpstreamReset),
        }
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        self.connection.release(self.call.ended());
    }
}

/// The absolute URI, which is sent as `:scheme`, `:authority` and `:path`.
fn target(head: &request::Parts, secure: bool) -> Option<Uri> {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(if secure { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
    parts.authority = Some(uri::Authority::try_from(head.headers.get(header::HOST)?.as_bytes()).ok()?);
    parts.path_and_query = head.uri.path_and_query().cloned();
    Uri::from_parts(parts).ok()
}

/// The value of `Sec-WebSocket-Accept` for the client's handshake.
pub struct WebSocketHandshake {
    accept: HeaderValue,
}

const WEBSOCKET: &str = "websocket";
/// RFC 6455, section 4.2.2.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether a request asks for a WebSocket and no other protocol.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    let asked = headers.get(UPGRADE).map(HeaderValue::as_bytes);
    asked.is_some_and(|asked| asked.eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
        && headers.contains_key(SEC_WEBSOCKET_KEY)
}

impl WebSocketHandshake {
    /// Turns a request that [asks](is_websocket) for a WebSocket into an extended CONNECT.
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
