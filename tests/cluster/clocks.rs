//! The wall clock has no influence on which node may forward.

use std::{fs, path::Path, thread};

use crate::nodes::{Cluster, lease};

/// From Debian's package faketime.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

#[test]
#[ignore = "starts etcd: apt-get install etcd-server faketime"]
fn clock_step_does_not_move_the_permission() {
    if !Path::new(LIBRARY).exists() {
        assert!(std::env::var_os("PERMGATE_CI").is_none(), "PERMGATE_CI is set, but there is no {LIBRARY}");
        println!("SKIPPED: there is no {LIBRARY}");
        return;
    }
    let mut cluster = Cluster::start(2, 1);
    let (id, token) = cluster.token(0, "ann", "ci");
    let offset = cluster.nodes[1].directory.path().join("offset");
    fs::write(&offset, "+0").unwrap();
    cluster.nodes[1].process.take().unwrap().stop();
    let directory = &cluster.nodes[1].directory;
    let mut command = directory.command();
    command.arg("run").env("LD_PRELOAD", LIBRARY).env("FAKETIME_TIMESTAMP_FILE", &offset);
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    cluster.nodes[1].process = Some(directory.start(command));
    cluster.wait_until_ready(1);
    let today = r#"{"name": "today", "expires_in": "1h", "scope": [{"service": "one"}]}"#;
    let made = cluster.process(0).operator("POST", "/v1/users/ann/tokens", Some(today));
    assert_eq!(made.status, 201, "{}", made.text());
    let today = made.json()["token"].as_str().unwrap().to_owned();
    let steps = [("+0", 200), ("+400d", 401), ("-400d", 200), ("+0", 200)];
    for (number, (step, expected)) in steps.into_iter().enumerate() {
        fs::write(&offset, step).unwrap();
        let seen = |node: usize| cluster.process(node).operator("GET", "/v1/cluster", None).json();
        for _ in 0..4 {
            let permitted = seen(1)["permitted_ms"].as_u64().unwrap();
            assert!(permitted > 0 && u128::from(permitted) <= lease().as_millis(), "{step}: {permitted}");
            assert_eq!([0, 1].map(|node| cluster.status(node, &token)), [200, 200], "{step}");
            thread::sleep(lease() / 4);
        }
        assert_eq!(cluster.status(0, &today), 200, "the other node's clock is right");
        assert_eq!(cluster.status(1, &today), expected, "{step}: what expires does by this node's clock");
        assert_eq!(cluster.create_user(1, &format!("u{number}")), 201, "{step}");
    }
    assert_eq!(cluster.metric(0, "permgate_cluster_lapsed_total"), 0);
    let (answer, _) = cluster.revoke(0, &id);
    assert_eq!(answer["nodes"]["confirmed"], 2, "{answer}");
}
