//! The head of an answer as bytes, and how its body is framed.

use http::StatusCode;
use http_body::SizeHint;

use super::request::{Wishes, says};
use crate::{
    message::{Fields, Names, buffer, length_of, put_field},
    net::{clock::Clock, sending::Coding},
};

pub struct Framed {
    pub head: Vec<u8>,
    /// `None`: no body is sent, whatever there is.
    pub coding: Option<Coding>,
    /// Another request may follow.
    pub persistent: bool,
}

/// The fields that are made here, or may be. A change of protocol has its own `Connection`.
const FRAMING: Names = Names::of(&["connection", "content-length", "transfer-encoding"]);
const LENGTHS: Names = Names::of(&["content-length", "transfer-encoding"]);

/// `close`: nothing may follow this answer.
pub fn frame(status: StatusCode, fields: &Fields, size: &SizeHint, wishes: Wishes, clock: &Clock) -> Framed {
    let switching = status == StatusCode::SWITCHING_PROTOCOLS;
    let closes = fields.all("connection").any(|options| says(options, b"close"));
    let told = fields.get("content-length").and_then(length_of);
    let mut persistent = wishes.persistent && !closes;
    let mut head = buffer::text();
    head.extend_from_slice(if wishes.old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    head.extend_from_slice(status.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(status.canonical_reason().unwrap_or("-").as_bytes());
    head.extend_from_slice(b"\r\n");
    // What says where the answer ends is made here.
    fields.put_but(if switching { LENGTHS } else { FRAMING }, &mut head);
    if !fields.has("date") {
        put_field(&mut head, b"date", clock.http_date().as_bytes());
    }
    let length = told.or(size.exact());
    let coding = if status.is_informational() || status == StatusCode::NO_CONTENT {
        None
    } else if status == StatusCode::NOT_MODIFIED || wishes.head_only {
        // What a GET would have got, where that is known.
        if let Some(length) = told.or(length.filter(|length| *length > 0)) {
            put_length(&mut head, length);
        }
        None
    } else if let Some(length) = length {
        put_length(&mut head, length);
        Some(Coding::Length(length))
    } else if wishes.old {
        persistent = false;
        Some(Coding::Close)
    } else {
        put_field(&mut head, b"transfer-encoding", b"chunked");
        Some(Coding::Chunked { trailers: wishes.trailers })
    };
    if !persistent && !switching {
        put_field(&mut head, b"connection", b"close");
    } else if wishes.old && !switching {
        put_field(&mut head, b"connection", b"keep-alive");
    }
    head.extend_from_slice(b"\r\n");
    Framed { head, coding, persistent }
}

fn put_length(head: &mut Vec<u8>, mut length: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (length % 10) as u8;
        length /= 10;
        if length == 0 {
            break;
        }
    }
    put_field(head, b"content-length", &digits[at..]);
}
