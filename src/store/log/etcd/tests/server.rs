//! An etcd of one or several members as children of the test, on 127.0.0.1, in a directory of its own.
//! `tests/cluster.rs` uses it, too.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Stopped when it is dropped.
pub struct Etcd {
    pub members: Vec<Member>,
    directory: tempfile::TempDir,
    extra: Vec<String>,
}

pub struct Member {
    pub client: u16,
    peer: u16,
    child: Option<Child>,
}

impl Etcd {
    pub fn start(members: usize, extra: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ports = free_ports(2 * members);
        let members =
            ports.chunks(2).map(|pair| Member { client: pair[0], peer: pair[1], child: None }).collect();
        let extra = extra.iter().map(|&option| option.to_owned()).collect();
        let mut etcd = Self { members, directory, extra };
        (0..etcd.members.len()).for_each(|member| etcd.run(member));
        (0..etcd.members.len()).for_each(|member| etcd.wait_until_healthy(member));
        etcd
    }

    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("http://127.0.0.1:{}", member.client)).collect()
    }

    /// Starts a member, again after [`kill`](Self::kill).
    pub fn run(&mut self, member: usize) {
        let path = self.directory.path();
        let cluster: Vec<_> = self
            .members
            .iter()
            .enumerate()
            .map(|(number, member)| format!("m{number}=http://127.0.0.1:{}", member.peer))
            .collect();
        let Member { client, peer, .. } = self.members[member];
        let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let log =
            File::options().create(true).append(true).open(path.join(format!("m{member}.log"))).unwrap();
        let child = Command::new("etcd")
            .arg("--name")
            .arg(format!("m{member}"))
            .arg("--data-dir")
            .arg(path.join(format!("m{member}")))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &cluster.join(",")])
            .args(["--heartbeat-interval", "100", "--election-timeout", "500"])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("etcd starts: apt-get install etcd-server");
        self.members[member].child = Some(child);
    }

    /// As by `kill -9`.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// As when its disk is lost.
    #[allow(dead_code, reason = "for the tests of whole gateways")]
    pub fn wipe(&mut self, member: usize) {
        self.kill(member);
        std::fs::remove_dir_all(self.directory.path().join(format!("m{member}"))).unwrap();
        self.run(member);
        self.wait_until_healthy(member);
    }

    #[allow(dead_code, reason = "for the tests of whole gateways")]
    pub fn pid(&self, member: usize) -> u32 {
        self.members[member].child.as_ref().unwrap().id()
    }

    pub fn is_leader(&self, member: usize) -> bool {
        let metrics = get(self.members[member].client, "/metrics").unwrap_or_default();
        metrics.lines().any(|line| line == "etcd_server_is_leader 1")
    }

    pub fn wait_until_healthy(&self, member: usize) {
        let end = Instant::now() + Duration::from_secs(30);
        while !get(self.members[member].client, "/health").is_some_and(|body| body.contains("true")) {
            assert!(Instant::now() < end, "etcd is not healthy: {}", self.directory.path().display());
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

/// Held together, so that all of them differ.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
