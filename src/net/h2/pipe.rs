//! What h2 reads and writes instead of the socket: stops dead when the connection is severed, and
//! sees when a field section begins and ends, which h2 has no deadline for.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::{Connection, connection::Phase, stream::Stream};

pub(super) struct Pipe {
    outlet: Outlet,
    connection: Rc<Connection>,
    /// Read from the client before it was known to speak HTTP/2.
    ahead: BytesMut,
    frames: Frames,
}

/// The socket, shared with whoever drives h2. h2 flushes after every piece of data; what it writes is
/// gathered here until all streams that had something to say have said it.
#[derive(Clone)]
pub(super) struct Outlet(Rc<RefCell<Gathered>>);

struct Gathered {
    stream: Stream,
    bytes: BytesMut,
    /// Somebody will say when to send.
    gathers: bool,
}

/// So much is gathered at most; larger writes pass by.
const GATHERED: usize = 16 << 10;
const SMALL: usize = 4 << 10;

/// Follows the frames that a client sends.
struct Frames {
    head: [u8; 9],
    filled: usize,
    /// What is left of the preface, or of the present frame's payload.
    left: usize,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Other,
    /// A part of a field section, not its last one.
    Fields,
    LastFields,
}

const PREFACE: usize = 24;

impl Pipe {
    pub(super) fn new(stream: Stream, ahead: BytesMut, connection: Rc<Connection>) -> Self {
        let frames = Frames { head: [0; 9], filled: 0, left: PREFACE, kind: Kind::Other };
        let gathered = Gathered { stream, bytes: BytesMut::new(), gathers: false };
        Self { outlet: Outlet(Rc::new(RefCell::new(gathered))), connection, ahead, frames }
    }

    pub(super) fn outlet(&self) -> Outlet {
        self.outlet.clone()
    }

    fn alive(&self) -> io::Result<()> {
        if self.connection.severed() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    fn read(&mut self, bytes: &[u8]) {
        let now = self.connection.clock().refresh();
        if self.connection.phase() == Phase::Fresh {
            self.connection.enter(Phase::Head);
        }
        let Some(trunk) = self.connection.trunk() else { return };
        trunk.hear(now);
        if let Some(open) = self.frames.follow(bytes) {
            trunk.set_head(open, now);
        }
    }

    fn write(
        &self,
        cx: &mut Context<'_>,
        length: usize,
        gather: impl FnOnce(&mut BytesMut),
        pass: impl FnOnce(Pin<&mut Stream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.alive()?;
        let gathered = &mut *self.outlet.0.borrow_mut();
        let small = gathered.gathers && length <= SMALL;
        if !small || gathered.bytes.len() + length > GATHERED {
            ready!(gathered.send(cx, &self.connection))?;
        }
        if small {
            if gathered.bytes.capacity() == 0 {
                // At once: grown step by step it would be copied as often.
                gathered.bytes.reserve(GATHERED);
            }
            gather(&mut gathered.bytes);
            return Poll::Ready(Ok(length));
        }
        told(pass(Pin::new(&mut gathered.stream), cx), &self.connection)
    }
}

/// What came of a write, told to the connection.
fn told(written: Poll<io::Result<usize>>, connection: &Connection) -> Poll<io::Result<usize>> {
    match &written {
        Poll::Ready(Ok(bytes)) => connection.sent(*bytes),
        Poll::Pending => connection.send_stalls(),
        Poll::Ready(Err(_)) => {}
    }
    written
}

impl Outlet {
    /// From now on what h2 writes waits for [`Outlet::send`].
    pub(super) fn gather(&self) {
        self.0.borrow_mut().gathers = true;
    }

    /// Sends what was gathered. What the client does not take is asked for again by its waker.
    pub(super) fn send(&self, cx: &mut Context<'_>, connection: &Connection) -> Poll<io::Result<()>> {
        self.0.borrow_mut().send(cx, connection)
    }
}

impl Gathered {
    fn send(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Poll<io::Result<()>> {
        while !self.bytes.is_empty() {
            let written = told(Pin::new(&mut self.stream).poll_write(cx, &self.bytes), connection);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.bytes.advance(count),
            }
        }
        // A connection at rest holds no room.
        if self.bytes.capacity() > 0 {
            self.bytes = BytesMut::new();
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_pending() {
            connection.send_stalls();
        }
        flushed
    }
}

impl Frames {
    /// Whether a field section is open after these bytes; `None`: they say nothing about it.
    fn follow(&mut self, mut bytes: &[u8]) -> Option<bool> {
        let mut open = None;
        loop {
            let here = self.left.min(bytes.len());
            (self.left, bytes) = (self.left - here, &bytes[here..]);
            if self.left > 0 {
                return open;
            }
            if std::mem::replace(&mut self.kind, Kind::Other) == Kind::LastFields {
                open = Some(false);
            }
            let part = (self.head.len() - self.filled).min(bytes.len());
            self.head[self.filled..self.filled + part].copy_from_slice(&bytes[..part]);
            (self.filled, bytes) = (self.filled + part, &bytes[part..]);
            if self.filled < self.head.len() {
                return open;
            }
            self.filled = 0;
            let [high, middle, low, kind, flags, ..] = self.head;
            self.left = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            // HEADERS and CONTINUATION; END_HEADERS.
            if matches!(kind, 0x1 | 0x9) {
                open = Some(true);
                self.kind = if flags & 0x4 == 0 { Kind::Fields } else { Kind::LastFields };
            }
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.alive()?;
        let start = buf.filled().len();
        if this.ahead.is_empty() {
            ready!(Pin::new(&mut this.outlet.0.borrow_mut().stream).poll_read(cx, buf))?;
            this.connection.received(buf.filled().len() - start);
        } else {
            // They are counted already.
            let part = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead[..part]);
            this.ahead.advance(part);
        }
        let bytes = &buf.filled()[start..];
        if !bytes.is_empty() {
            this.read(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let gather = |into: &mut BytesMut| into.extend_from_slice(bytes);
        self.write(cx, bytes.len(), gather, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let gather = |into: &mut BytesMut| slices.iter().for_each(|slice| into.extend_from_slice(slice));
        let length = slices.iter().map(|slice| slice.len()).sum();
        self.write(cx, length, gather, |stream, cx| stream.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.outlet.0.borrow().stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alive()?;
        let gathered = &mut *self.outlet.0.borrow_mut();
        if gathered.gathers { Poll::Ready(Ok(())) } else { gathered.send(cx, &self.connection) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alive()?;
        let gathered = &mut *self.outlet.0.borrow_mut();
        ready!(gathered.send(cx, &self.connection))?;
        Pin::new(&mut gathered.stream).poll_shutdown(cx)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if self.connection.severed() {
            self.outlet.0.borrow().stream.reset_on_close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(length: usize, kind: u8, flags: u8) -> Vec<u8> {
        let length = u8::try_from(length).expect("a short one");
        let mut bytes = vec![0, 0, length, kind, flags, 0, 0, 0, 1];
        bytes.resize(9 + usize::from(length), 0);
        bytes
    }

    fn check(row: &str, frames: &[Vec<u8>], expected: Option<bool>) {
        let bytes = [&[0; PREFACE][..], &frames.concat()].concat();
        for pieces in [1, 3, bytes.len()] {
            let mut follower = Frames { head: [0; 9], filled: 0, left: PREFACE, kind: Kind::Other };
            let mut open = None;
            for piece in bytes.chunks(pieces) {
                open = follower.follow(piece).or(open);
            }
            assert_eq!(open, expected, "{row}, {pieces} at a time");
        }
    }

    #[test]
    fn a_field_section_is_open_until_its_last_byte() {
        check("settings", &[frame(6, 4, 0)], None);
        check("whole", &[frame(9, 1, 0x4)], Some(false));
        check("whole and empty", &[frame(0, 1, 0x4)], Some(false));
        check("not ended", &[frame(9, 1, 0)], Some(true));
        check("continued", &[frame(9, 1, 0), frame(3, 9, 0)], Some(true));
        check("continued and ended", &[frame(9, 1, 0), frame(3, 9, 0x4), frame(5, 0, 1)], Some(false));
        check("cut off", &[frame(9, 1, 0x4)[..17].to_vec()], Some(true));
        check("data whose flag means something else", &[frame(5, 0, 0x4)], None);
    }
}
