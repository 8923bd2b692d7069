//! Bidirectional gRPC streams, many on one connection and under load: a change cuts those that it forbids
//! before it is answered, at both ends, and no others.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

use std::{
    future::poll_fn,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    client::SendRequest,
    server::{self, SendResponse},
};
use http::{HeaderMap, HeaderValue, Request, Response};
use support::gateway::Gateway;
use tokio::{
    net::TcpStream,
    runtime::{Builder, Handle},
    sync::watch,
    task::JoinHandle,
};

/// Streams of each kind; all of them fit on one connection.
const STREAMS_PER_USER: usize = 20;

/// A busy machine receives small frames faster than it reads them, and h2 would give up.
const RECEIVE_BUFFER: usize = 16 << 20;

/// The upstream's state: the number of the last change, and its open streams.
#[derive(Default)]
struct TestService {
    changes: AtomicU64,
    open: AtomicUsize,
}

/// A runtime that is driven by its own thread.
fn runtime() -> Handle {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

/// An upstream whose streams repeatedly send the number of the last change.
fn service(world: &Arc<TestService>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (address, world) = (listener.local_addr().unwrap(), world.clone());
    runtime().spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let world = world.clone();
            tokio::spawn(async move {
                let mut server = server::Builder::new();
                let mut connection =
                    server.data_frame_budget(RECEIVE_BUFFER).handshake(socket).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(serve(request, respond, world.clone()));
                }
            });
        }
    });
    address
}

async fn serve(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, world: Arc<TestService>) {
    assert_eq!(request.headers()["te"], "trailers");
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(head, false).unwrap();
    if request.uri().path().ends_with("/Unary") {
        stream.send_data(Bytes::from_static(b"done"), false).unwrap();
        let trailers =
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
        stream.send_trailers(trailers).unwrap();
        return;
    }
    world.open.fetch_add(1, Ordering::SeqCst);
    let mut body = request.into_body();
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    // Ticks that a busy machine has missed are skipped.
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = poll_fn(|cx| stream.poll_reset(cx)) => break,
            Some(data) = body.data() => match data {
                Ok(data) => _ = body.flow_control().release_capacity(data.len()),
                Err(_) => break,
            },
            _ = tick.tick() => {
                let message = format!("<{}>", world.changes.load(Ordering::SeqCst));
                if stream.send_data(message.into(), false).is_err() {
                    break;
                }
            }
        }
    }
    world.open.fetch_sub(1, Ordering::SeqCst);
}

async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(address).await.unwrap();
    let mut client = h2::client::Builder::new();
    let (requests, connection) = client.data_frame_budget(RECEIVE_BUFFER).handshake(socket).await.unwrap();
    tokio::spawn(connection);
    requests
}

/// Opens a call and waits for the response's head. `whole`: the client sends no messages.
async fn call(
    requests: &SendRequest<Bytes>,
    path: &str,
    token: &str,
    whole: bool,
) -> (Response<RecvStream>, SendStream<Bytes>) {
    let request = Request::post(format!("http://gate.example{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .body(())
        .unwrap();
    let mut requests = requests.clone().ready().await.unwrap();
    let (answer, sink) = requests.send_request(request, whole).unwrap();
    (answer.await.unwrap(), sink)
}

/// The client's end of a stream: the last change that it received, and how the stream ended.
struct GrpcStream {
    heard: watch::Receiver<u64>,
    end: JoinHandle<Option<Reason>>,
}

impl GrpcStream {
    async fn begin(requests: &SendRequest<Bytes>, path: &str, token: &str) -> Self {
        let (answer, mut sink) = call(requests, path, token, false).await;
        assert_eq!(answer.headers().get("grpc-message"), None, "{path}: refused");
        let mut body = answer.into_body();
        let (tell, heard) = watch::channel(0);
        let end = tokio::spawn(async move {
            while let Some(data) = body.data().await {
                let data = match data {
                    Ok(data) => data,
                    Err(error) => return error.reason(),
                };
                body.flow_control().release_capacity(data.len()).unwrap();
                let text = String::from_utf8(data.to_vec()).unwrap();
                let last = text.trim_end_matches('>').rsplit('<').next().unwrap().parse().unwrap();
                tell.send_modify(|heard| *heard = last);
                // Uses the other direction, too; the end of the stream is seen by the reader.
                sink.reserve_capacity(data.len());
                let _ = sink.send_data(data, false);
            }
            None
        });
        Self { heard, end }
    }

    async fn wait_for_change(&mut self, change: u64) {
        self.heard.wait_for(|heard| *heard >= change).await.expect("a stream that nothing forbids goes on");
    }
}

#[test]
fn under_load_change_cuts_exactly_the_streams_that_it_forbids() {
    let world = Arc::<TestService>::default();
    let upstream = service(&world);
    let services = Gateway::services(upstream).replace("http://", "h2c://");
    let gateway = Gateway::with(&services);
    gateway.developer("alice");
    gateway.developer("bob");
    let (revoked, token) = gateway.token("alice", "revoked", &["tracker"]);
    let (_, bystander) = gateway.token("alice", "bystander", &["tracker", "hub"]);
    let (_, banned) = gateway.token("bob", "banned", &["tracker"]);
    let (client, over, calls) = (runtime(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));

    // One connection carries all streams, in turn.
    let requests = client.block_on(connect(gateway.proxy));
    let kinds = [
        ("/api/Live", &bystander),
        ("/api/Live", &token),
        ("/api/Live", &banned),
        ("/hub/api/Live", &bystander),
    ];
    let mut talks: [Vec<GrpcStream>; 4] = std::array::from_fn(|_| Vec::new());
    for _ in 0..STREAMS_PER_USER {
        for (group, (path, token)) in talks.iter_mut().zip(kinds) {
            group.push(client.block_on(async { GrpcStream::begin(&requests, path, token).await }));
        }
    }
    assert_eq!(world.open.load(Ordering::SeqCst), 4 * STREAMS_PER_USER);

    // The load: calls by others that never fail, whatever changes.
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (over, calls, bystander, address) =
                (over.clone(), calls.clone(), bystander.clone(), gateway.proxy);
            client.spawn(async move {
                let requests = connect(address).await;
                while !over.load(Ordering::SeqCst) {
                    let (answer, _) = call(&requests, "/api/Unary", &bystander, true).await;
                    let mut body = answer.into_body();
                    assert_eq!(body.data().await.unwrap().unwrap(), "done");
                    assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
                    calls.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();

    let [mut alive, by_token, by_ban, by_reload] = talks;
    let groups = [("revoke", by_token), ("ban", by_ban), ("reload", by_reload)];
    for (change, (row, forbidden)) in (1..).zip(groups) {
        let before = calls.load(Ordering::SeqCst);
        let answer = match row {
            "revoke" => gateway.must("DELETE", &format!("/v1/tokens/{revoked}"), None),
            "ban" => gateway.must("POST", "/v1/users/bob/ban", Some(r#"{"reason": "left"}"#)),
            _ => {
                gateway.write(&services.replace("paths = [\"/hub/api\"]", "paths = [\"/elsewhere\"]"));
                gateway.must("POST", "/v1/reload", None)
            }
        };
        world.changes.store(change, Ordering::SeqCst);
        assert_eq!(answer["cut"], STREAMS_PER_USER, "{row}: {answer}");
        client.block_on(async {
            for talk in forbidden {
                assert_eq!(talk.end.await.unwrap(), Some(Reason::CANCEL), "{row}");
                assert!(*talk.heard.borrow() < change, "{row}: something came after the answer");
            }
            for talk in &mut alive {
                talk.wait_for_change(change).await;
            }
        });
        let left = (4 - usize::try_from(change).unwrap()) * STREAMS_PER_USER;
        let deadline = Instant::now() + Duration::from_secs(10);
        while world.open.load(Ordering::SeqCst) > left {
            assert!(Instant::now() < deadline, "{row}: the upstream goes on talking to nobody");
            thread::yield_now();
        }
        assert_eq!(world.open.load(Ordering::SeqCst), left, "{row}: others ended upstream");
        while calls.load(Ordering::SeqCst) < before + 20 {
            assert!(Instant::now() < deadline, "{row}: the load stands still");
            thread::yield_now();
        }
    }
    over.store(true, Ordering::SeqCst);
    client.block_on(async {
        for one in load {
            one.await.unwrap();
        }
        // From now on their calls are refused on the same connection.
        for (path, token, expected) in
            [("/api/Live", &token, "16"), ("/api/Live", &banned, "16"), ("/hub/api/Live", &bystander, "12")]
        {
            assert_eq!(
                call(&requests, path, token, true).await.0.headers()["grpc-status"],
                expected,
                "{path}"
            );
        }
    });
    // Nothing may remain that delays the gateway's drain.
    for talk in &alive {
        talk.end.abort();
    }
}
