//! Measures three gateways over one etcd, all on this machine's cores:
//! `cargo bench --features etcd --bench cluster -- [streams] [tokens] [writers]`; all three by default.
//! Needs `apt-get install etcd-server`.
//!
//! `streams`: revocations while 10,000 streams are open on all nodes. `tokens`: starts with a million tokens,
//! with and without a local copy, and the import of a million. `writers`: two concurrent writers per node.

#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

#[allow(dead_code, reason = "shared with the tests of one process")]
#[path = "../tests/process/harness.rs"]
mod harness;
#[allow(dead_code, reason = "shared with the tests")]
#[path = "../tests/cluster/nodes.rs"]
mod nodes;
#[allow(dead_code, reason = "shared with the tests")]
#[path = "../tests/cluster/relay.rs"]
mod relay;
#[allow(dead_code, reason = "shared with the tests")]
#[path = "../src/store/log/etcd/tests/server.rs"]
mod server;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use nodes::Cluster;
use server::Etcd;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const NODES: usize = 3;
const STREAMS: usize = 10_000;
const STREAMS_PER_TOKEN: usize = 20;
const TOKENS: usize = 1_000_000;
const PER_OWNER: usize = 400;
/// One caller creates more tokens than an owner may have by default.
const TOKENS_SECTION: &str = "[tokens]\nmax_per_user = 1000000\n";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.iter().any(|argument| argument == "upstream") {
        return runtime().block_on(upstream());
    }
    let asked = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    if asked("streams") {
        streams();
    }
    if asked("tokens") {
        tokens();
    }
    if asked("writers") {
        writers();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Answers with a stream that stays silent after its first event. Runs as a separate
/// process, because one process may not open that many sockets.
async fn upstream() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut seen = Vec::new();
            let mut buffer = [0; 1024];
            while let Ok(read @ 1..) = socket.read(&mut buffer).await {
                seen.extend_from_slice(&buffer[..read]);
                if seen.ends_with(b"\r\n\r\n") {
                    seen.clear();
                    let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nevent\r\n";
                    if socket.write_all(answer).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

struct Upstream(Child, std::net::SocketAddr);

impl Upstream {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg("upstream")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self(child, line.trim().parse().unwrap())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn quantiles(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let at = |share: usize| took[(took.len() - 1) * share / 100];
    format!("p50 {:.1?}, p99 {:.1?}, longest {:.1?} of {}", at(50), at(99), at(100), took.len())
}

fn streams() {
    let upstream = Upstream::start();
    let cluster = Cluster::prepare_behind(Etcd::start(1, &[]), NODES, upstream.1, TOKENS_SECTION).started();
    let tokens: Vec<_> = (0..STREAMS / STREAMS_PER_TOKEN)
        .map(|number| cluster.token(number % NODES, "ann", &format!("t{number}")))
        .collect();
    let runtime = runtime();
    let open: Vec<TcpStream> = runtime.block_on(async {
        let mut open = Vec::with_capacity(STREAMS);
        for number in 0..STREAMS {
            let node = cluster.process(number % NODES).proxy;
            let mut socket = TcpStream::connect(node).await.unwrap();
            let (_, token) = &tokens[number / STREAMS_PER_TOKEN];
            let head = format!("GET /one HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer {token}\r\n\r\n");
            socket.write_all(head.as_bytes()).await.unwrap();
            let mut first = [0; 64];
            let read = socket.read(&mut first).await.unwrap();
            assert!(
                first[..read].starts_with(b"HTTP/1.1 200"),
                "{}",
                String::from_utf8_lossy(&first[..read])
            );
            open.push(socket);
        }
        open
    });
    let mut took = Vec::new();
    for (number, (id, _)) in tokens.iter().enumerate() {
        let (answer, one) = cluster.revoke(number % NODES, id);
        assert_eq!(answer["cut"], STREAMS_PER_TOKEN, "{answer}");
        assert_eq!(answer["nodes"]["confirmed"], NODES, "{answer}");
        took.push(one);
        thread::sleep(Duration::from_millis(20));
    }
    drop(open);
    println!(
        "revocation of {STREAMS_PER_TOKEN} streams among {STREAMS} over {NODES} nodes: {}",
        quantiles(took)
    );
}

fn tokens() {
    let nobody = "127.0.0.1:9".parse().unwrap();
    let mut cluster = Cluster::prepare_behind(Etcd::start(1, &[]), NODES, nobody, TOKENS_SECTION);
    let lines = import(0);
    let file = cluster.nodes[0].directory.path().join("import.ndjson");
    std::fs::write(&file, lines).unwrap();
    cluster.nodes[0].directory.check("token import --offline --make-owners import.ndjson", 0);
    let begun = Instant::now();
    cluster.nodes[0].directory.check("cluster init", 0);
    println!("{TOKENS} tokens, cluster init: {:.1?}", begun.elapsed());
    let start = |cluster: &mut Cluster, node: usize| {
        let begun = Instant::now();
        cluster.run(node);
        cluster.wait_until_ready(node);
        begun.elapsed()
    };
    println!("{TOKENS} tokens, a node with a copy is ready after {:.1?}", start(&mut cluster, 0));
    println!("{TOKENS} tokens, an empty one after {:.1?}", start(&mut cluster, 1));
    cluster.nodes[0].process.take().unwrap().stop();
    println!("{TOKENS} tokens, the first one again after {:.1?}", start(&mut cluster, 0));
    println!("{TOKENS} tokens, another empty one after {:.1?}", start(&mut cluster, 2));

    std::fs::write(&file, import(TOKENS)).unwrap();
    let ids: Vec<_> = (0..1000).map(|number| cluster.token(1, "ann", &format!("r{number}")).0).collect();
    let over = AtomicBool::new(false);
    let took = thread::scope(|scope| {
        let revocations = scope.spawn(|| {
            let mut ids = ids.iter();
            let mut took = Vec::new();
            while !over.load(Ordering::SeqCst) {
                let Some(id) = ids.next() else { break };
                let (answer, one) = cluster.revoke(1, id);
                assert_eq!(answer["nodes"]["confirmed"], NODES, "{answer}");
                took.push(one);
                thread::sleep(Duration::from_millis(50));
            }
            took
        });
        let begun = Instant::now();
        cluster.nodes[0].directory.check("token import --make-owners import.ndjson", 0);
        let took = begun.elapsed();
        over.store(true, Ordering::SeqCst);
        let each = TOKENS as f64 / took.as_secs_f64();
        println!("import of {TOKENS} through the cluster: {took:.1?}, {each:.0} a second");
        revocations.join().unwrap()
    });
    println!("revocations on another node meanwhile: {}", quantiles(took));
    compare(&cluster);
}

/// Import lines for [`TOKENS`] tokens, numbered from `first`.
fn import(first: usize) -> String {
    use std::fmt::Write as _;
    let mut lines = String::new();
    for number in first..first + TOKENS {
        let digest = blake3::hash(&number.to_le_bytes()).to_hex();
        let owner = number / PER_OWNER;
        let line = format!(
            r#"{{"digest": "{digest}", "owner": "u{owner}", "name": "t{number}", "scope": ["one"]}}"#
        );
        writeln!(lines, "{line}").unwrap();
    }
    lines
}

fn writers() {
    const LASTS: Duration = Duration::from_secs(30);
    let nobody = "127.0.0.1:9".parse().unwrap();
    let cluster = Cluster::prepare_behind(Etcd::start(1, &[]), NODES, nobody, TOKENS_SECTION).started();
    for writer in 0..2 * NODES {
        assert_eq!(cluster.create_user(0, &format!("writer{writer}")), 201);
    }
    let end = Instant::now() + LASTS;
    let waits: Vec<Vec<Duration>> = thread::scope(|scope| {
        let cluster = &cluster;
        let writing: Vec<_> = (0..2 * NODES)
            .map(|writer| {
                scope.spawn(move || {
                    let mut waits = Vec::new();
                    while Instant::now() < end {
                        let begun = Instant::now();
                        cluster.token_of(
                            writer % NODES,
                            &format!("writer{writer}"),
                            &format!("t{}", waits.len()),
                        );
                        waits.push(begun.elapsed());
                    }
                    waits
                })
            })
            .collect();
        writing.into_iter().map(|waits| waits.join().unwrap()).collect()
    });
    let made: usize = waits.iter().map(Vec::len).sum();
    let fewest = waits.iter().map(Vec::len).min().unwrap();
    println!(
        "{} writers on {NODES} nodes: {:.0} creates a second, the slowest of them {:.0}; {}",
        waits.len(),
        made as f64 / LASTS.as_secs_f64(),
        fewest as f64 / LASTS.as_secs_f64(),
        quantiles(waits.into_iter().flatten().collect()),
    );
    compare(&cluster);
}

/// Checks that all nodes have the same rows, byte for byte, and a valid audit chain.
fn compare(cluster: &Cluster) {
    // Bytes of a backup's header, which has its time, and of its trailer with the head and the checksum.
    const HEADER: usize = 65;
    const TRAILER: usize = 100;
    let position =
        |node: usize| cluster.process(node).operator("GET", "/v1/cluster", None).json()["in_force"].clone();
    while (1..NODES).any(|node| position(node) != position(0)) {
        thread::sleep(Duration::from_millis(100));
    }
    let backups: Vec<_> =
        (0..NODES).map(|node| cluster.process(node).operator("GET", "/v1/backup", None).body).collect();
    // The audit log is last: the second backup has an event of the first one at its end.
    let rows = HEADER..backups[0].len() - TRAILER;
    let (first, lengths) = (&backups[0][rows.clone()], backups.iter().map(Vec::len).collect::<Vec<_>>());
    for backup in &backups {
        let differs = backup[rows.clone()].iter().zip(first).position(|(one, other)| one != other);
        assert!(differs.is_none(), "the copies differ at {differs:?}, of {lengths:?} bytes");
    }
    for node in &cluster.nodes {
        node.directory.check("audit verify", 0);
    }
    println!("all copies are equal, {} bytes, and their audit chains verify", backups[0].len());
}
