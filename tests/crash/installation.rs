//! A directory with a configuration, and the process that serves it. Both listeners are
//! unix sockets, so that nothing depends on free ports.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::upstream::Upstream;

/// Longer than anything that tests wait for, including blocked workers.
pub const PATIENCE: Duration = Duration::from_secs(40);

pub struct Installation {
    pub dir: TempDir,
    _upstream: Upstream,
}

/// `permgate run`; killed when dropped.
pub struct Process {
    child: Child,
    reader: Option<JoinHandle<()>>,
    words: Arc<ProcessOutput>,
    sockets: Sockets,
}

/// The sockets of a process. Cheap to clone for client threads.
#[derive(Clone)]
pub struct Sockets {
    proxy: PathBuf,
    admin: PathBuf,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub text: String,
}

/// What a process has written so far, and whether it has ended.
#[derive(Default)]
struct ProcessOutput {
    written: Mutex<(String, bool)>,
    more: Condvar,
}

impl Installation {
    pub fn new() -> Self {
        Self::with("data", "64k")
    }

    pub fn with(store: &str, ballast: &str) -> Self {
        let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::plain());
        let text = format!(
            r#"version = 1
[server]
listen = ["unix:proxy.sock"]
workers = 2
[admin]
listen = ["unix:admin.sock"]
[store]
path = "{store}"
ballast = "{ballast}"
[upstream.one]
urls = ["http://{}"]
[service.tracker]
title = "Tracker"
upstream = "one"
paths = ["/api"]
readers = ["all-users"]
[log]
access = "off"
"#,
            upstream.address
        );
        std::fs::write(dir.path().join("gateway.toml"), text).unwrap();
        Self { dir, _upstream: upstream }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the process. Returns once it listens.
    pub fn run(&self) -> Process {
        self.run_by(&[])
    }

    /// Starts the process through another program with these arguments.
    pub fn run_by(&self, starter: &[&str]) -> Process {
        let mut process = self.begin_by(starter);
        assert!(process.words.wait_for("admin listener"), "{:?}: {}", process.end(), process.output());
        process
    }

    /// Starts a process that must fail. Returns its exit code and output.
    pub fn start_failing(&self) -> (Option<i32>, String) {
        let mut process = self.begin();
        assert!(!process.words.wait_for("admin listener"), "it started: {}", process.output());
        (process.end().code(), process.output())
    }

    fn begin(&self) -> Process {
        self.begin_by(&[])
    }

    fn begin_by(&self, starter: &[&str]) -> Process {
        let mut child =
            self.command_by(starter, "run").stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let words: Arc<ProcessOutput> = Arc::default();
        let output = words.clone();
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                output.push(&line, false);
                line.clear();
            }
            output.push("", true);
        });
        let sockets =
            Sockets { proxy: self.path().join("proxy.sock"), admin: self.path().join("admin.sock") };
        Process { child, reader: Some(reader), words, sockets }
    }

    /// Runs a command that must succeed. Returns its output.
    pub fn must(&self, line: &str) -> String {
        let Output { status, stdout, stderr } = self.command(line).output().unwrap();
        let (data, words) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
        assert!(status.success(), "{line}: {status}: {words}");
        data + &words
    }

    /// Runs a command that may fail. Returns its exit code and output.
    pub fn run_command(&self, line: &str) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.command(line).output().unwrap();
        (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
    }

    pub fn command(&self, line: &str) -> Command {
        self.command_by(&[], line)
    }

    /// A command that is started through another program with these arguments.
    pub fn command_by(&self, starter: &[&str], line: &str) -> Command {
        let all = [starter, &[env!("CARGO_BIN_EXE_permgate"), "-c"]].concat();
        let mut command = Command::new(all[0]);
        command.args(&all[1..]).arg(self.path().join("gateway.toml"));
        command.args(line.split(' ')).stdin(Stdio::null()).current_dir(self.path());
        command.env_remove("PERMGATE_TOKEN").env_remove("PERMGATE_LOG");
        command
    }
}

impl Process {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn output(&self) -> String {
        self.words.written.lock().unwrap().0.clone()
    }

    /// Waits until the process has written the word.
    pub fn wait_for_output(&self, word: &str) {
        assert!(self.words.wait_for(word), "{word:?} is missing in {}", self.output());
    }

    pub fn sockets(&self) -> Sockets {
        self.sockets.clone()
    }

    /// Sends SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.end();
    }

    /// Sends SIGTERM and expects exit code 0 after draining.
    pub fn stop(mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        assert_eq!(self.end().code(), Some(0), "{}", self.output());
    }

    /// Waits until the process has ended.
    pub fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                if let Some(reader) = self.reader.take() {
                    reader.join().unwrap();
                }
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end: {}", self.output());
    }

    /// The status of a request with this token through the proxy.
    pub fn status(&self, token: &str) -> u16 {
        self.sockets.proxy(token).unwrap_or_else(|| panic!("no answer: {}", self.output())).status
    }

    /// An API call as the operator, which must be answered.
    pub fn operator(&self, method: &str, target: &str, body: Option<&Value>) -> Answer {
        let answer = self.sockets.operator(method, target, body);
        answer.unwrap_or_else(|| panic!("{method} {target}: no answer: {}", self.output()))
    }

    pub fn must(&self, method: &str, target: &str, body: Option<&Value>) -> Value {
        let answer = self.operator(method, target, body);
        assert!(answer.status < 300, "{method} {target}: {answer:?}");
        answer.json()
    }

    pub fn user(&self, login: &str) {
        self.must("POST", "/v1/users", Some(&json!({"login": login})));
    }

    /// Creates a token. Returns its id and text.
    pub fn token(&self, login: &str, name: &str) -> (String, String) {
        let made = self.sockets.create(login, name).unwrap_or_else(|| panic!("{}", self.output()));
        assert_eq!(made.status, 201, "{made:?}");
        made.token()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sockets {
    /// `None`: the connection ended before a complete answer, so the call was not acknowledged.
    pub fn operator(&self, method: &str, target: &str, body: Option<&Value>) -> Option<Answer> {
        ask(&self.admin, method, target, "", body)
    }

    pub fn proxy(&self, token: &str) -> Option<Answer> {
        ask(&self.proxy, "GET", "/api/x", &format!("Authorization: Bearer {token}\r\n"), None)
    }

    pub fn create(&self, login: &str, name: &str) -> Option<Answer> {
        let body = json!({"name": name, "scope": [{"service": "tracker"}]});
        self.operator("POST", &format!("/v1/users/{login}/tokens"), Some(&body))
    }

    pub fn revoke(&self, id: &str) -> Option<Answer> {
        self.operator("DELETE", &format!("/v1/tokens/{id}"), None)
    }
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The status and the error code.
    pub fn outcome(&self) -> (u16, String) {
        (self.status, self.json()["error"].as_str().unwrap_or_default().to_owned())
    }

    pub fn token(&self) -> (String, String) {
        let made = self.json();
        (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
    }
}

impl ProcessOutput {
    fn push(&self, line: &str, last: bool) {
        let mut written = self.written.lock().unwrap();
        written.0 += line;
        written.1 |= last;
        self.more.notify_all();
    }

    /// Waits for the word. Returns whether it was written before the process ended.
    fn wait_for(&self, word: &str) -> bool {
        let written = self.written.lock().unwrap();
        let waiting = |(text, ended): &mut (String, bool)| !*ended && !text.contains(word);
        let (written, _) = self.more.wait_timeout_while(written, PATIENCE, waiting).unwrap();
        written.0.contains(word)
    }
}

/// Sends one request on a new connection.
fn ask(socket: &Path, method: &str, target: &str, fields: &str, body: Option<&Value>) -> Option<Answer> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
    let length = body.len();
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}{kind}Content-Length: {length}\r\n\r\n"
    );
    stream.write_all((head + &body).as_bytes()).ok()?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all).ok()?;
    let all = String::from_utf8(all).ok()?;
    let (head, text) = all.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().filter_map(|line| line.split_once(':'));
    let mut length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let length: Option<usize> = length.next().and_then(|(_, value)| value.trim().parse().ok());
    length.is_none_or(|length| text.len() == length).then(|| Answer { status, text: text.to_owned() })
}
