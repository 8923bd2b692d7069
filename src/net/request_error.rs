//! Errors that prevent a client's bytes from becoming a request.

use bytes::Bytes;
use http::{Response, StatusCode, header};

use crate::authz::reason::{ErrorDetails, Reason};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// 400; the text ends "The request is malformed: …".
    BadRequest(&'static str),
    /// 501: an extended CONNECT (RFC 8441) for another protocol than WebSocket.
    UnknownProtocol,
    /// 408: the head did not arrive in time.
    HeadTimeout,
    /// 414.
    TargetTooLong,
    /// 421: the connection's certificate is not valid for the host.
    Misdirected,
    /// 431: the head, one field or the number of fields is too large.
    HeadTooLarge,
    /// 503: the process has no room for another HTTP/2 stream.
    OverBudget,
}

impl RequestError {
    pub fn status(self) -> StatusCode {
        Reason::from(self).status()
    }

    /// The response. That to a malformed request says what is malformed.
    pub fn details(self) -> ErrorDetails {
        let mut details = Reason::from(self).details(None);
        if let Self::BadRequest(what) = self {
            details.description = format!("{}: {what}", details.description);
        }
        details
    }
}

impl From<RequestError> for Reason {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::BadRequest(_) => Self::BadRequest,
            RequestError::UnknownProtocol => Self::UnknownProtocol,
            RequestError::HeadTimeout => Self::RequestTimeout,
            RequestError::TargetTooLong => Self::TargetTooLong,
            RequestError::Misdirected => Self::Misdirected,
            RequestError::HeadTooLarge => Self::HeadTooLarge,
            RequestError::OverBudget => Self::OverBudget,
        }
    }
}

/// Encodes an HTTP/1.1 response that closes the connection, for cases where hyper writes none.
pub(super) fn encode(response: &Response<Bytes>) -> Vec<u8> {
    let (status, body) = (response.status(), response.body());
    let reason = status.canonical_reason().unwrap_or("Refused");
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in response.headers() {
        if *name != header::CONNECTION && *name != header::CONTENT_LENGTH {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
    }
    bytes
        .extend_from_slice(format!("connection: close\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes
}
