//! Floods against a real process with 1,024 descriptors: how long another client's requests and a ban take
//! meanwhile, and how much memory is used. It measures and prints, so it is run by hand on an otherwise idle
//! machine: `cargo test --release --test process -- --ignored --nocapture floods`, with `PERMGATE_FLOODS=H4`
//! only the floods whose names begin with that.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use crate::{
    harness::{Process, TestDirectory},
    http2::{END_HEADERS, END_STREAM, HEADERS, PING, SETTINGS, WINDOW_UPDATE, block, frame},
    support::import::{Accounts, bearer},
};

/// An attack that runs until it is stopped.
type Attack = fn(&Targets, &AtomicBool);

struct Targets {
    proxy: SocketAddr,
    admin: SocketAddr,
}

/// Ends the attack, even if measuring it has failed.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// How long one measurement lasts.
const MEASURED: Duration = Duration::from_secs(6);

/// Tokens of the account that floods the admin listener.
const TOKENS: usize = 10_000;

const ATTACKS: [(&str, Attack); 10] = [
    ("H1: 30 x lists of 10,000 tokens", lists),
    ("H1: 30 x the audit log", audit),
    ("H1: 4 x imports of 2,000 tokens", imports),
    ("H1: 30 x documents", documents),
    ("H1: 10 x reports of 1,000 leaks, configurations, passwords", reports),
    ("H2: 12 x 100 streams to a slow service", slow_streams),
    ("H4: 20 x 100 streams whose windows stay closed", closed_windows),
    ("M7: 100 x 100 bodies of sign-ins left open", open_bodies),
    ("low 8: PING as fast as it goes, 4 connections", pings),
    ("busy connections, one after the other", connections),
];

#[test]
#[ignore = "measures for two minutes and asserts about time"]
fn floods() {
    let (slow, quick, large) =
        (upstream(UpstreamKind::Silent), upstream(UpstreamKind::Quick), upstream(UpstreamKind::Large));
    let service = |name: &str, address: SocketAddr| {
        format!(
            "[upstream.{name}]\nurls = [\"http://{address}\"]\n[service.{name}]\nupstream = \"{name}\"\n\
             paths = [\"/{name}\"]\n[[public]]\nservice = \"{name}\"\nprefix = \"/{name}\"\n"
        )
    };
    let directory = TestDirectory::new(
        &[("slow", slow), ("quick", quick), ("large", large)].map(|(n, a)| service(n, a)).concat(),
    );
    // Another client may share its worker with the attack, or need what the attack holds on the other worker.
    directory.write_all(&directory.read().replace("workers = 1", "workers = 2"));
    let mut accounts = Accounts::default();
    (0..TOKENS).for_each(|number| accounts.token(number, "hog", &["permgate".to_owned()]));
    accounts.import(&directory.path().join("gateway.toml"));
    let mut shell = directory.clean_command("sh");
    shell.args(["-c", "ulimit -n 1024; exec \"$0\" run", env!("CARGO_BIN_EXE_permgate")]);
    let mut process = directory.start(shell);
    directory.check("grant add system-admin --user hog", 0);
    let printed = directory.check("check -o json", 0).0;
    let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let allowed = printed["budgets"]["memory"].as_u64().unwrap() >> 20;
    let targets = Targets { proxy: process.proxy, admin: process.admin };
    let quiet = median(|| neighbour_latency(process.proxy).unwrap());
    println!("quiet: p99 {quiet:?}; memory {} of {allowed} MiB", memory(&process));
    let mut failed = BTreeSet::new();
    let wanted = std::env::var("PERMGATE_FLOODS").unwrap_or_default();
    let attacks = ATTACKS.into_iter().filter(|(name, _)| name.starts_with(&wanted));
    for (number, (name, attack)) in attacks.enumerate() {
        let stop = AtomicBool::new(false);
        let (p99, bans) = thread::scope(|scope| {
            scope.spawn(|| {
                lower_priority();
                attack(&targets, &stop);
            });
            let _stop = Stop(&stop);
            thread::sleep(Duration::from_secs(2));
            let p99 = [0; 3].map(|_| neighbour_latency(process.proxy));
            let bans = [0, 1, 2].map(|run| ban(&process, &format!("user{number}{run}")));
            (p99.into_iter().collect::<Result<Vec<_>, _>>(), bans)
        });
        let used = memory(&process);
        println!("{name}: p99 {p99:?}; bans {bans:?}; memory {used} of {allowed} MiB");
        let most = (10 * quiet).max(Duration::from_millis(50));
        let late = p99.map_or(true, |mut runs| median(|| runs.pop().unwrap()) > most);
        if late || bans.into_iter().any(|ban| ban > Duration::from_millis(100)) || used > allowed {
            failed.insert(name);
        }
    }
    process.stop();
    assert!(failed.is_empty(), "{failed:?}");
}

/// Lowers the priority of an attack's threads: a real attacker has its own machine, so here it gets only the
/// processor time that the gateway and its other clients leave.
fn lower_priority() {
    rustix::process::setpriority_process(None, 19).unwrap();
}

fn median(mut measure: impl FnMut() -> Duration) -> Duration {
    let mut runs = [0; 3].map(|_| measure());
    runs.sort();
    runs[1]
}

/// The 99th percentile of another client's requests, half of them on new connections. Each must be answered.
fn neighbour_latency(proxy: SocketAddr) -> Result<Duration, String> {
    let (began, mut times) = (Instant::now(), Vec::new());
    let connect = || TcpStream::connect(proxy).map_err(|error| format!("connect: {error}"));
    let mut kept = connect()?;
    while began.elapsed() < MEASURED / 3 {
        for fresh in [false, true] {
            let at = Instant::now();
            let mut own = fresh.then(connect).transpose()?;
            let answer = ask(own.as_mut().unwrap_or(&mut kept));
            match answer {
                Ok(head) if head.starts_with("HTTP/1.1 200") => times.push(at.elapsed()),
                other => {
                    return Err(format!("on a {} connection: {other:?}", if fresh { "new" } else { "kept" }));
                }
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
    times.sort();
    Ok(times[times.len() * 99 / 100])
}

fn ask(socket: &mut TcpStream) -> std::io::Result<String> {
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.write_all(b"GET /quick HTTP/1.1\r\nHost: g\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        let mut more = [0; 4096];
        match socket.read(&mut more)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&more[..read]),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Creates and bans a user through the operator's socket. Returns how long the ban takes.
fn ban(process: &Process, login: &str) -> Duration {
    let made = process.operator("POST", "/v1/users", Some(&format!("{{\"login\": \"{login}\"}}")));
    assert_eq!(made.status, 201, "{}", made.text());
    let at = Instant::now();
    let banned = process.operator("POST", &format!("/v1/users/{login}/ban"), Some("{}"));
    assert!(banned.status < 300, "{}", banned.text());
    at.elapsed()
}

/// Resident memory in MiB.
fn memory(process: &Process) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{}/statm", process.id())).unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4 / 1024
}

#[derive(Clone, Copy)]
enum UpstreamKind {
    Silent,
    Quick,
    /// Answers without end.
    Large,
}

fn upstream(kind: UpstreamKind) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        if !matches!(kind, UpstreamKind::Quick) {
            lower_priority();
        }
        for socket in listener.incoming().flatten() {
            thread::Builder::new().stack_size(128 << 10).spawn(move || answer(kind, socket)).unwrap();
        }
    });
    address
}

fn answer(kind: UpstreamKind, mut socket: TcpStream) {
    let mut head = [0; 4096];
    while socket.read(&mut head).is_ok_and(|read| read > 0) {
        match kind {
            UpstreamKind::Silent => {}
            UpstreamKind::Quick => {
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
            UpstreamKind::Large => {
                let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n");
                while socket.write_all(&[b'x'; 32 << 10]).is_ok() {}
            }
        }
    }
}

/// The preface, settings, and GETs of this path on 100 streams.
fn streams(path: &str, settings: &[u8]) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, settings));
    let fields = block(&[(":method", "GET"), (":scheme", "http"), (":authority", "g"), (":path", path)]);
    for number in 0..100 {
        bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &fields));
    }
    bytes
}

fn open(address: SocketAddr, bytes: &[u8]) -> Option<TcpStream> {
    let mut socket = TcpStream::connect(address).ok()?;
    socket.set_write_timeout(Some(Duration::from_millis(200))).ok()?;
    socket.write_all(bytes).ok()?;
    Some(socket)
}

fn hold_open(sockets: Vec<TcpStream>, stop: &AtomicBool) {
    while !stop.load(Relaxed) {
        thread::sleep(Duration::from_millis(10));
    }
    drop(sockets);
}

fn slow_streams(targets: &Targets, stop: &AtomicBool) {
    let all = streams("/slow", &[]);
    hold_open((0..12).filter_map(|_| open(targets.proxy, &all)).collect(), stop);
}

fn closed_windows(targets: &Targets, stop: &AtomicBool) {
    // SETTINGS_INITIAL_WINDOW_SIZE: 0, then one byte of window per stream every second.
    let all = streams("/large", &[0, 4, 0, 0, 0, 0]);
    let mut sockets: Vec<_> = (0..20).filter_map(|_| open(targets.proxy, &all)).collect();
    let trickle: Vec<u8> =
        (0..100).flat_map(|number| frame(WINDOW_UPDATE, 0, 2 * number + 1, &1u32.to_be_bytes())).collect();
    while !stop.load(Relaxed) {
        sockets.retain_mut(|socket| socket.write_all(&trickle).is_ok());
        thread::sleep(Duration::from_secs(1));
    }
}

fn open_bodies(targets: &Targets, stop: &AtomicBool) {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    let fields = block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", "/v1/session"),
        ("content-type", "application/json"),
    ]);
    for number in 0..100 {
        bytes.extend(frame(HEADERS, END_HEADERS, 2 * number + 1, &fields));
        bytes.extend(frame(0, 0, 2 * number + 1, &[b' '; 16_000]));
    }
    hold_open((0..100).filter_map(|_| open(targets.admin, &bytes)).collect(), stop);
}

fn pings(targets: &Targets, stop: &AtomicBool) {
    let ping = frame(PING, 0, 0, &[0; 8]).repeat(200);
    let begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    let Some(mut socket) = open(targets.proxy, begin) else { continue };
                    while !stop.load(Relaxed) && socket.write_all(&ping).is_ok() {}
                }
            });
        }
    });
}

fn connections(targets: &Targets, stop: &AtomicBool) {
    let head = b"GET /slow HTTP/1.1\r\nHost: g\r\n\r\n";
    let mut busy = Vec::new();
    while !stop.load(Relaxed) {
        busy.extend(open(targets.proxy, head));
        if busy.len() == 300 {
            busy.clear();
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Runs this many callers, each of which sends one request after another.
fn callers(number: usize, targets: &Targets, stop: &AtomicBool, request: impl Fn(usize) -> Vec<u8> + Sync) {
    thread::scope(|scope| {
        for caller in 0..number {
            let request = &request;
            scope.spawn(move || {
                let mut round = caller;
                while !stop.load(Relaxed) {
                    let Some(mut socket) = open(targets.admin, &request(round)) else { continue };
                    let _ = socket.set_read_timeout(Some(Duration::from_secs(5)));
                    let _ = std::io::copy(&mut socket, &mut std::io::sink());
                    round += number;
                }
            });
        }
    });
}

fn get(targets: &Targets, stop: &AtomicBool, paths: &[&str]) {
    callers(30, targets, stop, |round| {
        let (path, token) = (paths[round % paths.len()], bearer(0));
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n")
            .into_bytes()
    });
}

fn lists(targets: &Targets, stop: &AtomicBool) {
    let paths = [
        "/hub/api/rest/users/me/permanenttokens?$top=1",
        "/hub/api/rest/users/me/permanenttokens?$skip=9000",
        "/v1/users/me/tokens?limit=1000",
        "/v1/tokens?state=revoked",
        "/v1/users",
    ];
    get(targets, stop, &paths);
}

fn audit(targets: &Targets, stop: &AtomicBool) {
    get(targets, stop, &["/v1/audit?limit=1000", "/v1/audit/verify", "/v1/overview", "/v1/backup"]);
}

fn documents(targets: &Targets, stop: &AtomicBool) {
    get(targets, stop, &["/docs", "/openapi.json", "/v1/config", "/metrics"]);
}

fn reports(targets: &Targets, stop: &AtomicBool) {
    callers(10, targets, stop, |round| {
        let (path, body) = match round % 3 {
            0 => {
                // All tokens but the caller's; revoked ones are looked up, too.
                let leaked = (0..1000).map(|text| bearer(1 + (1000 * round + text) % (TOKENS - 1)));
                ("leaks", serde_json::json!({ "texts": leaked.collect::<Vec<_>>() }))
            }
            1 => (
                "config/check",
                serde_json::json!({"text": "[service.a]\npaths = [\"/a\"]\n".repeat(10_000)}),
            ),
            _ => ("session", serde_json::json!({"login": "hog", "password": "x".repeat(1000)})),
        };
        post(path, &body.to_string())
    });
}

/// A call by the account that floods the admin listener.
fn post(path: &str, body: &str) -> Vec<u8> {
    let (token, length) = (bearer(0), body.len());
    let fields =
        format!("Authorization: Bearer {token}\r\nContent-Type: application/json\r\nConnection: close");
    format!(
        "POST /v1/{path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn imports(targets: &Targets, stop: &AtomicBool) {
    callers(4, targets, stop, |round| {
        let lines = (0..2000).map(|line| {
            let digest = blake3::hash(&(round * 2000 + line).to_be_bytes()).to_hex();
            format!(r#"{{"digest": "{digest}", "owner": "load", "name": "{round} {line}", "scope": [{{"service": "permgate"}}]}}"#)
        });
        let body = format!(r#"{{"make_owners": true, "tokens": [{}]}}"#, lines.collect::<Vec<_>>().join(","));
        post("tokens/import", &body)
    });
}
