//! A judged head as the request that handlers get, and what it asks of its connection.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};

use crate::net::{Limits, Refusal};

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

const MALFORMED: Refusal = Refusal::BadRequest("malformed head");

/// Fields that are parsed on the stack; a limit beyond it costs an allocation.
const USUAL_FIELDS: usize = 100;

pub fn parse(head: &Bytes, limits: &Limits) -> Result<(Request<()>, Wishes), Refusal> {
    let mut parsed = httparse::Request::new(&mut []);
    let mut usual = [const { MaybeUninit::uninit() }; USUAL_FIELDS];
    let mut more = Vec::new();
    let lines = if limits.fields <= USUAL_FIELDS {
        &mut usual[..]
    } else {
        more.resize_with(limits.fields, MaybeUninit::uninit);
        &mut more[..]
    };
    match parsed.parse_with_uninit_headers(head, lines) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
        Ok(httparse::Status::Partial) | Err(_) => return Err(MALFORMED),
    }
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(MALFORMED);
    };
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| MALFORMED)?;
    *request.uri_mut() = Uri::from_maybe_shared(head.slice_ref(target.as_bytes())).map_err(|_| MALFORMED)?;
    let old = version == 0;
    *request.version_mut() = if old { Version::HTTP_10 } else { Version::HTTP_11 };
    let fields = request.headers_mut();
    fields.reserve(parsed.headers.len() + ROOM);
    for line in parsed.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| MALFORMED)?;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(line.value)).map_err(|_| MALFORMED)?;
        fields.append(name, value);
    }
    let wishes = Wishes {
        head_only: request.method() == Method::HEAD,
        old,
        persistent: persistent(request.headers(), old),
        trailers: says(request.headers(), &header::TE, b"trailers"),
        expects: !old && says(request.headers(), &header::EXPECT, b"100-continue"),
    };
    Ok((request, wishes))
}

/// For the fields that a gateway sets.
const ROOM: usize = 10;

/// RFC 9112, 9.3: an old connection ends unless it says otherwise, a new one goes on unless it does.
pub fn persistent(fields: &HeaderMap, old: bool) -> bool {
    !says(fields, &header::CONNECTION, b"close") && (!old || says(fields, &header::CONNECTION, b"keep-alive"))
}

/// Whether a list has an option, parameters aside.
fn says(fields: &HeaderMap, name: &HeaderName, option: &[u8]) -> bool {
    if !fields.contains_key(name) {
        return false;
    }
    let options = fields.get_all(name).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut names = options.filter_map(|option| option.split(|byte| *byte == b';').next());
    names.any(|name| name.trim_ascii().eq_ignore_ascii_case(option))
}
