//! HTTP/1.1 towards an upstream, without a task of its own: whoever waits for the answer drives
//! the connection, so that an exchange costs no channel and no second wake-up.

mod request;
mod response;

use std::{
    io,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use http_body::{Body, Frame};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use crate::{
    message::Fields,
    net::{Decoder, Piece, Splice},
    proxy::upstream::{HEAD_LIMIT, MOST_INTERIM, wire::Wire},
};

pub use request::Outgoing;
use response::{Extent, Head};

/// One connection, which carries one exchange after the other.
pub struct Connection<S, B> {
    stream: S,
    /// Read and not taken yet.
    input: BytesMut,
    outgoing: Option<Outgoing<B>>,
    intake: Intake,
}

/// What the next byte from the upstream belongs to.
enum Intake {
    /// Nothing is asked for.
    Rest,
    Head {
        /// Whether the answer to this method has a body.
        bodiless: bool,
        interim: u32,
    },
    Body {
        decoder: Decoder,
        /// Another exchange may follow.
        persistent: bool,
    },
}

/// Why an exchange fails.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The answer is none.
    #[error("the answer is malformed")]
    Malformed,
    /// The upstream says more interim answers than anybody needs.
    #[error("too many interim answers")]
    Interim,
    #[error("the connection broke off")]
    Broken(#[source] io::Error),
    /// The request's body could not be had.
    #[error("the request's body broke off")]
    Upload,
}

/// The head of an answer.
pub struct Answer {
    pub status: StatusCode,
    pub fields: Fields,
}

/// Room for one read: a head, or what a body comes in.
const READ: usize = 8 << 10;
const READ_BODY: usize = 64 << 10;

impl<S, B> Connection<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    pub fn new(stream: S) -> Self {
        Self { stream, input: BytesMut::new(), outgoing: None, intake: Intake::Rest }
    }

    /// The request of the next exchange; [`Connection::poll_answer`] sends it.
    pub fn begin(&mut self, outgoing: Outgoing<B>) {
        self.intake = Intake::Head { bodiless: outgoing.method() == Method::HEAD, interim: 0 };
        self.outgoing = Some(outgoing);
    }

    /// The head of the answer, which may come before the upstream has the whole request.
    pub fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answer, Fault>> {
        self.poll_send(cx)?;
        loop {
            if !self.input.is_empty()
                && let Some(answer) = self.take_head()?
            {
                // Nobody asks for the request any more, and its room is of use to others.
                self.outgoing.take_if(|outgoing| outgoing.is_sent());
                return Poll::Ready(Ok(answer));
            }
            if self.input.len() > HEAD_LIMIT {
                return Poll::Ready(Err(Fault::Malformed));
            }
            if ready!(self.poll_read(cx, READ))? == 0 {
                return Poll::Ready(Err(Fault::closed()));
            }
        }
    }

    /// The next piece of the answer's body.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if let Err(fault) = self.poll_send(cx) {
            return Poll::Ready(Some(Err(fault)));
        }
        loop {
            let Intake::Body { decoder, .. } = &mut self.intake else { return Poll::Ready(None) };
            let left = decoder.left();
            match decoder.decode(&mut self.input) {
                Ok(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Piece::Trailers(fields)) => return Poll::Ready(Some(Ok(Frame::trailers(fields)))),
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::Starved) => {}
                Err(_) => return Poll::Ready(Some(Err(Fault::Malformed))),
            }
            // A short answer does not need the room of a long one.
            let room = left.map_or(READ_BODY, |left| usize::try_from(left).unwrap_or(usize::MAX));
            match ready!(self.poll_read(cx, room.clamp(READ, READ_BODY))) {
                Ok(0) if self.closes_body() => {}
                Ok(0) => return Poll::Ready(Some(Err(Fault::closed()))),
                Ok(_) => {}
                Err(fault) => return Poll::Ready(Some(Err(fault))),
            }
        }
    }

    /// Nothing more comes of the present answer.
    pub fn answered(&self) -> bool {
        match &self.intake {
            Intake::Rest => true,
            Intake::Head { .. } => false,
            Intake::Body { decoder, .. } => decoder.ended(),
        }
    }

    /// Bytes of the answer that are still to come, where its head told.
    pub fn left(&self) -> Option<u64> {
        match &self.intake {
            Intake::Body { decoder, .. } => decoder.left(),
            Intake::Rest | Intake::Head { .. } => Some(0),
        }
    }

    /// The exchange is over on both sides, and another one may begin.
    pub fn reusable(&self) -> bool {
        let persistent = match &self.intake {
            Intake::Rest => true,
            Intake::Head { .. } => false,
            Intake::Body { decoder, persistent } => *persistent && decoder.ended(),
        };
        persistent && self.input.is_empty() && self.outgoing.as_ref().is_none_or(Outgoing::is_sent)
    }

    /// The request of a failed exchange.
    pub fn take_back(&mut self) -> Option<Outgoing<B>> {
        self.outgoing.take()
    }

    pub fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The connection as it is after the upstream has changed its protocol, with what it has
    /// said in the new one already; `None`: it did so before it had the request.
    pub fn into_switched(self) -> Option<(S, Bytes)> {
        let sent = self.outgoing.as_ref().is_none_or(Outgoing::is_sent);
        sent.then(|| (self.stream, self.input.freeze()))
    }

    /// Sends what can be sent now. What the upstream does not take yet is no reason to wait: its
    /// answer may come first.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        let Some(outgoing) = &mut self.outgoing else { return Ok(()) };
        outgoing.send(&mut self.stream, cx)?;
        // Its body holds the exchange, and this connection outlives that.
        if outgoing.is_spent() {
            self.outgoing = None;
        }
        Ok(())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<Result<usize, Fault>> {
        if self.input.capacity() - self.input.len() < room / 2 {
            self.input.reserve(room);
        }
        pin!(self.stream.read_buf(&mut self.input)).poll(cx).map_err(Fault::Broken)
    }

    fn take_head(&mut self) -> Result<Option<Answer>, Fault> {
        loop {
            let Intake::Head { bodiless, interim } = &mut self.intake else { return Ok(None) };
            let Some(head) = Head::take(&mut self.input)? else { return Ok(None) };
            if head.is_interim() {
                *interim += 1;
                if *interim > MOST_INTERIM {
                    return Err(Fault::Interim);
                }
                if self.input.is_empty() {
                    return Ok(None);
                }
                continue;
            }
            let extent = head.extent(*bodiless)?;
            let decoder = match extent {
                Extent::Length(length) => Decoder::length(length),
                Extent::Chunked => Decoder::chunked(),
                Extent::Close => Decoder::until_close(),
            };
            self.intake =
                Intake::Body { decoder, persistent: head.persistent && !matches!(extent, Extent::Close) };
            return Ok(Some(Answer { status: head.status, fields: head.fields }));
        }
    }

    fn closes_body(&mut self) -> bool {
        match &mut self.intake {
            Intake::Body { decoder, .. } => decoder.close(),
            Intake::Rest | Intake::Head { .. } => false,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Connection<Wire, B> {
    /// The next bytes of the answer's body into a splice, where its head told how many there are.
    pub fn poll_pour(
        &mut self,
        cx: &mut Context<'_>,
        splice: &mut Splice,
    ) -> Poll<Option<Result<usize, Fault>>> {
        if let Err(fault) = self.poll_send(cx) {
            return Poll::Ready(Some(Err(fault)));
        }
        let Intake::Body { decoder, .. } = &mut self.intake else { return Poll::Ready(None) };
        let Some(left) = decoder.left().filter(|left| *left > 0 && self.input.is_empty()) else {
            return Poll::Ready(None);
        };
        let poured = ready!(self.stream.poll_pour(cx, splice, left));
        Poll::Ready(poured.map(|poured| match poured {
            Ok(0) => Err(Fault::closed()),
            Ok(count) => {
                decoder.skip(count as u64);
                Ok(count)
            }
            Err(error) => Err(Fault::Broken(error)),
        }))
    }
}

impl Fault {
    fn closed() -> Self {
        Self::Broken(io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests;
