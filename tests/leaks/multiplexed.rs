//! HTTP/2 on both sides: each fault of an upstream and of a client on one stream.

use std::{
    future::poll_fn,
    net::{SocketAddr, TcpListener},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    server::{self, SendResponse},
};
use http::{Request, Response};
use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    task::JoinSet,
};

use super::{Baseline, THREADS, lock_tests, rounds, support::gateway::Gateway};

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// An upstream that fails in the way that the target names.
fn failing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(socket));
            }
        });
    });
    address
}

async fn serve(socket: TcpStream) {
    let Ok(mut connection) = server::handshake(socket).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let fault = request.uri().path().rsplit('/').next().unwrap().to_owned();
        match &*fault {
            "closes" => return,
            "goes-away" => connection.abrupt_shutdown(Reason::INTERNAL_ERROR),
            _ => _ = tokio::spawn(answer(fault, request, respond)),
        }
    }
}

/// Ends the response by the fault; the gateway reports it in its own way.
async fn answer(fault: String, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let head = match &*fault {
        "short" => Response::builder().header("content-length", "100"),
        _ => Response::builder(),
    };
    let head = head.body(()).unwrap();
    let piece = Bytes::from_static(b"part");
    match &*fault {
        "resets" => return respond.send_reset(Reason::INTERNAL_ERROR),
        "refuses" => return respond.send_reset(Reason::REFUSED_STREAM),
        "hangs" => {
            let _ = poll_fn(|cx| respond.poll_reset(cx)).await;
            return;
        }
        "reads" => {
            let mut body = request.into_body();
            while let Some(Ok(_)) = body.data().await {}
        }
        _ => {}
    }
    let Ok(mut stream) = respond.send_response(head, false) else { return };
    match &*fault {
        "resets-within" => {
            let _ = stream.send_data(piece, false);
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        "hangs-within" => {
            let _ = stream.send_data(piece, false);
            let _ = poll_fn(|cx| stream.poll_reset(cx)).await;
        }
        "bulk" => loop {
            stream.reserve_capacity(16 << 10);
            match poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(Ok(room)) => _ = stream.send_data(vec![b'x'; room].into(), false),
                _ => return,
            }
        },
        _ => _ = stream.send_data(piece, true),
    }
}

/// What the client does.
#[derive(Clone, Copy)]
enum Client {
    Hears,
    /// Closes its connection during the response.
    Leaves,
    TakesBack,
    StallsWithinItsBody,
    TakesBackWithinItsBody,
    TakesNothing,
}

/// One exchange on a new connection. Returns what the client receives.
async fn exchange(gateway: SocketAddr, path: &str, token: &str, client: Client) -> String {
    let socket = TcpStream::connect(gateway).await.unwrap();
    let (requests, connection) = h2::client::handshake(socket).await.unwrap();
    let driver = tokio::spawn(connection);
    let has_body = matches!(client, Client::StallsWithinItsBody | Client::TakesBackWithinItsBody);
    let request = Request::builder()
        .method(if has_body { "POST" } else { "GET" })
        .uri(format!("http://gate.example{path}"))
        .header("authorization", format!("Bearer {token}"))
        .body(())
        .unwrap();
    let (answer, mut sink) = requests.ready().await.unwrap().send_request(request, !has_body).unwrap();
    if has_body {
        sink.send_data(Bytes::from_static(b"half"), false).unwrap();
    }
    if matches!(client, Client::TakesBack | Client::TakesBackWithinItsBody) {
        sink.send_reset(Reason::CANCEL);
        drop((answer, sink));
        let _ = driver.await;
        return "nothing".into();
    }
    let Ok(answer) = answer.await else { return "reset".into() };
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    if let Client::Leaves = client {
        body.data().await.unwrap().unwrap();
        driver.abort();
        return "left".into();
    }
    while let Some(data) = body.data().await {
        match data {
            Ok(data) if !matches!(client, Client::TakesNothing) => {
                let _ = body.flow_control().release_capacity(data.len());
            }
            Ok(_) => {}
            Err(_) => return format!("{status}, broken"),
        }
    }
    status.to_string()
}

#[test]
fn stream_faults_leak_nothing() {
    let (_alone, rounds) = (lock_tests(), rounds());
    let upstream = failing();
    let quick = "timeouts.body_idle = \"50ms\"\ntimeouts.pool_idle = \"50ms\"\n";
    let services = Gateway::services(upstream)
        .replace("http://", "h2c://")
        .replace("[service.tracker]", &format!("{quick}[service.tracker]"));
    let sections = format!(
        "[server.timeouts]\nhead = \"100ms\"\nbody = \"100ms\"\nwrite = \"100ms\"\n{services}\n\
         [upstream.impatient]\nurls = [\"h2c://{upstream}\"]\n{quick}timeouts.first_byte = \"50ms\"\n\
         [service.impatient]\nupstream = \"impatient\"\npaths = [\"/impatient\"]\nreaders = [\"developers\"]\n"
    );
    let gateway = Gateway::with(&sections);
    gateway.developer("alice");
    let (_, token) = gateway.token("alice", "faults", &["tracker", "impatient"]);
    let rows = [
        ("/api/resets", Client::Hears, "502"),
        ("/api/refuses", Client::Hears, "502"),
        ("/api/closes", Client::Hears, "502"),
        ("/api/goes-away", Client::Hears, "502"),
        // A reset may overtake what was sent before it, on either side.
        ("/api/resets-within", Client::Hears, "200, broken or 502 or reset"),
        ("/api/short", Client::Hears, "200, broken or reset"),
        ("/impatient/hangs", Client::Hears, "504"),
        ("/api/hangs-within", Client::Hears, "200, broken"),
        ("/api/hangs-within", Client::Leaves, "left"),
        ("/api/hangs", Client::TakesBack, "nothing"),
        ("/api/reads", Client::StallsWithinItsBody, "408"),
        ("/api/reads", Client::TakesBackWithinItsBody, "nothing"),
        ("/api/bulk", Client::TakesNothing, "200, broken"),
        ("/api/x", Client::Hears, "200"),
    ];
    let (runtime, proxy) = (runtime(), gateway.proxy);
    gateway.get("/api/x", Some(&token));
    let mut before = Baseline::measure(&gateway, &token);
    for (path, client, expected) in rows {
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for _ in 0..THREADS {
                let token = token.clone();
                tasks.spawn(async move {
                    for _ in 0..rounds {
                        let told = exchange(proxy, path, &token, client).await;
                        assert!(expected.split(" or ").any(|one| one == told), "{path}: {told}");
                    }
                });
            }
            while let Some(ended) = tasks.join_next().await {
                ended.unwrap();
            }
        });
        // The clients' tasks also end.
        before.check_nothing_left(path, || runtime.block_on(tokio::task::yield_now()));
    }
    // Nothing may remain that delays the gateway's drain.
    drop(runtime);
}
