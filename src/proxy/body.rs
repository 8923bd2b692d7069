//! Request and response bodies in transit: counts bytes, enforces the size limit, filters trailers.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt as _, Either, Full, Limited};

use crate::{
    authz::{forwarding, reason::Reason},
    net::{BodyError, BoxError, FramePoll, RequestBody},
    proxy::{
        context::RequestContext,
        grpc,
        permitted::LogGuard,
        upstream::{IncomingBody, IncomingError, OutgoingBody},
    },
};

/// Wraps the client's body for the upstream. Errors of the body are recorded in the context.
/// `limit` is in bytes; `first_byte` is the upstream's time limit to begin a response to the whole body.
pub fn request_body(
    body: RequestBody,
    context: &Rc<RequestContext>,
    limit: Option<u64>,
    first_byte: Duration,
) -> OutgoingBody {
    if body.is_end_stream() {
        return OutgoingBody::empty();
    }
    // `map_frame` drops the size hint.
    let length = body.size_hint();
    let (passing, failing) = (Rc::clone(context), Rc::clone(context));
    let body = body.map_frame(move |frame| pass_request_frame(frame, &passing));
    let body = WhilePermitted { body, context: Rc::clone(context) };
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    let body = Limited::new(body, limit).map_err(move |error| {
        failing.outcome.client_error.set(Some(body_error(&error)));
        error
    });
    OutgoingBody::new(body, length, first_byte)
}

/// Why a client's body, behind a [`Limited`], did not arrive whole.
pub fn body_error(error: &BoxError) -> Reason {
    match error.downcast_ref() {
        Some(BodyError::Timeout) => Reason::RequestTimeout,
        Some(BodyError::Broken(_)) => Reason::BadBody,
        Some(BodyError::Gone | BodyError::Aborted) => Reason::ClientClosed,
        None => Reason::BodyTooLarge,
    }
}

/// A client's body that fails once the request is over, so that nothing more is forwarded
/// after the node has lost its permission to forward.
struct WhilePermitted<B> {
    body: B,
    context: Rc<RequestContext>,
}

impl<B> http_body::Body for WhilePermitted<B>
where
    B: http_body::Body<Data = Bytes, Error = BodyError> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll<BodyError> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // Checked after the poll, because the frame may have been long in coming.
        Poll::Ready(if self.context.is_relay_stopped() { Some(Err(BodyError::Aborted)) } else { frame })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn pass_request_frame(mut frame: Frame<Bytes>, context: &RequestContext) -> Frame<Bytes> {
    if let Some(data) = frame.data_ref() {
        let received = &context.outcome.bytes_in;
        received.set(received.get() + data.len() as u64);
    }
    if let Some(trailers) = frame.trailers_mut() {
        // Only bodies of permitted requests are read, and those always have a service.
        match context.outcome.service.get().and_then(|id| context.rules.service(id)) {
            Some(service) => forwarding::edit_request_trailers(trailers, &service.spec.fields),
            None => trailers.clear(),
        }
    }
    frame
}

/// A response body on its way to the client: the gateway's own text, or the upstream's body. It is dropped
/// when the client has read it or has disconnected.
pub struct ResponseBody {
    body: Either<Full<Bytes>, Box<IncomingBody>>,
    /// The client speaks gRPC, so an error can be sent in trailers.
    grpc: bool,
    ended: bool,
    /// `None` after a 101: the tunnel has taken it.
    guard: Option<LogGuard>,
}

/// The response is incomplete. The client's connection is aborted, so the response never looks complete.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the response ended early")]
pub struct Incomplete;

impl ResponseBody {
    pub fn text(text: Bytes, guard: LogGuard) -> Self {
        guard.context().outcome.complete.set(true);
        guard.context().release_state(None);
        let ended = text.is_empty();
        Self { body: Either::Left(Full::new(text)), grpc: false, ended, guard: Some(guard) }
    }

    /// `grpc`: whether a response that ends early ends with gRPC trailers. `bodiless`: the client gets the
    /// head alone, whatever an HTTP/2 upstream may send after it.
    pub fn stream(body: Box<IncomingBody>, grpc: bool, bodiless: bool, guard: LogGuard) -> Self {
        let mut body = Self { body: Either::Right(body), grpc, ended: false, guard: Some(guard) };
        if bodiless || body.body.is_end_stream() {
            body.end();
        }
        body
    }

    /// Returns the empty body of a 101.
    pub fn none() -> Self {
        Self { body: Either::Left(Full::default()), grpc: false, ended: true, guard: None }
    }

    fn end(&mut self) {
        if let Some(guard) = &self.guard {
            guard.context().outcome.complete.set(true);
            guard.context().release_state(None);
        }
        self.ended = true;
    }

    fn count_frame(&mut self, mut frame: Frame<Bytes>) -> Frame<Bytes> {
        if let (Some(data), Some(guard)) = (frame.data_ref(), &self.guard) {
            let sent = &guard.context().outcome.bytes_out;
            sent.set(sent.get() + data.len() as u64);
        }
        if let Some(trailers) = frame.trailers_mut() {
            forwarding::edit_response_trailers(trailers);
        }
        // Nothing follows trailers; recording the end now spares the server another poll.
        if frame.is_trailers() || self.body.is_end_stream() {
            self.end();
        }
        frame
    }

    /// Ends a response that the upstream broke off: gRPC by trailers, since a reset would say that the call
    /// was cancelled; anything else by an abort.
    fn break_off(&mut self, error: &BoxError) -> Result<Frame<Bytes>, Incomplete> {
        tracing::debug!(%error, "the upstream's response ended early");
        self.end();
        let timed_out = matches!(error.downcast_ref(), Some(IncomingError::TimedOut));
        let Some(guard) = &self.guard else { return Err(Incomplete) };
        let context = guard.context();
        let upstream = if timed_out { Reason::UpstreamTimeout } else { Reason::UpstreamReset };
        let reason = context.outcome.client_error.get().unwrap_or(upstream);
        context.outcome.reason.set(Some(reason));
        if self.grpc {
            return Ok(Frame::trailers(grpc::trailers(reason)));
        }
        context.connection.abort();
        Err(Incomplete)
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = Incomplete;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll<Incomplete> {
        if self.ended {
            return Poll::Ready(None);
        }
        let is_from_upstream = matches!(self.body, Either::Right(_));
        if self.guard.as_ref().is_some_and(|guard| match is_from_upstream {
            true => guard.context().is_relay_stopped(),
            false => guard.context().is_over(),
        }) {
            self.ended = true;
            return Poll::Ready(Some(Err(Incomplete)));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(Ok(self.count_frame(frame))),
            Some(Err(error)) => Some(self.break_off(&error)),
            None => {
                self.end();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        if self.ended { SizeHint::with_exact(0) } else { self.body.size_hint() }
    }
}
