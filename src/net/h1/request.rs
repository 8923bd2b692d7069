//! A judged head as the request that handlers get, and what it asks of its connection.

use bytes::BytesMut;
use http::{Method, Uri, Version};

use crate::{
    message::{Fields, Request},
    net::{Refusal, head::Head},
};

/// What the answer has to heed.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// Its head alone is wanted.
    pub head_only: bool,
    /// The client speaks HTTP/1.0.
    pub old: bool,
    /// The connection may go on after this exchange.
    pub persistent: bool,
    /// `TE: trailers`.
    pub trailers: bool,
    /// The body comes when it is asked for.
    pub expects: bool,
}

const MALFORMED: Refusal = Refusal::BadRequest("malformed request line");

pub fn parse(text: BytesMut, head: Head) -> Result<(Request<()>, Wishes), Refusal> {
    let method = Method::from_bytes(&text[head.method]).map_err(|_| MALFORMED)?;
    let fields = Fields::read(text, head.fields);
    let uri = Uri::from_maybe_shared(fields.text_read().slice(head.target)).map_err(|_| MALFORMED)?;
    let old = head.old;
    let version = if old { Version::HTTP_10 } else { Version::HTTP_11 };
    let mut wishes =
        Wishes { head_only: method == Method::HEAD, old, persistent: false, trailers: false, expects: false };
    let (mut closes, mut stays) = (false, false);
    for (name, value) in fields.iter() {
        match name {
            b"connection" => {
                closes |= says(value, b"close");
                stays |= says(value, b"keep-alive");
            }
            b"te" => wishes.trailers |= says(value, b"trailers"),
            b"expect" => wishes.expects |= !old && says(value, b"100-continue"),
            _ => {}
        }
    }
    // RFC 9112, 9.3: an old connection ends unless it says otherwise, a new one goes on unless it does.
    wishes.persistent = !closes && (!old || stays);
    Ok((Request { method, uri, version, fields, body: () }, wishes))
}

/// Whether a list has an option, parameters aside.
pub fn says(list: &[u8], option: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|one| {
        let one = one.split(|byte| *byte == b';').next().unwrap_or_default();
        one.trim_ascii().eq_ignore_ascii_case(option)
    })
}
