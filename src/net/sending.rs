//! An HTTP/1.1 message on its way out: its head as bytes, its body piece by piece behind it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, buf::Chain};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use crate::message::Fields;

/// Sent by whoever polls it; holds its body until it is dropped.
pub struct Sending<B> {
    head: Vec<u8>,
    written: usize,
    body: Option<B>,
    coding: Coding,
    /// Nothing more comes of the body.
    ended: bool,
    piece: Option<Piece>,
    /// Something came of the body.
    taken: bool,
    /// Something may wait inside the stream.
    unflushed: bool,
}

/// How a body is framed, as the head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// So many bytes are left.
    Length(u64),
    Chunked {
        /// Whoever reads it has said that it takes trailers.
        trailers: bool,
    },
    /// Its end is the connection's.
    Close,
}

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("the connection broke off")]
    Broken(#[source] io::Error),
    /// It failed, or it is not as long as the head says.
    #[error("the body broke off")]
    Body,
}

/// The largest piece that is copied behind what waits to be written.
pub const JOINED: usize = 4 << 10;

/// Framing, data, framing.
type Piece = Chain<Chain<Bytes, Bytes>, Bytes>;

impl<B: Body<Data = Bytes> + Unpin> Sending<B> {
    /// The head must frame the body as `coding` says; a body that there is none of has no coding.
    pub fn new(head: Vec<u8>, body: Option<B>, coding: Coding) -> Self {
        let ended = body.is_none();
        Self { head, written: 0, body, coding, ended, piece: None, taken: false, unflushed: true }
    }

    /// The last byte is with the kernel.
    pub fn is_sent(&self) -> bool {
        self.ended && self.written == self.head.len() && self.piece.is_none() && !self.unflushed
    }

    pub fn has_body(&self) -> bool {
        self.body.is_some()
    }

    /// Nothing of it has been written, nor taken out of its body.
    pub fn is_untouched(&self) -> bool {
        self.written == 0 && !self.taken && self.ended != self.body.is_some()
    }

    pub fn into_parts(self) -> (Vec<u8>, Option<B>) {
        (self.head, self.body)
    }

    /// Writes as much as there is and the stream takes.
    pub fn send<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Result<(), SendError> {
        while !self.is_sent() {
            if self.piece.is_none() && !self.ended {
                // A body that has failed is not one that nothing was taken of.
                self.piece = self.next_piece(cx).inspect_err(|_| self.ended = true)?;
                self.taken |= self.piece.is_some();
                self.join();
            }
            let Poll::Ready(written) = self.write(stream, cx) else { return Ok(()) };
            let written = written.map_err(SendError::Broken)?;
            if written > 0 {
                self.wrote(written);
            } else if self.unflushed {
                let Poll::Ready(flushed) = Pin::new(&mut *stream).poll_flush(cx) else { return Ok(()) };
                flushed.map_err(SendError::Broken)?;
                self.unflushed = false;
            } else {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Puts a small piece behind the head: to copy it costs less than to tell the kernel of two
    /// places.
    fn join(&mut self) {
        let Some(mut piece) = self.piece.take_if(|piece| piece.remaining() <= JOINED) else { return };
        if self.written == self.head.len() {
            self.head.clear();
            self.written = 0;
        }
        while piece.has_remaining() {
            let chunk = piece.chunk();
            self.head.extend_from_slice(chunk);
            let count = chunk.len();
            piece.advance(count);
        }
    }

    /// Zero: there is nothing to write now.
    fn write<S: AsyncWrite + Unpin>(&self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let head = &self.head[self.written..];
        let written = match &self.piece {
            None if head.is_empty() => return Poll::Ready(Ok(0)),
            None => Pin::new(stream).poll_write(cx, head),
            Some(piece) => {
                let mut slices = [IoSlice::new(&[]); 4];
                slices[0] = IoSlice::new(head);
                let first = usize::from(!head.is_empty());
                let count = first + piece.chunks_vectored(&mut slices[first..]);
                match &slices[..count] {
                    [one] => Pin::new(stream).poll_write(cx, one),
                    several => Pin::new(stream).poll_write_vectored(cx, several),
                }
            }
        };
        match written {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => written,
        }
    }

    fn wrote(&mut self, count: usize) {
        self.unflushed = true;
        let of_head = count.min(self.head.len() - self.written);
        self.written += of_head;
        if let Some(piece) = &mut self.piece {
            piece.advance(count - of_head);
            if !piece.has_remaining() {
                self.piece = None;
            }
        }
    }

    fn next_piece(&mut self, cx: &mut Context<'_>) -> Result<Option<Piece>, SendError> {
        let Some(body) = &mut self.body else { return Ok(None) };
        loop {
            let frame = match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Ok(None),
                Poll::Ready(Some(Ok(frame))) => Some(frame.into_data()),
                Poll::Ready(Some(Err(_))) => return Err(SendError::Body),
                Poll::Ready(None) => None,
            };
            let (none, line_end) = (Bytes::new(), Bytes::from_static(b"\r\n"));
            let piece = match (&mut self.coding, frame) {
                (_, Some(Ok(data))) if data.is_empty() => continue,
                (Coding::Length(left), Some(Ok(data))) => {
                    // More or less than the head says would make the rest another message.
                    *left = left.checked_sub(data.len() as u64).ok_or(SendError::Body)?;
                    // Knowing the end now saves asking once more.
                    self.ended = *left == 0;
                    joined(none.clone(), data, none)
                }
                (Coding::Close, Some(Ok(data))) => joined(none.clone(), data, none),
                (Coding::Chunked { .. }, Some(Ok(data))) => {
                    joined(Bytes::from(format!("{:x}\r\n", data.len())), data, line_end)
                }
                (Coding::Length(_) | Coding::Close, Some(Err(_))) => continue,
                (Coding::Length(1..), None) => return Err(SendError::Body),
                (Coding::Length(0) | Coding::Close, None) => {
                    self.ended = true;
                    return Ok(None);
                }
                (Coding::Chunked { trailers }, Some(Err(frame))) => {
                    self.ended = true;
                    joined(last_chunk(frame, *trailers), line_end, none)
                }
                (Coding::Chunked { .. }, None) => {
                    self.ended = true;
                    joined(none.clone(), Bytes::from_static(b"0\r\n\r\n"), none)
                }
            };
            return Ok(Some(piece));
        }
    }
}

fn joined(before: Bytes, data: Bytes, after: Bytes) -> Piece {
    before.chain(data).chain(after)
}

fn last_chunk(frame: Frame<Bytes>, trailers: bool) -> Bytes {
    let fields = frame.into_trailers().ok().filter(|_| trailers).unwrap_or_default();
    let mut end = b"0\r\n".to_vec();
    Fields::from(&fields).put(&mut end);
    end.into()
}
