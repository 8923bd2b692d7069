//! What hyper reads and writes instead of the socket: hands on only heads that are judged whole,
//! one message at a time, and stops dead when the connection is severed.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Connection, Refusal, Worker,
    connection::{Answer, Order, Phase},
    framing::Framing,
    h2,
    head::{HeadScan, Verdict},
    stream::Stream,
    tunnel::Upgraded,
};

pub(super) struct Wire {
    stream: Stream,
    connection: Rc<Connection>,
    worker: Rc<Worker>,
    /// Read from the client and not handed to hyper: part of a head, or pipelined requests.
    pending: BytesMut,
    scan: HeadScan,
    intake: Intake,
    /// No head has come yet, in clear text: HTTP/2 may be spoken instead.
    may_turn: bool,
}

/// What the next byte from the client belongs to.
enum Intake {
    Head,
    /// A judged head of this many bytes at the beginning of `pending`.
    Judged(usize, Framing),
    Body(Framing),
    /// The next request; it waits until this one is answered.
    Next,
}

impl Wire {
    pub(super) fn new(stream: Stream, connection: Rc<Connection>, worker: Rc<Worker>) -> Self {
        // Over TLS it is agreed on in the handshake.
        let may_turn = !connection.secure;
        Self {
            stream,
            connection,
            worker,
            pending: BytesMut::new(),
            scan: HeadScan::default(),
            intake: Intake::Head,
            may_turn,
        }
    }

    /// The client has sent, or is about to send, what nobody will read.
    pub(super) fn has_unread(&self) -> bool {
        !self.pending.is_empty() || self.connection.unread()
    }

    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// The socket, and what was read from it and handed to nobody.
    pub(super) fn into_parts(self) -> (Stream, BytesMut) {
        (self.stream, self.pending)
    }

    /// After a 101: what has come behind the head is the tunnel's.
    pub(super) fn into_tunnel(self) -> Upgraded {
        Upgraded::new(self.stream, self.connection, self.pending)
    }

    /// Reads heads until one is whole; then hyper gets it.
    fn poll_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let start = buf.filled().len();
            // The head as a whole is almost always in hyper's buffer with the first read.
            let direct = self.pending.is_empty();
            let opening = self.may_turn && h2::PREFACE.starts_with(&self.pending);
            if direct || opening || self.scan.starved(&self.pending) {
                ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
                let read = buf.filled().len() - start;
                if read == 0 {
                    return Poll::Ready(Ok(()));
                }
                self.connection.received(read);
                if !direct {
                    self.pending.extend_from_slice(&buf.filled()[start..]);
                    buf.set_filled(start);
                }
            }
            if matches!(self.connection.phase(), Phase::Fresh | Phase::Idle) {
                self.connection.begin_head();
            }
            let bytes = if direct { &buf.filled()[start..] } else { &self.pending[..] };
            let opening = self.may_turn && h2::PREFACE.starts_with(bytes);
            let turns = self.may_turn && bytes.starts_with(h2::PREFACE);
            if opening || turns {
                if direct {
                    self.pending.extend_from_slice(&buf.filled()[start..]);
                    buf.set_filled(start);
                }
                if turns {
                    self.connection.order(Order::Multiplex);
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                continue;
            }
            match self.scan.feed(bytes, &self.worker.limits()) {
                Verdict::Refused(refusal) => {
                    self.connection.order(Order::Refuse(refusal));
                    buf.set_filled(start);
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                Verdict::Partial if direct => {
                    self.pending.extend_from_slice(&buf.filled()[start..]);
                    buf.set_filled(start);
                }
                Verdict::Partial => {}
                Verdict::Whole(head) => {
                    self.scan = HeadScan::default();
                    self.may_turn = false;
                    self.connection.judged();
                    if !direct {
                        self.intake = Intake::Judged(head.len, head.framing);
                        return self.hand_head(buf);
                    }
                    let (mut end, mut framing) = (start + head.len, head.framing);
                    // A body that is malformed already is found out again when it is wanted.
                    let mut ahead = framing;
                    if let Ok(taken) = ahead.consume(&buf.filled()[end..]) {
                        (end, framing) = (end + taken, ahead);
                    }
                    self.pending.extend_from_slice(&buf.filled()[end..]);
                    buf.set_filled(end);
                    self.begin_body(framing);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    fn hand_head(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Intake::Judged(left, framing) = std::mem::replace(&mut self.intake, Intake::Head) else {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        };
        let part = left.min(buf.remaining());
        buf.put_slice(&self.pending[..part]);
        self.pending.advance(part);
        if part < left {
            self.intake = Intake::Judged(left - part, framing);
        } else {
            self.begin_body(framing);
        }
        Poll::Ready(Ok(()))
    }

    fn begin_body(&mut self, framing: Framing) {
        if framing.ended() {
            self.end_message();
        } else {
            self.connection.set_unread(true);
            self.intake = Intake::Body(framing);
        }
    }

    fn end_message(&mut self) {
        self.connection.set_unread(false);
        self.intake = Intake::Next;
        if self.connection.answer() == Answer::Flushed {
            self.next_message();
        }
    }

    fn next_message(&mut self) {
        self.intake = Intake::Head;
        // Nor will any readiness tell again that the client has closed its side.
        self.connection.set_ahead(!self.pending.is_empty() || self.connection.half_closed());
        if self.pending.is_empty() {
            self.connection.enter(Phase::Idle);
        } else {
            self.connection.begin_head();
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        if self.pending.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            self.connection.received(buf.filled().len() - start);
        } else {
            let part = self.pending.len().min(buf.remaining());
            buf.put_slice(&self.pending[..part]);
            self.pending.advance(part);
        }
        let Intake::Body(framing) = &mut self.intake else { return Poll::Ready(Ok(())) };
        let taken = framing.consume(&buf.filled()[start..])?;
        if framing.ended() {
            let end = start + taken;
            self.keep(&buf.filled()[end..]);
            buf.set_filled(end);
            self.end_message();
        }
        Poll::Ready(Ok(()))
    }

    /// Puts pipelined bytes back in front of what waits already.
    fn keep(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let behind = std::mem::take(&mut self.pending);
        self.pending.extend_from_slice(bytes);
        self.pending.extend_from_slice(&behind);
    }

    /// Nothing is due from the client; hyper wants to know whether it is still there.
    fn poll_presence(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.pending.is_empty() {
            return Poll::Pending;
        }
        let start = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let ahead = &buf.filled()[start..];
        if ahead.is_empty() {
            // It may have closed its side only and wait for the answer still.
            return if self.connection.sent_all() { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        self.connection.received(ahead.len());
        self.pending.extend_from_slice(ahead);
        buf.set_filled(start);
        Poll::Pending
    }

    /// True: the bytes are hyper's own refusal, which ours replaces.
    fn intercept(&self, bytes: &[u8]) -> bool {
        if self.connection.phase() != Phase::Judged {
            return false;
        }
        if !self.connection.refused() {
            self.connection.order(Order::Refuse(Refusal::from_hyper(bytes)));
        }
        true
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => self.connection.sent(*bytes),
            Poll::Pending => self.connection.send_stalls(),
            Poll::Ready(Err(_)) => {}
        }
        written
    }

    fn alive(&self) -> io::Result<()> {
        if self.connection.severed() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.alive()?;
        match this.intake {
            Intake::Head => this.poll_head(cx, buf),
            Intake::Judged(..) => this.hand_head(buf),
            Intake::Body(_) => this.poll_body(cx, buf),
            Intake::Next => this.poll_presence(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.alive()?;
        if this.intercept(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.wrote(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.alive()?;
        if this.intercept(slices.first().map_or(&[], |slice| slice)) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.alive()?;
        let Poll::Ready(done) = Pin::new(&mut this.stream).poll_flush(cx) else {
            this.connection.send_stalls();
            return Poll::Pending;
        };
        // hyper flushes the socket only when its own buffer is empty.
        if done.is_ok() && this.connection.answer() == Answer::Ended {
            this.connection.set_answer(Answer::Flushed);
            if matches!(this.intake, Intake::Next) {
                this.next_message();
            }
        }
        Poll::Ready(done)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.alive()?;
        // Our refusal is still to be written.
        if this.connection.refused() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
