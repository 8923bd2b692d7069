//! [`Permitted`], the proof of a permit that sending a request requires, and how long an upstream may be
//! silent, which is longer for messages that may pause on purpose.

use std::{rc::Rc, time::Duration};

use http::{HeaderMap, HeaderValue, Request, header};
use http_body::Body as _;

use super::{CancelHandle, OutgoingBody};
use crate::{
    authz::{decide::Permit, reason::Reason},
    metrics::WorkerMetrics,
    net::Clock,
    settings::UpstreamSettings,
};

/// A permitted request and its guard. It can only be created from a [`Permit`].
pub struct Permitted<G, T> {
    pub(super) guard: G,
    pub(super) request: T,
}

/// What sending needs besides the request.
pub trait SendContext {
    fn clock(&self) -> &Clock;
    fn metrics(&self) -> &WorkerMetrics;
    /// The handle by which the fence cuts the request.
    fn cancel(&self) -> &Rc<CancelHandle>;
    /// Hash of the client, for `balance = "hash"`.
    fn hash(&self) -> u64;
    /// Whether the request asks the upstream for another method than its own.
    fn overrides_method(&self) -> bool;
    /// The error of the client's body, if any, which explains why the request failed.
    fn client_error(&self) -> Option<Reason>;
    /// Records the URL that the request is now sent to.
    fn set_url(&self, url: &Rc<str>);
}

impl<G, T> Permitted<G, T> {
    /// Must be called in the same synchronous block as the decision.
    #[expect(clippy::needless_pass_by_value, reason = "consumed, so that a permit allows one request")]
    pub fn new(permit: Permit<'_>, guard: G, request: T) -> Self {
        let _ = permit;
        Self { guard, request }
    }

    pub fn guard(&self) -> &G {
        &self.guard
    }

    pub fn into_guard(self) -> G {
        self.guard
    }

    pub fn request_mut(&mut self) -> &mut T {
        &mut self.request
    }
}

/// Returns how long the upstream may be silent before its response and within it. A gRPC client may keep a
/// call open and be silent for a long time, and so may the upstream.
pub fn silence_timeouts(
    settings: &UpstreamSettings,
    request: &Request<OutgoingBody>,
) -> (Duration, Duration) {
    let UpstreamSettings { first_byte_timeout, body_timeout, stream_idle_timeout, .. } = *settings;
    if is_stream(request.headers()) {
        let open = !request.body().is_end_stream();
        let silence = if open { first_byte_timeout.max(stream_idle_timeout) } else { first_byte_timeout };
        return (silence, stream_idle_timeout);
    }
    let watches = request.uri().query().is_some_and(|query| {
        let is_on = |value: &str| !matches!(value, "" | "false" | "0");
        query.split('&').filter_map(|pair| pair.split_once('=')).any(|(name, value)| {
            // Kubernetes' watches and `kubectl logs --follow`, and Docker's logs.
            matches!(name, "watch" | "follow") && is_on(value)
        })
    });
    (first_byte_timeout, if watches { stream_idle_timeout } else { body_timeout })
}

/// Whether a message's media type is one whose body may pause for a long time.
pub fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let starts = |known: &[u8]| {
        kind.split_at_checked(known.len()).is_some_and(|(start, rest)| {
            start.eq_ignore_ascii_case(known)
                && rest.first().is_none_or(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-')
        })
    };
    // `application/connect` is followed by `+proto` or `+json`: the streams of the Connect protocol.
    [&b"text/event-stream"[..], b"application/grpc", b"application/grpc-web", b"application/connect"]
        .into_iter()
        .any(starts)
}
