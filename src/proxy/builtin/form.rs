//! Reads the form body of a request to one of the gateway's own routes.

use std::{collections::HashMap, rc::Rc};

use http::{HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Limited};

use crate::{
    authz::reason::Reason,
    net::RequestBody,
    proxy::{body::body_error, context::RequestContext},
};

/// In bytes. Identity providers' tokens that list groups have several thousand.
const MAX_FORM: usize = 64 << 10;

/// Reads the fields of an `application/x-www-form-urlencoded` body. A repeated field is
/// an error (RFC 6749, section 3.2).
pub async fn read(
    request: Request<RequestBody>,
    context: &Rc<RequestContext>,
) -> Result<HashMap<String, String>, Reason> {
    let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let kind = kind.and_then(|kind| kind.split(|byte| *byte == b';').next()).unwrap_or_default();
    if !kind.trim_ascii().eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
        return Err(Reason::BadRequest);
    }
    let body = Limited::new(request.into_body(), MAX_FORM).collect().await;
    let body = body.map_err(|error| body_error(&error))?.to_bytes();
    let received = &context.outcome.bytes_in;
    received.set(received.get() + body.len() as u64);
    let mut form = HashMap::new();
    for (name, value) in form_urlencoded::parse(&body) {
        if form.insert(name.into_owned(), value.into_owned()).is_some() {
            return Err(Reason::BadRequest);
        }
    }
    Ok(form)
}
