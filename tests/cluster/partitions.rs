//! The members of etcd no longer reach each other, while every gateway reaches all of them.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    nodes::{Cluster, PROMPT, lease},
    peers,
    support::http::Client,
};

/// Until the members that are left have a leader, and each gateway has found one of them.
const ELECTION: Duration = Duration::from_secs(8);

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn a_leader_that_the_other_members_do_not_hear_decides_nothing_more() {
    let (etcd, peers) = peers::start(3);
    let cluster = Cluster::over(etcd, 3, "");
    let writers = Writers::default();
    thread::scope(|scope| {
        let writing = writers.until_dropped();
        (0..3).for_each(|node| writers.start(scope, &cluster, node));
        for round in 0..2 {
            let leader = (0..3).find(|member| cluster.etcd.is_leader(*member)).unwrap();
            let (id, token) = cluster.token(0, "ann", &format!("t{round}"));
            let streams: Vec<_> = (0..3).map(|node| open(&cluster, node, &token)).collect();
            peers.cut_off(&cluster.etcd, leader);
            // Whichever member a gateway asks: the answer is that it is in force.
            let begun = Instant::now();
            let answer = loop {
                let (answer, _) = cluster.revoke(round, &id);
                if answer["revoked"] == true {
                    break answer;
                }
                assert!(begun.elapsed() < lease() + ELECTION, "{answer}");
            };
            for node in 0..3 {
                let status = cluster.try_status(node, &token);
                assert!(matches!(status, Some(401 | 503)), "{status:?} of {node} after {answer}");
            }
            for stream in streams {
                ends(stream, &format!("after {answer}"));
            }
            // The majority goes on, with everybody.
            let made = writers.made();
            cluster.wait_until("changes are made while it is cut off", || writers.made() >= made + 20);
            (0..3).for_each(|node| cluster.wait_until_ready(node));
            thread::sleep(lease());
            peers.join();
            (0..3).for_each(|member| cluster.etcd.wait_until_healthy(member));
            let made = writers.made();
            cluster.wait_until("changes are made when it is back", || writers.made() >= made + 20);
        }
        drop(writing);
    });
    writers.verify(&cluster);
    assert_eq!(cluster.members(0), 3);
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn members_that_do_not_hear_each_other_let_nobody_serve_beyond_the_lease() {
    let (etcd, peers) = peers::start(3);
    let cluster = Cluster::over(etcd, 3, "");
    let (_, token) = cluster.token(0, "ann", "ci");
    let (revoked, gone) = cluster.token(0, "ann", "revoked");
    let streams: Vec<_> = (0..3).map(|node| open(&cluster, node, &token)).collect();
    let writers = Writers::default();
    thread::scope(|scope| {
        let writing = writers.until_dropped();
        (0..3).for_each(|node| writers.start(scope, &cluster, node));
        cluster.wait_until("changes are made", || writers.made() >= 20);
        peers.cut_all();
        let begun = Instant::now();
        let is_cut_off = |node| cluster.try_status(node, &token) == Some(503);
        cluster.wait_until("it is cut off", || (0..3).all(is_cut_off));
        assert!(begun.elapsed() <= lease() + PROMPT, "{:?}", begun.elapsed());
        for stream in streams {
            ends(stream, "without a permission");
        }
        // It may be found in the log afterwards, or not; on the asked node it holds.
        let answer = cluster.process(0).operator("DELETE", &format!("/v1/tokens/{revoked}"), None);
        assert_eq!(answer.status, 503, "{}", answer.text());
        peers.join();
        (0..3).for_each(|member| cluster.etcd.wait_until_healthy(member));
        (0..3).for_each(|node| cluster.wait_until_ready(node));
        let made = writers.made();
        cluster.wait_until("changes are made again", || writers.made() >= made + 20);
        drop(writing);
    });
    assert_eq!(cluster.status(0, &gone), 401, "what was taken away stays away");
    cluster.wait_until("and is written", || cluster.metric(0, "permgate_cluster_unwritten") == 0);
    cluster.wait_until("for all", || (1..3).all(|node| cluster.try_status(node, &gone) == Some(401)));
    assert_eq!([0, 1, 2].map(|node| cluster.status(node, &token)), [200; 3]);
    writers.verify(&cluster);
}

fn open(cluster: &Cluster, node: usize, token: &str) -> Client {
    let mut stream = cluster.stream(node, token);
    assert_eq!(stream.head().status, 200);
    stream
}

/// What it has sent already may still be read.
fn ends(mut stream: Client, what: &str) {
    let begun = Instant::now();
    while stream.read_some().is_some_and(|bytes| bytes > 0) {
        assert!(begun.elapsed() < PROMPT, "a stream goes on {what}");
    }
}

/// One on each node, which makes users one after the other.
#[derive(Default)]
struct Writers {
    /// Logins and what they were answered.
    asked: Mutex<Vec<(String, u16)>>,
    over: AtomicBool,
}

impl Writers {
    fn start<'scope>(
        &'scope self,
        scope: &'scope thread::Scope<'scope, '_>,
        cluster: &'scope Cluster,
        node: usize,
    ) {
        scope.spawn(move || {
            let logins = (0..).map(|number| format!("u{node}-{number}"));
            for login in logins.take_while(|_| !self.over.load(Ordering::SeqCst)) {
                let status = cluster.create_user(node, &login);
                self.asked.lock().unwrap().push((login, status));
                thread::sleep(Duration::from_millis(5));
            }
        });
    }

    /// How many were acknowledged.
    fn made(&self) -> usize {
        acknowledged(&self.asked.lock().unwrap())
    }

    /// Ends them when it is dropped, by a failure, too.
    fn until_dropped(&self) -> End<'_> {
        End(&self.over)
    }

    /// Each node has what was acknowledged, and everything at most once.
    fn verify(&self, cluster: &Cluster) {
        let asked = self.asked.lock().unwrap();
        for node in 0..cluster.nodes.len() {
            let mut made: HashMap<String, usize> = HashMap::new();
            for target in cluster.events(node, "user.create") {
                *made.entry(target).or_default() += 1;
            }
            let times = |login: &str| made.get(&format!("user:{login}")).copied().unwrap_or_default();
            let lost: Vec<_> =
                asked.iter().filter(|(login, status)| *status == 201 && times(login) == 0).collect();
            let doubled: Vec<_> = asked.iter().filter(|(login, _)| times(login) > 1).collect();
            assert!(lost.is_empty() && doubled.is_empty(), "node {node}: {lost:?}, {doubled:?}");
            cluster.nodes[node].directory.check("audit verify", 0);
        }
        println!("{} acknowledged of {}", acknowledged(&asked), asked.len());
    }
}

fn acknowledged(asked: &[(String, u16)]) -> usize {
    asked.iter().filter(|(_, status)| *status == 201).count()
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
