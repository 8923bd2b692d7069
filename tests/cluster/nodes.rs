//! Three nodes as processes, an etcd of some members, and a relay between each two of them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    harness::{Process, TestDirectory},
    relay::{Mode, Relay},
    server::Etcd,
    support::{http::Client, upstream::Upstream},
};

/// Shorter than the default, so that the tests are; the rest follows from it.
pub const LEASE: Duration = Duration::from_secs(5);

pub struct Cluster {
    pub etcd: Etcd,
    pub nodes: Vec<Node>,
    _upstream: Upstream,
}

pub struct Node {
    pub directory: TestDirectory,
    pub process: Option<Process>,
    /// To each member.
    relays: Vec<Relay>,
}

impl Cluster {
    /// Made from nothing, and serving.
    pub fn start(nodes: usize, members: usize) -> Self {
        let mut cluster = Self::prepare(nodes, members, Upstream::endless().0);
        cluster.nodes[0].directory.check("cluster init", 0);
        for node in 0..nodes {
            cluster.run(node);
        }
        (0..nodes).for_each(|node| cluster.wait_until_ready(node));
        cluster
    }

    /// Directories, configurations and etcd; nobody runs.
    pub fn prepare(nodes: usize, members: usize, upstream: Upstream) -> Self {
        let etcd = Etcd::start(members, &[]);
        let nodes = (0..nodes).map(|number| Node::new(number, &etcd, upstream.address)).collect();
        Self { etcd, nodes, _upstream: upstream }
    }

    pub fn run(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.process = Some(node.directory.run());
    }

    pub fn process(&self, node: usize) -> &Process {
        self.nodes[node].process.as_ref().unwrap()
    }

    pub fn is_ready(&self, node: usize) -> bool {
        self.process(node).operator("GET", "/readyz", None).status == 200
    }

    pub fn wait_until_ready(&self, node: usize) {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.is_ready(node) {
            assert!(Instant::now() < end, "node {node}: {}", self.process(node).words.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A user with a token, by way of a node: its id and its text.
    pub fn token(&self, node: usize, login: &str, name: &str) -> (String, String) {
        let process = self.process(node);
        let user = format!(r#"{{"login": "{login}", "name": "{login}"}}"#);
        // There may be one already.
        process.operator("POST", "/v1/users", Some(&user));
        let token = format!(r#"{{"name": "{name}", "scope": [{{"service": "one"}}]}}"#);
        let made = process.operator("POST", &format!("/v1/users/{login}/tokens"), Some(&token));
        let body: Value = serde_json::from_slice(&made.body).unwrap();
        assert_eq!(made.status, 201, "{body}");
        (body["id"].as_str().unwrap().to_owned(), body["token"].as_str().unwrap().to_owned())
    }

    /// Revokes by way of a node; the answer and how long it took.
    pub fn revoke(&self, node: usize, id: &str) -> (Value, Duration) {
        let began = Instant::now();
        let answer = self.process(node).operator("DELETE", &format!("/v1/tokens/{id}"), None);
        let took = began.elapsed();
        (serde_json::from_slice(&answer.body).unwrap_or_default(), took)
    }

    /// What a request with this token is answered.
    pub fn status(&self, node: usize, token: &str) -> u16 {
        let mut client = self.stream(node, token);
        client.head().status
    }

    /// An endless answer, unread.
    pub fn stream(&self, node: usize, token: &str) -> Client {
        self.process(node).open("/one/events", token)
    }

    /// Between a node and all of etcd.
    pub fn link(&self, node: usize, mode: Mode) {
        self.nodes[node].relays.iter().for_each(|relay| relay.set(mode));
    }

    pub fn members(&self, node: usize) -> usize {
        let answer = self.process(node).operator("GET", "/v1/cluster", None);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        body["members"].as_array().unwrap().len()
    }
}

impl Node {
    fn new(number: usize, etcd: &Etcd, upstream: SocketAddr) -> Self {
        let relays: Vec<_> = etcd.members.iter().map(|member| Relay::start(member.client)).collect();
        let endpoints: Vec<_> =
            relays.iter().map(|relay| format!("\"http://127.0.0.1:{}\"", relay.port)).collect();
        let (endpoints, lease) = (endpoints.join(", "), LEASE.as_secs());
        let directory = TestDirectory::new(&format!(
            r#"[store.cluster]
endpoints = [{endpoints}]
node = "gate-{number}"
lease = "{lease}s"
[upstream.one]
urls = ["http://{upstream}"]
[service.one]
upstream = "one"
paths = ["/one"]
readers = ["all-users"]
"#
        ));
        Self { directory, process: None, relays }
    }
}
