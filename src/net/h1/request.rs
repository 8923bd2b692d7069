//! A judged head as the request that handlers get, and what it asks of its connection.

use bytes::BytesMut;
use http::{Method, Version};

use crate::{
    message::{Fields, RequestHead, Target},
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

pub fn parse(text: BytesMut, head: Head) -> Result<(RequestHead, Wishes), Refusal> {
    let method = Method::from_bytes(&text[head.method]).map_err(|_| MALFORMED)?;
    let target = Target::parse(&text[head.target]).ok_or(MALFORMED)?;
    let fields = Fields::read(text, head.fields);
    let old = head.old;
    let version = if old { Version::HTTP_10 } else { Version::HTTP_11 };
    let any = |name, option| fields.all(name).any(|value| says(value, option));
    let (closes, stays) = (any("connection", b"close"), old && any("connection", b"keep-alive"));
    let wishes = Wishes {
        head_only: method == Method::HEAD,
        old,
        // RFC 9112, 9.3: an old connection ends unless it says otherwise, a new one goes on unless it does.
        persistent: !closes && (!old || stays),
        trailers: any("te", b"trailers"),
        expects: !old && any("expect", b"100-continue"),
    };
    Ok((RequestHead { method, target, version, fields }, wishes))
}

/// Whether a list has an option, parameters aside.
pub fn says(list: &[u8], option: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|one| {
        let one = one.split(|byte| *byte == b';').next().unwrap_or_default();
        one.trim_ascii().eq_ignore_ascii_case(option)
    })
}
