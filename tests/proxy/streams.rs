//! HTTP/2 clients with HTTP/1.1 upstreams: what is forwarded, how gRPC clients are refused, and streams that
//! a change cuts without the others of their connection.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::{self, ResponseFuture, SendRequest},
};
use http::{Request, Response, request};
use permgate::fence::Cut;
use tokio::{runtime::Runtime, task::LocalSet};

use crate::harness::{CloseKind, Gate, Origin, RawConnection, Setup, field};

/// A client with one connection, which makes progress only during waits.
struct Speaker {
    runtime: Runtime,
    tasks: LocalSet,
    requests: SendRequest<Bytes>,
}

impl Speaker {
    fn to(gate: &Gate) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let tasks = LocalSet::new();
        let requests = tasks.block_on(&runtime, async {
            let socket = tokio::net::TcpStream::connect(gate.address).await.unwrap();
            let (requests, connection) = client::handshake(socket).await.unwrap();
            tokio::task::spawn_local(connection);
            requests
        });
        Self { runtime, tasks, requests }
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        let within = async { tokio::time::timeout(Duration::from_secs(10), work).await.expect("in time") };
        self.tasks.block_on(&self.runtime, within)
    }

    fn ask(&self, path: &str, fields: &[(&str, &str)]) -> Result<Response<RecvStream>, h2::Error> {
        self.send(Request::post(format!("http://gate.example{path}")), fields)
    }

    fn send(
        &self,
        mut request: request::Builder,
        fields: &[(&str, &str)],
    ) -> Result<Response<RecvStream>, h2::Error> {
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        self.wait(async {
            let mut requests = self.requests.clone().ready().await?;
            requests.send_request(request.body(()).unwrap(), true)?.0.await
        })
    }

    /// Opens a streaming response that has begun.
    fn stream(&self, path: &str, fields: &[(&str, &str)]) -> RecvStream {
        let mut body = self.ask(path, fields).unwrap().into_body();
        let first = self.wait(body.data()).unwrap().unwrap();
        assert_eq!(first, "part");
        body
    }

    fn lives(&self, body: &mut RecvStream) -> bool {
        self.wait(async { tokio::time::timeout(Duration::from_millis(50), body.data()).await.is_err() })
    }
}

/// An upstream whose responses begin and never end. Returns the heads that it receives.
fn endless() -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if socket.read(&mut byte).unwrap() == 0 {
                    break;
                }
                head.extend_from_slice(&byte);
            }
            socket.write_all(b"HTTP/1.1 200 OK\r\nkeep-alive: 1\r\ncontent-length: 100\r\n\r\npart").unwrap();
            open.push(socket);
            if sender.send(String::from_utf8(head).unwrap()).is_err() {
                return;
            }
        }
    });
    (address, receiver)
}

#[test]
fn request_is_rewritten_for_the_upstream() {
    let (upstream, heads) = endless();
    let gate = Setup::to(&[upstream]).start();
    let speaker = Speaker::to(&gate);
    let bearer = format!("Bearer {}", gate.bearer);
    let fields =
        [("authorization", bearer.as_str()), ("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")];
    let answer = speaker.ask("/api/x?y=%2F", &fields).unwrap();
    assert!(!answer.headers().contains_key("keep-alive"), "{answer:?}");
    let head = heads.recv().unwrap();
    assert!(head.starts_with("POST /api/x?y=%2F HTTP/1.1\r\n"), "{head}");
    for field in ["host: gate.example\r\n", "cookie: a=1; b=2\r\n", "x-permgate-user: alice\r\n"] {
        assert!(head.to_ascii_lowercase().contains(field), "{field}: {head}");
    }
    assert!(!head.contains("pgt_"), "{head}");
}

#[test]
fn change_cuts_only_streams_that_it_forbids() {
    let (upstream, _heads) = endless();
    let setup = || {
        let public = |setup: &mut Setup| {
            setup.public[0].methods = Some(vec![http::Method::POST]);
        };
        Setup::to(&[upstream]).public("/api/public").with(public)
    };
    let gate = setup().start();
    let speaker = Speaker::to(&gate);
    let bearer = format!("Bearer {}", gate.bearer);
    let mut own: Vec<_> = (0..5).map(|_| speaker.stream("/api/x", &[("authorization", &bearer)])).collect();
    let mut public: Vec<_> = (0..5).map(|_| speaker.stream("/api/public/x", &[])).collect();
    assert_eq!(gate.live(), 10);
    assert_eq!(gate.revoke(), Cut(5));
    assert_eq!(gate.live(), 5, "they have left before the change answers");
    for stream in &mut own {
        let end = speaker.wait(stream.data()).unwrap().unwrap_err();
        assert_eq!(end.reason(), Some(Reason::CANCEL));
    }
    assert!(public.iter_mut().all(|stream| speaker.lives(stream)));
    public.push(speaker.stream("/api/public/y", &[]));
    // A reload that removes nothing cuts nothing; one without the rule cuts all that it permitted.
    assert_eq!(gate.reload(setup()), Cut(0));
    assert!(public.iter_mut().all(|stream| speaker.lives(stream)));
    assert_eq!(gate.reload(Setup::to(&[upstream])), Cut(6));
    for stream in &mut public {
        let end = speaker.wait(stream.data()).unwrap().unwrap_err();
        assert_eq!(end.reason(), Some(Reason::CANCEL));
    }
    assert_eq!(speaker.ask("/api/x", &[]).unwrap().status(), 401, "the connection lives on");
    drop(speaker);
    gate.wait_until_empty();
}

#[test]
fn connect_is_refused() {
    let (upstream, _heads) = endless();
    let gate = Setup::to(&[upstream]).start();
    let speaker = Speaker::to(&gate);
    let bearer = format!("Bearer {}", gate.bearer);
    let own = [("authorization", bearer.as_str())];
    let answer = speaker.send(Request::connect("gate.example:443"), &own).unwrap();
    assert_eq!(answer.status(), 405);
    assert!(answer.headers()["allow"].to_str().unwrap().contains("GET"), "{answer:?}");
    assert_eq!(gate.next_outcome(), ("rejected".into(), "method_not_supported".into(), 405));
    assert_eq!(speaker.ask("/other", &own).unwrap().status(), 404, "the connection lives on");
}

#[test]
fn grpc_client_gets_a_grpc_refusal() {
    let (upstream, _heads) = endless();
    let gate = Setup::to(&[upstream]).start();
    let speaker = Speaker::to(&gate);
    let bearer = format!("Bearer {}", gate.bearer);
    let check = |row: &str, path: &str, fields: &[(&str, &str)], status: &str, message: &str, http: u64| {
        let fields = [&[("content-type", "application/grpc+proto"), ("te", "trailers")][..], fields].concat();
        let answer = speaker.ask(path, &fields).unwrap();
        assert_eq!(answer.status(), 200, "{row}");
        assert!(answer.body().is_end_stream(), "{row}: trailers alone");
        let headers = answer.headers();
        assert_eq!(headers["content-type"], "application/grpc", "{row}");
        assert_eq!(headers["grpc-status"], status, "{row}");
        let detail = headers["grpc-message"].to_str().unwrap();
        assert!(detail.starts_with(message), "{row}: {detail}");
        assert!(headers.contains_key("x-request-id"), "{row}");
        assert!(!headers.contains_key("connection"), "{row}");
        assert_eq!(headers.contains_key("www-authenticate"), http == 401, "{row}");
        assert_eq!(gate.line()["status"], http, "{row}: the log keeps the HTTP status");
    };
    let own = [("authorization", bearer.as_str())];
    check("no token", "/api/x", &[], "16", "No access token was sent", 401);
    check(
        "a bad one",
        "/api/x",
        &[("authorization", "Bearer x")],
        "16",
        "The access token is malformed",
        401,
    );
    check("nobody's path", "/other", &own, "12", "No service", 404);
    let long = "x".repeat(17 << 10);
    check(
        "a field beyond the limit",
        "/api/x",
        &[own[0], ("x-long", &long)],
        "8",
        "The request header fields",
        431,
    );
    check(
        "another host",
        "/api/x",
        &[own[0], ("host", "other.example")],
        "3",
        "The request is malformed",
        400,
    );
    // A proxy that asks would take a success for a permit.
    let fields = [("content-type", "application/grpc"), ("x-long", &long)];
    assert_eq!(speaker.ask("/.permgate/auth", &fields).unwrap().status(), 431);
    assert_eq!(gate.line()["status"], 431);
    gate.revoke();
    check("a revoked one", "/api/x", &own, "16", "The access token was revoked", 401);
    gate.restore();
    let answer = speaker.ask("/other", &own).unwrap();
    assert_eq!(answer.status(), 404, "others are answered as ever");
}

/// Requests a WebSocket over HTTP/2 with this field.
fn request_websocket(
    speaker: &Speaker,
    (name, value): (&str, String),
) -> (ResponseFuture, SendStream<Bytes>) {
    speaker.wait(async {
        let mut requests = speaker.requests.clone().ready().await.unwrap();
        while !requests.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut request = Request::connect("http://gate.example/api/socket")
            .header(name, value)
            .header("sec-websocket-version", "13")
            .body(())
            .unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let sent = requests.send_request(request, false).unwrap();
        // The request is on its way once the settings, or a ping, have been answered.
        let _ = requests.ready().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        sent
    })
}

/// A WebSocket over HTTP/2 (RFC 8441), requested with the field that holds the token. Returns both ends of
/// the client's stream, the upstream's end, and the head that the upstream received.
fn websocket(
    speaker: &Speaker,
    origin: &Origin,
    (name, value): (&str, String),
) -> (RecvStream, SendStream<Bytes>, RawConnection, String) {
    let (answer, sink) = request_websocket(speaker, (name, value));
    let mut upstream = origin.accept();
    let head = upstream.head();
    assert!(head.starts_with("GET /api/socket HTTP/1.1\r\n"), "{head}");
    assert_eq!((field(&head, "connection"), field(&head, "upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!(field(&head, "sec-websocket-key").map(str::len), Some(24));
    upstream.send(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: x\r\n\r\n",
    );
    let answer = speaker.wait(answer).unwrap();
    assert_eq!(answer.status(), 200);
    assert!(!answer.headers().contains_key("sec-websocket-accept"));
    (answer.into_body(), sink, upstream, head)
}

#[test]
fn other_protocol_over_http2_gets_no_tunnel() {
    let origin = Origin::new();
    let gate = origin.start();
    let speaker = Speaker::to(&gate);
    let answer = speaker.wait(async {
        let mut requests = speaker.requests.clone().ready().await.unwrap();
        while !requests.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let authorization = format!("Bearer {}", gate.bearer);
        let mut request = Request::connect("http://gate.example/api/socket")
            .header("authorization", authorization)
            .body(())
            .unwrap();
        request.extensions_mut().insert(h2::ext::Protocol::from_static("foo"));
        requests.send_request(request, false).unwrap().0.await.unwrap()
    });
    assert_eq!(answer.status(), 501);
    assert!(!origin.has_pending_connection(), "nothing is sent to the upstream");
}

/// A 2xx would mean that the client has a tunnel. What the upstream refuses passes.
#[test]
fn response_without_a_tunnel_is_logged_as_it_is_sent() {
    let origin = Origin::new();
    let gate = origin.start();
    let speaker = Speaker::to(&gate);
    let check = |sent: &str, status: u16, logged: (&str, &str)| {
        let bearer = ("authorization", format!("Bearer {}", gate.bearer));
        let (answer, _sink) = request_websocket(&speaker, bearer);
        let mut upstream = origin.accept();
        upstream.head();
        upstream.send(format!("HTTP/1.1 {sent}\r\nContent-Length: 4\r\n\r\npage"));
        assert_eq!(speaker.wait(answer).unwrap().status(), status, "{sent}");
        let (outcome, reason, logged_status) = gate.next_outcome();
        assert_eq!(
            (outcome.as_str(), reason.as_str(), logged_status),
            (logged.0, logged.1, u64::from(status)),
            "{sent}"
        );
    };
    check("200 OK", 501, ("failed", "upstream_invalid"));
    check("201 Created", 501, ("failed", "upstream_invalid"));
    check("302 Found", 302, ("forwarded", "ok"));
    check("404 Not Found", 404, ("forwarded", "ok"));
}

#[test]
fn websocket_over_http2_is_decided_and_cut_like_any_stream() {
    let origin = Origin::new();
    let gate = origin.start();
    let speaker = Speaker::to(&gate);
    let bearer = ("authorization", format!("Bearer {}", gate.bearer));
    let (mut from, mut to, mut upstream, _) = websocket(&speaker, &origin, bearer);
    to.send_data(Bytes::from_static(b"ping"), false).unwrap();
    speaker.wait(async { tokio::time::sleep(Duration::from_millis(20)).await });
    assert_eq!(upstream.bytes(4), "ping");
    upstream.send("pong");
    assert_eq!(speaker.wait(from.data()).unwrap().unwrap(), "pong");
    assert_eq!(gate.live(), 1);
    assert_eq!(gate.revoke(), Cut(1));
    assert_eq!(speaker.wait(from.data()).unwrap().unwrap_err().reason(), Some(Reason::CANCEL));
    assert_eq!(upstream.wait_for_close(), CloseKind::Reset);
    let (outcome, reason, status) = gate.next_outcome();
    assert_eq!((outcome.as_str(), reason.as_str(), status), ("cut", "token_revoked", 101));
    drop((from, to, speaker));
    gate.wait_until_empty();
}

#[test]
fn websocket_over_http2_accepts_the_token_as_a_subprotocol() {
    let origin = Origin::new();
    let gate = origin.setup().with(|setup| setup.service.credentials.websocket = true).start();
    let speaker = Speaker::to(&gate);
    let protocols = ("sec-websocket-protocol", format!("chat, permgate.bearer.{}", gate.bearer));
    let (mut from, _to, _upstream, head) = websocket(&speaker, &origin, protocols);
    assert_eq!(field(&head, "sec-websocket-protocol"), Some("chat"));
    assert!(!head.contains(&gate.bearer), "{head}");
    assert_eq!(gate.revoke(), Cut(1));
    assert_eq!(speaker.wait(from.data()).unwrap().unwrap_err().reason(), Some(Reason::CANCEL));
}
