//! Several gateways over one etcd, which the tests start:
//! `cargo test --features etcd --test cluster -- --ignored`. Needs `apt-get install etcd-server`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod clocks;
mod credentials;
mod failures;
#[allow(dead_code, reason = "shared with the tests of one process")]
#[path = "../process/harness.rs"]
mod harness;
mod nodes;
mod partitions;
mod peers;
mod relay;
mod rounds;
#[allow(dead_code, reason = "shared with the tests of the log")]
#[path = "../../src/store/log/etcd/tests/server.rs"]
mod server;
mod setup;
#[path = "../support/mod.rs"]
mod support;

use nodes::{Cluster, PROMPT};
use relay::Mode;
use server::Etcd;

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn change_on_one_node_applies_on_all() {
    let cluster = Cluster::start(3, 1);
    for maker in 0..3 {
        let (id, token) = cluster.token(maker, "ann", &format!("t{maker}"));
        for node in 0..3 {
            assert_eq!(cluster.status(node, &token), 200, "made on {maker}, used on {node}");
        }
        let mut streams: Vec<_> = (0..3).map(|node| cluster.stream(node, &token)).collect();
        for stream in &mut streams {
            assert_eq!(stream.head().status, 200);
        }
        let (answer, took) = cluster.revoke((maker + 1) % 3, &id);
        assert_eq!(answer["nodes"]["confirmed"], 3, "{answer}");
        assert_eq!(answer["nodes"]["lapsed"].as_array().unwrap().len(), 0, "{answer}");
        assert!(took < PROMPT, "{took:?}");
        // At least these three; the streams that `status` opened may have ended already.
        assert!(answer["cut"].as_u64().unwrap() >= 3, "{answer}");
        for node in 0..3 {
            assert_eq!(cluster.status(node, &token), 401, "revoked, used on {node}");
        }
    }
    for node in &cluster.nodes {
        node.directory.check("audit verify", 0);
        node.directory.check("store verify", 0);
    }
    let mut cluster = cluster;
    let stopped = cluster.nodes[2].process.as_mut().unwrap();
    stopped.stop();
    assert!(!stopped.words.text().contains("lease has ended"), "{}", stopped.words.text());
    cluster.nodes[2].directory.check("--offline store verify", 0);
    let (_, words) = cluster.nodes[2].directory.check("store restore gateway.toml", 1);
    assert!(words.contains("a node's copy") && !words.contains("--accept"), "{words}");
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn node_without_etcd_listens_and_permits_nothing() {
    let mut cluster = Cluster::start(2, 1);
    let (id, revoked) = cluster.token(0, "ann", "revoked");
    let (_, token) = cluster.token(0, "ann", "good");
    assert_eq!(cluster.status(1, &revoked), 200);
    drop(cluster.nodes[1].process.take());
    cluster.link(1, Mode::Hangs);
    let (answer, _) = cluster.revoke(0, &id);
    assert_eq!(answer["nodes"]["lapsed"][0], "gate-1", "{answer}");
    cluster.run(1);
    assert!(!cluster.is_ready(1));
    assert_eq!((cluster.status(1, &token), cluster.status(1, &revoked)), (503, 503));
    assert_eq!(cluster.process(1).operator("GET", "/v1/users/ann", None).status, 200, "operators can read");
    let change = cluster.process(1).operator("POST", "/v1/users", Some(r#"{"login": "bob", "name": "Bob"}"#));
    assert_eq!(change.status, 503);
    cluster.link(1, Mode::Passes);
    cluster.wait_until_ready(1);
    assert_eq!((cluster.status(1, &token), cluster.status(1, &revoked)), (200, 401));
    let (answer, _) = cluster.revoke(1, &cluster.token(1, "ann", "other").0);
    assert_eq!(answer["nodes"]["confirmed"], 2, "{answer}");
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn revocation_during_an_etcd_outage_is_written_later() {
    let cluster = Cluster::start(2, 1);
    let (id, revoked) = cluster.token(0, "ann", "revoked");
    let (_, banned) = cluster.token(0, "bob", "banned");
    let (_, good) = cluster.token(0, "ann", "good");
    cluster.create_user(0, "carl");
    cluster.link(0, Mode::Hangs);
    let alone = cluster.process(0);
    let bans = ["bob", "carl"].map(|login| ("POST", format!("/v1/users/{login}/ban")));
    for (method, path) in bans.into_iter().chain([("DELETE", format!("/v1/tokens/{id}"))]) {
        let answer = alone.operator(method, &path, Some("{}"));
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(body.contains("not_durable"), "{path}: {} {body}", answer.status);
    }
    assert_eq!(cluster.create_user(0, "eve"), 503);
    assert_eq!(cluster.metric(0, "permgate_cluster_unwritten"), 3);
    // By the time the change is written, the banned user no longer exists.
    assert_eq!(cluster.process(1).operator("DELETE", "/v1/users/carl", None).status, 200);
    // Changes by other nodes to the same account stay.
    let renamed = cluster.process(1).operator("PATCH", "/v1/users/bob", Some(r#"{"name": "Robert"}"#));
    assert_eq!(renamed.status, 200);
    assert_eq!((cluster.status(1, &revoked), cluster.status(1, &banned)), (200, 200), "only there");
    cluster.link(0, Mode::Passes);
    cluster.wait_until_ready(0);
    let there = || (cluster.status(1, &revoked), cluster.status(1, &banned));
    cluster.wait_until("they are written", || there() == (401, 401));
    for node in 0..2 {
        let statuses = [&revoked, &banned, &good].map(|token| cluster.status(node, token));
        assert_eq!(statuses, [401, 401, 200], "node {node}");
        let bob = cluster.process(node).operator("GET", "/v1/users/bob", None);
        assert!(String::from_utf8_lossy(&bob.body).contains("Robert"), "node {node}");
        cluster.nodes[node].directory.check("audit verify", 0);
    }
    cluster.token(0, "ann", "later");
    assert_eq!(cluster.events(1, "removal.revert"), ["user:carl"]);
    let counted = ["permgate_cluster_unwritten", "permgate_cluster_reverted_total"];
    assert_eq!(counted.map(|name| cluster.metric(0, name)), [0, 1]);
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn existing_store_seeds_the_cluster_and_empty_directories() {
    let mut cluster = Cluster::prepare(Etcd::start(1, &[]), 2, "");
    // First without the cluster.
    let directory = &cluster.nodes[0].directory;
    let text = directory.read();
    let (head, rest) = text.split_once("[store.cluster]").unwrap();
    let (_, sections) = rest.split_once("[upstream.one]").unwrap();
    directory.write_all(&format!("{head}[upstream.one]{sections}"));
    let mut process = directory.run();
    process.operator("POST", "/v1/users", Some(r#"{"login": "ann", "name": "Ann"}"#));
    let body = r#"{"name": "old", "scope": [{"service": "one"}]}"#;
    let made = process.operator("POST", "/v1/users/ann/tokens", Some(body));
    assert_eq!(made.status, 201);
    let made: serde_json::Value = serde_json::from_slice(&made.body).unwrap();
    let token = made["token"].as_str().unwrap();
    process.stop();
    directory.write_all(&text);
    directory.check("cluster init", 0);
    let (_, words) = directory.check("--offline user list", 1);
    assert!(words.contains("copy"), "{words}");
    cluster.run(0);
    cluster.run(1);
    for node in 0..2 {
        cluster.wait_until_ready(node);
        assert_eq!(cluster.status(node, token), 200);
    }
    // A stopped node leaves the cluster, so no change waits for it.
    cluster.nodes[1].process.take().unwrap().stop();
    cluster.wait_until("it has left", || cluster.members(0) == 1);
    let (answer, took) = cluster.revoke(0, made["id"].as_str().unwrap());
    assert_eq!(answer["nodes"]["confirmed"], 1, "{answer}");
    assert!(took < PROMPT, "{took:?}");
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn empty_etcd_is_restored_from_a_copy() {
    let mut cluster = Cluster::start(2, 1);
    let (id, revoked) = cluster.token(0, "ann", "revoked");
    let (_, token) = cluster.token(1, "ann", "good");
    cluster.revoke(0, &id);
    for node in &mut cluster.nodes {
        node.process.take().unwrap().stop();
    }
    cluster.etcd.wipe(0);
    for line in ["run", "cluster init", "cluster leave"] {
        let (_, words) = cluster.nodes[0].directory.check(line, 1);
        assert!(words.contains("run `permgate cluster adopt`"), "{line}: {words}");
    }
    cluster.nodes[1].directory.check("cluster adopt", 0);
    for node in 0..2 {
        cluster.run(node);
        cluster.wait_until_ready(node);
        assert_eq!((cluster.status(node, &token), cluster.status(node, &revoked)), (200, 401));
    }
    let (_, words) = cluster.nodes[1].directory.check("cluster status", 0);
    assert!(words.is_empty(), "{words}");
}
