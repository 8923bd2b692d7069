//! `/.permgate/jwks.json`: the public keys that verify assertions, for everyone.

use http::{HeaderValue, Method, Response, header};

use super::BuiltinResponse;
use crate::{
    authz::forwarding,
    proxy::{Gateway, context::RequestContext, rejection::Rejection},
};

impl Gateway {
    /// Needs no token and ignores one. If no assertions are signed, this is an unknown route.
    pub(super) fn jwks(&self, context: &RequestContext) -> BuiltinResponse {
        let Some(jwks) = self.parts.keyring.jwks() else { return self.not_found(context) };
        if !matches!(context.method, Method::GET | Method::HEAD) {
            return Err(Rejection::method_not_allowed("GET, HEAD"));
        }
        let mut response = Response::new(jwks.body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
        headers.insert(header::CACHE_CONTROL, jwks.caching);
        forwarding::set_request_id(headers, context.request_id.as_bytes());
        Ok(response)
    }
}
