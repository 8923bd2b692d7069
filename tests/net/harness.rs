//! A worker on its own thread with a handler that acts by the path, and a client that sends raw bytes.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use permgate::net::{
    Address, BodyError, Bound, BoxError, BudgetLimits, Budgets, Connection, ConnectionEvent, Drain, Drained,
    Limits, Listener, RequestBody, RequestError, Service, Worker, bind, drain, serve, tls::Handshake,
};

pub use crate::wait::eventually;

/// What the handlers have observed, shared with the test's thread.
#[derive(Default)]
pub struct Seen {
    pub requests: AtomicUsize,
    pub refusals: Mutex<Vec<RequestError>>,
    /// Why connections of trusted proxies were closed.
    pub unannounced: Mutex<Vec<String>>,
    pub handshakes: Mutex<Vec<Handshake>>,
    /// Response bodies that exist.
    pub bodies: AtomicUsize,
    pub body_errors: Mutex<Vec<String>>,
    /// Handlers that are running.
    pub running: AtomicUsize,
}

pub struct Gate {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    pub budget: Arc<Budgets>,
    pub drain: Option<Drain>,
    workers: Vec<JoinHandle<Drained>>,
    commands: Vec<tokio::sync::mpsc::UnboundedSender<Command>>,
}

/// A command for a worker, which runs on the worker's thread.
pub enum Command {
    /// Aborts every connection that a handler has seen, and reports how many.
    AbortAll(mpsc::Sender<usize>),
    Limits(Limits),
}

pub struct Echo {
    seen: Arc<Seen>,
    connections: Rc<std::cell::RefCell<Vec<Rc<Connection>>>>,
}

impl Gate {
    pub fn new(limits: &Limits) -> Self {
        Self::with(1, limits, |listener| listener)
    }

    pub fn with(workers: usize, limits: &Limits, dress: impl Fn(Listener) -> Listener) -> Self {
        let bound = bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        Self::on(&bound, workers, limits, dress)
    }

    pub fn on(bound: &Bound, workers: usize, limits: &Limits, dress: impl Fn(Listener) -> Listener) -> Self {
        let address = match bound.local().unwrap() {
            Address::Tcp(address) => address,
            // The test that created a unix socket knows its path.
            Address::Unix(_) | Address::Inherited(_) => ([0, 0, 0, 0], 0).into(),
        };
        Self::within(Budgets::for_process(), bound, address, workers, limits, dress)
    }

    /// Starts one worker with these budgets.
    pub fn budgeted(budgets: &BudgetLimits) -> Self {
        let bound = bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let Address::Tcp(address) = bound.local().unwrap() else { unreachable!() };
        let budget = Budgets::for_proxy(budgets);
        Self::within(budget, &bound, address, 1, &Limits::default(), |listener| listener)
    }

    fn within(
        budget: Arc<Budgets>,
        bound: &Bound,
        address: SocketAddr,
        workers: usize,
        limits: &Limits,
        dress: impl Fn(Listener) -> Listener,
    ) -> Self {
        let seen = Arc::<Seen>::default();
        let (drain, draining) = drain();
        let (mut threads, mut commands) = (Vec::new(), Vec::new());
        for _ in 0..workers {
            let listener = dress(bound.listener().unwrap());
            let (limits, seen, budget) = (limits.clone(), seen.clone(), budget.clone());
            let draining = draining.clone();
            let (command, mut received) = tokio::sync::mpsc::unbounded_channel();
            commands.push(command);
            threads.push(std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                tokio::task::LocalSet::new().block_on(&runtime, async move {
                    let worker = Worker::new(limits, budget);
                    let handler = Rc::new(Echo { seen, connections: Rc::default() });
                    let (obeying, connections) = (worker.clone(), handler.connections.clone());
                    tokio::task::spawn_local(async move {
                        while let Some(command) = received.recv().await {
                            match command {
                                Command::Limits(limits) => obeying.set_limits(limits),
                                Command::AbortAll(sender) => {
                                    let all = connections.take();
                                    all.iter().for_each(|connection| connection.abort());
                                    sender.send(all.len()).unwrap();
                                }
                            }
                        }
                    });
                    serve(worker, listener, handler, draining).await.unwrap()
                })
            }));
        }
        Self { address, seen, budget, drain: Some(drain), workers: threads, commands }
    }

    pub fn client(&self) -> Client {
        Client::to(self.address)
    }

    pub fn abort_all(&self) -> usize {
        let (sender, receiver) = mpsc::channel();
        for worker in &self.commands {
            worker.send(Command::AbortAll(sender.clone())).ok().unwrap();
        }
        drop(sender);
        receiver.iter().sum()
    }

    pub fn set_limits(&self, limits: &Limits) {
        for worker in &self.commands {
            worker.send(Command::Limits(limits.clone())).ok().unwrap();
        }
    }

    /// Begins a drain and waits for its end. Returns how many connections were cut.
    pub fn end(mut self, within: Duration) -> usize {
        self.drain.take().unwrap().begin(Instant::now() + within);
        std::mem::take(&mut self.workers).into_iter().map(|worker| worker.join().unwrap().cut).sum()
    }
}

impl Service for Echo {
    type Body = Reply;

    async fn call(
        self: Rc<Self>,
        request: Box<Request<RequestBody>>,
        connection: Rc<Connection>,
    ) -> Response<Reply> {
        struct Running(Arc<Seen>);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.running.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.seen.requests.fetch_add(1, Ordering::SeqCst);
        self.seen.running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(self.seen.clone());
        if !self.connections.borrow().iter().any(|known| Rc::ptr_eq(known, &connection)) {
            self.connections.borrow_mut().push(connection.clone());
        }
        let (head, mut body) = request.into_parts();
        if head.uri.path() != "/refuse" {
            connection.set_permitted();
        }
        let (status, reply) = match head.uri.path() {
            // Reads the body and sends it back.
            "/echo" => match body.collect().await {
                Ok(all) => (200, BodyKind::Whole(Some(all.to_bytes()))),
                Err(error) => {
                    let status = if matches!(error, BodyError::Timeout) { 408 } else { 400 };
                    self.seen.body_errors.lock().unwrap().push(error.to_string());
                    (status, BodyKind::Whole(None))
                }
            },
            // Reads one frame of the body, then answers without the rest.
            "/taste" => {
                let _ = body.frame().await;
                (413, BodyKind::Whole(None))
            }
            "/refuse" => (401, BodyKind::Whole(Some(Bytes::from_static(b"no")))),
            "/endless" => (200, BodyKind::Endless),
            "/first" => (200, BodyKind::First(Some(Bytes::from_static(b"first")))),
            // Echoes what follows the response.
            "/tunnel" => {
                let client = connection.on_upgrade();
                tokio::task::spawn_local(async move {
                    let Ok(client) = client.await else { return };
                    let (mut from, mut to) = tokio::io::split(client);
                    if tokio::io::copy(&mut from, &mut to).await.is_ok() {
                        let _ = tokio::io::AsyncWriteExt::shutdown(&mut to).await;
                    }
                });
                (101, BodyKind::Whole(None))
            }
            "/never" => std::future::pending().await,
            "/broken" => (200, BodyKind::Broken(Some(Bytes::from_static(b"part")))),
            "/worker" => {
                let worker = format!("{:?}", std::thread::current().id());
                (200, BodyKind::Whole(Some(worker.into())))
            }
            "/peer" => (200, BodyKind::Whole(Some(format!("{:?}", connection.peer).into()))),
            "/secure" => (200, BodyKind::Whole(Some(connection.secure.to_string().into()))),
            path => (200, BodyKind::Whole(Some(Bytes::from(path.to_owned())))),
        };
        self.seen.bodies.fetch_add(1, Ordering::SeqCst);
        let mut response = Response::new(Reply { kind: reply, seen: self.seen.clone() });
        *response.status_mut() = status.try_into().unwrap();
        response
    }

    fn reject(
        &self,
        error: RequestError,
        _: Option<&http::request::Parts>,
        _: &Connection,
    ) -> Response<Bytes> {
        self.seen.refusals.lock().unwrap().push(error);
        let mut response = Response::new(Bytes::from(format!("refused {}", error.status())));
        *response.status_mut() = error.status();
        response
    }

    fn observe(&self, event: ConnectionEvent<'_>, _: &Connection) {
        match event {
            ConnectionEvent::Handshake(outcome) => self.seen.handshakes.lock().unwrap().push(outcome),
            ConnectionEvent::MissingProxyHeader(why) => {
                self.seen.unannounced.lock().unwrap().push(why.to_owned());
            }
            ConnectionEvent::Opened | ConnectionEvent::Closed => {}
        }
    }
}

pub struct Reply {
    kind: BodyKind,
    seen: Arc<Seen>,
}

enum BodyKind {
    Whole(Option<Bytes>),
    Endless,
    /// One chunk, then nothing.
    First(Option<Bytes>),
    /// One chunk, then an error.
    Broken(Option<Bytes>),
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let data = |bytes| Poll::Ready(Some(Ok(Frame::data(bytes))));
        match &mut self.kind {
            BodyKind::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            BodyKind::Endless => data(Bytes::from_static(&[b'x'; 16 << 10])),
            BodyKind::First(bytes) => bytes.take().map_or(Poll::Pending, data),
            BodyKind::Broken(bytes) => {
                bytes.take().map_or_else(|| Poll::Ready(Some(Err("broken".into()))), data)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, BodyKind::Whole(None))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match &self.kind {
            BodyKind::Whole(bytes) => {
                http_body::SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64))
            }
            _ => http_body::SizeHint::default(),
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.seen.bodies.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How a connection has ended for the client.
#[derive(Debug, PartialEq, Eq)]
pub enum CloseKind {
    Closed,
    Reset,
}

pub struct Client {
    pub socket: TcpStream,
    read: Vec<u8>,
}

impl Client {
    pub fn to(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        // A read that takes longer fails the test.
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { socket, read: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.socket.write_all(bytes.as_ref()).unwrap();
        self
    }

    pub fn get(&mut self, path: &str) -> &mut Self {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: gate\r\n\r\n"))
    }

    /// The next response that has a Content-Length: status and body.
    pub fn answer(&mut self) -> (u16, String) {
        let (head, status) = self.head();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            assert!(self.fill().unwrap() > 0, "the connection ended inside a body");
        }
        let body = self.read.drain(..length).collect();
        (status, String::from_utf8(body).unwrap())
    }

    /// Reads the next response's head and status only.
    pub fn head(&mut self) -> (String, u16) {
        let end = loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            let so_far = String::from_utf8_lossy(&self.read).into_owned();
            assert!(self.fill().unwrap() > 0, "the connection ended inside a head: {so_far:?}");
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let status = head[9..12].parse().unwrap();
        (head, status)
    }

    /// Reads until the connection ends.
    pub fn wait_for_close(&mut self) -> CloseKind {
        loop {
            match self.fill() {
                Ok(0) => return CloseKind::Closed,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return CloseKind::Reset;
                }
                Err(error) => panic!("neither closed nor reset: {error}"),
            }
        }
    }

    /// What has arrived but was not requested yet.
    pub fn unread(&self) -> &[u8] {
        &self.read
    }

    fn fill(&mut self) -> std::io::Result<usize> {
        let mut piece = [0; 16 << 10];
        let read = self.socket.read(&mut piece)?;
        self.read.extend_from_slice(&piece[..read]);
        Ok(read)
    }
}
