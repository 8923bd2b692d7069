//! An HTTP/1.1 message on its way out: its head as bytes, its body piece by piece behind it.

use std::{
    io::{self, IoSlice, Write as _},
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame};
use tokio::io::AsyncWrite;

use crate::message::{Fields, buffer};

/// Sent by whoever polls it; holds its body until it is dropped.
pub struct Sending<B> {
    /// The head, then what frames a piece of the body; small pieces too.
    text: Vec<u8>,
    written: usize,
    /// A piece of the body, behind the text.
    data: Bytes,
    /// What frames it behind.
    after: &'static [u8],
    body: Option<B>,
    coding: Coding,
    /// Nothing more comes of the body.
    ended: bool,
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
const JOINED: usize = 4 << 10;

impl<B: Body<Data = Bytes> + Unpin> Sending<B> {
    /// The head must frame the body as `coding` says; a body that there is none of has no coding.
    pub fn new(head: Vec<u8>, body: Option<B>, coding: Coding) -> Self {
        Self {
            text: head,
            written: 0,
            data: Bytes::new(),
            after: &[],
            ended: body.is_none(),
            body,
            coding,
            taken: false,
            unflushed: true,
        }
    }

    /// The last byte is with the kernel.
    pub fn is_sent(&self) -> bool {
        self.ended && self.written == self.text.len() && !self.has_piece() && !self.unflushed
    }

    fn has_piece(&self) -> bool {
        !(self.data.is_empty() && self.after.is_empty())
    }

    pub fn has_body(&self) -> bool {
        self.body.is_some()
    }

    /// Nothing of it has been written, nor taken out of its body.
    pub fn is_untouched(&self) -> bool {
        self.written == 0 && !self.taken && self.ended != self.body.is_some()
    }

    pub fn into_parts(mut self) -> (Vec<u8>, Option<B>) {
        (mem::take(&mut self.text), self.body.take())
    }

    /// Writes as much as there is and the stream takes.
    pub fn send<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Result<(), SendError> {
        self.send_or_pass(stream, cx, |_, _, _, _| Poll::Ready(None))
    }

    /// As [`Sending::send`]; `pass` may hand bytes of a body whose length is known from the body to
    /// the stream by itself, at most as many as are left, and tells how many the stream has taken.
    /// `None`: this time it cannot.
    pub fn send_or_pass<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        mut pass: impl FnMut(&mut B, &mut S, &mut Context<'_>, u64) -> Poll<Option<Result<usize, SendError>>>,
    ) -> Result<(), SendError> {
        while !self.is_sent() {
            if !self.ended && !self.has_piece() {
                if self.written == self.text.len()
                    && let (Coding::Length(left), Some(body)) = (&mut self.coding, &mut self.body)
                {
                    let Poll::Ready(passed) = pass(body, stream, cx, *left) else { return Ok(()) };
                    if let Some(passed) = passed {
                        let passed = passed.inspect_err(|_| self.ended = true)?;
                        *left = left.checked_sub(passed as u64).ok_or(SendError::Body)?;
                        (self.ended, self.taken) = (*left == 0, true);
                        continue;
                    }
                }
                // A body that has failed is not one that nothing was taken of.
                self.taken |= self.next_piece(cx).inspect_err(|_| self.ended = true)?;
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

    /// Zero: there is nothing to write now.
    fn write<S: AsyncWrite + Unpin>(&self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let text = &self.text[self.written..];
        let written = if self.has_piece() {
            let pieces = [text, &self.data, self.after].map(IoSlice::new);
            // What is empty may stand at either end.
            let pieces = &pieces[usize::from(text.is_empty())..3 - usize::from(self.after.is_empty())];
            match pieces {
                [one] => Pin::new(stream).poll_write(cx, one),
                several => Pin::new(stream).poll_write_vectored(cx, several),
            }
        } else if text.is_empty() {
            return Poll::Ready(Ok(0));
        } else {
            Pin::new(stream).poll_write(cx, text)
        };
        match written {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => written,
        }
    }

    fn wrote(&mut self, count: usize) {
        self.unflushed = true;
        let of_text = count.min(self.text.len() - self.written);
        self.written += of_text;
        let of_data = (count - of_text).min(self.data.len());
        self.data.advance(of_data);
        self.after = &self.after[count - of_text - of_data..];
    }

    /// Whether something came of the body.
    fn next_piece(&mut self, cx: &mut Context<'_>) -> Result<bool, SendError> {
        let Some(body) = &mut self.body else { return Ok(false) };
        loop {
            let frame = match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Some(Ok(frame))) => Some(frame.into_data()),
                Poll::Ready(Some(Err(_))) => return Err(SendError::Body),
                Poll::Ready(None) => None,
            };
            if self.written == self.text.len() {
                self.text.clear();
                self.written = 0;
            }
            match (&mut self.coding, frame) {
                (_, Some(Ok(data))) if data.is_empty() => continue,
                (Coding::Length(left), Some(Ok(data))) => {
                    // More or less than the head says would make the rest another message.
                    *left = left.checked_sub(data.len() as u64).ok_or(SendError::Body)?;
                    // Knowing the end now saves asking once more.
                    self.ended = *left == 0;
                    self.queue(data, &[]);
                }
                (Coding::Close, Some(Ok(data))) => self.queue(data, &[]),
                (Coding::Chunked { .. }, Some(Ok(data))) => {
                    // To a vector, nothing fails.
                    let _ = write!(self.text, "{:x}\r\n", data.len());
                    self.queue(data, b"\r\n");
                }
                (Coding::Length(_) | Coding::Close, Some(Err(_))) => continue,
                (Coding::Length(1..), None) => return Err(SendError::Body),
                (Coding::Length(0) | Coding::Close, None) => {
                    self.ended = true;
                    return Ok(false);
                }
                (Coding::Chunked { trailers }, Some(Err(frame))) => {
                    self.ended = true;
                    put_last_chunk(&mut self.text, frame, *trailers);
                }
                (Coding::Chunked { .. }, None) => {
                    self.ended = true;
                    self.text.extend_from_slice(b"0\r\n\r\n");
                }
            }
            return Ok(true);
        }
    }

    /// A small piece goes behind the text: to copy it costs less than to tell the kernel of two
    /// places.
    fn queue(&mut self, data: Bytes, after: &'static [u8]) {
        if data.len() <= JOINED {
            self.text.extend_from_slice(&data);
            self.text.extend_from_slice(after);
        } else {
            (self.data, self.after) = (data, after);
        }
    }
}

impl<B> Drop for Sending<B> {
    fn drop(&mut self) {
        buffer::give_text(mem::take(&mut self.text));
    }
}

fn put_last_chunk(text: &mut Vec<u8>, frame: Frame<Bytes>, trailers: bool) {
    let fields = frame.into_trailers().ok().filter(|_| trailers).unwrap_or_default();
    text.extend_from_slice(b"0\r\n");
    Fields::from(&fields).put(text);
    text.extend_from_slice(b"\r\n");
}
