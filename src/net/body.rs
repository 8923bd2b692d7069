//! Bodies as they pass a connection: the request's with its deadline, the answer's with its end.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    BoxError, Connection,
    connection::{Answer, Phase},
    h2::Inflow,
};

/// A request's body. `100 Continue` goes out when it is first polled.
pub struct RequestBody(Source);

/// Why a request's body ends early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Wanted, and not a byte came for `body_timeout`: 408.
    #[error("the request body did not come in time")]
    Timeout,
    /// Broken off or malformed: 400.
    #[error("the request body broke off or is malformed")]
    Broken(#[source] BoxError),
    /// Nothing is taken from this client any more.
    #[error("the connection was severed")]
    Severed,
}

enum Source {
    Wire { incoming: Incoming, connection: Rc<Connection> },
    Stream(Box<Inflow>),
    Memory(Option<Bytes>),
}

/// The handler's body on its way to hyper. What hyper has taken in full is kept in `spent` until
/// the kernel has it.
pub(super) struct AnswerBody<B> {
    body: Option<B>,
    connection: Rc<Connection>,
    spent: Spent<B>,
}

/// One per connection.
pub(super) type Spent<B> = Rc<RefCell<Option<B>>>;

impl RequestBody {
    pub(super) fn new(incoming: Incoming, connection: Rc<Connection>) -> Self {
        Self(Source::Wire { incoming, connection })
    }

    pub(super) fn stream(inflow: Inflow) -> Self {
        Self(Source::Stream(Box::new(inflow)))
    }

    /// A body that is there already, for requests that no client sent.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(Source::Memory((!bytes.is_empty()).then_some(bytes)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (incoming, connection) = match &mut self.0 {
            Source::Wire { incoming, connection } => (incoming, connection),
            Source::Stream(inflow) => return inflow.poll_frame(cx),
            Source::Memory(bytes) => return Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
        };
        if connection.severed() {
            return Poll::Ready(Some(Err(BodyError::Severed)));
        }
        match Pin::new(incoming).poll_frame(cx) {
            Poll::Ready(frame) => {
                connection.body_came();
                Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError::Broken(error.into()))))
            }
            Poll::Pending if connection.await_body(cx) => Poll::Ready(Some(Err(BodyError::Timeout))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Wire { incoming, .. } => incoming.is_end_stream(),
            Source::Stream(inflow) => inflow.is_end_stream(),
            Source::Memory(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Wire { incoming, .. } => incoming.size_hint(),
            Source::Stream(inflow) => inflow.size_hint(),
            Source::Memory(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        match &self.0 {
            Source::Wire { connection, .. } => connection.drop_body(),
            Source::Stream(inflow) => inflow.connection().drop_body(),
            Source::Memory(_) => {}
        }
    }
}

impl<B> AnswerBody<B> {
    pub(super) fn new(body: B, connection: Rc<Connection>, spent: Spent<B>) -> Self {
        Self { body: Some(body), connection, spent }
    }
}

impl<B: Body + Unpin> Body for AnswerBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B> Drop for AnswerBody<B> {
    fn drop(&mut self) {
        if self.connection.phase() == Phase::Serving {
            self.connection.set_answer(Answer::Ended);
        }
        self.spent.replace(self.body.take());
    }
}
