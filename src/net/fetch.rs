//! One request to a server that is not an upstream, such as a token issuer. Bounded in time and size;
//! redirects are not followed.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::BoxError;

/// The time limit for one request and its response.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest response body, in bytes. Metadata, keys and tokens are far smaller.
const MAX_BODY: usize = 512 << 10;

/// Requests JSON at the request's absolute URL: `https` with `tls`, `http` without, and never otherwise. The
/// error says why there is no complete response.
pub async fn fetch(
    request: Request<Full<Bytes>>,
    tls: Option<&TlsConnector>,
) -> Result<(StatusCode, Bytes), String> {
    let response = tokio::time::timeout(FETCH_TIMEOUT, send(request, tls)).await;
    response.map_err(|_| "no response in time".to_owned())?.map_err(|error| error.to_string())
}

async fn send(
    mut request: Request<Full<Bytes>>,
    tls: Option<&TlsConnector>,
) -> Result<(StatusCode, Bytes), BoxError> {
    let uri = request.uri().clone();
    let authority = uri.authority().ok_or("no host")?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    *request.uri_mut() = target.parse().map_err(|_| "not a path")?;
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| "not a host")?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host);
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("permgate"));
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    // Tries every address of the name.
    let connect = async || TcpStream::connect((&*name, port)).await;
    match (uri.scheme_str(), tls) {
        (Some("https"), Some(tls)) => {
            let server = ServerName::try_from(name.clone())?;
            send_over(tls.connect(server, connect().await?).await?, request).await
        }
        (Some("http"), None) => send_over(connect().await?, request).await,
        _ => Err("less protected than the issuer's URL".into()),
    }
}

async fn send_over(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(StatusCode, Bytes), BoxError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let exchanged = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok((status, Limited::new(response.into_body(), MAX_BODY).collect().await?.to_bytes()))
    };
    let exchanged = exchanged.await;
    driver.abort();
    exchanged
}
