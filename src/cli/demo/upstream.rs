//! The example service behind the demo's gateway: returns what reached it, and streams without end.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::{Body, Frame};
use tokio::task::LocalSet;

use crate::net::{
    self, Address, Budgets, Connection, Drain, Limits, RequestBody, RequestError, Service, Worker,
};

/// Answers every path with the request as it arrived; `/api/stream` with an event ten times a second.
pub struct Example;

pub enum ExampleBody {
    Whole(Option<Bytes>),
    Events { ticks: tokio::time::Interval, sent: u64 },
}

/// The interval between two events.
const EVENT_EVERY: Duration = Duration::from_millis(100);

impl Service for Example {
    type Body = ExampleBody;

    async fn call(
        self: Rc<Self>,
        request: Box<Request<RequestBody>>,
        _connection: Rc<Connection>,
    ) -> Response<ExampleBody> {
        let (kind, body) = if request.uri().path() == "/api/stream" {
            ("text/event-stream", ExampleBody::Events { ticks: tokio::time::interval(EVENT_EVERY), sent: 0 })
        } else {
            ("application/json", ExampleBody::Whole(Some(render_request(&request))))
        };
        let mut response = Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    fn reject(&self, error: RequestError, _connection: &Connection) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = error.status();
        response
    }
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

/// The example service on its own thread; stops when dropped.
pub struct ExampleServer {
    pub address: SocketAddr,
    drain: Option<Drain>,
    thread: Option<JoinHandle<()>>,
}

impl ExampleServer {
    pub fn start() -> io::Result<Self> {
        let bound = net::bind(&Address::Tcp((Ipv4Addr::LOCALHOST, 0).into())).map_err(io::Error::other)?;
        let Address::Tcp(address) = bound.local()? else { return Err(io::ErrorKind::Unsupported.into()) };
        let listener = bound.listener()?;
        let (drain, draining) = net::drain();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("example".to_owned()).spawn(move || {
            LocalSet::new().block_on(&runtime, async {
                let worker = Worker::new(Limits::default(), Budgets::for_process());
                if let Err(error) = net::serve(worker, listener, Rc::new(Example), draining).await {
                    tracing::error!("the example service has ended: {error}");
                }
            });
        })?;
        Ok(Self { address, drain: Some(drain), thread: Some(thread) })
    }
}

impl Drop for ExampleServer {
    fn drop(&mut self) {
        if let Some(drain) = self.drain.take() {
            drain.begin(Instant::now());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
