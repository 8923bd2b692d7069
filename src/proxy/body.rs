//! Bodies on their way through: counted, bounded, their trailers filtered, never boxed.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::{
    authz::{answer::Reason, forwarding},
    net::{BodyError, RequestBody, Splice},
    proxy::{
        exchange::{Exchange, Finish, Passage},
        tunnel::Tunnel,
        upstream::{Download, DownloadError, Lease, Upstream, lane::End},
    },
};

/// A request's body on its way to the upstream. In a box: most requests have none, and many hands
/// hold them.
pub struct Upload(Option<Box<Source>>);

struct Source {
    body: RequestBody,
    exchange: Rc<Exchange>,
    /// Bytes that may still come.
    left: u64,
    /// How long the upstream may be silent after a piece.
    silence: Duration,
}

/// Why an upload ends early; the exchange knows the reason.
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
    finish: Finish,
}

enum Kind {
    /// An answer of our own; `None` once it is taken.
    Text(Option<Bytes>),
    Stream(Stream),
    /// None, behind a 101; what follows it is a tunnel.
    Tunnel(Box<Tunnel>),
    Ended,
}

struct Stream {
    download: Download,
    lease: Option<Lease>,
    upstream: Rc<Upstream>,
}

/// The answer broke off; the client's connection is severed, so that it never looks complete.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the answer broke off")]
pub struct Broken;

impl Upload {
    pub fn new(body: RequestBody, exchange: Rc<Exchange>, limit: Option<u64>, silence: Duration) -> Self {
        if body.is_end_stream() {
            return Self(None);
        }
        Self(Some(Box::new(Source { body, exchange, left: limit.unwrap_or(u64::MAX), silence })))
    }

    pub fn none() -> Self {
        Self(None)
    }
}

impl Source {
    fn take(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, UploadError> {
        self.exchange.moved(self.silence);
        match frame.into_data() {
            Ok(data) => {
                let length = data.len() as u64;
                self.exchange.bytes_in.set(self.exchange.bytes_in.get() + length);
                match self.left.checked_sub(length) {
                    Some(left) => self.left = left,
                    None => {
                        self.exchange.blame_client(Reason::BodyTooLarge);
                        return Err(UploadError::TooLarge);
                    }
                }
                Ok(Frame::data(data))
            }
            Err(other) => Ok(match other.into_trailers() {
                Ok(mut trailers) => {
                    let rules = &self.exchange.view.snapshot.rules;
                    // A body is read of permitted requests alone, and those have a service.
                    let service = self.exchange.service.get().and_then(|id| rules.service(id));
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
        self.exchange.blame_client(match error {
            BodyError::Timeout => Reason::RequestTimeout,
            BodyError::Broken(_) => Reason::BadBody,
            BodyError::Severed => Reason::ClientClosed,
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
    pub fn text(text: Bytes, finish: Finish) -> Self {
        finish.exchange().complete.set(true);
        Self { kind: Kind::Text(Some(text)), finish }
    }

    pub fn stream(download: Download, lease: Lease, passage: Passage) -> Self {
        let (upstream, finish) = passage.into_parts();
        let mut body = Self { kind: Kind::Stream(Stream { download, lease: Some(lease), upstream }), finish };
        body.end_if_over();
        body
    }

    pub fn tunnel(tunnel: Tunnel, finish: Finish) -> Self {
        Self { kind: Kind::Tunnel(Box::new(tunnel)), finish }
    }

    /// What follows once the client has the answer.
    pub fn into_tunnel(self) -> Option<(Tunnel, Finish)> {
        match self.kind {
            Kind::Tunnel(tunnel) => Some((*tunnel, self.finish)),
            Kind::Text(_) | Kind::Stream(_) | Kind::Ended => None,
        }
    }

    /// After the last byte the connection goes back at once, not when the client has read it.
    fn end_if_over(&mut self) {
        if let Kind::Stream(stream) = &self.kind
            && stream.download.is_end_stream()
        {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Kind::Stream(stream) = &mut self.kind {
            stream.give_back(self.finish.exchange());
            self.kind = Kind::Ended;
        }
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

    /// What comes next into a splice. `None`: it cannot be had that way now.
    pub fn poll_pour(
        &mut self,
        cx: &mut Context<'_>,
        splice: &mut Splice,
    ) -> Poll<Option<Result<(), Broken>>> {
        let Kind::Stream(stream) = &mut self.kind else { return Poll::Ready(None) };
        let exchange = self.finish.exchange();
        let poured = stream.poll(exchange, cx, |download, cx| download.poll_pour(cx, splice));
        Poll::Ready(ready!(poured).map(|poured| match poured {
            Ok(count) => {
                self.count(count);
                self.end_if_over();
                Ok(())
            }
            Err(broken) => Err(self.break_off(broken)),
        }))
    }

    fn break_off(&mut self, broken: Broken) -> Broken {
        self.kind = Kind::Ended;
        broken
    }

    fn count(&self, length: usize) {
        let sent = &self.finish.exchange().bytes_out;
        sent.set(sent.get() + length as u64);
    }
}

impl Stream {
    fn give_back(&mut self, exchange: &Exchange) {
        exchange.complete.set(true);
        exchange.leave_lane();
        if let Some(lease) = self.lease.take() {
            lease.give_back(self.upstream.idle_timeout(), exchange.clock());
        }
    }

    /// Takes something of the answer, whose upstream has so much time for it.
    fn poll<T>(
        &mut self,
        exchange: &Exchange,
        cx: &mut Context<'_>,
        take: impl FnOnce(&mut Download, &mut Context<'_>) -> Poll<Option<Result<T, DownloadError>>>,
    ) -> Poll<Option<Result<T, Broken>>> {
        if exchange.is_over() {
            return Poll::Ready(Some(Err(Broken)));
        }
        let taken = take(&mut self.download, cx);
        if let Some(lease) = &self.lease {
            if taken.is_pending() {
                lease.lane().expect_if_quiet(self.upstream.body_timeout());
            } else {
                lease.lane().expect_nothing();
            }
        }
        Poll::Ready(ready!(taken).map(|taken| {
            taken.map_err(|error| {
                tracing::debug!(%error, "the upstream's answer broke off");
                self.blame(exchange);
                exchange.connection.sever();
                Broken
            })
        }))
    }

    fn blame(&self, exchange: &Exchange) {
        let timed_out = self.lease.as_ref().is_some_and(|lease| lease.lane().end() == Some(End::TimedOut));
        let upstream = if timed_out { Reason::UpstreamTimeout } else { Reason::UpstreamReset };
        exchange.reason.set(exchange.fault().unwrap_or(upstream));
        exchange.complete.set(true);
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
            Kind::Ended | Kind::Tunnel(_) => Poll::Ready(None),
            Kind::Text(text) => {
                let text = text.take().filter(|text| !text.is_empty());
                Poll::Ready(text.map(|text| {
                    this.count(text.len());
                    Ok(Frame::data(text))
                }))
            }
            Kind::Stream(stream) => {
                let exchange = this.finish.exchange();
                let frame = stream.poll(exchange, cx, |download, cx| Pin::new(download).poll_frame(cx));
                Poll::Ready(match ready!(frame) {
                    Some(Ok(frame)) => Some(Ok(this.pass(frame))),
                    Some(Err(broken)) => Some(Err(this.break_off(broken))),
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
            Kind::Stream(stream) => stream.download.is_end_stream(),
            Kind::Ended | Kind::Tunnel(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Kind::Stream(stream) => stream.download.size_hint(),
            Kind::Ended | Kind::Tunnel(_) => SizeHint::with_exact(0),
        }
    }
}
