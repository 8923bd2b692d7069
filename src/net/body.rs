//! Request and response bodies as they pass a connection: the deadline of the one, the end of the other.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;

use super::{BoxError, Connection};

/// A request's body. Over HTTP/1, the first poll sends the `100 Continue` that the client expects.
pub struct RequestBody(Source);

/// Why a request's body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The service waited for `body_timeout` and nothing arrived: 408.
    #[error("the request body did not arrive in time")]
    Timeout,
    /// Malformed: 400.
    #[error("the request body is malformed")]
    Broken(#[source] BoxError),
    /// The client went away before the end.
    #[error("the client closed the connection")]
    Gone,
    /// The connection was aborted.
    #[error("the connection was aborted")]
    Aborted,
}

/// What the poll of a body with errors `E` returns.
pub type FramePoll<E> = Poll<Option<Result<Frame<Bytes>, E>>>;
/// hyper's body, shared with the connection so that an abort can drop it.
pub(super) type SharedIncoming = Rc<RefCell<Option<Incoming>>>;

enum Source {
    Client { incoming: SharedIncoming, connection: Rc<Connection> },
    Memory(Full<Bytes>),
}

impl RequestBody {
    /// Wraps the body of a client's request and begins the exchange on its connection.
    pub(super) fn begin(incoming: Incoming, connection: &Rc<Connection>) -> Self {
        if incoming.is_end_stream() {
            connection.begin_service(None);
            return Self::full(Bytes::new());
        }
        let incoming = Rc::new(RefCell::new(Some(incoming)));
        connection.begin_service(Some(incoming.clone()));
        Self(Source::Client { incoming, connection: connection.clone() })
    }

    /// Returns a body held in memory, for a request that no client sent.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self(Source::Memory(Full::new(bytes.into())))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll<BodyError> {
        let (incoming, connection) = match &mut self.0 {
            Source::Client { incoming, connection } => (incoming, connection),
            Source::Memory(body) => {
                return Pin::new(body).poll_frame(cx).map_err(|never| match never {});
            }
        };
        if connection.aborted() {
            return Poll::Ready(Some(Err(BodyError::Aborted)));
        }
        let mut held = incoming.borrow_mut();
        let Some(body) = &mut *held else { return Poll::Ready(None) };
        let frame = match Pin::new(&mut *body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending if connection.exchange.await_body(cx, connection.clock().now()) => {
                return Poll::Ready(Some(Err(BodyError::Timeout)));
            }
            Poll::Pending => return Poll::Pending,
        };
        // hyper reports a stream that was reset with NO_ERROR as the end of its body.
        let whole = frame.is_some() || connection.stream().is_none() || body.is_end_stream();
        let over = match &frame {
            Some(Ok(frame)) => frame.is_trailers() || body.is_end_stream(),
            Some(Err(_)) => false,
            None => whole,
        };
        drop(held);
        if let (Some(Ok(frame)), Some(_)) = (&frame, connection.stream())
            && let Some(data) = frame.data_ref()
        {
            connection.received(data.len());
        }
        connection.exchange.end_wait();
        if over {
            incoming.take();
            connection.close_body(true);
        }
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(Ok(frame)),
            // h2 has already reset a malformed stream, so no response can be sent.
            Some(Err(_)) if connection.has_ended() || connection.stream().is_some() => {
                Some(Err(BodyError::Gone))
            }
            Some(Err(error)) => Some(Err(BodyError::Broken(error.into()))),
            None if whole => None,
            None => Some(Err(BodyError::Gone)),
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Client { incoming, .. } => incoming.borrow().as_ref().is_none_or(Body::is_end_stream),
            Source::Memory(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Client { incoming, .. } => {
                incoming.borrow().as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
            }
            Source::Memory(body) => body.size_hint(),
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Source::Client { incoming, connection } = &self.0 else { return };
        let left = incoming.take();
        if let (Some(stream), Some(left)) = (connection.stream(), left)
            && !left.is_end_stream()
            && !connection.aborted()
        {
            stream.leftover.replace(Some(left));
        }
        connection.close_body(false);
        if connection.stream().is_some() {
            connection.wake();
        }
    }
}

/// A response's body on its way to hyper. Over HTTP/2 it is split into pieces, of which h2 buffers at most one.
/// Over HTTP/1, a service's body that hyper has read in full is kept in `sent` until the kernel has it.
pub(super) struct SendBody<B> {
    /// `None` only during drop.
    content: Option<SendContent<B>>,
    /// The rest of a frame that is larger than a piece.
    rest: Bytes,
    /// The response is sent without its body.
    bodiless: bool,
    /// hyper has the whole body.
    finished: bool,
    connection: Rc<Connection>,
    sent: Sent<B>,
}

/// Keeps a body that hyper has read in full until the kernel has all of it. One per connection.
pub(super) type Sent<B> = Rc<RefCell<Option<B>>>;

/// The body of a response: that of the `Service` that was called, or the text of a rejection.
pub(super) type SendContent<B> = Either<B, Full<Bytes>>;

/// The largest piece, in bytes.
const MAX_PIECE: usize = 16 << 10;

impl<B> SendBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    pub(super) fn new(content: SendContent<B>, connection: Rc<Connection>, sent: Sent<B>) -> Self {
        let finished = content.is_end_stream();
        if connection.stream().is_some() && !finished {
            // Counts as stalled until h2 polls, which it does not while the client's window is closed.
            connection.set_held(0, false);
            connection.stall();
        }
        Self { content: Some(content), rest: Bytes::new(), bodiless: false, finished, connection, sent }
    }

    /// Sends the response without its body.
    pub(super) fn omit_body(&mut self) {
        (self.bodiless, self.finished) = (true, true);
    }

    /// Returns the next piece of the current frame.
    fn take_piece(&mut self) -> Frame<Bytes> {
        let stream = self.connection.stream();
        // Over HTTP/1, what hyper has buffered is not written after a cut either.
        let largest = if stream.is_some() { MAX_PIECE } else { self.rest.len() };
        let piece = self.rest.split_to(self.rest.len().min(largest));
        self.finished = self.is_end_stream();
        if let Some(stream) = stream {
            stream.count_useful_frame();
            self.connection.set_held(piece.len() + self.rest.len(), self.finished);
            // The client counts as stalled until h2 polls for the next piece, when it has passed this one on.
            self.connection.sent(piece.len());
            self.connection.stall();
        }
        Frame::data(piece)
    }
}

impl<B> Body for SendBody<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll<BoxError> {
        let this = &mut *self;
        if this.connection.aborted() {
            // The task that polls this is about to end.
            return Poll::Pending;
        }
        if this.connection.stream().is_some() {
            this.connection.sent(0);
        }
        while this.rest.is_empty() {
            let Some(content) = &mut this.content else { return Poll::Ready(None) };
            match ready!(Pin::new(content).poll_frame(cx)).transpose() {
                Ok(None) => {
                    this.finished = true;
                    return Poll::Ready(None);
                }
                Ok(Some(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(other) => {
                        this.finished |= other.is_trailers();
                        return Poll::Ready(Some(Ok(other)));
                    }
                },
                Err(error) => {
                    tracing::debug!(%error, "a response ended early");
                    // The response must not look complete.
                    this.connection.abort();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Some(Ok(this.take_piece())))
    }

    fn is_end_stream(&self) -> bool {
        self.bodiless || self.rest.is_empty() && self.content.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            // hyper calls this only before the first piece.
            Some(content) if !self.bodiless => content.size_hint(),
            _ => SizeHint::with_exact(0),
        }
    }
}

impl<B> Drop for SendBody<B> {
    fn drop(&mut self) {
        if self.connection.stream().is_some() {
            if self.finished {
                self.connection.exchange.end_response();
            }
            return;
        }
        self.connection.exchange.end_response();
        if let Some(Either::Left(body)) = self.content.take() {
            drop(self.sent.replace(Some(body)));
        }
    }
}
