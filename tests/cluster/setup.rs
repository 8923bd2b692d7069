//! What `cluster init` and `cluster adopt` must not do to a cluster that is sound.

use std::thread;

use rustix::process::Signal;

use crate::{nodes::Cluster, server::Etcd};

/// Without an answer, nobody knows whether etcd has lost anything.
#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn adopting_a_copy_needs_etcds_answer() {
    let mut cluster = Cluster::start(2, 1);
    let (id, revoked) = cluster.token(0, "ann", "revoked");
    cluster.nodes[1].process.take().unwrap().stop();
    cluster.revoke(0, &id);
    thread::scope(|scope| {
        cluster.etcd.signal(0, Signal::STOP);
        let adopted = scope.spawn(|| cluster.nodes[1].directory.check("cluster adopt", 1));
        let adopted = adopted.join();
        // Not before the command has ended: on a busy machine, that may take longer than its patience.
        cluster.etcd.signal(0, Signal::CONT);
        let (_, words) = adopted.unwrap();
        assert!(words.contains("etcd does not respond"), "{words}");
    });
    let (_, words) = cluster.nodes[1].directory.check("cluster adopt", 1);
    assert!(words.contains("nothing to adopt"), "{words}");
    cluster.run(1);
    (0..2).for_each(|node| cluster.wait_until_ready(node));
    assert_eq!([0, 1].map(|node| cluster.status(node, &revoked)), [401, 401]);
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn another_store_does_not_replace_the_snapshot_of_a_cluster() {
    let mut cluster = Cluster::prepare(Etcd::start(1, &[]), 3, "");
    cluster.nodes[0].directory.check("cluster init", 0);
    let connection = cluster.connection();
    let before = connection.snapshot().unwrap();
    assert!(before.is_some());
    let (_, words) = cluster.nodes[1].directory.check("cluster init", 1);
    assert!(words.contains("etcd already has the log of store"), "{words}");
    assert_eq!(connection.snapshot().unwrap(), before);
    for node in [0, 1, 2] {
        cluster.run(node);
        cluster.wait_until_ready(node);
    }
}
