//! A directory with a configuration, the processes that run in it, and their output.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::http::{Answer, Client};

/// Longer than anything that tests wait for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Variables of this process's environment that permgate would use.
const PERMGATE_VARIABLES: [&str; 9] = [
    "PERMGATE_CONFIG",
    "PERMGATE_ADMIN",
    "PERMGATE_TOKEN",
    "PERMGATE_LOG",
    "NO_COLOR",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_PID",
];

/// One worker, so that the access log is ordered.
const HEAD: &str = r#"version = 1
[server]
listen = ["127.0.0.1:0"]
workers = 1
drain = "30s"
[admin]
listen = ["unix:permgate.sock", "127.0.0.1:0"]
[store]
path = "data"
ballast = "64k"
"#;

/// The working directory of processes.
pub struct TestDirectory(TempDir);

/// A running `permgate run`.
pub struct Process {
    child: Child,
    readers: Vec<JoinHandle<()>>,
    pub data: Arc<Stream>,
    pub words: Arc<Stream>,
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    socket: PathBuf,
}

/// What a process has written to one of its streams.
#[derive(Default)]
pub struct Stream {
    written: Mutex<Vec<u8>>,
    more: Condvar,
}

/// `tracker` on `/api` and `/rest` and `hub` on `/hub`, in front of one upstream.
pub fn services(upstream: SocketAddr) -> String {
    format!(
        r#"[upstream.one]
urls = ["http://{upstream}"]
[service.tracker]
upstream = "one"
paths = ["/api", "/rest"]
readers = ["developers"]
[service.hub]
upstream = "one"
paths = ["/hub"]
readers = ["developers"]
"#
    )
}

impl TestDirectory {
    pub fn new(sections: &str) -> Self {
        let directory = Self(tempfile::tempdir().unwrap());
        directory.write(sections);
        directory
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes these sections after those of the listeners and the store.
    pub fn write(&self, sections: &str) {
        self.write_all(&format!("{HEAD}{sections}"));
    }

    pub fn write_all(&self, text: &str) {
        std::fs::write(self.path().join("gateway.toml"), text).unwrap();
    }

    pub fn read(&self) -> String {
        std::fs::read_to_string(self.path().join("gateway.toml")).unwrap()
    }

    /// A command without the environment variables that permgate would use.
    pub fn command(&self) -> Command {
        self.clean_command(env!("CARGO_BIN_EXE_permgate"))
    }

    pub fn clean_command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path());
        for name in PERMGATE_VARIABLES {
            command.env_remove(name);
        }
        command
    }

    /// Runs a line and checks its exit code. Returns stdout and stderr.
    pub fn check(&self, line: &str, code: i32) -> (String, String) {
        self.check_as(None, line, code)
    }

    pub fn check_as(&self, token: Option<&str>, line: &str, code: i32) -> (String, String) {
        let mut command = self.command();
        // A token is only sent to a server that is named explicitly.
        let named = token.iter().flat_map(|_| ["-c", "gateway.toml"]);
        command.args(line.split(' ')).args(named).envs(token.map(|token| ("PERMGATE_TOKEN", token)));
        let Output { status, stdout, stderr } = command.output().unwrap();
        let [data, words] = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(status.code(), Some(code), "{line}\nstdout: {data}\nstderr: {words}");
        (data, words)
    }

    /// Creates a user in `developers` if necessary, and a token. Returns its text.
    pub fn token(&self, login: &str, scope: &str) -> String {
        if self.check("user list -o id", 0).0.lines().all(|line| line != login) {
            self.check(&format!("user create {login}"), 0);
            if self.check("group list -o id", 0).0.lines().all(|line| line != "developers") {
                self.check("group create developers", 0);
            }
            self.check(&format!("group add developers {login}"), 0);
        }
        let name = scope.replace(':', "-");
        let line = format!("token create --user {login} --name {name} --scope {scope}");
        self.check(&line, 0).0.trim_end().to_owned()
    }

    pub fn run(&self) -> Process {
        let mut command = self.command();
        command.arg("run");
        self.start(command)
    }

    /// Starts a command that is, or ends in, `permgate run`. Returns once it serves.
    pub fn start(&self, mut command: Command) -> Process {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (data, words) = (Arc::<Stream>::default(), Arc::<Stream>::default());
        let readers = vec![
            Stream::follow(&data, child.stdout.take().unwrap()),
            Stream::follow(&words, child.stderr.take().unwrap()),
        ];
        let socket = self.path().join("permgate.sock");
        let address = |line: &str| {
            let (_, rest) = line.split_once("listener on ").unwrap();
            rest.split('"').next().unwrap().parse().unwrap()
        };
        let proxy = address(&words.wait_for("proxy listener on 127"));
        let admin = address(&words.wait_for("admin listener on 127"));
        Process { child, readers, data, words, proxy, admin, socket }
    }
}

impl Process {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the process has ended and its output has been read.
    pub fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        for reader in self.readers.drain(..) {
            while !reader.is_finished() {
                assert!(Instant::now() < deadline, "it does not end: {}", self.words.text());
                std::thread::sleep(Duration::from_millis(2));
            }
            reader.join().unwrap();
        }
        self.child.wait().unwrap()
    }

    /// Sends SIGTERM and expects exit code 0.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.end();
        assert_eq!(status.code(), Some(0), "{}", self.words.text());
    }

    /// Sends a request through the proxy on a new connection, without reading the response.
    pub fn open(&self, target: &str, token: &str) -> Client {
        let mut client = Client::tcp(self.proxy);
        client.send(format!(
            "GET {target} HTTP/1.1\r\nHost: gateway.example\r\nAuthorization: Bearer {token}\r\n\r\n"
        ));
        client
    }

    pub fn status(&self, target: &str, token: &str) -> u16 {
        self.open(target, token).answer("GET").status
    }

    /// A call as the operator, over the unix socket.
    pub fn operator(&self, method: &str, target: &str, body: Option<&str>) -> Answer {
        Client::unix(&self.socket).request(method, target, &[], body)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Stream {
    fn follow(stream: &Arc<Self>, source: impl Read + Send + 'static) -> JoinHandle<()> {
        let stream = stream.clone();
        std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while source.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                stream.written.lock().unwrap().append(&mut line);
                stream.more.notify_all();
            }
        })
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.written.lock().unwrap().clone()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.bytes()).unwrap()
    }

    /// Waits for a line that contains `part`.
    pub fn wait_for(&self, part: &str) -> String {
        self.wait_for_nth(part, 1)
    }

    /// Waits for the `nth` line that contains `part`.
    pub fn wait_for_nth(&self, part: &str, nth: usize) -> String {
        let found = |written: &Vec<u8>| {
            let text = String::from_utf8_lossy(written);
            text.lines().filter(|line| line.contains(part)).nth(nth - 1).map(str::to_owned)
        };
        let written = self.written.lock().unwrap();
        let waiting = |written: &mut Vec<u8>| found(written).is_none();
        let (written, _) = self.more.wait_timeout_while(written, PATIENCE, waiting).unwrap();
        found(&written).unwrap_or_else(|| panic!("no {part:?} in {}", String::from_utf8_lossy(&written)))
    }
}
