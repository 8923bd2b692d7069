//! Why something that a client sent never became a request.

use bytes::Bytes;
use http::StatusCode;

use crate::message::{Names, Response, ResponseHead, put_field};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 400; the word is for the log.
    BadRequest(&'static str),
    /// 408: the head did not come in time.
    HeadTimeout,
    /// 414.
    TargetTooLong,
    /// 421: the host is not one that the connection's certificate was shown for.
    Misdirected,
    /// 431: the head in all, one field, or their number.
    HeadTooLarge,
}

impl Refusal {
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }
}

/// The bytes of an answer after which the connection closes.
pub(super) fn encode(response: Response<Bytes>) -> Vec<u8> {
    let (ResponseHead { status, fields }, body) = response.into_parts();
    let reason = status.canonical_reason().unwrap_or("Refused");
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    fields.put_but(Names::of(&["connection", "content-length"]), &mut bytes);
    put_field(&mut bytes, b"connection", b"close");
    put_field(&mut bytes, b"content-length", body.len().to_string().as_bytes());
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    bytes
}
