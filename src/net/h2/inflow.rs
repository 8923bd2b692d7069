//! A request's body as a stream of HTTP/2 brings it. The client may send on as far as it is taken.

use std::{
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Frame, SizeHint};

use crate::net::{BodyError, Connection};

pub struct Inflow {
    /// Taken by its drop alone.
    stream: Option<RecvStream>,
    /// Bytes that are still to come, if the head says so.
    left: Option<u64>,
    /// The client waits for `100 Continue`.
    expects: bool,
    trailing: bool,
    connection: Rc<Connection>,
}

impl Inflow {
    pub(super) fn new(
        stream: RecvStream,
        left: Option<u64>,
        expects: bool,
        connection: Rc<Connection>,
    ) -> Self {
        Self { stream: Some(stream), left, expects, trailing: false, connection }
    }

    pub(in crate::net) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(in crate::net) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.connection.severed() {
            return Poll::Ready(Some(Err(BodyError::Severed)));
        }
        if std::mem::take(&mut self.expects)
            && !self.is_end_stream()
            && let Some(branch) = self.connection.branch()
        {
            branch.go_on();
        }
        match self.poll_next(cx) {
            Poll::Ready(frame) => {
                self.connection.body_came();
                Poll::Ready(frame.map(|frame| frame.map_err(told)))
            }
            Poll::Pending if self.connection.await_body(cx) => Poll::Ready(Some(Err(BodyError::Timeout))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        while !self.trailing {
            match ready!(stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    stream.flow_control().release_capacity(data.len())?;
                    self.connection.received(data.len());
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.trailing = true,
            }
        }
        let trailers = ready!(stream.poll_trailers(cx));
        self.connection.set_unread(false);
        Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
    }

    pub(in crate::net) fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    pub(in crate::net) fn size_hint(&self) -> SizeHint {
        match self.left {
            Some(left) => SizeHint::with_exact(left),
            None if self.is_end_stream() => SizeHint::with_exact(0),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Inflow {
    fn drop(&mut self) {
        let (Some(branch), Some(stream)) = (self.connection.branch(), self.stream.take()) else { return };
        if stream.is_end_stream() {
            self.connection.set_unread(false);
        } else {
            branch.leave(stream);
            self.connection.wake();
        }
    }
}

fn told(error: h2::Error) -> BodyError {
    // Who takes a request back is no longer there for it.
    if error.is_reset() && error.is_remote() { BodyError::Severed } else { BodyError::Broken(error.into()) }
}
