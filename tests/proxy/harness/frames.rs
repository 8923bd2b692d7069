//! The upstream's end of HTTP/2 frame by frame, for violations that no real server commits.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::Origin;
pub use crate::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame,
};

pub const ACK: u8 = 1;

pub const NO_ERROR: u32 = 0;
pub const INTERNAL_ERROR: u32 = 2;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;

/// One connection of the gateway. Its preface was read, and the settings were sent.
pub struct Frames {
    pub socket: TcpStream,
    /// Bytes that were read but not consumed.
    read: Vec<u8>,
}

impl Origin {
    /// Accepts the gateway's next connection, which speaks HTTP/2. `settings` are identifiers and values.
    pub fn accept_h2(&self, settings: &[(u16, u32)]) -> Frames {
        let mut frames = Frames { socket: self.accept().socket, read: Vec::new() };
        assert!(frames.fill_to(24).unwrap(), "the preface");
        assert_eq!(frames.read.drain(..24).collect::<Vec<_>>(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        frames.set(settings)
    }
}

impl Frames {
    /// A client's end.
    pub fn to(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self { socket: TcpStream::connect(address).unwrap(), read: Vec::new() };
        frames.socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        frames.set(settings)
    }

    fn set(mut self, settings: &[(u16, u32)]) -> Self {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
            .collect();
        self.send(SETTINGS, 0, 0, &payload);
        self
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> &mut Self {
        self.socket.write_all(&frame(kind, flags, stream, payload)).unwrap();
        self
    }

    /// Sends a head with these fields, the status first, without ending the stream.
    pub fn head(&mut self, stream: u32, fields: &[(&str, &str)]) -> &mut Self {
        self.send(HEADERS, END_HEADERS, stream, &block(fields))
    }

    pub fn data(&mut self, stream: u32, text: &str) -> &mut Self {
        self.send(DATA, 0, stream, text.as_bytes())
    }

    /// Sends a head that takes several frames.
    pub fn long_head(&mut self, stream: u32, fields: &[(&str, &str)]) {
        let block = block(fields);
        let mut pieces = block.chunks(16 << 10).peekable();
        let mut kind = HEADERS;
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_some() { 0 } else { END_HEADERS };
            self.send(std::mem::replace(&mut kind, CONTINUATION), flags, stream, piece);
        }
    }

    pub fn trailers(&mut self, stream: u32, fields: &[(&str, &str)]) -> &mut Self {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields))
    }

    /// Sends a 200 with this text.
    pub fn answer(&mut self, stream: u32, text: &str) -> &mut Self {
        let length = text.len().to_string();
        self.head(stream, &[(":status", "200"), ("content-length", &length)]);
        self.send(DATA, END_STREAM, stream, text.as_bytes())
    }

    pub fn reset(&mut self, stream: u32, code: u32) -> &mut Self {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes())
    }

    pub fn go_away(&mut self, last: u32, code: u32) -> &mut Self {
        self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
    }

    pub fn close(&mut self) {
        self.socket.shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Sends on a stream, respecting the windows, until none opens for a while. Returns how much was sent.
    pub fn fill_up(&mut self, stream: u32) -> usize {
        self.fill_up_by(stream, 16 << 10)
    }

    /// Like [`Frames::fill_up`], in frames of this length.
    pub fn fill_up_by(&mut self, stream: u32, piece: usize) -> usize {
        let (mut sent, mut window) = (0, 64 << 10);
        self.socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        loop {
            while window > 0 {
                let length = window.min(piece);
                self.send(DATA, 0, stream, &vec![b'x'; length]);
                (sent, window) = (sent + length, window - length);
            }
            match self.read_frame() {
                Ok(Some(frame)) if (frame.kind, frame.stream) == (WINDOW_UPDATE, stream) => {
                    window += u32::from_be_bytes(frame.payload.try_into().unwrap()) as usize;
                }
                Ok(Some(frame)) => {
                    assert!(matches!(frame.kind, SETTINGS | WINDOW_UPDATE | PING), "{frame:?}");
                }
                Ok(None) => panic!("the connection ended"),
                Err(_) => break,
            }
        }
        self.socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        sent
    }

    /// The next frame that concerns a stream or ends the connection; `None` at its end.
    pub fn try_next(&mut self) -> Option<Frame> {
        loop {
            let frame = self.read_frame().unwrap()?;
            match frame.kind {
                SETTINGS if frame.flags & ACK == 0 => _ = self.send(SETTINGS, ACK, 0, &[]),
                PING if frame.flags & ACK == 0 => _ = self.send(PING, ACK, 0, &frame.payload),
                SETTINGS | WINDOW_UPDATE | PING => {}
                _ => return Some(frame),
            }
        }
    }

    /// Answers pings for this time. Returns how many arrived.
    pub fn pings(&mut self, within: Duration) -> usize {
        let until = std::time::Instant::now() + within;
        let mut pings = 0;
        while let Some(left) =
            until.checked_duration_since(std::time::Instant::now()).filter(|left| !left.is_zero())
        {
            self.socket.set_read_timeout(Some(left)).unwrap();
            match self.read_frame() {
                Ok(Some(frame)) if frame.kind == PING && frame.flags & ACK == 0 => {
                    pings += 1;
                    self.send(PING, ACK, 0, &frame.payload);
                }
                Ok(Some(frame)) => {
                    assert!(matches!(frame.kind, SETTINGS | WINDOW_UPDATE | PING), "{frame:?}");
                }
                Ok(None) => panic!("the connection ended"),
                Err(_) => break,
            }
        }
        self.socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        pings
    }

    fn read_frame(&mut self) -> std::io::Result<Option<Frame>> {
        if !self.fill_to(9)? {
            return Ok(None);
        }
        let length = u32::from_be_bytes([0, self.read[0], self.read[1], self.read[2]]) as usize;
        if !self.fill_to(9 + length)? {
            return Ok(None);
        }
        let frame: Vec<u8> = self.read.drain(..9 + length).collect();
        let stream = u32::from_be_bytes(frame[5..9].try_into().unwrap());
        Ok(Some(Frame { kind: frame[3], flags: frame[4], stream, payload: frame[9..].to_vec() }))
    }

    pub fn next(&mut self) -> Frame {
        self.try_next().expect("one more frame")
    }

    /// The next frame must be a request's head. Returns its stream, and whether the request ends there.
    pub fn request(&mut self) -> (u32, bool) {
        let frame = self.next();
        assert_eq!(frame.kind, HEADERS, "{frame:?}");
        (frame.stream, frame.flags & END_STREAM != 0)
    }

    /// The next frame must be a reset. Returns its code.
    pub fn was_reset(&mut self, stream: u32) -> u32 {
        let frame = self.next();
        assert_eq!((frame.kind, frame.stream), (RST_STREAM, stream), "{frame:?}");
        u32::from_be_bytes(frame.payload.try_into().unwrap())
    }

    fn fill_to(&mut self, count: usize) -> std::io::Result<bool> {
        while self.read.len() < count {
            let mut piece = [0; 16 << 10];
            match self.socket.read(&mut piece) {
                Ok(0) => return Ok(false),
                Ok(read) => self.read.extend_from_slice(&piece[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
