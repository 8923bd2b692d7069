//! Passes one request from hyper to the service, and its response back.

use std::{convert::Infallible, rc::Rc};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING, UPGRADE,
    },
    request::Parts,
};
use http_body::Body as _;
use http_body_util::{Either, Full};
use hyper::{body::Incoming, ext::Protocol};

use super::{
    Connection, RequestBody, RequestError, Service, Upgraded, Worker,
    body::{SendBody, Sent},
    connection::{OpenStream, Phase},
    framing,
};

type SentResponse<S> = Response<SendBody<<S as Service>::Body>>;

/// Checks a request and calls the service. `open`: the request's HTTP/2 stream.
pub(super) fn respond<S: Service>(
    service: Rc<S>,
    request: Request<Incoming>,
    connection: Rc<Connection>,
    open: Option<Rc<OpenStream>>,
    worker: &Rc<Worker>,
    sent: Sent<S::Body>,
) -> impl Future<Output = Result<SentResponse<S>, Infallible>> + use<S> {
    let (mut parts, incoming) = request.into_parts();
    let body = RequestBody::begin(incoming, &connection);
    let method = parts.method.clone();
    let tunnel = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let protocol = parts.extensions.remove::<Protocol>().filter(|_| tunnel.is_some());
    let judged = match &protocol {
        Some(protocol) => from_extended_connect(&mut parts, protocol),
        None => Ok(()),
    };
    let judged = match &open {
        Some(open) if open.admitted.is_none() => Err(RequestError::OverBudget),
        _ => judged,
    };
    let judged = judged.and_then(|()| framing::check(&mut parts, &worker.limits(), &connection));
    let tunnel = tunnel.filter(|_| protocol.is_some());
    if tunnel.is_some() {
        parts.version = Version::HTTP_11;
    }
    let worker = worker.clone();
    async move {
        let (response, rejected) = match judged {
            Ok(()) => {
                let request = Box::new(Request::from_parts(parts, body));
                // On the heap, so that an idle connection reserves no space for it.
                let response = Box::pin(service.call(request, connection.clone())).await;
                (response.map(Either::Left), false)
            }
            Err(error) => {
                drop(body);
                let response = service.reject(error, Some(&parts), &connection);
                (response.map(|text| Either::Right(Full::new(text))), true)
            }
        };
        let mut response = response.map(|content| SendBody::new(content, connection.clone(), sent));
        frame(&mut response, &method, &connection);
        match open {
            Some(open) => finish_http2::<S>(&mut response, &method, tunnel, open),
            None => finish_http1::<S>(&mut response, &method, rejected || worker.draining(), &connection),
        }
        Ok(response)
    }
}

/// Makes fields and body agree, because hyper checks neither.
fn frame<B>(response: &mut Response<SendBody<B>>, method: &Method, connection: &Connection)
where
    SendBody<B>: http_body::Body,
    B: http_body::Body<Data = bytes::Bytes, Error: Into<super::BoxError>> + Unpin,
{
    let status = response.status();
    let announced =
        response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let length: Option<u64> = match response.body().is_end_stream() {
        true => Some(0),
        false => response.body().size_hint().exact(),
    };
    response.headers_mut().remove(TRANSFER_ENCODING);
    response.headers_mut().remove(CONTENT_LENGTH);
    let kept = if status.is_informational() || status == StatusCode::NO_CONTENT {
        response.body_mut().omit_body();
        None
    } else if *method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        response.body_mut().omit_body();
        // The length that a GET would have returned, if it is known.
        announced.or(length.filter(|length| *length > 0))
    } else {
        if announced.is_some() && length.is_some() && announced != length {
            // The body is not as long as the fields say, so the response must not look complete.
            connection.abort();
        }
        announced.filter(|_| length.is_none())
    };
    if let Some(length) = kept {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
}

fn finish_http1<S: Service>(
    response: &mut SentResponse<S>,
    method: &Method,
    is_last: bool,
    connection: &Connection,
) {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        connection.enter(Phase::Switching);
        return;
    }
    refuse_tunnel::<S>(response, method);
    if is_last || connection.exchange.is_abandoned() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

fn finish_http2<S: Service>(
    response: &mut SentResponse<S>,
    method: &Method,
    tunnel: Option<hyper::upgrade::OnUpgrade>,
    open: Rc<OpenStream>,
) {
    let connection = open.stream.clone();
    let headers = response.headers_mut();
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
    if let Some(id) = headers.get_mut(REQUEST_ID) {
        // Every ID is different. Indexing it would only push other fields out of HPACK's table.
        id.set_sensitive(true);
    }
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return refuse_tunnel::<S>(response, method);
    }
    let (Some(tunnel), Some(sender), Some(stream)) =
        (tunnel, connection.exchange.take_upgrade(), connection.stream())
    else {
        return connection.abort();
    };
    response.headers_mut().remove(SEC_WEBSOCKET_ACCEPT);
    *response.status_mut() = StatusCode::OK;
    let upgraded = connection.clone();
    let task = tokio::task::spawn_local(async move {
        if let Ok(io) = tunnel.await {
            // If the receiver is gone, dropping the connection resets the stream.
            let _ = sender.send(Upgraded::http2(io, upgraded, open));
        }
    });
    stream.add_task(task.abort_handle());
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Turns a success of CONNECT into 501, because a 2xx would mean that the client has a tunnel.
fn refuse_tunnel<S: Service>(response: &mut SentResponse<S>, method: &Method) {
    if *method == Method::CONNECT && response.status().is_success() {
        *response.status_mut() = StatusCode::NOT_IMPLEMENTED;
        response.headers_mut().remove(CONTENT_LENGTH);
        response.body_mut().omit_body();
    }
}

/// Turns an extended CONNECT (RFC 8441) into the equivalent WebSocket request with `Upgrade`.
fn from_extended_connect(parts: &mut Parts, protocol: &Protocol) -> Result<(), RequestError> {
    if protocol.as_str() != "websocket" {
        return Err(RequestError::UnknownProtocol);
    }
    if let Some(key) = websocket_key() {
        parts.headers.insert(SEC_WEBSOCKET_KEY, key);
    }
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    parts.method = Method::GET;
    Ok(())
}

/// Returns a Sec-WebSocket-Key, which HTTP/1.1 requires and HTTP/2 omits: 16 random bytes in base64.
fn websocket_key() -> Option<HeaderValue> {
    let mut key = [0; 16];
    getrandom::fill(&mut key).ok()?;
    HeaderValue::try_from(BASE64_STANDARD.encode(key)).ok()
}
