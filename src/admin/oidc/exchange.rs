//! Requests to the provider, above all the one that redeems an authorization code for tokens (RFC 6749,
//! 4.1.3, with RFC 7636).

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use serde_json::Value;

use super::{
    RelyingParty,
    flow::AuthorizationRequest,
    metadata::{Metadata, ProviderError},
    plain,
};
use crate::{issuer::Claims, net};

pub(super) struct Tokens {
    pub id_token: String,
    /// Used for `userinfo` only, and not stored.
    pub access_token: Option<String>,
}

impl RelyingParty {
    pub(super) async fn redeem(
        &self,
        metadata: &Metadata,
        code: &str,
        flow: &AuthorizationRequest,
    ) -> Result<Tokens, ProviderError> {
        let (fields, form) = self.request(metadata, code, flow)?;
        let (status, body) = self.ask(Method::POST, &metadata.token_endpoint, fields, form.into()).await?;
        if status.is_server_error() || body.is_null() {
            let why = format!("{}: the response is {status}", metadata.token_endpoint);
            return Err(ProviderError::Unreachable(why));
        }
        let text = |name: &str| body[name].as_str().map(str::to_owned);
        match (status, text("id_token")) {
            (StatusCode::OK, Some(id_token)) => {
                Ok(Tokens { id_token, access_token: text("access_token").filter(|_| is_bearer(&body)) })
            }
            (StatusCode::OK, None) => Err(ProviderError::Claims("there is no ID token")),
            _ => Err(ProviderError::Refused(plain(&text("error").unwrap_or_else(|| status.to_string())))),
        }
    }

    /// The header and form of the token request; the client's secret goes where the provider accepts it.
    fn request(
        &self,
        metadata: &Metadata,
        code: &str,
        flow: &AuthorizationRequest,
    ) -> Result<(HeaderMap, String), ProviderError> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", &self.redirect)
            .append_pair("code_verifier", &flow.verifier());
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        let mut fields = HeaderMap::from_iter([(header::CONTENT_TYPE, form_type)]);
        let client_id = &self.provider.client_id;
        let secret = self.provider.client_secret.as_ref().map(|secret| secret.0.to_str());
        match secret.transpose().map_err(|_| ProviderError::Claims("the client's secret is not text"))? {
            Some(secret) if metadata.has_secret_in_form() => {
                form.append_pair("client_id", client_id).append_pair("client_secret", secret);
            }
            Some(secret) => {
                fields.insert(header::AUTHORIZATION, basic(client_id, secret)?);
            }
            None => {
                form.append_pair("client_id", client_id);
            }
        }
        Ok((fields, form.finish()))
    }
}

fn is_bearer(body: &Value) -> bool {
    body["token_type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"))
}

/// HTTP Basic credentials; RFC 6749, 2.3.1 form-encodes both parts first.
fn basic(client_id: &str, secret: &str) -> Result<HeaderValue, ProviderError> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(client_id), encoded(secret));
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())))
        .map_err(|_| ProviderError::Claims("the client's secret is not text"))?;
    value.set_sensitive(true);
    Ok(value)
}

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
