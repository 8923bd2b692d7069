//! Failures of etcd and of the connection to it: each row of the table in `docs/cluster.md`.

use std::{
    thread,
    time::{Duration, Instant},
};

use permgate::store::log::{Log as _, etcd::EtcdLog};
use rustix::process::Signal;

use crate::{
    nodes::{Cluster, PROMPT, lease},
    relay::Mode,
    server::Etcd,
};

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn full_etcd_stops_only_changes() {
    let cluster = Cluster::over(Etcd::start(1, &["--quota-backend-bytes", "16777216"]), 2, "");
    let (id, revoked) = cluster.token(0, "ann", "revoked");
    let (_, good) = cluster.token(0, "ann", "good");
    // The key `f` and a value of 1 MiB, in base64.
    let filler = format!(r#"{{"key": "Zg==", "value": "{}"}}"#, "AAAA".repeat((1 << 20) / 3));
    while cluster.etcd.call("kv/put", "", &filler).0 == 200 {}
    thread::sleep(lease() + Duration::from_secs(1));
    for node in 0..2 {
        assert_eq!(cluster.status(node, &good), 200, "it serves on");
        assert_eq!(cluster.create_user(node, "eve"), 503);
    }
    for _ in 0..3 {
        let answer = cluster.process(0).operator("DELETE", &format!("/v1/tokens/{id}"), None);
        assert!(answer.status == 503 && answer.text().contains("not_durable"), "{}", answer.text());
        assert_eq!((cluster.status(0, &revoked), cluster.status(1, &revoked)), (401, 200), "where asked");
    }
    assert_eq!(cluster.metric(0, "permgate_cluster_unwritten"), 1);
    // An administrator makes room.
    cluster.etcd.must("kv/deleterange", "", r#"{"key": "Zg=="}"#);
    compact(&cluster.etcd);
    cluster.etcd.must("maintenance/defragment", "", "{}");
    let alarms = cluster.etcd.must("maintenance/alarm", "", "{}");
    let alarms: serde_json::Value = serde_json::from_str(&alarms).unwrap();
    let member = &alarms["alarms"][0]["memberID"];
    let disarm = format!(r#"{{"action": "DEACTIVATE", "alarm": "NOSPACE", "memberID": {member}}}"#);
    cluster.etcd.must("maintenance/alarm", "", &disarm);
    cluster.wait_until("it is written", || cluster.try_status(1, &revoked) == Some(401));
    cluster.wait_until("nothing is left", || cluster.metric(0, "permgate_cluster_unwritten") == 0);
    assert_eq!(cluster.create_user(1, "eve"), 201);
    cluster.nodes[1].directory.check("audit verify", 0);
}

/// Compacts everything but the newest revision.
fn compact(etcd: &Etcd) {
    let found = etcd.must("kv/range", "", r#"{"key": "bm9uZQ=="}"#);
    let revision = found.split_once(r#""revision":""#).unwrap().1.split_once('"').unwrap().0.to_owned();
    etcd.must("kv/compaction", "", &format!(r#"{{"revision": "{revision}", "physical": true}}"#));
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn compacted_or_trimmed_entries_are_not_missed() {
    let mut cluster = Cluster::start(2, 1);
    let (id, revoked) = cluster.token(0, "ann", "revoked");
    let (_, good) = cluster.token(0, "ann", "good");
    cluster.link(1, Mode::Hangs);
    // This node alone must confirm or be waited for; both nodes have everything else.
    for number in 0..3 {
        assert_eq!(cluster.create_user(0, &format!("while-away-{number}")), 201);
    }
    compact(&cluster.etcd);
    cluster.link(1, Mode::Passes);
    cluster.wait_until_ready(1);
    let (answer, _) = cluster.revoke(0, &id);
    assert_eq!(answer["nodes"]["confirmed"], 2, "{answer}");
    assert_eq!((cluster.status(1, &revoked), cluster.status(1, &good)), (401, 200));
    assert_eq!(cluster.events(1, "user.create").len(), 4);
    // Its position in the log is trimmed, while it runs and while it does not.
    for runs in [true, false] {
        if runs {
            cluster.link(1, Mode::Hangs);
        } else {
            drop(cluster.nodes[1].process.take());
        }
        let name = format!("before-trim-{runs}");
        assert_eq!(cluster.create_user(0, &name), 201);
        trim(&cluster);
        compact(&cluster.etcd);
        assert_eq!(cluster.create_user(0, &format!("after-trim-{runs}")), 201);
        if runs {
            cluster.link(1, Mode::Passes);
            let status = cluster.nodes[1].process.as_mut().unwrap().end();
            assert!(!status.success());
            let words = cluster.process(1).words.text();
            assert!(words.contains("away for too long"), "{words}");
        }
        cluster.run(1);
        cluster.wait_until_ready(1);
        let users = cluster.events(1, "user.create");
        for name in [name, format!("after-trim-{runs}")] {
            assert_eq!(users.iter().filter(|user| **user == format!("user:{name}")).count(), 1, "{name}");
        }
        assert_eq!((cluster.status(1, &revoked), cluster.status(1, &good)), (401, 200));
        cluster.nodes[1].directory.check("audit verify", 0);
    }
}

/// Trims the log as the oldest node does once it is long: a snapshot, and nothing before it.
fn trim(cluster: &Cluster) {
    let connection = cluster.connection();
    let position =
        cluster.process(0).operator("GET", "/v1/cluster", None).json()["position"].as_u64().unwrap();
    let stream = cluster.process(0).operator("GET", "/v1/backup", None).body;
    let mut upload = connection.upload().unwrap();
    std::io::Write::write_all(&mut upload, &stream).unwrap();
    connection.publish(&upload.finish(position).unwrap()).unwrap();
    EtcdLog::open(connection).unwrap().trim(position + 1).unwrap();
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn change_with_a_lost_response_is_applied_once() {
    let cluster = Cluster::start(2, 3);
    for round in 0..3 {
        let login = format!("u{round}");
        let (status, took) = thread::scope(|scope| {
            cluster.link(0, Mode::Mute);
            let begun = Instant::now();
            let change = scope.spawn(|| cluster.create_user(0, &login));
            // Longer than a call may take, so that it is retried.
            thread::sleep(Duration::from_millis(1500));
            cluster.link(0, Mode::Passes);
            (change.join().unwrap(), begun.elapsed())
        });
        assert_eq!(status, 201, "after {took:?}");
        cluster.wait_until("the other node has it", || cluster.create_user(1, &login) == 409);
    }
    assert_eq!(cluster.events(1, "user.create").len(), 3);
    cluster.nodes[1].directory.check("audit verify", 0);
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn hung_dead_or_slow_endpoint_stops_no_node() {
    let cluster = Cluster::start(2, 3);
    let (_, token) = cluster.token(0, "ann", "ci");
    let serves = |what: &str, longest: Duration| {
        let end = Instant::now() + lease() + Duration::from_secs(1);
        let mut number = 0;
        while Instant::now() < end {
            let begun = Instant::now();
            assert_eq!(cluster.create_user(number % 2, &format!("{what}{number}")), 201, "{what}");
            assert!(begun.elapsed() < longest, "{what}: {:?}", begun.elapsed());
            assert_eq!([0, 1].map(|node| cluster.status(node, &token)), [200, 200], "{what}");
            number += 1;
            thread::sleep(Duration::from_millis(100));
        }
    };
    for member in 0..3 {
        cluster.etcd.signal(member, Signal::STOP);
        serves(&format!("hung{member}-"), Duration::from_secs(5));
        cluster.etcd.signal(member, Signal::CONT);
        cluster.etcd.wait_until_healthy(member);
    }
    cluster.nodes.iter().for_each(|node| node.relays[0].set(Mode::Cut));
    serves("dead", Duration::from_secs(5));
    cluster.nodes.iter().for_each(|node| node.relays[0].set(Mode::Passes));
    (0..2).for_each(|node| cluster.link(node, Mode::Slow));
    serves("slow", Duration::from_secs(5));
    assert_eq!(cluster.metric(0, "permgate_cluster_lapsed_total"), 0);
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn without_an_etcd_majority_no_node_serves_beyond_the_lease() {
    let cluster = Cluster::start(2, 3);
    let (id, token) = cluster.token(0, "ann", "ci");
    [1, 2].into_iter().for_each(|member| cluster.etcd.signal(member, Signal::STOP));
    let begun = Instant::now();
    assert_eq!([0, 1].map(|node| cluster.status(node, &token)), [200, 200], "for a while");
    cluster.wait_until("it is cut off", || (0..2).all(|node| cluster.try_status(node, &token) == Some(503)));
    assert!(begun.elapsed() <= lease() + PROMPT, "{:?}", begun.elapsed());
    // Others may have decided meanwhile; this node cannot know.
    [1, 2].into_iter().for_each(|member| cluster.etcd.signal(member, Signal::CONT));
    (0..2).for_each(|node| cluster.wait_until_ready(node));
    assert_eq!([0, 1].map(|node| cluster.status(node, &token)), [200, 200]);
    let (answer, _) = cluster.revoke(1, &id);
    assert_eq!(answer["nodes"]["confirmed"], 2, "{answer}");
    assert_eq!([0, 1].map(|node| cluster.status(node, &token)), [401, 401]);
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn rolled_back_etcd_is_refused_until_a_copy_is_adopted() {
    let mut cluster = Cluster::start(2, 1);
    let (id, revoked) = cluster.token(0, "ann", "revoked");
    let (_, good) = cluster.token(0, "ann", "good");
    cluster.etcd.save(0);
    (0..2).for_each(|node| cluster.wait_until_ready(node));
    let (answer, _) = cluster.revoke(0, &id);
    assert_eq!(answer["revoked"], true, "{answer}");
    cluster.etcd.put_back(0);
    for node in 0..2 {
        cluster.process(node).words.wait_for("stops serving: run `permgate cluster adopt`");
        let both = [&good, &revoked];
        let is_cut_off = || both.iter().all(|token| cluster.try_status(node, token) == Some(503));
        cluster.wait_until("it is cut off", is_cut_off);
        assert_eq!(cluster.create_user(node, "eve"), 503);
        let standing = cluster.process(node).operator("GET", "/v1/cluster", None).json();
        assert_eq!(standing["standing"], "forked", "{standing}");
    }
    let (_, words) = cluster.nodes[0].directory.check("cluster adopt", 1);
    assert!(words.contains("in use by process"), "{words}");
    for node in &mut cluster.nodes {
        node.process.take().unwrap().stop();
    }
    let (_, words) = cluster.nodes[0].directory.check("run", 1);
    assert!(words.contains("cluster adopt"), "{words}");
    cluster.nodes[0].directory.check("cluster adopt", 0);
    for node in 0..2 {
        cluster.run(node);
        cluster.wait_until_ready(node);
        assert_eq!([&good, &revoked].map(|token| cluster.status(node, token)), [200, 401]);
    }
    assert_eq!(cluster.create_user(1, "eve"), 201);
    cluster.nodes[1].directory.check("audit verify", 0);
}
