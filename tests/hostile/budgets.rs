//! Budgets of the whole process: other clients and the operator are served whatever one
//! client or upstream uses up.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{
    recorder::Recorder,
    stage::exchange_bytes,
    support::{
        gateway::Gateway,
        http::{Answer, Client},
        wait::eventually,
    },
};

/// An upstream that accepts requests and answers none until the sender is dropped.
fn silent() -> (SocketAddr, mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, ended) = mpsc::channel::<()>();
    thread::spawn(move || {
        let mut sockets = Vec::new();
        listener.set_nonblocking(true).unwrap();
        while matches!(ended.try_recv(), Err(mpsc::TryRecvError::Empty)) {
            sockets.extend(listener.accept());
            thread::sleep(Duration::from_millis(1));
        }
    });
    (address, sender)
}

fn metric(gateway: &Gateway, name: &str) -> u64 {
    let answer = gateway.operator("GET", "/metrics", None);
    let text = answer.text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
    line.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
}

#[test]
fn one_upstream_leaves_connections_for_the_others() {
    let recorder = Recorder::start();
    let (slow, _running) = silent();
    let sections = format!(
        r#"
[server.budgets]
upstream_connections = 16
tunnels = 8
[upstream.slow]
urls = ["http://{slow}"]
[upstream.other]
urls = ["http://{}"]
[service.slow]
upstream = "slow"
paths = ["/slow"]
readers = ["developers"]
[service.other]
upstream = "other"
paths = ["/other"]
[[public]]
service = "slow"
prefix = "/slow"
[[public]]
service = "other"
prefix = "/other"
"#,
        recorder.address
    );
    let gateway = Gateway::with(&sections);
    let ask = |path: &str, more: &str| {
        let mut socket = TcpStream::connect(gateway.proxy).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: g\r\n{more}\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        socket
    };
    let hogs: Vec<TcpStream> = (0..30).map(|_| ask("/slow", "")).collect();
    // Requests without a socket are refused at once; the others wait.
    let refused = || {
        let is_refused = |socket: &&TcpStream| {
            socket.set_nonblocking(true).unwrap();
            let mut answer = [0; 12];
            socket.peek(&mut answer).is_ok_and(|_| &answer == b"HTTP/1.1 503")
        };
        hogs.iter().filter(is_refused).count()
    };
    eventually("all but seven eighths of 16 are refused", || refused() >= 30 - 14);
    for _ in 0..5 {
        assert_eq!(gateway.get("/other", None).status, 200, "a neighbour");
    }
    assert_eq!(refused(), 30 - 14);
    assert_eq!(metric(&gateway, "permgate_budget_limit{budget=\"upstream_connections\"}"), 16);
    assert!(metric(&gateway, "permgate_budget_refusals_total{budget=\"upstream_connections\"}") >= 16);
    drop(hogs);
    // Tunnels that the upstream has not granted yet also count. They require a token.
    gateway.developer("alice");
    let (_, token) = gateway.token("alice", "slow", &["slow"]);
    let wish = format!("Authorization: Bearer {token}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n");
    let hogs: Vec<TcpStream> = (0..10).map(|_| ask("/slow", &wish)).collect();
    let head = format!("GET /slow HTTP/1.1\r\nHost: g\r\n{wish}\r\n");
    let heard = loop {
        let heard = exchange_bytes(gateway.proxy, head.as_bytes(), false);
        if let Some(answer) = heard.answers().first() {
            break answer.status;
        }
    };
    assert_eq!(heard, 503);
    drop(hogs);
}

#[test]
fn unauthenticated_clients_do_not_fill_the_admin_listener() {
    let text = Gateway::text_with("", "connections = 8\nbodies = \"32k\"", "");
    let gateway = Gateway::on(tempfile::tempdir().unwrap(), &text);
    let begun = |length: usize, sent: usize| {
        let mut socket = TcpStream::connect(gateway.admin).unwrap();
        let head = format!(
            "POST /v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        // The server may have closed the connection already.
        let _ = socket.write_all([head.as_bytes(), &vec![b' '; sent]].concat().as_slice());
        socket
    };
    let first = begun(16 << 10, 16_000);
    while metric(&gateway, "permgate_budget_used{budget=\"admin_bodies\"}") < 16_000 {}
    let mut second = begun(16 << 10, 16_000);
    let mut answer = [0; 12];
    second.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503", "as much as is left for all others");
    assert_eq!(gateway.must("GET", "/v1/users", None)["items"].as_array().map(Vec::len), Some(0));
    drop((first, second));
    // None of these connections is idle, and none has signed in.
    let strangers: Vec<TcpStream> = (0..20).map(|_| begun(100, 10)).collect();
    assert_eq!(gateway.operator("GET", "/v1/users", None).status, 200, "the unix socket has its own");
    let answer = Client::tcp(gateway.admin).request("GET", "/healthz", &[("Host", "localhost")], None);
    assert_eq!(answer.status, 200, "the oldest stranger makes room");
    drop(strangers);
}

fn scrape(gateway: &Gateway, fields: &[(&str, &str)]) -> u16 {
    Client::tcp(gateway.admin).request("GET", "/metrics", fields, None).status
}

#[test]
fn metrics_access_follows_the_configured_key() {
    let start = |admin: &str| {
        let text = Gateway::text_with("", &format!("hosts = [\"gate.example\"]\n{admin}"), "");
        Gateway::on(tempfile::tempdir().unwrap(), &text)
    };
    let over_unix = |gateway: &Gateway, fields: &[(&str, &str)]| -> Answer {
        Client::unix(&gateway.socket).request("GET", "/metrics", fields, None)
    };
    let here = ("Host", "127.0.0.1");
    let gateway = start("");
    assert_eq!(scrape(&gateway, &[here]), 200);
    assert_eq!(scrape(&gateway, &[("Host", "localhost:8081")]), 200);
    for field in [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "Forwarded",
        "X-Real-IP",
        "Via",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Scheme",
        "X_Real_IP",
        "Remote-User",
        "X-Original-URL",
    ] {
        assert_eq!(scrape(&gateway, &[here, (field, "for=1.1 a")]), 401, "{field}: through a proxy");
        let users = Client::unix(&gateway.socket).request("GET", "/v1/users", &[(field, "for=1.1 a")], None);
        assert_eq!(users.status, 401, "{field}: nor the operator");
    }
    assert_eq!(scrape(&gateway, &[("Host", "gate.example")]), 401, "as others ask for it");
    assert_eq!(over_unix(&gateway, &[]).status, 200);
    assert_eq!(over_unix(&gateway, &[("Via", "1.1 a")]).status, 401, "not the operator either");
    let gateway = start("trusted_proxies = [\"127.0.0.1\"]");
    assert_eq!(scrape(&gateway, &[here]), 401, "this address is a proxy's");
    let gateway = start("metrics = \"socket\"");
    assert_eq!((scrape(&gateway, &[here]), over_unix(&gateway, &[]).status), (401, 200));
    let gateway = start("metrics = \"listener\"");
    assert_eq!(scrape(&gateway, &[("Host", "gate.example"), ("Via", "1.1 a")]), 200);
    let gateway = start("metrics = \"unix:metrics.sock\"");
    assert_eq!((scrape(&gateway, &[here]), over_unix(&gateway, &[("Via", "1.1 a")]).status), (401, 401));
    let separate = |target: &str| {
        Client::unix(&gateway.dir.path().join("metrics.sock")).request(
            "GET",
            target,
            &[("Host", "any")],
            None,
        )
    };
    assert!(separate("/metrics").text().contains("permgate_ready 1"));
    for other in ["/v1/users", "/healthz", "/", "/metrics/"] {
        assert_eq!(separate(other).status, 404, "{other}");
    }
}

#[test]
fn client_behind_a_trusted_proxy_is_identified() {
    let text = Gateway::text_with("", "trusted_proxies = [\"127.0.0.1\"]", "");
    let gateway = Gateway::on(tempfile::tempdir().unwrap(), &text);
    gateway.developer("alice");
    let password = r#"{"password": "a passphrase of some length"}"#;
    gateway.must("PUT", "/v1/users/alice/password", Some(password));
    let sign_in = |client: &str, login: &str, password: &str| {
        let body = serde_json::json!({"login": login, "password": password}).to_string();
        let fields = [("Host", "localhost"), ("X-Forwarded-For", client)];
        Client::tcp(gateway.admin).request("POST", "/v1/session", &fields, Some(&body))
    };
    // Ten attempts per login and address. An unknown login counts like a known one.
    for _ in 0..10 {
        assert_eq!(sign_in("203.0.113.9", "alice", "wrong").status, 401);
    }
    assert_eq!(sign_in("203.0.113.9", "alice", "wrong").status, 429);
    let right = sign_in("203.0.113.7", "alice", "a passphrase of some length");
    assert_eq!(right.status, 201, "from another address: {}", right.text());
    let cookie = right.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let fields = [("Host", "localhost"), ("X-Forwarded-For", "203.0.113.7"), ("Cookie", &cookie)];
    let sessions = Client::tcp(gateway.admin).request("GET", "/v1/sessions", &fields, None).json();
    assert_eq!(sessions["items"][0]["client"], "203.0.113.7");
    let both = [("Host", "localhost"), ("X-Forwarded-For", "1.1.1.1"), ("Forwarded", "for=2.2.2.2")];
    assert_eq!(Client::tcp(gateway.admin).request("GET", "/v1/whoami", &both, None).status, 400);
}

#[test]
fn reload_cannot_make_the_gateway_its_own_upstream() {
    let recorder = Recorder::start();
    let gateway = Gateway::with(&Gateway::services(recorder.address));
    let link = gateway.dir.path().join("app.sock");
    std::os::unix::fs::symlink(&gateway.socket, &link).unwrap();
    let port = gateway.proxy.port();
    for url in [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
        format!("http://0.0.0.0:{port}"),
        format!("http://127.0.0.1:{}", gateway.admin.port()),
        format!("unix:{}", link.display()),
        "unix:./permgate.sock".to_owned(),
    ] {
        let services = Gateway::services(recorder.address);
        gateway.write(&services.replace(&format!("http://{}", recorder.address), &url));
        let answer = gateway.operator("POST", "/v1/reload", None);
        assert!(
            answer.status >= 400 && answer.text().contains("this gateway listens on"),
            "{url}: {}",
            answer.text()
        );
    }
    gateway.write(&Gateway::services(recorder.address));
    assert_eq!(gateway.operator("POST", "/v1/reload", None).status, 200);
}
