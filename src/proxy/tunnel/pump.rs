//! One direction of a tunnel: what one side says goes to the other before more is read.

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Holds bytes only while the other side does not take them.
#[derive(Default)]
pub struct Pump {
    held: Bytes,
    state: State,
    /// Something was written that may not have left yet.
    unflushed: bool,
}

/// Whose fault it is that a direction fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Source,
    Sink,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The source has said all; the sink is to be told.
    Ending,
    Ended,
}

impl Pump {
    /// Whether the sink keeps bytes waiting.
    pub fn is_held(&self) -> bool {
        !self.held.is_empty() || self.unflushed
    }

    /// Ready once the source has ended and the sink knows. `scratch` is what is read into; `moved`
    /// counts what the sink has taken.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut (impl AsyncRead + Unpin),
        sink: &mut (impl AsyncWrite + Unpin),
        scratch: &mut [u8],
        moved: &Cell<u64>,
    ) -> Poll<Result<(), Side>> {
        loop {
            while !self.held.is_empty() {
                let taken = ready!(write(cx, sink, &self.held, moved))?;
                self.unflushed = true;
                self.held.advance(taken);
                if self.held.is_empty() {
                    // A tunnel lives long; what it held goes now.
                    self.held = Bytes::new();
                }
            }
            match self.state {
                State::Open => {
                    let mut buf = ReadBuf::new(scratch);
                    match Pin::new(&mut *source).poll_read(cx, &mut buf) {
                        Poll::Ready(Ok(())) if buf.filled().is_empty() => self.state = State::Ending,
                        Poll::Ready(Ok(())) => self.pass(cx, sink, buf.filled(), moved)?,
                        Poll::Ready(Err(_)) => return Poll::Ready(Err(Side::Source)),
                        Poll::Pending => {
                            ready!(self.flush(cx, sink))?;
                            return Poll::Pending;
                        }
                    }
                }
                State::Ending => {
                    ready!(self.flush(cx, sink))?;
                    ready!(Pin::new(&mut *sink).poll_shutdown(cx)).map_err(|_| Side::Sink)?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Writes what was read; only what is not taken at once is copied.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut (impl AsyncWrite + Unpin),
        mut piece: &[u8],
        moved: &Cell<u64>,
    ) -> Result<(), Side> {
        self.unflushed = true;
        while !piece.is_empty() {
            match write(cx, sink, piece, moved) {
                Poll::Ready(taken) => piece = &piece[taken?..],
                Poll::Pending => {
                    self.held = Bytes::copy_from_slice(piece);
                    break;
                }
            }
        }
        Ok(())
    }

    fn flush(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Side>> {
        if self.unflushed {
            ready!(Pin::new(sink).poll_flush(cx)).map_err(|_| Side::Sink)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

fn write(
    cx: &mut Context<'_>,
    sink: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    moved: &Cell<u64>,
) -> Poll<Result<usize, Side>> {
    match ready!(Pin::new(sink).poll_write(cx, bytes)) {
        Ok(taken) if taken > 0 => {
            moved.set(moved.get() + taken as u64);
            Poll::Ready(Ok(taken))
        }
        Ok(_) | Err(_) => Poll::Ready(Err(Side::Sink)),
    }
}
