//! How long an upstream may be silent: longer where a message may be quiet on purpose.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, header};
use http_body::Body as _;

use crate::{proxy::upstream::outgoing::OutgoingBody, settings::UpstreamSettings};

/// How long the upstream may be silent before its response, and within it. A gRPC client may open a
/// call and stay quiet for a long time, and the upstream with it.
pub fn patience(settings: &UpstreamSettings, request: &Request<OutgoingBody>) -> (Duration, Duration) {
    let UpstreamSettings { first_byte_timeout, body_timeout, stream_idle_timeout, .. } = *settings;
    if is_stream(request.headers()) {
        let open = !request.body().is_end_stream();
        let silence = if open { first_byte_timeout.max(stream_idle_timeout) } else { first_byte_timeout };
        return (silence, stream_idle_timeout);
    }
    let watches = request.uri().query().is_some_and(|query| {
        query.split('&').any(|pair| pair.starts_with("watch=") && !pair.ends_with("=false"))
    });
    (first_byte_timeout, if watches { stream_idle_timeout } else { body_timeout })
}

/// Whether a message's media type is one whose body may be quiet for a long time.
pub fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let starts = |known: &[u8]| {
        kind.split_at_checked(known.len()).is_some_and(|(start, rest)| {
            start.eq_ignore_ascii_case(known)
                && rest.first().is_none_or(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-')
        })
    };
    starts(b"text/event-stream") || starts(b"application/grpc")
}
