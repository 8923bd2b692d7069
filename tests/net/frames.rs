//! A client that speaks HTTP/2 frame by frame, so that it can break the rules.

use std::{
    io::{Read, Write},
    time::Duration,
};

use crate::harness::{Client, Gate};

pub struct Frames(Client);

/// A frame as it came: type, flags, stream, payload.
#[derive(Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;

/// What a request needs.
pub const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "gate"), (":path", "/x")];

impl Frames {
    /// Connected, with the preface and settings exchanged as far as this side goes.
    pub fn to(gate: &Gate) -> Self {
        let mut client = gate.client();
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut frames = Self(client);
        frames.send(SETTINGS, 0, 0, &[]);
        frames
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> &mut Self {
        let bytes = frame(kind, flags, stream, payload);
        // The other side may have closed already: what it said is still to be read.
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

    /// How long a frame may take to come.
    pub fn patience(&mut self, within: Duration) {
        self.0.socket.set_read_timeout(Some(within)).unwrap();
    }

    /// Bytes that came and were not read, as far as they are counted.
    pub fn waiting(&self) -> usize {
        self.0.socket.peek(&mut vec![0; 16 << 20]).unwrap()
    }

    /// The next frame; `None` when the connection ends.
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

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A field section: every field literal, nothing indexed, nothing compressed.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            integer(&mut bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

/// RFC 7541, 5.1, with a prefix of seven bits.
fn integer(bytes: &mut Vec<u8>, value: usize) {
    let Some(mut rest) = value.checked_sub(127) else {
        return bytes.push(u8::try_from(value).unwrap());
    };
    bytes.push(127);
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
}
