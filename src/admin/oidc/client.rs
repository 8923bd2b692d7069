//! Asks the provider: one request a connection, bounded in time and in size, following nobody.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{claims::Claims, metadata::ProviderError};

/// One question and its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Metadata, keys and tokens are far smaller.
const LARGEST: usize = 512 << 10;

pub(super) struct Client {
    /// `None`: the provider is on this machine, in plain text.
    tls: Option<TlsConnector>,
}

impl Client {
    pub(super) fn new(tls: Option<TlsConnector>) -> Self {
        Self { tls }
    }

    /// A document.
    pub(super) async fn get(&self, url: &str) -> Result<Value, ProviderError> {
        let (status, body) = self.ask(Method::GET, url, HeaderMap::new(), Bytes::new()).await?;
        sound(url, status, body)
    }

    /// A form, and whatever the answer's status is.
    pub(super) async fn post(
        &self,
        url: &str,
        mut fields: HeaderMap,
        form: String,
    ) -> Result<(StatusCode, Value), ProviderError> {
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        fields.insert(header::CONTENT_TYPE, kind);
        self.ask(Method::POST, url, fields, form.into()).await
    }

    /// What the provider says of whoever the access token is of.
    pub(super) async fn userinfo(&self, url: &str, bearer: &str) -> Result<Claims, ProviderError> {
        let mut value = HeaderValue::try_from(format!("Bearer {bearer}"))
            .map_err(|_| ProviderError::Claims("the access token is none"))?;
        value.set_sensitive(true);
        let fields = [(header::AUTHORIZATION, value)].into_iter().collect();
        let (status, body) = self.ask(Method::GET, url, fields, Bytes::new()).await?;
        match sound(url, status, body)? {
            Value::Object(claims) => Ok(claims),
            _ => Err(ProviderError::Claims("userinfo is no object")),
        }
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        fields: HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, Value), ProviderError> {
        let told = |why: String| ProviderError::Unreachable(format!("{url}: {why}"));
        let asked = tokio::time::timeout(PATIENCE, self.exchange(method, url, fields, body));
        let (status, body) = asked.await.map_err(|_| told("no answer in time".to_owned()))?.map_err(told)?;
        let value = serde_json::from_slice(&body);
        Ok((status, value.unwrap_or(Value::Null)))
    }

    async fn exchange(
        &self,
        method: Method,
        url: &str,
        fields: HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), String> {
        let uri: Uri = url.parse().map_err(|_| "not a URL".to_owned())?;
        let authority = uri.authority().ok_or("no host")?;
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().map_err(|_| "not a path")?;
        *request.headers_mut() = fields;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| "not a host")?;
        request.headers_mut().insert(header::HOST, host);
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("permgate"));
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let encrypted = uri.scheme_str() == Some("https");
        let port = authority.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        // The runtime tries every address that the name has.
        let stream = TcpStream::connect((name.as_str(), port)).await.map_err(|error| error.to_string())?;
        match (encrypted, &self.tls) {
            (true, Some(tls)) => {
                let server = ServerName::try_from(name).map_err(|error| error.to_string())?;
                let stream = tls.connect(server, stream).await.map_err(|error| error.to_string())?;
                over(stream, request).await
            }
            (true, None) => Err("the issuer is in plain text, this is not".to_owned()),
            (false, _) => over(stream, request).await,
        }
    }
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let exchanged = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LARGEST).collect().await;
        Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
    };
    let exchanged = exchanged.await;
    driver.abort();
    exchanged
}

fn sound(url: &str, status: StatusCode, body: Value) -> Result<Value, ProviderError> {
    match status {
        StatusCode::OK if !body.is_null() => Ok(body),
        StatusCode::OK => Err(ProviderError::Unreachable(format!("{url}: the answer is not JSON"))),
        _ => Err(ProviderError::Unreachable(format!("{url}: the answer is {status}"))),
    }
}
