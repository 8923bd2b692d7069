//! A client's byte stream as its requests and its answers share it: what was read and not taken,
//! where the present message ends, and the watch over both directions.

use std::{
    cell::{Cell, RefCell},
    io::{self, IoSlice},
    mem::{self, MaybeUninit},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite, ReadBuf};

use crate::net::{
    BodyError, BoxError, Connection, Limits, Splice,
    connection::Phase,
    decoder::{Decoder, Piece},
    h2,
    head::{Head, HeadScan, Verdict},
    lifetime::End,
    sending::{SendError, Sending},
    stream::Stream,
};

pub struct Line {
    connection: Rc<Connection>,
    /// Which request is the present one: a body that somebody has kept reads no other's.
    turn: Cell<u64>,
    socket: RefCell<Option<Socket>>,
}

struct Socket {
    stream: Stream,
    /// Read and not taken yet: part of a head, of a body, or requests to come.
    input: BytesMut,
    scan: HeadScan,
    body: Decoder,
    /// What is still to be written of the leave to send the body.
    leave: Option<&'static [u8]>,
    /// No head has come yet, in clear text: HTTP/2 may be spoken instead.
    may_turn: bool,
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Room for the first read of a head, for further ones, and for one of a body.
const READ_FIRST: usize = 8 << 10;
const READ: usize = 4 << 10;
const READ_BODY: usize = 64 << 10;

/// From so many bytes on, what is left of an answer's body is spliced.
const SPLICED: u64 = 32 << 10;

impl Line {
    pub fn new(stream: Stream, connection: Rc<Connection>) -> Self {
        // Over TLS it is agreed on in the handshake.
        let may_turn = !connection.secure;
        let socket = Socket {
            stream,
            input: BytesMut::new(),
            scan: HeadScan::default(),
            body: Decoder::length(0),
            leave: None,
            may_turn,
        };
        Self { connection, turn: Cell::new(0), socket: RefCell::new(Some(socket)) }
    }

    /// The next request's head, judged, and where its body ends.
    pub fn poll_head(&self, cx: &mut Context<'_>, limits: &Limits) -> Poll<Result<(BytesMut, Head), End>> {
        let mut socket = self.socket.borrow_mut();
        let Some(socket) = &mut *socket else { return Poll::Ready(Err(End::Closed)) };
        loop {
            if !socket.input.is_empty() {
                if matches!(self.connection.phase(), Phase::Fresh | Phase::Idle) {
                    self.connection.begin_head();
                }
                if let Some(head) = socket.take_head(limits)? {
                    self.turn.set(self.turn.get() + 1);
                    self.connection.set_unread(!socket.body.ended());
                    return Poll::Ready(Ok(head));
                }
            } else {
                // A connection that waits for its next request holds no room for it.
                if socket.input.capacity() > 0 {
                    socket.input = BytesMut::new();
                }
                match ready!(socket.poll_read_first(cx, &self.connection)) {
                    Ok(0) | Err(_) => return Poll::Ready(Err(End::Over)),
                    Ok(_) => continue,
                }
            }
            match ready!(socket.poll_read(cx, READ, &self.connection)) {
                Ok(0) | Err(_) => return Poll::Ready(Err(End::Over)),
                Ok(_) => {}
            }
        }
    }

    pub fn turn(&self) -> u64 {
        self.turn.get()
    }

    /// Whether nothing is to come of the present request's body.
    pub fn is_read(&self) -> bool {
        self.socket.borrow().as_ref().is_none_or(|socket| socket.body.ended())
    }

    pub fn body_ended(&self, turn: u64) -> bool {
        turn != self.turn.get() || self.is_read()
    }

    pub fn body_left(&self, turn: u64) -> Option<u64> {
        if turn != self.turn.get() {
            return Some(0);
        }
        self.socket.borrow().as_ref().and_then(|socket| socket.body.left())
    }

    /// The handler wants no more of a body.
    pub fn drop_body(&self, turn: u64) {
        if turn == self.turn.get() {
            self.connection.drop_body();
        }
    }

    /// The client waits for leave to send its body.
    pub fn await_leave(&self) {
        if let Some(socket) = &mut *self.socket.borrow_mut() {
            socket.leave = Some(CONTINUE);
        }
    }

    pub fn poll_body(
        &self,
        cx: &mut Context<'_>,
        turn: u64,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.connection.severed() {
            return Poll::Ready(Some(Err(BodyError::Severed)));
        }
        let mut socket = self.socket.borrow_mut();
        let Some(socket) = socket.as_mut().filter(|_| turn == self.turn.get()) else {
            return Poll::Ready(Some(Err(BodyError::Severed)));
        };
        loop {
            let left = socket.body.left();
            let piece = match socket.body.decode(&mut socket.input) {
                Ok(Piece::Starved) => None,
                Ok(Piece::Data(data)) => Some(Some(Ok(Frame::data(data)))),
                Ok(Piece::Trailers(fields)) => Some(Some(Ok(Frame::trailers(fields)))),
                Ok(Piece::End) => Some(None),
                Err(malformed) => Some(Some(Err(BodyError::Broken(malformed.into())))),
            };
            if let Some(piece) = piece {
                self.connection.set_unread(!socket.body.ended());
                self.connection.body_came();
                return Poll::Ready(piece);
            }
            socket.give_leave(cx);
            let room = left.map_or(READ_BODY, |left| usize::try_from(left).unwrap_or(READ_BODY));
            match socket.poll_read(cx, room.clamp(READ, READ_BODY), &self.connection) {
                Poll::Ready(Ok(0)) => {
                    let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                    return Poll::Ready(Some(Err(BodyError::Broken(error.into()))));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(BodyError::Broken(error.into())))),
                Poll::Pending if self.connection.await_body(cx) => {
                    return Poll::Ready(Some(Err(BodyError::Timeout)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Ready when the client has gone away before it got its answer. Nothing is heard of that while
    /// it still has a body to send, or has sent its next request.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut socket = self.socket.borrow_mut();
        let Some(socket) = &mut *socket else { return Poll::Ready(()) };
        if !socket.body.ended() || !socket.input.is_empty() {
            return Poll::Pending;
        }
        match ready!(socket.poll_read_first(cx, &self.connection)) {
            // It may have closed its side only and wait for the answer still.
            Ok(0) if !self.connection.sent_all() => Poll::Pending,
            Ok(0) | Err(_) => Poll::Ready(()),
            Ok(_) => Poll::Pending,
        }
    }

    /// Bytes that must come before the answer's: a leave that is half written.
    pub fn begin_answer(&self) -> &'static [u8] {
        let mut socket = self.socket.borrow_mut();
        let leave = socket.as_mut().and_then(|socket| socket.leave.take());
        leave.filter(|leave| leave.len() < CONTINUE.len()).unwrap_or_default()
    }

    /// `pour`: as a handler's, with the splice that goes with this answer.
    pub fn send<B: Body<Data = Bytes> + Unpin>(
        &self,
        cx: &mut Context<'_>,
        answer: &mut Sending<B>,
        splice: &mut Splice,
        mut pour: impl FnMut(&mut B, &mut Context<'_>, &mut Splice) -> Poll<Option<Result<(), BoxError>>>,
    ) -> Result<(), SendError> {
        // The body of the answer may want the body of the request: not while the socket is lent.
        answer.send_or_pass(&mut Outward { line: self }, cx, |body, outward, cx, left| {
            if splice.is_empty() {
                if left < SPLICED || !outward.splices() {
                    return Poll::Ready(None);
                }
                match ready!(pour(body, cx, splice)) {
                    None => return Poll::Ready(None),
                    Some(poured) => poured.map_err(|_| SendError::Body)?,
                }
            }
            outward.poll_empty(splice, cx).map(|taken| Some(taken.map_err(SendError::Broken)))
        })
    }

    /// The present exchange is over, and another one may follow.
    pub fn rest(&self) {
        let ahead = self.socket.borrow().as_ref().is_some_and(|socket| !socket.input.is_empty());
        if ahead {
            self.connection.begin_head();
        } else {
            self.connection.enter(Phase::Idle);
        }
    }

    /// The socket, and what was read from it and taken by nobody.
    pub fn take_parts(&self) -> Option<(Stream, BytesMut)> {
        self.socket.take().map(|socket| (socket.stream, socket.input))
    }
}

impl Socket {
    fn take_head(&mut self, limits: &Limits) -> Result<Option<(BytesMut, Head)>, End> {
        if self.may_turn && (h2::PREFACE.starts_with(&self.input) || self.input.starts_with(h2::PREFACE)) {
            return if self.input.len() < h2::PREFACE.len() { Ok(None) } else { Err(End::Multiplexed) };
        }
        match self.scan.feed(&mut self.input, limits) {
            Verdict::Partial => Ok(None),
            Verdict::Refused(refusal) => Err(End::Refused(refusal)),
            Verdict::Whole(mut head) => {
                self.scan = HeadScan::default();
                self.may_turn = false;
                self.body = mem::replace(&mut head.body, Decoder::length(0));
                self.leave = None;
                // To split off what is whole would take one more allocation.
                let text = if head.len == self.input.len() {
                    mem::take(&mut self.input)
                } else {
                    self.input.split_to(head.len)
                };
                Ok(Some((text, head)))
            }
        }
    }

    /// Reads where it costs nothing to wait, and takes as much room as came: nothing where the client
    /// waits for its answer, a whole head as a rule where it asks.
    fn poll_read_first(&mut self, cx: &mut Context<'_>, connection: &Connection) -> Poll<io::Result<usize>> {
        let mut room = [MaybeUninit::uninit(); READ_FIRST];
        let mut read = ReadBuf::uninit(&mut room);
        if connection.severed() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        let read = read.filled();
        self.input.extend_from_slice(read);
        connection.received(read.len());
        Poll::Ready(Ok(read.len()))
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        connection: &Connection,
    ) -> Poll<io::Result<usize>> {
        if connection.severed() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        if self.input.capacity() - self.input.len() < room / 2 {
            self.input.reserve(room);
        }
        let read = ready!(pin!(self.stream.read_buf(&mut self.input)).poll(cx))?;
        connection.received(read);
        Poll::Ready(Ok(read))
    }

    /// Whoever wants the body says so to a client that waits for it.
    fn give_leave(&mut self, cx: &mut Context<'_>) {
        while let Some(leave) = self.leave {
            let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, leave) else { return };
            // A failed write is found out again when the body does not come.
            let rest = written.map_or(&leave[leave.len()..], |written| &leave[written..]);
            self.leave = (!rest.is_empty()).then_some(rest);
            let _ = Pin::new(&mut self.stream).poll_flush(cx);
        }
    }
}

/// The way to the client.
struct Outward<'a> {
    line: &'a Line,
}

impl Outward<'_> {
    fn splices(&self) -> bool {
        matches!(&*self.line.socket.borrow(), Some(Socket { stream: Stream::Tcp(_), .. }))
    }

    fn poll_empty(&self, splice: &mut Splice, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let empty = |stream: Pin<&mut Stream>| match stream.get_mut() {
            Stream::Tcp(socket) => splice.empty_into(socket, cx),
            Stream::Unix(_) | Stream::Tls(_) => Poll::Ready(Err(io::ErrorKind::Unsupported.into())),
        };
        self.poll(empty, |taken| *taken)
    }

    fn poll<T>(
        &self,
        write: impl FnOnce(Pin<&mut Stream>) -> Poll<io::Result<T>>,
        count: impl FnOnce(&T) -> usize,
    ) -> Poll<io::Result<T>> {
        let connection = &self.line.connection;
        let mut socket = self.line.socket.borrow_mut();
        let Some(socket) = socket.as_mut().filter(|_| !connection.severed()) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        };
        let written = write(Pin::new(&mut socket.stream));
        match &written {
            Poll::Ready(Ok(written)) => connection.sent(count(written)),
            Poll::Pending => connection.send_stalls(),
            Poll::Ready(Err(_)) => {}
        }
        written
    }
}

impl AsyncWrite for Outward<'_> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write(cx, bytes), |written| *written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(|stream| stream.poll_write_vectored(cx, slices), |written| *written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(cx), |()| 0)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(cx), |()| 0)
    }
}
