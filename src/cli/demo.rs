//! `permgate demo`: an example service, the gateway on a temporary store, and the lines to try, or
//! with `--script` all of them tried.

mod exchange;
mod sample;
mod upstream;

use std::{
    fmt::Write as _,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use exchange::{Answer, ask, stream};
use upstream::ExampleServer;

use super::failure::{Failure, chain};
use crate::{
    app::{self, LocalAddr, Running, Signals, StartError},
    config,
    net::Address,
};

/// Why the demo does not run to its end.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("{0}")]
    Start(#[from] StartError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the example could not be set up: {0}")]
    SetUp(String),
}

/// A demo that runs: its parts end with it.
struct Demo {
    // Before the directory: the store closes while its files are there.
    running: Running,
    _example: ExampleServer,
    _dir: tempfile::TempDir,
    proxy: SocketAddr,
    socket: PathBuf,
    page: SocketAddr,
    /// Of alice and of root.
    password: String,
    token: String,
    token_id: String,
}

/// One line to try and what must come of it.
struct Line {
    what: &'static str,
    target: &'static str,
    bearer: bool,
    status: u16,
}

const LINES: [Line; 5] = [
    Line { what: "granted, and alice may read it", target: "/api/issues", bearer: true, status: 200 },
    Line { what: "no token", target: "/api/issues", bearer: false, status: 401 },
    Line { what: "another service's path", target: "/hub/api/rest/users", bearer: true, status: 403 },
    Line { what: "nobody's path", target: "/elsewhere", bearer: true, status: 404 },
    Line { what: "a path with two readings", target: "/api/%2e%2e/hub/api", bearer: true, status: 400 },
];

const STREAM: &str = "/api/stream";

/// The ports of the gateway and of its page, where they are free.
const USUAL_PORT: u16 = 8080;
const USUAL_PAGE_PORT: u16 = 8081;

pub(super) fn run(scripted: bool) -> Result<(), Failure> {
    let sound = if scripted { script() } else { serve().map(|()| true) };
    match sound {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::silent()),
        Err(error) => Err(Failure::failed(chain(&error))),
    }
}

/// Prints the lines to try and serves until SIGINT or SIGTERM.
fn serve() -> Result<(), DemoError> {
    let demo = Demo::start(usual(USUAL_PORT), usual(USUAL_PAGE_PORT), Signals::Heeded)?;
    println!("{}", demo.introduction());
    println!("The page, already signed in:");
    for (login, what) in [("alice", "her tokens"), ("root", "administration")] {
        println!("  {what:<15} http://{}/sign-in#{login}:{}", demo.page, demo.password);
    }
    println!();
    for line in &LINES {
        println!("# {}: {}\n{}\n", line.what, line.status, demo.curl(line.target, line.bearer));
    }
    println!(
        "# a stream, and its end: run this in one shell ...\n{}\n",
        demo.curl(STREAM, true).replace(" -i ", " -iN ")
    );
    println!("# ... and revoke the token in another one; the answer says how many streams were cut");
    println!(
        "curl -X DELETE --unix-socket {} http://localhost/v1/tokens/{}\n",
        demo.socket.display(),
        demo.token_id
    );
    println!(
        "# why was a request refused?\npermgate --admin unix:{} explain GET http://{}/hub/api/rest/users --token-id {}\n",
        demo.socket.display(),
        demo.proxy,
        demo.token_id
    );
    eprintln!("Press Ctrl-C to stop; everything is removed then.");
    demo.running.wait();
    Ok(())
}

/// Tries every line; `true` when each came out as it should.
fn script() -> Result<bool, DemoError> {
    let demo = Demo::start(any_port(), any_port(), Signals::Ignored)?;
    println!("{}", demo.introduction());
    let mut sound = true;
    for line in &LINES {
        let answer = demo.get(line.target, line.bearer)?;
        let told = answer.description().unwrap_or_else(|| "answered by the example service".to_owned());
        sound &=
            tell(line.what, line.target, answer.status == line.status, &format!("{}  {told}", answer.status));
    }
    sound &= demo.cut_a_stream()?;
    let answer = demo.get("/api/issues", true)?;
    let told = answer.description().unwrap_or_default();
    sound &= tell(
        "the same token once more",
        "/api/issues",
        answer.status == 401,
        &format!("{}  {told}", answer.status),
    );
    println!(
        "{}",
        if sound { "\nevery outcome is as it should be" } else { "\nNOT every outcome is as it should be" }
    );
    Ok(sound)
}

fn tell(what: &str, target: &str, as_it_should: bool, outcome: &str) -> bool {
    let mark = if as_it_should { "ok" } else { "NOT as it should be" };
    println!("{what:<32} GET {target:<22} {outcome}  [{mark}]");
    as_it_should
}

impl Demo {
    fn start(listen: SocketAddr, page: SocketAddr, signals: Signals) -> Result<Self, DemoError> {
        let dir = tempfile::Builder::new().prefix("permgate-demo-").tempdir()?;
        let example = ExampleServer::start()?;
        let file = dir.path().join("gateway.toml");
        std::fs::write(&file, configuration(listen, page, example.address))?;
        let mut config = config::Config::load(&file).map_err(StartError::from)?;
        config.admin.sign_in.demo = true;
        let running = app::start(config, signals)?;
        let tcp = |place: &LocalAddr| match place.address {
            Address::Tcp(address) => Some(address),
            _ => None,
        };
        let Some(proxy) = running.proxy().first().and_then(tcp) else {
            return Err(DemoError::SetUp("the proxy listens on no TCP address".to_owned()));
        };
        let Some(page) = running.admin().iter().find_map(tcp) else {
            return Err(DemoError::SetUp("the page listens on no TCP address".to_owned()));
        };
        let socket = dir.path().join("permgate.sock");
        let mut random = [0; 9];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let (token_id, token) = set_up(&socket, &password)?;
        Ok(Self { running, _example: example, _dir: dir, proxy, page, socket, password, token, token_id })
    }

    fn introduction(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "The gateway is on http://{}, in front of an example service.\n\
             The service `youtrack` owns /rest and /api, `youtrack-admin` owns /hub/api and /hub/rest.\n\
             alice may read youtrack; her token {} is granted for it.\n",
            self.proxy, self.token_id
        );
        text
    }

    fn curl(&self, target: &str, bearer: bool) -> String {
        let field =
            if bearer { format!("-H 'Authorization: Bearer {}' ", self.token) } else { String::new() };
        format!("curl -i {field}http://{}{target}", self.proxy)
    }

    fn get(&self, target: &str, bearer: bool) -> io::Result<Answer> {
        let socket = std::net::TcpStream::connect(self.proxy)?;
        let field = if bearer { format!("Authorization: Bearer {}\r\n", self.token) } else { String::new() };
        ask(socket, "GET", target, &field, None)
    }

    /// Opens a stream, revokes its token, and looks at how the stream ended.
    fn cut_a_stream(&self) -> Result<bool, DemoError> {
        let socket = std::net::TcpStream::connect(self.proxy)?;
        let mut events = stream(socket, STREAM, &self.token)?;
        let first = events.next_event()?;
        let revoked = admin(&self.socket, "DELETE", &format!("/v1/tokens/{}", self.token_id), None)?;
        let cut = revoked["cut"].as_u64();
        let end = events.end();
        let told = match &end {
            Ok(()) => "ended as if it were complete".to_owned(),
            Err(error) => format!("{error}"),
        };
        let sound = cut == Some(1) && end.is_err() && !first.is_empty();
        let outcome = format!("200, then revoked: {} cut, the client sees: {told}", cut.unwrap_or(0));
        Ok(tell("a stream while it is revoked", STREAM, sound, &outcome))
    }
}

/// The example of the repository's `gateway.toml`, on these addresses.
fn configuration(listen: SocketAddr, page: SocketAddr, example: SocketAddr) -> String {
    format!(
        r#"version = 1

[server]
listen = ["{listen}"]

[admin]
listen = ["unix:permgate.sock", "{page}"]

[store]
path = "store"
ballast = "1m"

[log]
access = "off"

[metrics]
old_names = false

[upstream.youtrack]
urls = ["http://{example}"]

[service.youtrack]
title = "YouTrack"
about = "Issues, tags, commands, agile boards, dashboards and reports"
upstream = "youtrack"
paths = ["/rest", "/api"]
readers = ["developers"]

[service.youtrack-admin]
title = "YouTrack Administration"
about = "Project and access management, server settings"
upstream = "youtrack"
paths = ["/hub/api", "/hub/rest"]
readers = ["hub-admins"]
"#
    )
}

/// root, alice, her group and her token; the token's id and text.
fn set_up(socket: &Path, password: &str) -> Result<(String, String), DemoError> {
    for (login, name) in [("alice", "Alice"), ("root", "Root")] {
        let user = serde_json::json!({"login": login, "name": name, "password": password});
        admin(socket, "POST", "/v1/users", Some(&user.to_string()))?;
    }
    admin(socket, "POST", "/v1/grants", Some(r#"{"role": "system-admin", "user": "root"}"#))?;
    admin(socket, "POST", "/v1/groups", Some(r#"{"name": "developers"}"#))?;
    admin(socket, "POST", "/v1/groups", Some(r#"{"name": "hub-admins"}"#))?;
    admin(socket, "PUT", "/v1/groups/developers/members/alice", None)?;
    for (method, target, body) in sample::calls() {
        admin(socket, method, &target, body.map(|body| body.to_string()).as_deref())?;
    }
    let new = r#"{"name": "demo", "scope": [{"service": "youtrack"}]}"#;
    let made = admin(socket, "POST", "/v1/users/alice/tokens", Some(new))?;
    match (made["id"].as_str(), made["token"].as_str()) {
        (Some(id), Some(text)) => Ok((id.to_owned(), text.to_owned())),
        _ => Err(DemoError::SetUp("the answer holds no token".to_owned())),
    }
}

/// A call as the operator, which has to succeed.
fn admin(
    socket: &Path,
    method: &str,
    target: &str,
    body: Option<&str>,
) -> Result<serde_json::Value, DemoError> {
    let answer = ask(std::os::unix::net::UnixStream::connect(socket)?, method, target, "", body)?;
    if answer.status >= 300 {
        let told = answer.description().unwrap_or_default();
        return Err(DemoError::SetUp(format!("{method} {target}: {} {told}", answer.status)));
    }
    Ok(answer.json().unwrap_or_default())
}

/// This port where it is free, else any.
fn usual(port: u16) -> SocketAddr {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(usual).map_or_else(|_| any_port(), |_| usual)
}

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}
