//! A client of the admin API: over a unix socket or TCP with one connection per request, or offline.

use std::{cell::OnceCell, io::Write, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize as _;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    runtime::Runtime,
};

use super::{
    Global,
    failure::{Failure, reason},
    hint,
    offline::Offline,
    output::items,
    target::{self, Target},
};
use crate::admin::{ConfigurationError, wire::UNRESERVED};

pub(super) enum Client {
    Listener(Box<Listener>),
    /// The same API, on a store that no gateway has open.
    Offline(Box<Offline>),
}

/// The admin listener of a running gateway.
pub(super) struct Listener {
    targets: Vec<Target>,
    authorization: Option<HeaderValue>,
    runtime: Runtime,
    /// The target that accepted the first connection.
    accepted: OnceCell<Target>,
    /// A unix socket, which would need no token, that this user may not connect to.
    forbidden: OnceCell<Target>,
}

/// A response's status and body.
pub(super) struct ApiResponse {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

/// A fence takes 5 s at most; a queue of imports before it may take longer.
const TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Pages are far smaller; the limit protects against a listener that is not permgate.
const MAX_RESPONSE: usize = 64 << 20;

impl Client {
    pub(super) fn new(global: &Global) -> Result<Self, Failure> {
        if global.offline {
            if global.admin.is_some() {
                let message =
                    "--offline opens the store itself: omit --admin ADDRESS, and unset PERMGATE_ADMIN";
                return Err(Failure::usage(message));
            }
            return Offline::new(global).map(Box::new).map(Self::Offline);
        }
        match target::token(global)? {
            Some((token, Some(target))) => Self::of(vec![target], Some(&token)),
            Some((token, None)) => Self::of(Target::candidates(global)?, Some(&token)),
            None => Self::of(Target::candidates(global)?, None),
        }
    }

    /// A client for calls that need no authentication.
    pub(super) fn without_token(global: &Global) -> Result<Self, Failure> {
        Self::of(Target::candidates(global)?, None)
    }

    /// A client of the first of these listeners that accepts a connection.
    pub(super) fn of(targets: Vec<Target>, token: Option<&str>) -> Result<Self, Failure> {
        let unfit = "PERMGATE_TOKEN, or the token file, contains characters that a token cannot have";
        let bearer = token.map(|token| HeaderValue::try_from(format!("Bearer {token}"))).transpose();
        let mut authorization = bearer.map_err(|_| Failure::usage(unfit))?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (accepted, forbidden) = (OnceCell::new(), OnceCell::new());
        Ok(Self::Listener(Box::new(Listener { targets, authorization, runtime, accepted, forbidden })))
    }

    /// The listener that was reached, if any.
    pub(super) fn target(&self) -> Option<&Target> {
        match self {
            Self::Listener(listener) => listener.accepted.get(),
            Self::Offline(_) => None,
        }
    }

    pub(super) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.call(&Method::GET, path, None)
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(&Method::POST, path, Some(body))
    }

    pub(super) fn put(&self, path: &str) -> Result<Value, Failure> {
        self.call(&Method::PUT, path, None)
    }

    pub(super) fn patch(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.call(&Method::PATCH, path, Some(body))
    }

    pub(super) fn delete(&self, path: &str) -> Result<Value, Failure> {
        self.call(&Method::DELETE, path, None)
    }

    /// Reads all pages of a list, up to `most` records. `path` may have a query.
    pub(super) fn list(&self, path: &str, most: Option<usize>) -> Result<Vec<Value>, Failure> {
        self.list_while(path, most, |_| true)
    }

    /// The records of all pages before the first one that is not wanted.
    pub(super) fn list_while(
        &self,
        path: &str,
        most: Option<usize>,
        is_wanted: impl Fn(&Value) -> bool,
    ) -> Result<Vec<Value>, Failure> {
        let mut records = Vec::new();
        self.each_page(path, |items| {
            records.extend(items.iter().take_while(|item| is_wanted(item)).cloned());
            items.iter().all(&is_wanted) && most.is_none_or(|most| records.len() < most)
        })?;
        records.truncate(most.unwrap_or(usize::MAX));
        Ok(records)
    }

    /// Has `take` read one page of a list after the other, until it returns false.
    pub(super) fn each_page(
        &self,
        path: &str,
        mut take: impl FnMut(&[Value]) -> bool,
    ) -> Result<(), Failure> {
        let mut cursor: Option<String> = None;
        loop {
            let mark = if path.contains('?') { '&' } else { '?' };
            let page = match &cursor {
                None => self.get(path)?,
                Some(cursor) => self.get(&format!("{path}{mark}cursor={}", escape(cursor)))?,
            };
            let Some(items) = page["items"].as_array() else {
                return Err(Failure::failed(
                    "the admin listener did not answer with a list: is this address a permgate?",
                ));
            };
            let next = page["next"].as_str().map(str::to_owned);
            if !take(items) || next.is_none() || next == cursor {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// The body of a success; any other response is a failure.
    pub(super) fn call(&self, method: &Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let response = self.send(method, path, body)?;
        if response.status.is_success() {
            return Ok(response.body);
        }
        let failure = hint::name_missing(self, response_failure(&response), path, body);
        let forbidden = match self {
            Self::Listener(listener) => listener.forbidden.get(),
            Self::Offline(_) => None,
        };
        Err(match forbidden.filter(|_| response.status == StatusCode::UNAUTHORIZED) {
            Some(socket) => failure.with_line(&format!(
                "or run this as root or as the gateway's own user, who need none: {socket} is closed to this user"
            )),
            None => failure,
        })
    }

    pub(super) fn send(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<ApiResponse, Failure> {
        let request = request(method, path, body)?;
        match self {
            Self::Listener(listener) => listener.send(request),
            Self::Offline(offline) => offline.send(request),
        }
    }
}

impl Listener {
    fn send(&self, request: Request<Bytes>) -> Result<ApiResponse, Failure> {
        self.runtime.block_on(async {
            let (connection, target) = self.connect().await?;
            let exchange = async {
                let response = self.ask(connection, &target, request).await?;
                read_response(response, &target).await
            };
            let late = |_| Failure::failed(format!("{target} did not answer within {} s", TIMEOUT.as_secs()));
            tokio::time::timeout(TIMEOUT, exchange).await.map_err(late)?
        })
    }

    /// Writes a response of any length to `out` as it arrives; `on_progress` gets the bytes so far.
    pub(super) fn download(
        &self,
        path: &str,
        out: &mut dyn Write,
        on_progress: &mut dyn FnMut(u64),
    ) -> Result<u64, Failure> {
        self.runtime.block_on(async {
            let (connection, target) = self.connect().await?;
            let response = self.ask(connection, &target, request(&Method::GET, path, None)?).await?;
            if !response.status().is_success() {
                return Err(response_failure(&read_response(response, &target).await?));
            }
            let (mut body, mut written) = (response.into_body(), 0);
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame.map_err(|error| ended_early(&target, &error))?.into_data() {
                    out.write_all(&data)?;
                    written += u64::try_from(data.len()).unwrap_or(u64::MAX);
                    on_progress(written);
                }
            }
            Ok(written)
        })
    }

    /// Connects to the first target that accepts.
    async fn connect(&self) -> Result<(Box<dyn Connection>, Target), Failure> {
        let mut tried = Vec::new();
        for target in &self.targets {
            let connecting = async {
                Ok::<Box<dyn Connection>, std::io::Error>(match target {
                    Target::Unix(path) => Box::new(UnixStream::connect(path).await?),
                    Target::Tcp(authority) => Box::new(TcpStream::connect(authority).await?),
                })
            };
            match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(Ok(connection)) => {
                    let _ = self.accepted.set(target.clone());
                    return Ok((connection, target.clone()));
                }
                Ok(Err(error)) => {
                    if error.kind() == std::io::ErrorKind::PermissionDenied {
                        let _ = self.forbidden.set(target.clone());
                    }
                    tried.push(format!("{target}: {}", reason(&error)));
                }
                Err(_) => {
                    tried.push(format!("{target}: no connection within {} s", CONNECT_TIMEOUT.as_secs()));
                }
            }
        }
        let message = format!("cannot reach the admin listener\n  {}", tried.join("\n  "));
        let advice = "Is `permgate run` running? Name another one with -c FILE or --admin ADDRESS";
        Err(Failure::unreachable(format!("{message}\n  {advice}")))
    }

    /// Sends the request; the response's body is yet to be read.
    async fn ask(
        &self,
        connection: Box<dyn Connection>,
        target: &Target,
        mut request: Request<Bytes>,
    ) -> Result<Response<Incoming>, Failure> {
        let broken = |error: hyper::Error| Failure::unreachable(format!("{target}: {error}"));
        let (mut sender, driver) = http1::handshake(TokioIo::new(connection)).await.map_err(broken)?;
        // Ends with the response, or with the command.
        tokio::spawn(driver);
        if let Target::Tcp(authority) = target {
            let host = HeaderValue::from_str(authority).expect("an authority is visible ASCII");
            request.headers_mut().insert(header::HOST, host);
        }
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
        }
        sender.send_request(request.map(Full::new)).await.map_err(broken)
    }
}

fn request(method: &Method, path: &str, body: Option<&Value>) -> Result<Request<Bytes>, Failure> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("permgate/", env!("CARGO_PKG_VERSION")));
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let unfit = |error| Failure::usage(format!("{path:?} is not a valid request path: {error}"));
    request.body(bytes).map_err(unfit)
}

/// The whole response.
async fn read_response(response: Response<Incoming>, target: &Target) -> Result<ApiResponse, Failure> {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_RESPONSE).collect().await;
    Ok(ApiResponse::new(status, &body.map_err(|error| ended_early(target, &error))?.to_bytes()))
}

fn ended_early(target: &Target, error: &dyn std::fmt::Display) -> Failure {
    Failure::failed(format!("{target}: the response ended early: {error}"))
}

impl ApiResponse {
    pub(super) fn new(status: StatusCode, body: &[u8]) -> Self {
        let text = |_| Value::String(String::from_utf8_lossy(body).into_owned());
        Self { status, body: serde_json::from_slice(body).unwrap_or_else(text) }
    }
}

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// The failure for a refusal, with advice; the exit code follows from the status.
pub(super) fn response_failure(response: &ApiResponse) -> Failure {
    let ApiResponse { status, body } = response;
    let code = body["error"].as_str().unwrap_or(status.canonical_reason().unwrap_or("refused"));
    let mut message = match body["error_description"].as_str() {
        Some(description) => format!("{description} ({code})"),
        None => format!("the admin listener answered {status}"),
    };
    for error in items(&body["errors"]) {
        let text =
            ConfigurationError::deserialize(error).map_or_else(|_| error.to_string(), |one| one.to_string());
        message.push_str("\n  ");
        message.push_str(&text);
    }
    if *status == StatusCode::UNAUTHORIZED {
        message.push_str("\n  Set PERMGATE_TOKEN or --token-file to a token whose scope includes `permgate`");
    }
    Failure::of_status(status.as_u16(), message).with_error(code)
}

/// The path of a record, which its list has under this name.
pub(super) fn path_of(list: &str, name: &str) -> String {
    format!("/v1/{list}/{}", escape(name))
}

/// Percent-encodes a path segment or a query value.
pub(super) fn escape(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// A body with those of the fields that have a value.
pub(super) fn without_nulls(mut body: Value) -> Value {
    if let Value::Object(fields) = &mut body {
        fields.retain(|_, value| !value.is_null());
    }
    body
}
