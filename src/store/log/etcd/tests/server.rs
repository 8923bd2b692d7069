//! An etcd of one or several members, as child processes of the test, on 127.0.0.1, in a directory of its
//! own. `tests/cluster.rs` uses it, too.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// Stopped when it is dropped.
#[allow(dead_code, reason = "the tests of the log and those of whole gateways use parts of it")]
pub struct Etcd {
    pub members: Vec<Member>,
    directory: tempfile::TempDir,
    extra: Vec<String>,
}

pub struct Member {
    pub client: u16,
    peer: u16,
    /// Port at which the others reach it.
    advertised: u16,
    /// Port for metrics and health, in plain text even if clients have to use TLS.
    metrics_port: u16,
    child: Option<Child>,
}

#[allow(dead_code, reason = "the tests of the log and those of whole gateways use parts of it")]
impl Etcd {
    pub fn start(members: usize, extra: &[&str]) -> Self {
        Self::start_behind(members, extra, |peer| peer)
    }

    /// Members that reach each other through relays: `relay` returns the port in front of each one's own.
    pub fn start_behind(members: usize, extra: &[&str], mut relay: impl FnMut(u16) -> u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ports = free_ports(3 * members);
        let members = ports
            .chunks(3)
            .map(|ports| Member {
                client: ports[0],
                peer: ports[1],
                advertised: relay(ports[1]),
                metrics_port: ports[2],
                child: None,
            })
            .collect();
        let extra = extra.iter().map(|&option| option.to_owned()).collect();
        let mut etcd = Self { members, directory, extra };
        (0..etcd.members.len()).for_each(|member| etcd.run(member));
        (0..etcd.members.len()).for_each(|member| etcd.wait_until_healthy(member));
        etcd
    }

    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(|member| self.url(member.client)).collect()
    }

    /// The URL of a port for clients.
    pub fn url(&self, port: u16) -> String {
        let encrypted = self.extra.iter().any(|option| option == "--cert-file");
        format!("{}://127.0.0.1:{port}", if encrypted { "https" } else { "http" })
    }

    /// Starts a member, for the first time or after [`kill`](Self::kill).
    pub fn run(&mut self, member: usize) {
        let path = self.directory.path();
        let cluster: Vec<_> = self
            .members
            .iter()
            .enumerate()
            .map(|(number, member)| format!("m{number}=http://127.0.0.1:{}", member.advertised))
            .collect();
        let Member { client, peer, advertised, metrics_port, .. } = self.members[member];
        let [peer, advertised, metrics_port] =
            [peer, advertised, metrics_port].map(|port| format!("http://127.0.0.1:{port}"));
        let client = self.url(client);
        let log = File::options().create(true).append(true).open(self.log(member)).unwrap();
        let child = Command::new("etcd")
            .arg("--name")
            .arg(format!("m{member}"))
            .arg("--data-dir")
            .arg(path.join(format!("m{member}")))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &advertised])
            .args(["--initial-cluster", &cluster.join(","), "--listen-metrics-urls", &metrics_port])
            .args(["--heartbeat-interval", "100", "--election-timeout", "500"])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("etcd starts: apt-get install etcd-server");
        self.members[member].child = Some(child);
    }

    fn log(&self, member: usize) -> PathBuf {
        self.directory.path().join(format!("m{member}.log"))
    }

    /// Kills a member, as `kill -9` does.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Empties a member's disk, as if it were lost.
    pub fn wipe(&mut self, member: usize) {
        self.while_killed(member, |disk, _| std::fs::remove_dir_all(disk).unwrap());
    }

    /// Saves a member's disk, to be [put back](Self::put_back) later. The member is stopped meanwhile.
    pub fn save(&mut self, member: usize) {
        self.while_killed(member, |disk, saved| {
            std::fs::create_dir(saved).unwrap();
            copy(disk, saved);
        });
    }

    /// Puts a member's disk back, as a restore from an old snapshot does.
    pub fn put_back(&mut self, member: usize) {
        self.while_killed(member, |disk, saved| {
            std::fs::remove_dir_all(disk).unwrap();
            std::fs::rename(saved, disk).unwrap();
        });
    }

    /// Runs `work` with the path of the member's disk and that of its copy, while the member is stopped.
    fn while_killed(&mut self, member: usize, work: impl FnOnce(&Path, &Path)) {
        self.kill(member);
        let name = |kind: &str| self.directory.path().join(format!("m{member}{kind}"));
        work(&name(""), &name(".saved"));
        self.run(member);
        self.wait_until_healthy(member);
    }

    pub fn signal(&self, member: usize, signal: Signal) {
        let child = self.members[member].child.as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// Calls the API in JSON, through the first member; `token` is that of a sign-in. Returns the status
    /// and the answer.
    pub fn call(&self, path: &str, token: &str, body: &str) -> (u16, String) {
        let port = self.members[0].client;
        // etcd rejects an empty token.
        let token = if token.is_empty() { String::new() } else { format!("Authorization: {token}\r\n") };
        let head = format!("POST /v3/{path} HTTP/1.0\r\nHost: localhost\r\n{token}");
        let length = format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        let answer = exchange(port, &(head + &length + body)).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// A call that must succeed.
    pub fn must(&self, path: &str, token: &str, body: &str) -> String {
        let (status, answer) = self.call(path, token, body);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// The id that its peers know it by.
    pub fn id(&self, member: usize) -> String {
        let answer = self.must("cluster/member/list", "", "{}");
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let all = answer["members"].as_array().unwrap();
        let found = all.iter().find(|one| one["name"] == format!("m{member}")).unwrap();
        format!("{:x}", found["ID"].as_str().unwrap().parse::<u64>().unwrap())
    }

    pub fn is_leader(&self, member: usize) -> bool {
        let metrics = get(self.members[member].metrics_port, "/metrics").unwrap_or_default();
        metrics.lines().any(|line| line == "etcd_server_is_leader 1")
    }

    pub fn wait_until_healthy(&self, member: usize) {
        let end = Instant::now() + Duration::from_secs(30);
        while !get(self.members[member].metrics_port, "/health").is_some_and(|body| body.contains("true")) {
            if Instant::now() > end {
                let log = std::fs::read_to_string(self.log(member)).unwrap();
                let lines: Vec<_> = log.lines().collect();
                panic!("etcd is not healthy:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
            }
            thread::sleep(Duration::from_millis(30));
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in 0..self.members.len() {
            self.kill(member);
        }
    }
}

/// Free ports, each returned once, since etcd cannot report a port of its own choice. The system gives
/// ports from 32768 on to connections (`ip_local_port_range`), which could take one before etcd listens
/// there, or while a member is down.
fn free_ports(count: usize) -> Vec<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Far from the ports of another test process.
    let first = std::process::id().wrapping_mul(997);
    let candidates = std::iter::repeat_with(|| first.wrapping_add(GIVEN.fetch_add(1, Relaxed)));
    let ports = candidates.map(|number| 10_000 + (number % 20_000) as u16);
    ports.filter(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok()).take(count).collect()
}

fn get(port: u16, path: &str) -> Option<String> {
    exchange(port, &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"))
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if from.is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy(&from, &to);
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
}

fn exchange(port: u16, request: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
