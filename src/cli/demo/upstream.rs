//! The example service behind the demo's gateway: returns what reached it, and streams without end.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::oneshot, time::Interval};

/// The example service on its own thread; stops when dropped.
pub struct ExampleServer {
    pub address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

type ExampleBody = UnsyncBoxBody<Bytes, Infallible>;

/// The interval between two events.
const EVENT_EVERY: Duration = Duration::from_millis(100);

impl ExampleServer {
    pub fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        std::thread::Builder::new().name("example".to_owned()).spawn(move || {
            runtime.spawn(serve(listener));
            // The sender was dropped.
            let _: Result<(), _> = runtime.block_on(stopped);
        })?;
        Ok(Self { address, _stop: stop })
    }
}

async fn serve(listener: TcpListener) {
    while let Ok((connection, _)) = listener.accept().await {
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(connection), service_fn(answer)));
    }
}

/// Answers every path with the request as it arrived; `/api/stream` with an event ten times a second.
async fn answer(request: Request<Incoming>) -> Result<Response<ExampleBody>, Infallible> {
    let (kind, body) = if request.uri().path() == "/api/stream" {
        ("text/event-stream", events())
    } else {
        ("application/json", Full::new(render_request(&request)).boxed_unsync())
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// Numbered events without end.
fn events() -> ExampleBody {
    let next = |(mut ticks, number): (Interval, u64)| async move {
        ticks.tick().await;
        let event = Frame::data(Bytes::from(format!("data: event {number}\n\n")));
        Some((Ok::<_, Infallible>(event), (ticks, number + 1)))
    };
    StreamBody::new(stream::unfold((tokio::time::interval(EVENT_EVERY), 1), next)).boxed_unsync()
}

/// The request line and headers as JSON: what a service behind permgate receives.
fn render_request<B>(request: &Request<B>) -> Bytes {
    let fields: serde_json::Map<String, serde_json::Value> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().into(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let text = serde_json::json!({
        "service": "example",
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
        "fields": fields,
    });
    Bytes::from(format!("{text:#}\n"))
}
