//! Request and response bodies between the proxy and an upstream. hyper reads a request's body in pieces;
//! each piece restarts the response timeout, which rests while the client sends none, and once the call has
//! ended the body fails, which resets the stream. A response's body owns the connection and returns it to the
//! pool after the last byte. Dropping it earlier aborts the request.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::header;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::{
    net::{BoxError, FramePoll},
    proxy::upstream::{
        call::{Call, Ended},
        http2::{self, StreamExecutor},
        pool::PooledConnection,
    },
};

/// A request's body; `None` if it has none, like most requests. A clone is the same body, for a retry if
/// nothing was read from it.
#[derive(Clone)]
pub struct OutgoingBody(Option<Rc<Source>>);

/// Shared with a copy of the request, which may be sent again as long as nothing was read.
struct Source {
    body: RefCell<Pin<Box<dyn Body<Data = Bytes, Error = BoxError>>>>,
    length: SizeHint,
    /// The rest of a frame that was larger than [`MAX_PIECE`].
    rest: RefCell<Bytes>,
    taken: Cell<bool>,
    call: RefCell<Option<Route>>,
    /// How long the upstream may be silent after the end of the body.
    first_byte: Duration,
    /// Whether the timeout runs on while the client sends nothing, because nothing else limits its pauses.
    is_stream: Cell<bool>,
}

/// The call that sends the body.
struct Route {
    call: Rc<Call>,
    /// HTTP/2 only: assigns the task that sends the body to the call.
    executor: Option<StreamExecutor>,
}

/// The largest piece that is passed to HTTP/2, in bytes. No more than this can leave after a cut.
const MAX_PIECE: usize = 16 << 10;

impl OutgoingBody {
    pub fn new<B>(body: B, length: SizeHint, first_byte: Duration) -> Self
    where
        B: Body<Data = Bytes, Error: Into<BoxError>> + 'static,
    {
        Self(Some(Rc::new(Source {
            length,
            body: RefCell::new(Box::pin(body.map_err(Into::into))),
            rest: RefCell::default(),
            taken: Cell::new(false),
            call: RefCell::default(),
            first_byte,
            is_stream: Cell::new(false),
        })))
    }

    pub fn empty() -> Self {
        Self(None)
    }

    /// Has the timeout for the start of the response run on while the client pauses.
    pub(super) fn limit_pauses(&self) {
        if let Some(source) = &self.0 {
            source.is_stream.set(true);
        }
    }

    /// Whether nothing was read, so that the body can be sent again.
    pub fn is_unread(&self) -> bool {
        self.0.as_ref().is_none_or(|source| !source.taken.get())
    }

    pub(super) fn attach(&self, call: &Rc<Call>, executor: Option<&StreamExecutor>) {
        if let Some(source) = &self.0 {
            let route = Route { call: Rc::clone(call), executor: executor.cloned() };
            *source.call.borrow_mut() = Some(route);
        }
    }
}

impl Source {
    fn poll_frame(&self, cx: &mut Context<'_>) -> FramePoll<BoxError> {
        let route = self.call.borrow();
        if let Some(Route { call, executor }) = &*route {
            if call.ended().is_some() {
                return Poll::Ready(Some(Err(http2::cancelled())));
            }
            if let Some(executor) = executor {
                executor.next_is_for(call);
            }
        }
        let mut rest = self.rest.borrow_mut();
        let frame = if rest.is_empty() {
            let polled = self.body.borrow_mut().as_mut().poll_frame(cx);
            if let (Poll::Pending, Some(Route { call, .. }), false) = (&polled, &*route, self.is_stream.get())
            {
                call.pause();
            }
            match ready!(polled) {
                Some(Ok(frame)) => frame,
                // The inner body has recorded its error; the upstream gets a reset.
                Some(Err(_)) => return Poll::Ready(Some(Err(http2::cancelled()))),
                None => {
                    self.end_upload(route.as_ref());
                    return Poll::Ready(None);
                }
            }
        } else {
            Frame::data(std::mem::take(&mut *rest))
        };
        self.taken.set(true);
        if let Some(Route { call, .. }) = &*route {
            call.resume();
        }
        let multiplexed = route.as_ref().is_some_and(|route| route.executor.is_some());
        let frame = match frame.into_data() {
            Ok(mut data) => {
                if multiplexed && data.len() > MAX_PIECE {
                    *rest = data.split_off(MAX_PIECE);
                }
                Frame::data(data)
            }
            Err(frame) => frame,
        };
        if rest.is_empty() && self.body.borrow().is_end_stream() {
            self.end_upload(route.as_ref());
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn end_upload(&self, route: Option<&Route>) {
        if let Some(Route { call, .. }) = route
            && !call.has_response()
        {
            call.await_response(self.first_byte);
        }
    }
}

impl Body for OutgoingBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll<BoxError> {
        self.0.as_ref().map_or(Poll::Ready(None), |source| source.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|source| source.rest.borrow().is_empty() && source.body.borrow().is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |source| source.length)
    }
}

/// A response's body.
pub struct IncomingBody {
    incoming: Incoming,
    /// `None` after the last byte.
    connection: Option<PooledConnection>,
    /// How long the upstream may be silent while the client waits for more.
    idle: Duration,
}

/// Why a response's body ended early.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    #[error("the response ended early")]
    Broken(#[from] hyper::Error),
    #[error("the response was truncated")]
    Truncated,
    #[error("the upstream was silent for too long")]
    TimedOut,
    #[error("the request was cut")]
    Cancelled,
}

impl IncomingBody {
    pub(super) fn new(incoming: Incoming, connection: PooledConnection, idle: Duration) -> Self {
        let mut body = Self { incoming, connection: Some(connection), idle };
        if body.incoming.is_end_stream() {
            body.end();
        }
        body
    }

    /// Returns the connection after the last byte, without waiting for the client to read it.
    fn end(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.give_back();
        }
    }

    fn fail(&mut self, error: IncomingError) -> IncomingError {
        let ended = self.connection.take().and_then(|connection| connection.call().ended());
        match ended {
            Some(Ended::TimedOut) => IncomingError::TimedOut,
            Some(Ended::Cancelled) => IncomingError::Cancelled,
            Some(Ended::Dropped) | None => error,
        }
    }
}

impl Body for IncomingBody {
    type Data = Bytes;
    type Error = IncomingError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> FramePoll<IncomingError> {
        let this = &mut *self;
        let Some(connection) = &this.connection else { return Poll::Ready(None) };
        let call = connection.call();
        if call.ended().is_some() {
            return Poll::Ready(Some(Err(this.fail(IncomingError::Cancelled))));
        }
        let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) else {
            call.await_body(this.idle);
            ready!(call.poll_timeout(cx));
            return Poll::Ready(Some(Err(this.fail(IncomingError::TimedOut))));
        };
        call.disarm();
        Poll::Ready(match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    // A content length in trailers has no meaning.
                    trailers.remove(header::CONTENT_LENGTH);
                }
                // Nothing follows trailers.
                if frame.is_trailers() || this.incoming.is_end_stream() {
                    this.end();
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(this.fail(error.into()))),
            // RST_STREAM(NO_ERROR) must not look like the end of a complete response.
            None if connection.is_http2() && !this.incoming.is_end_stream() => {
                Some(Err(this.fail(IncomingError::Truncated)))
            }
            None => {
                this.end();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.connection.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.connection.is_none() { SizeHint::with_exact(0) } else { self.incoming.size_hint() }
    }
}
