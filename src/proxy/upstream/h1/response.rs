//! The head of an upstream's answer: parsed, and what it says about its body and its connection.

use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::Fault;
use crate::proxy::upstream::HEAD_LIMIT;

pub struct Head {
    pub status: StatusCode,
    pub fields: HeaderMap,
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

/// For the fields that a gateway sets.
const ROOM: usize = 4;

/// More fields than this make an answer malformed.
const MOST_FIELDS: usize = 100;

impl Head {
    /// Takes the first head out of what was read; `None` while it is not whole.
    pub fn take(input: &mut BytesMut) -> Result<Option<Self>, Fault> {
        // Empty lines before an answer are none of it.
        let blank = input.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        input.advance(blank);
        let length = match length(input) {
            Some(length) if length <= HEAD_LIMIT => length,
            None if !malformed(input) => return Ok(None),
            Some(_) | None => return Err(Fault::Malformed),
        };
        let head = input.split_to(length).freeze();
        let mut lines = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut parsed, &head, &mut lines) {
            Ok(httparse::Status::Complete(end)) if end == length => {}
            Ok(_) | Err(_) => return Err(Fault::Malformed),
        }
        let (Some(code), Some(version)) = (parsed.code, parsed.version) else { return Err(Fault::Malformed) };
        let status = StatusCode::from_u16(code).map_err(|_| Fault::Malformed)?;
        let mut fields = HeaderMap::with_capacity(parsed.headers.len() + ROOM);
        for line in parsed.headers.iter() {
            let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| Fault::Malformed)?;
            let value =
                HeaderValue::from_maybe_shared(head.slice_ref(line.value)).map_err(|_| Fault::Malformed)?;
            fields.append(name, value);
        }
        let old = version == 0;
        if old && fields.contains_key(header::TRANSFER_ENCODING) {
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
        if self.fields.contains_key(header::TRANSFER_ENCODING) {
            return Ok(Extent::Chunked);
        }
        let Some(length) = self.fields.get(header::CONTENT_LENGTH) else { return Ok(Extent::Close) };
        let length = length.to_str().ok().and_then(|length| length.parse().ok());
        length.map(Extent::Length).ok_or(Fault::Malformed)
    }
}

/// How long the first head is, by its empty line: so that it is parsed once, when it is whole.
fn length(input: &[u8]) -> Option<usize> {
    let mut line = 0;
    while let Some(end) = memchr::memchr(b'\n', &input[line..]) {
        line += end + 1;
        match input[line..] {
            [b'\r', b'\n', ..] => return Some(line + 2),
            [b'\n', ..] => return Some(line + 1),
            _ => {}
        }
    }
    None
}

/// Whether what was read of a head is none already.
#[cold]
fn malformed(input: &[u8]) -> bool {
    let mut lines = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    config.parse_response_with_uninit_headers(&mut parsed, input, &mut lines).is_err()
}

/// RFC 9112, 9.3: an old connection ends unless it says otherwise, a new one goes on unless it does.
fn persistent(fields: &HeaderMap, old: bool) -> bool {
    let mut persistent = !old;
    for value in fields.get_all(header::CONNECTION) {
        for option in value.as_bytes().split(|byte| *byte == b',') {
            let option = option.trim_ascii();
            if option.eq_ignore_ascii_case(b"close") {
                return false;
            }
            persistent |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    persistent
}
