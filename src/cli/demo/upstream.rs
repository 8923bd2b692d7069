//! The example service behind the demo's gateway: returns what reached it, and streams without end.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::oneshot};

/// The example service on its own thread; stops when dropped.
pub struct ExampleServer {
    pub address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

enum ExampleBody {
    Whole(Option<Bytes>),
    Events { ticks: tokio::time::Interval, sent: u64 },
}

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
        ("text/event-stream", ExampleBody::Events { ticks: tokio::time::interval(EVENT_EVERY), sent: 0 })
    } else {
        ("application/json", ExampleBody::Whole(Some(render_request(&request))))
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
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

impl Body for ExampleBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            ExampleBody::Whole(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            ExampleBody::Events { ticks, sent } => {
                ready!(ticks.poll_tick(cx));
                *sent += 1;
                Poll::Ready(Some(Ok(Frame::data(format!("data: event {sent}\n\n").into()))))
            }
        }
    }
}
