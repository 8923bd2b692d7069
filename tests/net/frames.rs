//! An HTTP/2 client that sends single frames, so that it can break the rules.

use std::{
    io::{Read, Write},
    time::Duration,
};

use permgate::net::Limits;

use crate::harness::{Client, Gate, eventually};
pub use crate::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame,
};

pub struct Frames(Client);

/// The pseudo-header fields of a request.
pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "gate"), (":path", "/x")];

impl Frames {
    /// Connects and sends the preface and settings.
    pub fn to(gate: &Gate) -> Self {
        let mut client = gate.client();
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut frames = Self(client);
        frames.send(SETTINGS, 0, 0, &[]);
        frames
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> &mut Self {
        let bytes = frame(kind, flags, stream, payload);
        // The gateway may have closed already; what it sent can still be read.
        let _ = self.0.socket.write_all(&bytes);
        self
    }

    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.0.socket.write_all(bytes);
        self
    }

    pub fn headers(&mut self, flags: u8, stream: u32, fields: &[(&str, &str)]) -> &mut Self {
        self.send(HEADERS, flags, stream, &block(fields))
    }

    /// Sets the read timeout.
    pub fn patience(&mut self, within: Duration) {
        self.0.socket.set_read_timeout(Some(within)).unwrap();
    }

    /// Bytes that have arrived but were not read, up to a limit.
    pub fn bytes_available(&self) -> usize {
        self.0.socket.peek(&mut vec![0; 16 << 20]).unwrap()
    }

    /// The next frame; `None` if the connection has ended.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.socket.read_exact(&mut head).ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)];
        self.0.socket.read_exact(&mut payload).ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff, payload })
    }

    /// How the stream or the connection ends: `"RST 8"`, `"GOAWAY 1"`, `"answered"`, `"closed"`.
    pub fn end_of(&mut self, stream: u32) -> String {
        let code = |payload: &[u8]| u32::from_be_bytes(payload.try_into().unwrap());
        while let Some(frame) = self.next() {
            match frame.kind {
                RST_STREAM if frame.stream == stream => return format!("RST {}", code(&frame.payload)),
                GOAWAY if code(&frame.payload[4..8]) != 0 => {
                    return format!("GOAWAY {}", code(&frame.payload[4..8]));
                }
                HEADERS | DATA if frame.stream == stream && frame.flags & END_STREAM != 0 => {
                    return "answered".into();
                }
                _ => {}
            }
        }
        "closed".into()
    }
}

/// Plays a client and checks how its first stream, or the connection, ends.
pub fn check(row: &str, expected: &str, play: impl FnOnce(&mut Frames)) {
    let gate = Gate::new(&Limits::default());
    let mut client = Frames::to(&gate);
    play(&mut client);
    assert_eq!(client.end_of(1), expected, "{row}");
    drop(client);
    eventually("no connection is left", || gate.budget.open() == 0);
}
