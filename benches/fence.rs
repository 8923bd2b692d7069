//! How quickly a revocation cuts its streams among ten thousand others, which must continue:
//! `cargo bench --bench fence`. Client, gateway and upstream share this process and its cores.

#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{RecvStream, client::SendRequest};
use support::gateway::Gateway;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Handle},
};

const CONNECTIONS: usize = 100;
/// Streams per connection, and streams that are cut in each round.
const STREAMS: usize = 100;
const ROUNDS: usize = 100;
/// Interval of events on each stream.
const TICK: Duration = Duration::from_secs(2);

fn main() {
    let upstream = upstream();
    let gateway = Gateway::with(&Gateway::services(upstream).replace("http://", "h2c://"));
    gateway.developer("alice");
    let runtime = spawn_runtime();
    let others = Arc::<UnaffectedStreams>::default();
    let (_, bystander) = gateway.token("alice", "bystander", &["tracker"]);
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let (requests, streams) = runtime.block_on(open(gateway.proxy, &bystander));
        held.push(requests);
        for stream in streams {
            runtime.spawn(others.clone().follow(stream));
        }
    }
    let rounds: Vec<(Duration, Duration)> =
        (0..ROUNDS).map(|round| revoke(&gateway, &runtime, round)).collect();
    // Long enough for every other stream to receive an event after the last change.
    std::thread::sleep(TICK * 2);
    let (ended, gap) = (others.ended.load(Ordering::SeqCst), others.longest.load(Ordering::SeqCst));
    println!("{ROUNDS} revocations, {STREAMS} streams cut by each, {} others", CONNECTIONS * STREAMS);
    print_row("from the call to the last cut", rounds.iter().map(|(cut, _)| *cut).collect());
    print_row("from the call to its answer", rounds.iter().map(|(_, answer)| *answer).collect());
    println!(
        "others that ended: {ended}; longest silence of one: {gap} ms, of which {} meant",
        TICK.as_millis()
    );
    assert_eq!(ended, 0, "a stream was disturbed");
}

/// A runtime that is driven by its own thread.
fn spawn_runtime() -> Handle {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

fn print_row(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100) - 1];
    println!("{what}: p50 {:.1?}, p99 {:.1?}, longest {:.1?}", at(50), at(99), at(100));
}

/// Returns the time until the last of a token's streams ended for the client, and until the call returned.
fn revoke(gateway: &Gateway, runtime: &Handle, round: usize) -> (Duration, Duration) {
    let (id, text) = gateway.token("alice", &format!("round {round}"), &["tracker"]);
    let (_held, streams) = runtime.block_on(open(gateway.proxy, &text));
    let ends: Vec<_> = streams.into_iter().map(|stream| runtime.spawn(end(stream))).collect();
    let begun = Instant::now();
    let revoked = gateway.must("DELETE", &format!("/v1/tokens/{id}"), None);
    let answered = begun.elapsed();
    assert_eq!(revoked["cut"], STREAMS, "{revoked}");
    let ends = ends.into_iter().map(|end| runtime.block_on(end).unwrap());
    (ends.max().unwrap().saturating_duration_since(begun), answered)
}

/// Opens a connection with the maximum number of streams, all started.
async fn open(proxy: SocketAddr, token: &str) -> (SendRequest<Bytes>, Vec<RecvStream>) {
    let socket = TcpStream::connect(proxy).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (mut requests, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..STREAMS {
        let request = http::Request::get("http://gate.example/api/events")
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .unwrap();
        requests = requests.ready().await.unwrap();
        answers.push(requests.send_request(request, true).unwrap().0);
    }
    let mut streams = Vec::new();
    for answer in answers {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        let mut stream = answer.into_body();
        assert!(read_tick(&mut stream).await, "ended at once");
        streams.push(stream);
    }
    (requests, streams)
}

async fn read_tick(stream: &mut RecvStream) -> bool {
    let Some(Ok(data)) = stream.data().await else { return false };
    stream.flow_control().release_capacity(data.len()).is_ok()
}

async fn end(mut stream: RecvStream) -> Instant {
    while read_tick(&mut stream).await {}
    Instant::now()
}

/// Observes the streams that no change affects.
#[derive(Default)]
struct UnaffectedStreams {
    ended: AtomicU64,
    /// The longest silence, in milliseconds.
    longest: AtomicU64,
}

impl UnaffectedStreams {
    async fn follow(self: Arc<Self>, mut stream: RecvStream) {
        let mut last = Instant::now();
        while read_tick(&mut stream).await {
            let gap = u64::try_from(last.elapsed().as_millis()).unwrap();
            self.longest.fetch_max(gap, Ordering::SeqCst);
            last = Instant::now();
        }
        self.ended.fetch_add(1, Ordering::SeqCst);
    }
}

/// Answers every request with an endless stream of events.
fn upstream() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((_, mut reply))) = connection.accept().await {
                    tokio::spawn(async move {
                        let answer = http::Response::new(());
                        let Ok(mut sink) = reply.send_response(answer, false) else { return };
                        while sink.send_data(Bytes::from_static(b"data: tick\n\n"), false).is_ok() {
                            tokio::time::sleep(TICK).await;
                        }
                    });
                }
            });
        }
    };
    spawn_runtime().spawn(serve);
    address
}
