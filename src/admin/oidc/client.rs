//! Requests to the provider.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use serde_json::Value;

use super::{RelyingParty, metadata::ProviderError};
use crate::{issuer::Claims, net};

impl RelyingParty {
    /// The claims of the user whom the access token was issued for.
    pub(super) async fn userinfo(&self, url: &str, bearer: &str) -> Result<Claims, ProviderError> {
        let mut value = HeaderValue::try_from(format!("Bearer {bearer}"))
            .map_err(|_| ProviderError::Claims("the access token is invalid"))?;
        value.set_sensitive(true);
        let fields = [(header::AUTHORIZATION, value)].into_iter().collect();
        let (status, body) = self.ask(Method::GET, url, fields, Bytes::new()).await?;
        match (status, body) {
            (StatusCode::OK, Value::Object(claims)) => Ok(claims),
            (StatusCode::OK, _) => Err(ProviderError::Claims("userinfo is no object")),
            _ => Err(ProviderError::Unreachable(format!("{url}: the response is {status}"))),
        }
    }

    /// The response whatever its status; its body is null unless it is JSON.
    pub(super) async fn ask(
        &self,
        method: Method,
        url: &str,
        fields: HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, Value), ProviderError> {
        let failed = |why: String| ProviderError::Unreachable(format!("{url}: {why}"));
        let request = Request::builder().method(method).uri(url).body(Full::new(body));
        let mut request = request.map_err(|_| failed("not a URL".to_owned()))?;
        *request.headers_mut() = fields;
        let (status, body) = net::fetch(request, self.tls.as_ref()).await.map_err(failed)?;
        let value = serde_json::from_slice(&body);
        Ok((status, value.unwrap_or(Value::Null)))
    }
}
