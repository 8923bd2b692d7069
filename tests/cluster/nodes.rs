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

/// What a change may take when everybody is there: far more than it does, on a machine that is busy.
pub const PROMPT: Duration = Duration::from_secs(2);

/// Shorter than the default, so that the tests are; the rest follows from it.
pub fn lease() -> Duration {
    Duration::from_secs(number("PERMGATE_TEST_LEASE").unwrap_or(5))
}

/// How often a test repeats itself. Only where it is asked for does it hold what it measures against figures:
/// elsewhere the machine may be busy.
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
    /// To each member.
    pub relays: Vec<Relay>,
}

impl Cluster {
    /// Made from nothing, and serving.
    pub fn start(nodes: usize, members: usize) -> Self {
        Self::over(Etcd::start(members, &[]), nodes, "")
    }

    /// With more lines in `[store.cluster]`.
    pub fn over(etcd: Etcd, nodes: usize, lines: &str) -> Self {
        Self::prepare(etcd, nodes, lines).started()
    }

    /// Directories and configurations in front of an endless stream; nobody runs.
    pub fn prepare(etcd: Etcd, nodes: usize, lines: &str) -> Self {
        Self::prepare_behind(etcd, nodes, Upstream::endless().0.address, lines)
    }

    pub fn prepare_behind(etcd: Etcd, nodes: usize, upstream: SocketAddr, lines: &str) -> Self {
        let nodes = (0..nodes).map(|number| Node::new(number, &etcd, upstream, lines)).collect();
        Self { etcd, nodes }
    }

    /// Made from nothing, or from what the first node has.
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

    /// A metric of a node.
    pub fn metric(&self, node: usize, name: &str) -> u64 {
        let page = self.process(node).operator("GET", "/metrics", None);
        let value = page.text().lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    }

    /// The status of making a user.
    pub fn create_user(&self, node: usize, login: &str) -> u16 {
        let body = format!(r#"{{"login": "{login}", "name": "{login}"}}"#);
        self.process(node).operator("POST", "/v1/users", Some(&body)).status
    }

    /// What the events of a kind are about, as a node has them.
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

    /// What comes within some seconds.
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

    /// A user with a token, by way of a node: its id and its text.
    pub fn token(&self, node: usize, login: &str, name: &str) -> (String, String) {
        // There may be one already.
        self.create_user(node, login);
        self.token_of(node, login, name)
    }

    /// A token of a user whom there is.
    pub fn token_of(&self, node: usize, login: &str, name: &str) -> (String, String) {
        let process = self.process(node);
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

    /// The same; `None` when it is cut before it is answered.
    pub fn try_status(&self, node: usize, token: &str) -> Option<u16> {
        self.stream(node, token).try_status()
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
