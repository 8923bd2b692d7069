//! Failures that stop a node or cut it off from the others, with measurements:
//! `PERMGATE_TEST_ROUNDS=50 PERMGATE_TEST_LEASE=10
//! cargo test --features etcd --test cluster -- --ignored --nocapture cut_off`.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    nodes::{Cluster, PROMPT, lease, rounds},
    relay::Mode,
    support::http::Client,
};

/// How much a deadline may be exceeded on a busy machine.
const GRACE: Duration = Duration::from_millis(500);

/// A limit, which applies only if measurements are requested; otherwise it is generous.
fn limit(figure: Duration) -> Duration {
    if rounds().is_some() { figure } else { figure.max(PROMPT) }
}

/// Prints the measurement of each round, and the worst one.
fn report(what: &str, measured: &[Duration]) {
    let worst = measured.iter().max().unwrap();
    println!("{what}: worst {worst:.1?} of {} rounds: {measured:.1?}", measured.len());
}

/// Reads a stream until it ends. Returns the time and size of each piece.
fn read(mut stream: Client) -> thread::JoinHandle<Vec<(Instant, usize)>> {
    thread::spawn(move || {
        let mut pieces = Vec::new();
        while let Some(bytes @ 1..) = stream.read_some() {
            pieces.push((Instant::now(), bytes));
        }
        pieces
    })
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn node_that_is_cut_off_stops_serving_before_others_answer() {
    let cluster = Cluster::start(3, 1);
    let (mut last, mut answers) = (Vec::new(), Vec::new());
    for round in 0..rounds().unwrap_or(1) {
        let (id, token) = cluster.token(0, "ann", &format!("t{round}"));
        let mut stream = cluster.stream(2, &token);
        assert_eq!(stream.head().status, 200);
        // With and without notice to the node that it is cut off.
        cluster.link(2, if round % 2 == 0 { Mode::Hangs } else { Mode::Cut });
        let cut = Instant::now();
        let reader = read(stream);
        assert!(cluster.is_ready(2), "a short interruption stops nobody");
        let (answer, took) = cluster.revoke(0, &id);
        let answered = Instant::now();
        assert_eq!(answer["nodes"]["lapsed"][0], "gate-2", "{answer}");
        assert!(took <= lease() + GRACE, "{took:?}");
        let pieces = reader.join().unwrap();
        let (end, _) = *pieces.last().unwrap();
        let after: usize = pieces.iter().filter(|(at, _)| *at > answered).map(|(_, bytes)| bytes).sum();
        assert_eq!(after, 0, "round {round}: bytes after the answer");
        assert!(end - cut <= lease(), "round {round}: the last byte came {:?} after the cut", end - cut);
        last.push(end - cut);
        answers.push(took);
        assert_eq!(cluster.status(2, &token), 503);
        assert!(!cluster.is_ready(2));
        cluster.link(2, Mode::Passes);
        cluster.wait_until_ready(2);
        assert_eq!(cluster.status(2, &token), 401);
        cluster.wait_until("it has joined again", || cluster.members(0) == 3);
    }
    report("last byte of the node after the cut", &last);
    report("answer of the others", &answers);
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn killed_node_delays_one_change_and_rejoins() {
    let mut cluster = Cluster::start(3, 1);
    let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
    for round in 0..rounds().unwrap_or(1) {
        let (first, _) = cluster.token(0, "ann", &format!("first{round}"));
        let (second, token) = cluster.token(0, "ann", &format!("second{round}"));
        drop(cluster.nodes[2].process.take());
        let (answer, took) = cluster.revoke(0, &first);
        assert_eq!(answer["nodes"]["lapsed"][0], "gate-2", "{answer}");
        assert!(took <= lease() + GRACE, "{took:?}");
        firsts.push(took);
        thread::sleep(lease() + Duration::from_millis(200));
        let (answer, took) = cluster.revoke(1, &second);
        assert_eq!(answer["nodes"]["confirmed"], 2, "{answer}");
        assert!(took < limit(Duration::from_millis(100)), "{took:?}");
        seconds.push(took);
        cluster.run(2);
        cluster.wait_until_ready(2);
        assert_eq!(cluster.status(2, &token), 401);
        let (third, _) = cluster.token(2, "ann", &format!("third{round}"));
        let (answer, took) = cluster.revoke(2, &third);
        assert_eq!(answer["nodes"]["confirmed"], 3, "{answer}");
        assert!(took < PROMPT, "{took:?}");
    }
    report("first change after kill -9", &firsts);
    report("the next one", &seconds);
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn stopped_node_forwards_nothing_when_resumed() {
    let cluster = Cluster::start(2, 1);
    let mut passed = Vec::new();
    for round in 0..rounds().unwrap_or(1) {
        let (id, token) = cluster.token(0, "ann", &format!("t{round}"));
        let mut stream = cluster.stream(1, &token);
        assert_eq!(stream.head().status, 200);
        cluster.process(1).signal(Signal::STOP);
        let (answer, _) = cluster.revoke(0, &id);
        assert_eq!(answer["nodes"]["lapsed"][0], "gate-1", "{answer}");
        let reader = read(stream);
        // Let the kernel deliver the bytes that the node had written before it was stopped.
        thread::sleep(lease() / 2);
        let on = Instant::now();
        cluster.process(1).signal(Signal::CONT);
        let pieces = reader.join().unwrap();
        let after: usize = pieces.iter().filter(|(at, _)| *at >= on).map(|(_, bytes)| bytes).sum();
        // At most what was written between the check of the clock and the write: one piece of the stream.
        assert!(after <= 64, "{after} bytes after it went on");
        passed.push(after);
        cluster.wait_until_ready(1);
        assert_eq!(cluster.status(1, &token), 401);
    }
    println!("bytes after a stopped node went on: {passed:?}");
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn killed_etcd_leader_loses_nothing_and_stops_no_node() {
    let mut cluster = Cluster::start(2, 3);
    let (_, token) = cluster.token(0, "ann", "ci");
    let mut gaps = Vec::new();
    let (mut acknowledged, mut unclear) = (Vec::new(), Vec::new());
    for round in 0..rounds().unwrap_or(1) {
        let leader = (0..3).find(|member| cluster.etcd.is_leader(*member)).unwrap();
        let over = AtomicBool::new(false);
        let (cluster_now, token, done) = (&cluster, &token, &over);
        let (made, statuses) = thread::scope(|scope| {
            let writer = scope.spawn(move || write(cluster_now, round, done));
            let reader = scope.spawn(move || {
                let mut statuses = Vec::new();
                while !done.load(Ordering::SeqCst) {
                    statuses.extend([0, 1].map(|node| cluster_now.status(node, token)));
                }
                statuses
            });
            thread::sleep(Duration::from_millis(500));
            cluster.etcd.signal(leader, Signal::KILL);
            thread::sleep(Duration::from_millis(3500));
            over.store(true, Ordering::SeqCst);
            (writer.join().unwrap(), reader.join().unwrap())
        });
        assert!(statuses.iter().all(|status| *status == 200), "round {round}: somebody lapsed");
        let answered: Vec<_> = made.iter().filter(|one| one.status == 201).map(|one| one.at).collect();
        gaps.push(answered.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap());
        for one in made {
            if one.status == 201 { &mut acknowledged } else { &mut unclear }.push(one.login);
        }
        cluster.etcd.kill(leader);
        cluster.etcd.run(leader);
        cluster.etcd.wait_until_healthy(leader);
    }
    report("longest time between two changes", &gaps);
    let made = cluster.events(1, "user.create");
    let times = |login: &str| made.iter().filter(|target| **target == format!("user:{login}")).count();
    let lost: Vec<_> = acknowledged.iter().filter(|login| times(login) == 0).collect();
    let doubled: Vec<_> = acknowledged.iter().chain(&unclear).filter(|login| times(login) > 1).collect();
    println!(
        "{} acknowledged, {} unclear, lost: {lost:?}, doubled: {doubled:?}",
        acknowledged.len(),
        unclear.len()
    );
    assert!(lost.is_empty() && doubled.is_empty());
    assert!(
        gaps.iter()
            .all(|gap| *gap
                <= Duration::from_secs(3) + if rounds().is_some() { Duration::ZERO } else { PROMPT })
    );
    for node in &cluster.nodes {
        node.directory.check("audit verify", 0);
    }
}

/// A change that was requested.
struct RequestedChange {
    login: String,
    status: u16,
    at: Instant,
}

/// Creates users through both nodes in turn until it is over.
fn write(cluster: &Cluster, round: u64, over: &AtomicBool) -> Vec<RequestedChange> {
    let mut made = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let login = format!("u{round}-{}", made.len());
        let status = cluster.create_user(made.len() % 2, &login);
        made.push(RequestedChange { login, status, at: Instant::now() });
        thread::sleep(Duration::from_millis(5));
    }
    made
}
