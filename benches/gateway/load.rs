//! The load generator: a number of connections, each with one request at a time.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::LocalSet,
};

use crate::{
    CORES,
    peers::{TOKENS, pinned, service_of},
    support::import::bearer,
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub way: LoadKind,
    pub connections: usize,
    /// The end of the target, which selects the size of the response.
    pub suffix: &'static str,
    /// Whether the tokens are known. Otherwise all requests are refused.
    pub known: bool,
    /// Requests per second over all connections; `None`: as fast as they are answered.
    pub rate: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum LoadKind {
    Plain,
    /// HTTP/1.1 over TLS, through h2load.
    Tls,
    /// HTTP/2 over TLS with 32 streams per connection, through h2load.
    Multiplexed,
}

/// The result of one proxy in one round.
pub struct Outcome {
    /// CPU seconds of the proxy's process.
    pub cpu: f64,
    pub requests: f64,
    /// In microseconds; h2load does not report it.
    pub p99: Option<f64>,
}

impl Outcome {
    /// CPU microseconds per request.
    pub fn cost(&self) -> f64 {
        self.cpu * 1e6 / self.requests
    }
}

impl Load {
    /// Loads a proxy from a separate process. Returns the number of answered requests and
    /// the 99th percentile of their latency in microseconds.
    pub fn run(&self, proxy: SocketAddr, span: Duration) -> (f64, Option<f64>) {
        if self.way != LoadKind::Plain {
            return (self.run_h2load(proxy, span), None);
        }
        let mut command = pinned(CORES[1], &std::env::current_exe().unwrap());
        command.args(["load", &proxy.to_string(), self.suffix, &span.as_millis().to_string()]);
        let rate = self.rate.unwrap_or_default();
        command.args([self.connections.to_string(), self.known.to_string(), rate.to_string()]);
        let told = output(&mut command);
        let (requests, p99) = told.trim().split_once(' ').expect("two figures");
        (requests.parse().unwrap(), Some(p99.parse().unwrap()))
    }

    fn run_h2load(&self, proxy: SocketAddr, span: Duration) -> f64 {
        let mut command = pinned(CORES[1], Path::new("h2load"));
        command.args(["-t", "1", "-c", &self.connections.to_string()]);
        command.args([
            "-D",
            &format!("{}ms", span.as_millis()),
            "-H",
            &format!("Authorization: Bearer {}", bearer(0)),
        ]);
        command.args(if self.way == LoadKind::Tls { ["--h1", "-m1"] } else { ["-m", "32"] });
        command.arg(format!("https://localhost:{}/svc{:02}/{}", proxy.port(), service_of(0), self.suffix));
        let told = output(&mut command);
        let figure = |name: &str| {
            let line =
                told.lines().find(|line| line.starts_with("requests:")).expect("what came of the requests");
            let figure =
                line.split([':', ',']).find_map(|part| part.trim().strip_suffix(name)).expect("a figure");
            figure.trim().parse::<f64>().unwrap()
        };
        assert_eq!(figure(" failed"), 0.0, "{told}");
        assert!(told.contains(" 0 4xx, 0 5xx"), "{told}");
        figure(" succeeded")
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Main function of the separate process. Arguments: proxy, suffix, milliseconds, connections, known, rate.
pub fn run(arguments: &[String]) {
    let [proxy, suffix, span, connections, known, rate] = arguments else { panic!("{arguments:?}") };
    let (proxy, known): (SocketAddr, bool) = (proxy.parse().unwrap(), known.parse().unwrap());
    let (span, connections) =
        (Duration::from_millis(span.parse().unwrap()), connections.parse::<u32>().unwrap());
    let rate: u32 = rate.parse().unwrap();
    let every = (rate > 0).then(|| Duration::from_secs(1) * connections / rate);
    let requests: Rc<Vec<String>> =
        Rc::new((0..TOKENS).map(|number| request(number, suffix, known)).collect());
    let expected = if known { "HTTP/1.1 200 " } else { "HTTP/1.1 401 " };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let until = Instant::now() + span;
    let mut took = LocalSet::new().block_on(&runtime, async {
        let clients: Vec<_> = (0..connections)
            .map(|number| {
                let begin = every.map(|every| (Instant::now() + every * number / connections, every));
                let requests = (requests.clone(), number as usize * 151);
                tokio::task::spawn_local(client(proxy, requests, begin, until, expected))
            })
            .collect();
        let mut took = Vec::new();
        for client in clients {
            took.extend(client.await.unwrap());
        }
        took
    });
    took.sort_unstable();
    println!("{} {}", took.len(), took[took.len() * 99 / 100]);
}

fn request(number: usize, suffix: &str, known: bool) -> String {
    let (service, token) = (service_of(number), bearer(if known { number } else { number + TOKENS }));
    format!(
        "GET /svc{service:02}/{suffix} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nAccept-Encoding: identity\r\nAuthorization: Bearer {token}\r\n\r\n"
    )
}

/// Returns the latency of each request in microseconds. `due` is the time of the first
/// request and the interval of the others. A request that is delayed by an earlier
/// response is measured from the time it was due.
async fn client(
    proxy: SocketAddr,
    (requests, first): (Rc<Vec<String>>, usize),
    mut due: Option<(Instant, Duration)>,
    until: Instant,
    expected: &str,
) -> Vec<u32> {
    let mut socket = TcpStream::connect(proxy).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (mut took, mut number) = (Vec::new(), first);
    let mut bytes = vec![0; 256 << 10];
    while Instant::now() < until {
        let mut began = Instant::now();
        if let Some((at, every)) = &mut due {
            if *at > began {
                tokio::time::sleep_until((*at).into()).await;
                began = Instant::now();
            } else {
                began = *at;
            }
            *at += *every;
        }
        socket.write_all(requests[number % TOKENS].as_bytes()).await.unwrap();
        let (mut read, mut left) = (0, None);
        while left != Some(0) {
            let count = socket.read(&mut bytes[read..]).await.unwrap();
            assert!(count > 0, "the proxy has closed the connection");
            if let Some(rest) = &mut left {
                *rest -= count;
                continue;
            }
            read += count;
            if let Some(head) = bytes[..read].windows(4).position(|end| end == b"\r\n\r\n") {
                let text = str::from_utf8(&bytes[..head]).unwrap();
                assert!(text.starts_with(expected), "{text}");
                let length = text.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length")
                        .then(|| value.trim().parse::<usize>().unwrap())
                });
                left = Some(head + 4 + length.expect("a length") - read);
                read = 0;
            }
        }
        took.push(u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX));
        number += 1;
    }
    took
}
