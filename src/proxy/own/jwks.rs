//! `/.permgate/jwks.json`: the public keys of assertions, for everybody who verifies them.

use bytes::Bytes;
use http::{HeaderValue, Method};

use crate::{
    message::Response,
    proxy::{Gateway, exchange::Exchange, rejection::Rejection},
};

impl Gateway {
    /// No token is asked for, nor looked at. Where nothing is signed there is nothing here.
    pub(super) fn jwks(&self, exchange: &Exchange) -> Result<Response<Bytes>, Rejection> {
        let Some(jwks) = self.parts.keyring.jwks() else { return self.nothing(exchange) };
        if !matches!(exchange.method, Method::GET | Method::HEAD) {
            return Err(Rejection::method_not_allowed("GET, HEAD"));
        }
        let mut response = Response::new(jwks.body);
        let fields = &mut response.fields;
        fields.set("content-type", &HeaderValue::from_static("application/jwk-set+json"));
        fields.set("cache-control", &jwks.caching);
        fields.add_text("x-request-id", exchange.request_id.as_bytes());
        Ok(response)
    }
}
