//! Bodies as they pass a connection: the request's with its deadline, the answer's with its end.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{BoxError, h1::Line, h2::Inflow};

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
    Line { line: Rc<Line>, turn: u64 },
    Stream(Box<Inflow>),
    Memory(Option<Bytes>),
}

impl RequestBody {
    /// Of the request that is the present one on this line.
    pub(super) fn line(line: Rc<Line>) -> Self {
        Self(Source::Line { turn: line.turn(), line })
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
        match &mut self.0 {
            Source::Line { line, turn } => line.poll_body(cx, *turn),
            Source::Stream(inflow) => inflow.poll_frame(cx),
            Source::Memory(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Line { line, turn } => line.body_ended(*turn),
            Source::Stream(inflow) => inflow.is_end_stream(),
            Source::Memory(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Line { line, turn } => {
                line.body_left(*turn).map_or_else(SizeHint::default, SizeHint::with_exact)
            }
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
            Source::Line { line, turn } => line.drop_body(*turn),
            Source::Stream(inflow) => inflow.connection().drop_body(),
            Source::Memory(_) => {}
        }
    }
}
