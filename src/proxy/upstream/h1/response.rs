//! The head of an upstream's answer: parsed, and what it says about its body and its connection.

use bytes::{Buf, BytesMut};
use http::StatusCode;

use super::Fault;
use crate::{
    message::{Fields, Line, buffer, length_of, text_length},
    proxy::upstream::HEAD_LIMIT,
};

pub struct Head {
    pub status: StatusCode,
    pub fields: Fields,
    /// The connection goes on after this answer.
    pub persistent: bool,
}

/// How far an answer's body reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    Length(u64),
    Chunked,
    Close,
}

/// What an answer begins with.
const VERSION: &[u8] = b"HTTP/1.";

/// More fields than this make an answer malformed.
const MOST_FIELDS: usize = 100;

impl Head {
    /// Takes the first head out of what was read; `None` while it is not whole.
    pub fn take(input: &mut BytesMut) -> Result<Option<Self>, Fault> {
        // Empty lines before an answer are none of it.
        let blank = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        input.advance(blank);
        let Some((length, first, lines)) = lines(input)? else {
            return if malformed(input) { Err(Fault::Malformed) } else { Ok(None) };
        };
        let head = input.split_to(length);
        let (old, status) = status_line(&head[..first]).ok_or(Fault::Malformed)?;
        let fields = Fields::read(head, lines);
        if old && fields.has("transfer-encoding") {
            return Err(Fault::Malformed);
        }
        let persistent = persistent(&fields, old);
        Ok(Some(Self { status, fields, persistent }))
    }

    /// Something that comes before the answer. A change of protocol is an answer.
    pub fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }

    /// RFC 9112, 6.3. Framing that is not plain is refused by whoever takes the answer.
    pub fn extent(&self, bodiless: bool) -> Result<Extent, Fault> {
        let none = bodiless
            || self.status.is_informational()
            || matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if none {
            return Ok(Extent::Length(0));
        }
        if self.fields.has("transfer-encoding") {
            return Ok(Extent::Chunked);
        }
        let Some(length) = self.fields.get("content-length") else { return Ok(Extent::Close) };
        length_of(length).map(Extent::Length).ok_or(Fault::Malformed)
    }
}

/// How long the first head is, how long its status line, and its field lines; `None`: it is not
/// whole.
fn lines(input: &mut [u8]) -> Result<Option<(usize, usize, Vec<Line>)>, Fault> {
    let Some((first, mut at)) = line(input, 0)? else { return Ok(None) };
    let mut lines = buffer::lines();
    while let Some((end, behind)) = line(input, at)? {
        if end == at {
            return if behind <= HEAD_LIMIT {
                Ok(Some((behind, first, lines)))
            } else {
                Err(Fault::Malformed)
            };
        }
        if lines.len() == MOST_FIELDS {
            return Err(Fault::Malformed);
        }
        lines.push(Line::read(input, at, end).ok_or(Fault::Malformed)?);
        at = behind;
    }
    Ok(None)
}

/// Where the line that begins here ends, without and with its line end; `None`: it is not whole.
fn line(input: &[u8], at: usize) -> Result<Option<(usize, usize)>, Fault> {
    let end = at + text_length(&input[at..]);
    match &input[end..] {
        [] | [b'\r'] => Ok(None),
        [b'\r', b'\n', ..] => Ok(Some((end, end + 2))),
        [b'\n', ..] => Ok(Some((end, end + 1))),
        _ => Err(Fault::Malformed),
    }
}

/// Whether what was read of a head is none already, since it does not begin as one.
fn malformed(input: &[u8]) -> bool {
    let begun = &input[..input.len().min(VERSION.len())];
    !VERSION.starts_with(begun)
}

/// RFC 9112, 4: whether the version is the old one, and the status. The reason may be missing, its
/// blank too.
fn status_line(line: &[u8]) -> Option<(bool, StatusCode)> {
    let (minor, rest) = line.strip_prefix(VERSION)?.split_first()?;
    let (code, reason) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
    let reasoned = reason.is_empty() || reason[0] == b' ';
    let old = match minor {
        b'0' => true,
        b'1' => false,
        _ => return None,
    };
    StatusCode::from_bytes(code).ok().filter(|_| reasoned).map(|status| (old, status))
}

/// RFC 9112, 9.3: an old connection ends unless it says otherwise, a new one goes on unless it does.
fn persistent(fields: &Fields, old: bool) -> bool {
    let mut persistent = !old;
    for option in fields.all("connection").flat_map(|value| value.split(|byte| *byte == b',')) {
        let option = option.trim_ascii();
        if option.eq_ignore_ascii_case(b"close") {
            return false;
        }
        persistent |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    persistent
}
