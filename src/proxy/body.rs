//! Bodies on their way through: counted, bounded, their trailers filtered, never boxed.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::{
    authz::{answer::Reason, forwarding},
    net::{BodyError, RequestBody},
    proxy::{
        context::RequestContext,
        grpc,
        permitted::LogGuard,
        upstream::{ResponseBody, ResponseError},
    },
};

/// A request's body on its way to the upstream. In a box: most requests have none, and many hands
/// hold them.
pub struct Upload(Option<Box<Source>>);

struct Source {
    body: RequestBody,
    context: Rc<RequestContext>,
    /// Bytes that may still come.
    left: u64,
}

/// Why an upload ends early; the context knows the reason.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("the client's body failed")]
    Client(#[source] BodyError),
    #[error("the client's body is too large")]
    TooLarge,
}

/// An answer's body on its way to the client. Dropped when the client has it, or is gone.
pub struct Body {
    kind: Kind,
    /// `None` behind a 101: the tunnel has it.
    guard: Option<LogGuard>,
}

enum Kind {
    /// An answer of our own; `None` once it is taken.
    Text(Option<Bytes>),
    Stream(Stream),
    Ended,
}

struct Stream {
    response: ResponseBody,
    /// The client understands trailers of gRPC.
    grpc: bool,
}

/// The answer broke off; the client's connection is severed, so that it never looks complete.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the answer broke off")]
pub struct Broken;

impl Upload {
    pub fn new(body: RequestBody, context: Rc<RequestContext>, limit: Option<u64>) -> Self {
        if body.is_end_stream() {
            return Self(None);
        }
        Self(Some(Box::new(Source { body, context, left: limit.unwrap_or(u64::MAX) })))
    }
}

impl Source {
    fn take(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, UploadError> {
        match frame.into_data() {
            Ok(data) => {
                let length = data.len() as u64;
                self.context.outcome.bytes_in.set(self.context.outcome.bytes_in.get() + length);
                match self.left.checked_sub(length) {
                    Some(left) => self.left = left,
                    None => {
                        self.context.outcome.set_client_error(Reason::BodyTooLarge);
                        return Err(UploadError::TooLarge);
                    }
                }
                Ok(Frame::data(data))
            }
            Err(other) => Ok(match other.into_trailers() {
                Ok(mut trailers) => {
                    let rules = &self.context.state.snapshot.rules;
                    // A body is read of permitted requests alone, and those have a service.
                    let service = self.context.outcome.service.get().and_then(|id| rules.service(id));
                    match service {
                        Some(service) => {
                            forwarding::edit_request_trailers(&mut trailers, &service.spec.fields);
                        }
                        None => trailers.clear(),
                    }
                    Frame::trailers(trailers)
                }
                Err(other) => other,
            }),
        }
    }

    fn fail(&self, error: BodyError) -> UploadError {
        self.context.outcome.set_client_error(match error {
            BodyError::Timeout => Reason::RequestTimeout,
            BodyError::Broken(_) => Reason::BadBody,
            BodyError::Gone | BodyError::Aborted => Reason::ClientClosed,
        });
        UploadError::Client(error)
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let Some(source) = &mut self.0 else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut source.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) => source.take(frame),
            Err(error) => Err(source.fail(error)),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|source| source.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |source| source.body.size_hint())
    }
}

impl Body {
    pub fn text(text: Bytes, guard: LogGuard) -> Self {
        guard.context().outcome.complete.set(true);
        Self { kind: Kind::Text(Some(text)), guard: Some(guard) }
    }

    /// `grpc`: the client is told of an answer that ends too early by trailers of gRPC.
    pub fn stream(response: ResponseBody, grpc: bool, guard: LogGuard) -> Self {
        let mut body = Self { kind: Kind::Stream(Stream { response, grpc }), guard: Some(guard) };
        body.end_if_over();
        body
    }

    /// No body, behind a 101.
    pub fn none() -> Self {
        Self { kind: Kind::Ended, guard: None }
    }

    fn context(&self) -> Option<&Rc<RequestContext>> {
        self.guard.as_ref().map(LogGuard::context)
    }

    fn end_if_over(&mut self) {
        if matches!(&self.kind, Kind::Stream(stream) if stream.response.is_end_stream()) {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some(context) = self.context() {
            context.outcome.complete.set(true);
        }
        self.kind = Kind::Ended;
    }

    fn pass(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        match frame.into_data() {
            Ok(data) => {
                self.count(data.len());
                self.end_if_over();
                Frame::data(data)
            }
            Err(other) => match other.into_trailers() {
                Ok(mut trailers) => {
                    forwarding::edit_response_trailers(&mut trailers);
                    // Nothing follows them, and a server need not ask whether something does.
                    self.end();
                    Frame::trailers(trailers)
                }
                Err(other) => other,
            },
        }
    }

    /// The answer has ended too early; the client is told as it understands.
    fn break_off(&mut self, error: &ResponseError) -> Result<Frame<Bytes>, Broken> {
        let Some(context) = self.guard.as_ref().map(LogGuard::context) else { return Err(Broken) };
        tracing::debug!(%error, "the upstream's answer broke off");
        let timed_out = matches!(error, ResponseError::TimedOut);
        let upstream = if timed_out { Reason::UpstreamTimeout } else { Reason::UpstreamReset };
        context.outcome.reason.set(context.outcome.client_error().unwrap_or(upstream));
        context.outcome.complete.set(true);
        let kind = std::mem::replace(&mut self.kind, Kind::Ended);
        if timed_out && matches!(kind, Kind::Stream(Stream { grpc: true, .. })) {
            return Ok(Frame::trailers(grpc::unavailable()));
        }
        context.connection.abort();
        Err(Broken)
    }

    fn count(&self, length: usize) {
        if let Some(context) = self.context() {
            let sent = &context.outcome.bytes_out;
            sent.set(sent.get() + length as u64);
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = &mut *self;
        match &mut this.kind {
            Kind::Ended => Poll::Ready(None),
            Kind::Text(text) => {
                let text = text.take().filter(|text| !text.is_empty());
                Poll::Ready(text.map(|text| {
                    this.count(text.len());
                    Ok(Frame::data(text))
                }))
            }
            Kind::Stream(stream) => {
                if this.guard.as_ref().is_some_and(|guard| guard.context().is_over()) {
                    this.kind = Kind::Ended;
                    return Poll::Ready(Some(Err(Broken)));
                }
                Poll::Ready(match ready!(Pin::new(&mut stream.response).poll_frame(cx)) {
                    Some(Ok(frame)) => Some(Ok(this.pass(frame))),
                    Some(Err(error)) => Some(this.break_off(&error)),
                    None => {
                        this.end();
                        None
                    }
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Text(text) => text.as_ref().is_none_or(Bytes::is_empty),
            Kind::Stream(stream) => stream.response.is_end_stream(),
            Kind::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Kind::Stream(stream) => stream.response.size_hint(),
            Kind::Ended => SizeHint::with_exact(0),
        }
    }
}
