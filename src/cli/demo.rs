//! `permgate demo`: an example service, the gateway on a temporary store, and commands to try; with
//! `--script` it tries them itself. The sample users, groups and tokens are here, too.

mod upstream;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    thread,
};

use askama::Template;
use http::Method;
use serde_json::{Value, json};
use upstream::ExampleServer;

use super::{
    client::{ApiResponse, Client},
    failure::{Failure, chain, print_stderr},
    output::print,
    target::Target,
};
use crate::{
    app::{self, LocalAddr, Running, Signals},
    config,
    net::Address,
};

/// A running demo; dropping it stops its parts.
struct Demo {
    // Dropped before the directory, so that the store closes while its files exist.
    running: Running,
    _example: ExampleServer,
    _dir: tempfile::TempDir,
    proxy: SocketAddr,
    socket: PathBuf,
    page: SocketAddr,
    /// The password of alice and of root.
    password: String,
    token: String,
    token_id: String,
}

/// What the demo is, and with `to_try` also the commands that show it.
#[derive(Template)]
#[template(path = "demo.txt", escape = "none")]
struct Introduction<'d> {
    demo: &'d Demo,
    to_try: bool,
}

/// The example from the repository's `gateway.toml`, with these addresses.
#[derive(Template)]
#[template(path = "demo.toml", escape = "none")]
struct Configuration {
    listen: SocketAddr,
    page: SocketAddr,
    example: SocketAddr,
}

/// Requests to try: what each shows, its target, whether it has the token, and the expected status.
const REQUESTS: [(&str, &str, bool, u16); 5] = [
    ("granted, and alice may read it", "/api/issues", true, 200),
    ("no token", "/api/issues", false, 401),
    ("another service's path", "/hub/api/rest/users", true, 403),
    ("nobody's path", "/elsewhere", true, 404),
    ("a path with two readings", "/api/%2e%2e/hub/api", true, 400),
];

const STREAM: &str = "/api/stream";

/// The preferred ports of the gateway and of its page.
const DEFAULT_PORT: u16 = 8080;
const DEFAULT_PAGE_PORT: u16 = 8081;

pub(super) fn run(scripted: bool) -> Result<(), Failure> {
    let sound = if scripted { script() } else { serve().map(|()| true) };
    if sound? { Ok(()) } else { Err(Failure::silent()) }
}

/// Prints the commands to try and serves until SIGINT or SIGTERM.
fn serve() -> Result<(), Failure> {
    let demo = Demo::start(port_or_any(DEFAULT_PORT), port_or_any(DEFAULT_PAGE_PORT), Signals::Handled)?;
    print(&demo.introduction(true))?;
    print_stderr("Press Ctrl-C to stop; everything is removed then.");
    demo.running.wait();
    Ok(())
}

/// Tries every request; `true` if each outcome is as expected.
fn script() -> Result<bool, Failure> {
    let demo = Demo::start(any_port(), any_port(), Signals::Ignored)?;
    print(&demo.introduction(false))?;
    let mut sound = true;
    for (what, target, bearer, status) in REQUESTS {
        sound &= demo.try_request(what, target, bearer, status)?;
    }
    sound &= demo.cut_a_stream()?;
    sound &= demo.try_request("the same token once more", "/api/issues", true, 401)?;
    print(&format!("\n{} outcome is as expected", if sound { "every" } else { "NOT every" }))?;
    Ok(sound)
}

fn print_result(what: &str, target: &str, as_it_should: bool, outcome: &str) -> Result<bool, Failure> {
    let mark = if as_it_should { "ok" } else { "NOT as it should be" };
    print(&format!("{what:<32} GET {target:<22} {outcome}  [{mark}]"))?;
    Ok(as_it_should)
}

impl Demo {
    fn start(listen: SocketAddr, page: SocketAddr, signals: Signals) -> Result<Self, Failure> {
        let dir = tempfile::Builder::new().prefix("permgate-demo-").tempdir()?;
        let example = ExampleServer::start()?;
        let file = dir.path().join("gateway.toml");
        let configuration = Configuration { listen, page, example: example.address };
        std::fs::write(&file, configuration.render().map_err(io::Error::other)?)?;
        let mut config = config::Config::load(&file).map_err(|errors| Failure::usage(errors.to_string()))?;
        config.admin.sign_in.demo = true;
        let running = app::start(config, signals).map_err(|error| Failure::failed(chain(&error)))?;
        let tcp = |place: &LocalAddr| match place.address {
            Address::Tcp(address) => Some(address),
            _ => None,
        };
        let Some(proxy) = running.proxy().first().and_then(tcp) else {
            return Err(Failure::failed("the proxy listens on no TCP address"));
        };
        let Some(page) = running.admin().iter().find_map(tcp) else {
            return Err(Failure::failed("the page listens on no TCP address"));
        };
        let socket = dir.path().join("permgate.sock");
        let mut random = [0; 9];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let (token_id, token) = set_up(&operator(&socket)?, &password)?;
        Ok(Self { running, _example: example, _dir: dir, proxy, page, socket, password, token, token_id })
    }

    fn introduction(&self, to_try: bool) -> String {
        Introduction { demo: self, to_try }.render().expect("the template writes only texts")
    }

    fn curl(&self, target: &str, bearer: bool) -> String {
        let field =
            if bearer { format!("-H 'Authorization: Bearer {}' ", self.token) } else { String::new() };
        format!("curl -i {field}http://{}{target}", self.proxy)
    }

    /// A client of the gateway itself.
    fn client(&self, bearer: bool) -> Result<Client, Failure> {
        Client::of(vec![Target::Tcp(self.proxy.to_string())], bearer.then_some(&self.token))
    }

    /// Sends a request, prints its outcome, and returns whether it has the expected status.
    fn try_request(&self, what: &str, target: &str, bearer: bool, status: u16) -> Result<bool, Failure> {
        let ApiResponse { status: answered, body } = self.client(bearer)?.send(&Method::GET, target, None)?;
        let result = body["error_description"].as_str().unwrap_or("answered by the example service");
        let outcome = format!("{}  {result}", answered.as_u16());
        print_result(what, target, answered == status, &outcome)
    }

    /// Opens a stream, revokes its token, and checks how the stream ends.
    fn cut_a_stream(&self) -> Result<bool, Failure> {
        let Client::Listener(stream) = self.client(true)? else { return Ok(false) };
        let mut events = RevokingReader { demo: self, cut: None, after_revocation: 0 };
        let end = stream.download(STREAM, &mut events, &mut |_| {});
        let result = match &end {
            Ok(_) => "ended as if it were complete",
            Err(failure) => &failure.message,
        };
        let cut = events.cut.unwrap_or_default();
        let sound = cut == 1 && end.is_err() && events.after_revocation <= MAX_IN_TRANSIT;
        let outcome = format!("200, then revoked: {cut} cut, the client sees: {result}");
        print_result("a stream while it is revoked", STREAM, sound, &outcome)
    }
}

/// Reads a stream and revokes its token at the first event.
struct RevokingReader<'d> {
    demo: &'d Demo,
    /// How many requests the revocation cut.
    cut: Option<u64>,
    /// Events received after the revocation.
    after_revocation: u32,
}

/// Events that may have been in transit when the token was revoked.
const MAX_IN_TRANSIT: u32 = 20;

impl io::Write for RevokingReader<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        if self.cut.is_some() {
            self.after_revocation += 1;
            return if self.after_revocation > MAX_IN_TRANSIT {
                Err(io::Error::other("it goes on"))
            } else {
                Ok(event.len())
            };
        }
        let path = format!("/v1/tokens/{}", self.demo.token_id);
        let revoke = || operator(&self.demo.socket)?.delete(&path);
        // This thread is inside the stream's runtime, which cannot be nested.
        let revoked = thread::scope(|scope| scope.spawn(revoke).join());
        let Ok(Ok(revoked)) = revoked else { return Err(io::Error::other("it was not revoked")) };
        self.cut = Some(revoked["cut"].as_u64().unwrap_or_default());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn operator(socket: &Path) -> Result<Client, Failure> {
    Client::of(vec![Target::Unix(socket.to_owned())], None)
}

/// Creates root, alice, her group and her token; returns the token's id and text.
fn set_up(operator: &Client, password: &str) -> Result<(String, String), Failure> {
    for (login, name) in [("alice", "Alice"), ("root", "Root")] {
        operator.post("/v1/users", &json!({"login": login, "name": name, "password": password}))?;
    }
    for (method, path, body) in sample_calls() {
        let method = Method::try_from(&*method).expect("a call begins with a method");
        operator.call(&method, &path, body.as_ref())?;
    }
    let new = json!({"name": "demo", "scope": [{"service": "youtrack"}]});
    let made = operator.post("/v1/users/alice/tokens", &new)?;
    let text = |field: &str| made[field].as_str().unwrap_or_default().to_owned();
    Ok((text("id"), text("token")))
}

/// This port if it is free, else any free port.
fn port_or_any(port: u16) -> SocketAddr {
    let preferred = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(preferred).map_or_else(|_| any_port(), |_| preferred)
}

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// The operator's API calls that create the sample groups, users and tokens: method, path, body.
fn sample_calls() -> Vec<(String, String, Option<Value>)> {
    serde_json::from_str(include_str!("demo/calls.json")).expect("the calls are a list")
}
