//! A response's body as it comes from the upstream. It owns the connection, which goes back to the pool
//! after the last byte; dropped before, the request is aborted.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::header;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::proxy::upstream::{call::Ended, pooled::PooledConnection};

pub struct IncomingBody {
    incoming: Incoming,
    /// `None` after the last byte.
    connection: Option<PooledConnection>,
    /// How long the upstream may be silent while more is wanted.
    idle: Duration,
}

/// Why a response's body ends early.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    #[error("the response broke off")]
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

    /// Gives the connection back after the last byte, without waiting for the client to read it.
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

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, IncomingError>>> {
        let this = &mut *self;
        let Some(connection) = &this.connection else { return Poll::Ready(None) };
        let call = connection.call();
        if call.ended().is_some() {
            return Poll::Ready(Some(Err(this.fail(IncomingError::Cancelled))));
        }
        let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) else {
            call.await_body(this.idle);
            ready!(call.poll_overdue(cx));
            return Poll::Ready(Some(Err(this.fail(IncomingError::TimedOut))));
        };
        call.disarm();
        Poll::Ready(match frame {
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    // A length among trailers means nothing.
                    trailers.remove(header::CONTENT_LENGTH);
                }
                // Nothing follows trailers.
                if frame.is_trailers() || this.incoming.is_end_stream() {
                    this.end();
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(this.fail(error.into()))),
            // RST_STREAM(NO_ERROR) must not pass for the end of a complete response.
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
