//! One document of an issuer: bounded in time and in size, following nobody.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::settings::{HttpVersion, UpstreamTls};

/// For one document.
const PATIENCE: Duration = Duration::from_secs(10);
/// In bytes; metadata and keys are far smaller.
const LARGEST: usize = 512 << 10;

/// Over TLS where the issuer is reached so; then nothing of it is fetched in clear text.
pub async fn document(url: &str, tls: Option<&UpstreamTls>) -> Result<Value, String> {
    let fetched = tokio::time::timeout(PATIENCE, fetch(url, tls)).await;
    let body = fetched.map_err(|_| "no answer in time".to_owned()).and_then(|fetched| fetched);
    let body = body.map_err(|why| format!("{url}: {why}"))?;
    serde_json::from_slice(&body).map_err(|error| format!("{url}: {error}"))
}

async fn fetch(url: &str, tls: Option<&UpstreamTls>) -> Result<Bytes, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let uri: Uri = url.parse().map_err(|error| text(&error))?;
    let authority = uri.authority().ok_or("no host")?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() =
        uri.path_and_query().map_or("/", |target| target.as_str()).parse().map_err(|_| "not a path")?;
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| "not a host")?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host);
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("permgate"));
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = |default| (name.clone(), authority.port_u16().unwrap_or(default));
    let connect = async |port: (String, u16)| TcpStream::connect(port).await.map_err(|error| text(&error));
    match (uri.scheme_str(), tls) {
        (Some("https"), Some(tls)) => {
            let stream = connect(port(443)).await?;
            let server = ServerName::try_from(name.clone()).map_err(|error| text(&error))?;
            let connector = tls.connector(HttpVersion::Http1);
            over(connector.connect(server, stream).await.map_err(|error| text(&error))?, request).await
        }
        (Some("http"), None) => over(connect(port(80)).await?, request).await,
        _ => Err("not reached as safely as the issuer".to_owned()),
    }
}

async fn over(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Bytes, String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let exchanged = async {
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the answer is {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), LARGEST).collect().await;
        Ok(body.map_err(|error| error.to_string())?.to_bytes())
    };
    let exchanged = exchanged.await;
    driver.abort();
    exchanged
}
