//! Whether a request costs more as a gateway grows, and how much of its cost is authorization:
//! `cargo bench --bench growth -- [--tokens MAX_GROWTH]`.
//! The unit is user-space instructions, counted by valgrind (which must be installed): they vary by less than
//! 1 %, where times would vary by 10 %. Only the measured requests are counted.

#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fmt::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Stdio},
};

use support::{
    http::Client,
    import::{Accounts, bearer},
    stage::{Ended, listening, run, vacant},
};

#[derive(Clone, Copy)]
struct Size {
    services: usize,
    users: usize,
    /// Groups that the user is a member of.
    groups: usize,
    tokens: usize,
}

const SMALL: Size = Size { services: 1, users: 1, groups: 1, tokens: 10_000 };

/// The most that growth may multiply the cost by.
const MAX_GROWTH: f64 = 1.05;

/// The most instructions that authorization may cost over plain forwarding.
const MAX_AUTHORIZATION_INSTRUCTIONS: f64 = 1500.0;

const CONNECTIONS: usize = 8;
const WARM_UP_ROUNDS: usize = 50;
const ROUNDS: usize = 500;

fn main() {
    let most_tokens = std::env::args().skip_while(|argument| argument != "--tokens").nth(1);
    let most_tokens = most_tokens.map_or(1_000_000, |text| text.parse().unwrap());
    let upstream = upstream();
    let rows = [
        ("1 to 64 services", Size { services: 64, ..SMALL }),
        ("1 to 10,000 users", Size { users: 10_000, ..SMALL }),
        ("1 to 1,000 groups of the user", Size { groups: 1000, ..SMALL }),
        ("10,000 tokens to the most", Size { tokens: most_tokens, ..SMALL }),
    ];
    let Cost { with_token: small, anonymous } = measure(upstream, SMALL);
    let authorization = small - anonymous;
    println!("small: {small:.0} instructions a request; {anonymous:.0} without a token, by a public rule");
    println!("the authorization: {authorization:.0}");
    let mut missed = Vec::new();
    if authorization > MAX_AUTHORIZATION_INSTRUCTIONS {
        missed.push("the authorization");
    }
    for (name, size) in rows {
        let large = measure(upstream, size).with_token;
        println!("{name}: {large:.0}, {:.3} times as many", large / small);
        if large > small * MAX_GROWTH {
            missed.push(name);
        }
    }
    assert!(missed.is_empty(), "beyond the target: {missed:?}");
}

/// In instructions per request.
struct Cost {
    with_token: f64,
    anonymous: f64,
}

fn measure(upstream: SocketAddr, size: Size) -> Cost {
    let dir = tempfile::tempdir().unwrap();
    let proxy = vacant();
    let config = dir.path().join("gateway.toml");
    std::fs::write(&config, text(upstream, proxy, size)).unwrap();
    accounts(size).import(&config);

    let counts = dir.path().join("counts");
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--instr-atstart=no"]);
    command.arg(format!("--callgrind-out-file={}", counts.display()));
    command.args([env!("CARGO_BIN_EXE_permgate"), "run", "-c"]).arg(&config).stderr(Stdio::null());
    let gateway = listening(&mut command, proxy);
    let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::tcp(proxy)).collect();
    ask(&mut clients, WARM_UP_ROUNDS, Some);
    control(&gateway, "-i on");
    let mut part = 0;
    let mut count = |bearer: fn(String) -> Option<String>| {
        ask(&mut clients, WARM_UP_ROUNDS, bearer);
        control(&gateway, "-z");
        ask(&mut clients, ROUNDS, bearer);
        control(&gateway, "-d");
        part += 1;
        let counted = std::fs::read_to_string(format!("{}.{part}", counts.display())).unwrap();
        let mut lines = counted.lines();
        let total = lines.find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
        let requests = u32::try_from(ROUNDS * CONNECTIONS).unwrap();
        total.expect("a total").trim().parse::<f64>().unwrap() / f64::from(requests)
    };
    Cost { with_token: count(Some), anonymous: count(|_| None) }
}

fn ask(clients: &mut [Client], rounds: usize, with: fn(String) -> Option<String>) {
    for round in 0..rounds {
        // All belong to the user whose groups are counted.
        let bearer = bearer(round % 100 * 100);
        let (target, field) = match with(bearer.clone()) {
            Some(bearer) => ("kept", format!("Authorization: Bearer {bearer}\r\n")),
            // So that plain forwarding reads and sends a field of the same length.
            None => ("open", format!("Cookie: session={bearer}\r\n")),
        };
        let request = format!(
            "GET /service0/{target} HTTP/1.1\r\nHost: gateway.example\r\nUser-Agent: bench\r\nAccept: */*\r\n\
             {field}\r\n"
        );
        for client in &mut *clients {
            client.send(&request);
        }
        for client in &mut *clients {
            assert_eq!(client.answer("GET").status, 200);
        }
    }
}

fn text(upstream: SocketAddr, proxy: SocketAddr, size: Size) -> String {
    let mut text = format!(
        r#"version = 1
[server]
listen = ["{proxy}"]
workers = 1
[admin]
listen = ["unix:admin.sock"]
[store]
path = "data"
ballast = "64k"
[log]
access = "off"
[upstream.one]
urls = ["http://{upstream}"]
"#
    );
    for service in 0..size.services {
        writeln!(
            text,
            "[service.s{service}]\ntitle = \"{service}\"\nupstream = \"one\"\npaths = [\"/service{service}\"]\n\
             readers = [\"group0\"]"
        )
        .unwrap();
    }
    text + "[[public]]\nservice = \"s0\"\npath = \"/service0/open\"\n"
}

/// Every hundredth token belongs to the first user, the others to all users in turn.
fn accounts(size: Size) -> Accounts {
    let mut accounts = Accounts::default();
    for user in 0..size.users {
        accounts.user(&format!("user{user}"));
    }
    for group in 0..size.groups {
        accounts.group(&format!("group{group}"), &["user0".to_owned()]);
    }
    for number in 0..size.tokens {
        let user = if number % 100 == 0 { 0 } else { number % size.users };
        accounts.token(number, &format!("user{user}"), &["s0".to_owned()]);
    }
    accounts
}

/// Answers every request on every connection with the same 1 KiB.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            std::thread::spawn(move || serve(socket.unwrap()));
        }
    });
    address
}

fn serve(mut socket: TcpStream) {
    use std::io::{Read as _, Write as _};

    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n{}", "x".repeat(1024));
    let mut head = Vec::new();
    let mut part = [0; 4096];
    while let Ok(count @ 1..) = socket.read(&mut part) {
        head.extend_from_slice(&part[..count]);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            if socket.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

/// Sends a command to callgrind; it has taken effect when this returns.
fn control(gateway: &Ended, order: &str) {
    run(Command::new("callgrind_control").args(order.split(' ')).arg(gateway.0.id().to_string()));
}
