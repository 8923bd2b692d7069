//! Nodes as processes, an etcd with some members, and a relay between each node and each member.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use permgate::store::{
    cluster::Etcd as EtcdSettings,
    log::etcd::{Connection, Settings},
};
use serde_json::Value;

use crate::{
    harness::{Process, TestDirectory},
    relay::{Mode, Relay},
    server::Etcd,
    support::{http::Client, upstream::Upstream},
};

/// How long a change may take while all nodes are there. Generous, for a busy machine.
pub const PROMPT: Duration = Duration::from_secs(2);

/// Shorter than the default to keep the tests short; the other times follow from it.
pub fn lease() -> Duration {
    Duration::from_secs(number("PERMGATE_TEST_LEASE").unwrap_or(5))
}

/// How often a test repeats itself. Measurements are compared with limits only if this is
/// set, because the machine may be busy otherwise.
pub fn rounds() -> Option<u64> {
    number("PERMGATE_TEST_ROUNDS")
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

pub struct Cluster {
    pub etcd: Etcd,
    pub nodes: Vec<Node>,
}

pub struct Node {
    pub directory: TestDirectory,
    pub process: Option<Process>,
    /// One relay per member of etcd.
    pub relays: Vec<Relay>,
}

impl Cluster {
    /// A connection of the test's own to what the nodes share.
    pub fn connection(&self) -> Arc<Connection> {
        let etcd = EtcdSettings {
            endpoints: self.etcd.urls(),
            prefix: "/permgate".to_owned(),
            tls: None,
            user: None,
        };
        Connection::start(Settings::new(etcd)).unwrap()
    }

    /// Starts a new cluster and waits until it serves.
    pub fn start(nodes: usize, members: usize) -> Self {
        Self::over(Etcd::start(members, &[]), nodes, "")
    }

    /// Like [`Self::start`], with more lines in `[store.cluster]`.
    pub fn over(etcd: Etcd, nodes: usize, lines: &str) -> Self {
        Self::prepare(etcd, nodes, lines).started()
    }

    /// Creates directories and configurations in front of an endless stream, without starting a node.
    pub fn prepare(etcd: Etcd, nodes: usize, lines: &str) -> Self {
        Self::prepare_behind(etcd, nodes, Upstream::endless().0.address, lines)
    }

    pub fn prepare_behind(etcd: Etcd, nodes: usize, upstream: SocketAddr, lines: &str) -> Self {
        let nodes = (0..nodes).map(|number| Node::new(number, &etcd, upstream, lines)).collect();
        Self { etcd, nodes }
    }

    /// Initialises the cluster, from what the first node's store has, and starts all nodes.
    pub fn started(mut self) -> Self {
        self.nodes[0].directory.check("cluster init", 0);
        (0..self.nodes.len()).for_each(|node| self.run(node));
        (0..self.nodes.len()).for_each(|node| self.wait_until_ready(node));
        self
    }

    pub fn run(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.process = Some(node.directory.run());
    }

    pub fn process(&self, node: usize) -> &Process {
        self.nodes[node].process.as_ref().unwrap()
    }

    /// The value of a node's metric.
    pub fn metric(&self, node: usize, name: &str) -> u64 {
        let page = self.process(node).operator("GET", "/metrics", None);
        let value = page.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    }

    /// Creates a user. Returns the status.
    pub fn create_user(&self, node: usize, login: &str) -> u16 {
        let body = format!(r#"{{"login": "{login}", "name": "{login}"}}"#);
        self.process(node).operator("POST", "/v1/users", Some(&body)).status
    }

    /// The targets of all audit events of a kind, as a node has them.
    pub fn events(&self, node: usize, event: &str) -> Vec<String> {
        let mut targets = Vec::new();
        let mut page = String::new();
        loop {
            let answer =
                self.process(node).operator("GET", &format!("/v1/audit?limit=1000{page}"), None).json();
            let items = answer["items"].as_array().unwrap().iter().filter(|one| one["event"] == event);
            targets.extend(items.map(|one| one["target"].as_str().unwrap().to_owned()));
            let Some(next) = answer["next"].as_str() else { return targets };
            page = format!("&cursor={next}");
        }
    }

    pub fn is_ready(&self, node: usize) -> bool {
        self.process(node).operator("GET", "/readyz", None).status == 200
    }

    /// Waits some seconds until a condition holds.
    pub fn wait_until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(20);
        while !holds() {
            if Instant::now() > end {
                let running = self.nodes.iter().flat_map(|node| &node.process);
                let words: Vec<_> = running.map(|process| process.words.text()).collect();
                panic!("{what}\n{}", words.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn wait_until_ready(&self, node: usize) {
        self.wait_until(&format!("node {node} is ready"), || self.is_ready(node));
    }

    /// Creates a user with a token through a node. Returns the token's id and text.
    pub fn token(&self, node: usize, login: &str, name: &str) -> (String, String) {
        // The user may exist already.
        self.create_user(node, login);
        self.token_of(node, login, name)
    }

    /// Creates a token of an existing user.
    pub fn token_of(&self, node: usize, login: &str, name: &str) -> (String, String) {
        let process = self.process(node);
        let token = format!(r#"{{"name": "{name}", "scope": [{{"service": "one"}}]}}"#);
        let made = process.operator("POST", &format!("/v1/users/{login}/tokens"), Some(&token));
        let body: Value = serde_json::from_slice(&made.body).unwrap();
        assert_eq!(made.status, 201, "{body}");
        (body["id"].as_str().unwrap().to_owned(), body["token"].as_str().unwrap().to_owned())
    }

    /// Revokes a token through a node. Returns the answer and how long it took.
    pub fn revoke(&self, node: usize, id: &str) -> (Value, Duration) {
        let began = Instant::now();
        let answer = self.process(node).operator("DELETE", &format!("/v1/tokens/{id}"), None);
        let took = began.elapsed();
        (serde_json::from_slice(&answer.body).unwrap_or_default(), took)
    }

    /// The status of a request with this token.
    pub fn status(&self, node: usize, token: &str) -> u16 {
        let mut client = self.stream(node, token);
        client.head().status
    }

    /// Like [`Self::status`]; `None` if the request is cut before it is answered.
    pub fn try_status(&self, node: usize, token: &str) -> Option<u16> {
        self.stream(node, token).try_status()
    }

    /// Opens an endless response without reading it.
    pub fn stream(&self, node: usize, token: &str) -> Client {
        self.process(node).open("/one/events", token)
    }

    /// Sets the mode of the links between a node and all members of etcd.
    pub fn link(&self, node: usize, mode: Mode) {
        self.nodes[node].relays.iter().for_each(|relay| relay.set(mode));
    }

    pub fn members(&self, node: usize) -> usize {
        let answer = self.process(node).operator("GET", "/v1/cluster", None).json();
        answer["members"].as_array().unwrap().len()
    }
}

impl Node {
    fn new(number: usize, etcd: &Etcd, upstream: SocketAddr, lines: &str) -> Self {
        let relays: Vec<_> = etcd.members.iter().map(|member| Relay::start(member.client)).collect();
        let endpoints: Vec<_> = relays.iter().map(|relay| format!("\"{}\"", etcd.url(relay.port))).collect();
        let (endpoints, lease) = (endpoints.join(", "), lease().as_secs());
        let directory = TestDirectory::new(&format!(
            r#"[store.cluster]
endpoints = [{endpoints}]
node = "gate-{number}"
lease = "{lease}s"
{lines}
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
