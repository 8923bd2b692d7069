//! HTTP/2 on a listener: responses, limits, timeouts, and streams that end independently.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    client::{self, SendRequest},
};
use http::{Request, Response};
use permgate::net::Limits;
use tokio::{net::TcpStream, task::JoinHandle};

use crate::harness::{Gate, eventually};

/// A client with one connection.
struct Speaker {
    requests: SendRequest<Bytes>,
    /// Ends with the connection.
    driver: JoinHandle<Result<(), h2::Error>>,
}

impl Speaker {
    async fn to(gate: &Gate) -> Self {
        let socket = TcpStream::connect(gate.address).await.unwrap();
        // A stream that the client does not read must not block the others.
        let mut builder = client::Builder::new();
        builder.initial_connection_window_size(16 << 20);
        let (requests, connection) = builder.handshake(socket).await.unwrap();
        Self { requests, driver: tokio::task::spawn_local(connection) }
    }

    /// Requests a path, with or without a body.
    async fn ask(&self, path: &str, body: Option<Bytes>) -> Result<Response<RecvStream>, h2::Error> {
        let request = Request::get(format!("http://gate{path}")).body(()).unwrap();
        self.send(request, body).await
    }

    async fn send(
        &self,
        request: Request<()>,
        body: Option<Bytes>,
    ) -> Result<Response<RecvStream>, h2::Error> {
        let mut requests = self.requests.clone().ready().await?;
        let (answer, mut sink) = requests.send_request(request, body.is_none())?;
        if let Some(body) = body {
            sink.send_data(body, true)?;
        }
        answer.await
    }

    /// Status and body of a complete response.
    async fn get(&self, path: &str) -> (u16, String) {
        collect(self.ask(path, None).await.unwrap()).await.unwrap()
    }
}

async fn collect(answer: Response<RecvStream>) -> Result<(u16, String), h2::Error> {
    let (head, mut body) = answer.into_parts();
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        all.extend_from_slice(&piece);
    }
    Ok((head.status.as_u16(), String::from_utf8(all).unwrap()))
}

/// Plays a client with these limits. Afterwards nothing of it may remain.
fn check(limits: &Limits, play: impl AsyncFnOnce(&mut Gate)) {
    let mut gate = Gate::new(limits);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let within = Duration::from_secs(20);
    tokio::task::LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(within, play(&mut gate)).await.expect("in time");
    });
    drop(runtime);
    eventually("no connection is left", || gate.budget.open() == 0);
    assert_eq!(gate.seen.bodies.load(Ordering::SeqCst), 0, "an answer's body outlived its connection");
    assert_eq!(gate.seen.running.load(Ordering::SeqCst), 0, "a handler outlived its connection");
}

#[test]
fn streams_are_served_concurrently() {
    check(&Limits::default(), async |gate| {
        let speaker = Speaker::to(gate).await;
        assert_eq!(speaker.get("/x").await, (200, "/x".into()));
        let paths: Vec<String> = (0..90).map(|number| format!("/{number}")).collect();
        let asked: Vec<_> = paths.iter().map(|path| Box::pin(speaker.get(path))).collect();
        let mut waiting = Box::pin(speaker.ask("/never", None));
        for (path, answer) in paths.iter().zip(asked) {
            tokio::select! {
                _ = &mut waiting => panic!("nobody answers that"),
                answer = answer => assert_eq!(answer, (200, path.clone())),
            }
        }
        let head = speaker.ask("/x", None).await.unwrap();
        assert!(head.headers().contains_key("date"));
        assert_eq!(head.headers()["content-length"], "2");
    });
}

#[test]
fn bodies_follow_flow_control_both_ways() {
    check(&Limits::default(), async |gate| {
        let speaker = Speaker::to(gate).await;
        let body = Bytes::from("0123456789".repeat(300_000));
        let answer = speaker.ask("/echo", Some(body.clone())).await.unwrap();
        assert_eq!(collect(answer).await.unwrap(), (200, String::from_utf8(body.to_vec()).unwrap()));
        // The handler does not read the rest.
        let answer = speaker.ask("/refuse", Some(body)).await.unwrap();
        assert_eq!(answer.status(), 401);
        assert_eq!(speaker.get("/x").await.0, 200, "the others are not disturbed");
    });
}

#[test]
fn http2_heads_have_the_limits_of_http1() {
    check(&Limits::default(), async |gate| {
        let speaker = Speaker::to(gate).await;
        let ask = async |target: &str, fields: &[(&str, String)]| {
            let mut request = Request::get(target);
            for (name, value) in fields {
                request = request.header(*name, value);
            }
            let answer = speaker.send(request.body(()).unwrap(), None).await.unwrap();
            answer.status().as_u16()
        };
        let field = |length: usize| [("x-a", "x".repeat(length))];
        let many = |count: usize| vec![("x-a", "1".to_owned()); count];
        let large = vec![("x-a", "x".repeat(8 << 10)); 5];
        assert_eq!(ask("http://gate/x", &[]).await, 200);
        assert_eq!(ask("http://gate/x", &many(199)).await, 200);
        assert_eq!(ask("http://gate/x", &many(201)).await, 431, "too many fields");
        assert_eq!(ask("http://gate/x", &field(16 << 10)).await, 431, "a field too long");
        assert_eq!(ask("http://gate/x", &large).await, 431, "more than h2 takes");
        assert_eq!(ask(&format!("http://gate/{}", "x".repeat(16 << 10)), &[]).await, 414);
        assert_eq!(ask("http://gate/x", &[("host", "other".into())]).await, 400);
        assert_eq!(ask("http://gate/x", &[("host", "GATE".into())]).await, 200);
        let refused: Vec<_> =
            gate.seen.refusals.lock().unwrap().iter().map(|r| r.status().as_u16()).collect();
        assert_eq!(refused, [431, 431, 414, 400]);
    });
}

#[test]
fn aborted_stream_ends_alone() {
    check(&Limits::default(), async |gate| {
        let (one, other) = (Speaker::to(gate).await, Speaker::to(gate).await);
        // Its client reads nothing: the window is exhausted, but the reset still arrives.
        let mut stalled = one.ask("/endless", None).await.unwrap();
        let mut waiting = Box::pin(one.ask("/never", None));
        let mut part = other.ask("/first", None).await.unwrap();
        assert_eq!(part.body_mut().data().await.unwrap().unwrap(), "first");
        tokio::select! {
            _ = &mut waiting => panic!("nobody answers that"),
            () = async { while gate.seen.running.load(Ordering::SeqCst) == 0 { tokio::task::yield_now().await } } => {}
        }
        assert_eq!(gate.abort_all(), 3);
        assert_eq!(waiting.await.unwrap_err().reason(), Some(Reason::CANCEL));
        let end = loop {
            match stalled.body_mut().data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error.reason(),
                None => panic!("it passes for a whole answer"),
            }
        };
        assert_eq!(end, Some(Reason::CANCEL));
        let end = part.body_mut().data().await.unwrap().unwrap_err();
        assert_eq!(end.reason(), Some(Reason::CANCEL));
        assert_eq!(one.get("/x").await.0, 200, "the connection lives on");
        assert_eq!(other.get("/x").await.0, 200, "the connection lives on");
        let broken = match one.ask("/broken", None).await {
            Ok(answer) => collect(answer).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(broken.reason(), Some(Reason::CANCEL));
        assert_eq!(one.get("/x").await.0, 200, "the connection lives on");
    });
}

#[test]
fn deadlines_apply_to_each_stream() {
    let short = Duration::from_millis(80);
    let limits = Limits { body_timeout: short, write_timeout: short, ..Limits::default() };
    check(&limits, async |gate| {
        let speaker = Speaker::to(gate).await;
        let request = Request::post("http://gate/echo").body(()).unwrap();
        let (answer, mut sink) = speaker.requests.clone().send_request(request, false).unwrap();
        sink.send_data(Bytes::from_static(b"part"), false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 408, "a body that does not come");
        let mut stalled = speaker.ask("/endless", None).await.unwrap();
        let end = loop {
            match stalled.body_mut().data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error.reason(),
                None => panic!("it passes for a whole answer"),
            }
        };
        assert_eq!(end, Some(Reason::CANCEL), "an answer that is not taken");
        // A complete response that h2 buffers is treated like one that continues.
        let whole = Bytes::from("x".repeat(100_000));
        let mut stalled = speaker.ask("/echo", Some(whole)).await.unwrap();
        let end = loop {
            match stalled.body_mut().data().await {
                Some(Ok(_)) => {}
                Some(Err(error)) => break error.reason(),
                None => panic!("it passes for a whole answer"),
            }
        };
        assert_eq!(end, Some(Reason::CANCEL), "a whole answer that is not taken");
        // A quiet response is not a blocked one.
        let mut quiet = speaker.ask("/first", None).await.unwrap();
        assert_eq!(quiet.body_mut().data().await.unwrap().unwrap(), "first");
        let more = tokio::time::timeout(short * 5, quiet.body_mut().data()).await;
        assert!(more.is_err(), "{more:?}");
        assert_eq!(speaker.get("/x").await.0, 200, "the others are not disturbed");
    });
}

/// Sends a body of this size although the response has come already. Returns how much is
/// accepted and how the stream ends.
async fn send_unwanted_body(gate: &Gate, size: usize) -> (usize, Option<Reason>) {
    let speaker = Speaker::to(gate).await;
    let request = Request::post("http://gate/x").body(()).unwrap();
    let (answer, mut sink) = speaker.requests.clone().send_request(request, false).unwrap();
    assert_eq!(answer.await.unwrap().status(), 200);
    let mut sent = 0;
    while sent < size {
        sink.reserve_capacity(size - sent);
        match std::future::poll_fn(|cx| sink.poll_capacity(cx)).await {
            Some(Ok(room)) => {
                sink.send_data(vec![b'x'; room].into(), sent + room == size).unwrap();
                sent += room;
            }
            _ => break,
        }
    }
    if sent < size {
        let reset = std::future::poll_fn(|cx| sink.poll_reset(cx)).await.unwrap();
        return (sent, Some(reset));
    }
    assert_eq!(speaker.get("/x").await.0, 200, "the connection lives on");
    (sent, None)
}

#[test]
fn unread_body_is_discarded_up_to_a_limit() {
    check(&Limits::default(), async |gate| {
        assert_eq!(send_unwanted_body(gate, 256 << 10).await, (256 << 10, None));
        // Limited by time or size, whichever comes first.
        let (sent, end) = send_unwanted_body(gate, 16 << 20).await;
        assert!(sent < 5 << 20, "{sent}");
        assert_eq!(end, Some(Reason::NO_ERROR));
        // The gateway does not wait for a client that sends nothing more.
        let speaker = Speaker::to(gate).await;
        let request = Request::post("http://gate/x").body(()).unwrap();
        let (answer, mut sink) = speaker.requests.clone().send_request(request, false).unwrap();
        assert_eq!(collect(answer.await.unwrap()).await.unwrap().0, 200);
        let end = std::future::poll_fn(|cx| sink.poll_reset(cx)).await.unwrap();
        assert_eq!(end, Reason::NO_ERROR);
    });
}

/// Opens a tunnel by extended CONNECT (RFC 8441).
async fn tunnel(speaker: &Speaker) -> (RecvStream, h2::SendStream<Bytes>) {
    let mut requests = speaker.requests.clone().ready().await.unwrap();
    while !requests.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    let mut request =
        Request::connect("http://gate/tunnel").header("sec-websocket-version", "13").body(()).unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    let (answer, sink) = requests.send_request(request, false).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("upgrade"));
    (answer.into_body(), sink)
}

#[test]
fn stream_can_become_a_tunnel() {
    check(&Limits::default(), async |gate| {
        let speaker = Speaker::to(gate).await;
        let (mut from, mut to) = tunnel(&speaker).await;
        to.send_data(Bytes::from_static(b"there"), false).unwrap();
        assert_eq!(from.data().await.unwrap().unwrap(), "there");
        assert_eq!(speaker.get("/x").await.0, 200, "the others are not disturbed");
        to.send_data(Bytes::from_static(b" and back"), true).unwrap();
        assert_eq!(from.data().await.unwrap().unwrap(), " and back");
        while let Some(rest) = from.data().await {
            assert_eq!(rest.unwrap(), "", "its end passes too");
        }
        // A handler that answers without a tunnel must not appear to open one.
        let mut request = Request::connect("http://gate/x").body(()).unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (answer, _sink) = speaker.requests.clone().send_request(request, false).unwrap();
        assert_eq!(answer.await.unwrap().status(), 501);
        // A cut never looks like a clean end.
        let (mut from, mut to) = tunnel(&speaker).await;
        to.send_data(Bytes::from_static(b"x"), false).unwrap();
        assert_eq!(from.data().await.unwrap().unwrap(), "x");
        assert!(gate.abort_all() > 0);
        assert_eq!(from.data().await.unwrap().unwrap_err().reason(), Some(Reason::CANCEL));
        assert_eq!(speaker.get("/x").await.0, 200, "the connection lives on");
    });
}

#[test]
fn idle_connection_gets_goaway() {
    let limits = Limits { idle_timeout: Duration::from_millis(80), ..Limits::default() };
    check(&limits, async |gate| {
        let speaker = Speaker::to(gate).await;
        assert_eq!(speaker.get("/x").await.0, 200);
        assert!(speaker.driver.await.unwrap().is_ok(), "closed without an error");
        assert_eq!(gate.seen.refusals.lock().unwrap().len(), 0);
    });
}

#[test]
fn drain_lets_streams_end() {
    check(&Limits::default(), async |gate| {
        let speaker = Speaker::to(gate).await;
        let request = Request::post("http://gate/echo").body(()).unwrap();
        let (answer, mut sink) = speaker.requests.clone().send_request(request, false).unwrap();
        sink.send_data(Bytes::from_static(b"part"), false).unwrap();
        while gate.seen.running.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        gate.drain.take().unwrap().begin(std::time::Instant::now() + Duration::from_secs(10));
        // The client learns that it may open no more streams.
        while speaker.ask("/x", None).await.is_ok() {}
        sink.send_data(Bytes::from_static(b" and rest"), true).unwrap();
        assert_eq!(collect(answer.await.unwrap()).await.unwrap(), (200, "part and rest".into()));
        assert!(speaker.driver.await.unwrap().is_ok(), "closed without an error");
    });
}
