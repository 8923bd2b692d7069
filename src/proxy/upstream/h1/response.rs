//! The head of an upstream's answer: parsed, and what it says about its body and its connection.

use std::mem::MaybeUninit;

use bytes::BytesMut;
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

/// More fields than this make an answer malformed.
const MOST_FIELDS: usize = 100;

impl Head {
    /// Takes the first head out of what was read; `None` while it is not whole.
    pub fn take(input: &mut BytesMut) -> Result<Option<Self>, Fault> {
        let mut lines = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let status = config.parse_response_with_uninit_headers(&mut parsed, input, &mut lines);
        let length = match status.map_err(|_| Fault::Malformed)? {
            httparse::Status::Complete(length) if length <= HEAD_LIMIT => length,
            httparse::Status::Complete(_) => return Err(Fault::Malformed),
            httparse::Status::Partial => return Ok(None),
        };
        let (Some(code), Some(version)) = (parsed.code, parsed.version) else { return Err(Fault::Malformed) };
        let status = StatusCode::from_u16(code).map_err(|_| Fault::Malformed)?;
        let start = input.as_ptr() as usize;
        let mut ranges = [(0, 0, 0, 0); MOST_FIELDS];
        let count = parsed.headers.len();
        for (line, range) in parsed.headers.iter().zip(&mut ranges) {
            let at = |bytes: &[u8]| bytes.as_ptr() as usize - start;
            *range = (at(line.name.as_bytes()), line.name.len(), at(line.value), line.value.len());
        }
        let head = input.split_to(length).freeze();
        let mut fields = HeaderMap::with_capacity(count + 4);
        for &(name, name_len, value, value_len) in &ranges[..count] {
            let name = HeaderName::from_bytes(&head[name..name + name_len]).map_err(|_| Fault::Malformed)?;
            let value = HeaderValue::from_maybe_shared(head.slice(value..value + value_len))
                .map_err(|_| Fault::Malformed)?;
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
