//! A disk that no longer syncs: no change is acknowledged as durable, but removals still take effect.

use crate::{
    faults::Tracer,
    installation::{Answer, Installation, Process},
};

#[test]
fn failed_sync_acknowledges_nothing_but_still_revokes() {
    let installation = Installation::new();
    let process = installation.run();
    process.user("alice");
    let (id, text) = process.token("alice", "before");
    let (other_id, other) = process.token("alice", "other");
    let inject = ["-f", "-e", "inject=fdatasync:error=EIO"];
    let mut acknowledged = vec![(other_id, other.clone())];
    let Some(tracer) = Tracer::attach(&inject, process.id()) else { return };

    let refused = create_until_refused(&process, &mut acknowledged);
    assert_eq!(refused.outcome(), (503, "store_unavailable".to_owned()), "{refused:?}");
    assert!(refused.text.contains("look whether the change was made"), "{refused:?}");
    let revoked = process.operator("DELETE", &format!("/v1/tokens/{id}"), None);
    assert_eq!(revoked.outcome(), (503, "not_durable".to_owned()), "{revoked:?}");
    assert_eq!(process.status(&text), 401, "in force at once");
    assert_eq!(process.status(&other), 200, "serving goes on");
    let ready = process.operator("GET", "/readyz", None);
    assert_eq!((ready.status, ready.json()["store"].as_str().unwrap()), (200, "read-only"), "{ready:?}");
    let metrics = process.operator("GET", "/metrics", None).text;
    for row in ["permgate_store_writable 0", "permgate_store_sync_failures_total 1"] {
        assert!(metrics.lines().any(|line| line == row), "{row}: {metrics}");
    }

    // A later successful sync does not prove that the data of the failed one was written.
    drop(tracer);
    let created = process.sockets().create("alice", "still lost").unwrap();
    assert_eq!(created.outcome(), (503, "store_unavailable".to_owned()), "{created:?}");
    assert!(created.text.contains("Nothing was changed"), "{created:?}");
    let again = process.operator("DELETE", &format!("/v1/tokens/{id}"), None);
    assert_eq!(again.outcome(), (503, "not_durable".to_owned()), "a repetition does not look durable");
    process.stop();

    let process = installation.run();
    for (id, text) in &acknowledged {
        assert_eq!(process.status(text), 200, "{id} was acknowledged");
    }
    for (id, text) in acknowledged.into_iter().chain([(id, text)]) {
        process.must("DELETE", &format!("/v1/tokens/{id}"), None);
        assert_eq!(process.status(&text), 401);
    }
    installation.must("audit verify");
}

/// Creates tokens until one is refused. A sync that began before the trace succeeds.
fn create_until_refused(process: &Process, acknowledged: &mut Vec<(String, String)>) -> Answer {
    for number in 0..20 {
        let made = process.sockets().create("alice", &format!("number {number}")).unwrap();
        if made.status != 201 {
            return made;
        }
        acknowledged.push(made.token());
    }
    panic!("every sync fails, and every change is acknowledged");
}
