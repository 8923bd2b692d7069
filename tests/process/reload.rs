//! SIGHUP: loads the whole file or nothing, and streams that remain permitted continue.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    harness::{TestDirectory, services},
    support::upstream::Upstream,
};

#[test]
fn invalid_file_keeps_the_old_rules_and_is_located() {
    let upstream = Upstream::plain();
    let good = services(upstream.address);
    let directory = TestDirectory::new(&good);
    let process = directory.run();
    let token = directory.token("alice", "tracker");
    let mut told = 0;
    let mut check = |row: &str, from: &str, to: &str, says: &str| {
        directory.write_all(&directory.read().replace(from, to));
        process.signal(Signal::HUP);
        told += 1;
        let line = process.words.wait_for_nth("the previous configuration stays in force", told);
        assert!(line.contains(says), "{row}: {line}");
        assert_eq!(process.status("/api/x", &token), 200, "{row}: the old rules hold");
        assert_eq!(process.status("/new", &token), 404, "{row}: no new rule holds");
        directory.write(&good);
    };
    check("a name", "upstream = \"one\"\npaths = [\"/hub\"]", "upstream = \"two\"\npaths = [\"/new\"]", {
        // The first mistake in the file, by line and column of the value.
        "gateway.toml:18:12: there is no upstream \\\"two\\\""
    });
    check("syntax", "[service.hub]", "[service.hub", "gateway.toml:17:");
    check("a key that needs a restart", "workers = 1", "workers = 2", "workers");
    assert!(Command::new("mkfifo").arg(directory.path().join("pipe")).status().unwrap().success());
    let log = |file: &str| format!("[log]\naccess = \"{file}\"\n[service.hub]");
    let missing = "cannot open the access log no/access.log: No such file or directory";
    check("an access log that cannot be opened", "[service.hub]", &log("no/access.log"), missing);
    check("a pipe that nobody reads", "[service.hub]", &log("pipe"), "a pipe needs a reader");
    check("half a file", "readers = [\"developers\"]\n[service.hub]", "readers = [\"dev", "gateway.toml:16:");

    let (_, words) = directory.check("check", 0);
    assert!(words.contains("is valid") && words.contains("memory: about"), "{words}");
    let budgets: serde_json::Value = serde_json::from_str(&directory.check("check -o json", 0).0).unwrap();
    assert!(budgets["budgets"]["admin_connections"].as_u64() > Some(0), "{budgets}");
    process.signal(Signal::HUP);
    process.words.wait_for("configuration reloaded");
    directory.check("reload", 0);
    process.words.wait_for_nth("configuration reloaded", 2);
    // By default these signals would end a process.
    process.signal(Signal::USR1);
    process.signal(Signal::USR2);
    assert_eq!(process.status("/api/x", &token), 200);
}

#[test]
fn valid_file_takes_effect_and_permitted_streams_continue() {
    let (upstream, _over) = Upstream::endless();
    let good = services(upstream.address);
    let directory = TestDirectory::new(&good);
    let process = directory.run();
    let token = directory.token("alice", "tracker");
    let mut api = process.open("/api/stream", &token);
    let mut rest = process.open("/rest/stream", &token);
    assert_eq!((api.head().status, rest.head().status), (200, 200));

    directory.write(&good.replace("[\"/hub\"]", "[\"/hub\", \"/new\"]"));
    directory.check("check", 0);
    process.signal(Signal::HUP);
    process.words.wait_for_nth("configuration reloaded", 1);
    assert_eq!(process.status("/new", &token), 403, "the new prefix has an owner");
    for stream in [&mut api, &mut rest] {
        // The upstream never ends, so the reads need not go beyond what was buffered
        // before the reload. What counts is that none fails.
        for _ in 0..50 {
            assert_eq!(stream.chunk().unwrap(), b"event");
        }
    }

    directory.write(&good.replace("[\"/api\", \"/rest\"]", "[\"/api\"]"));
    process.signal(Signal::HUP);
    let line = process.words.wait_for_nth("configuration reloaded", 2);
    assert!(line.contains("\"cut\":1"), "{line}");
    while rest.chunk().is_ok_and(|chunk| {
        assert!(!chunk.is_empty(), "a stream that is cut does not end like a whole one");
        true
    }) {}
    for _ in 0..50 {
        assert_eq!(api.chunk().unwrap(), b"event");
    }
    assert_eq!(process.status("/rest/stream", &token), 404);
}

/// A credential for upstreams is replaced without a restart, and never partially.
#[test]
fn credential_file_is_reloaded() {
    let upstream = Upstream::plain();
    let directory = TestDirectory::new(&services(upstream.address).replacen(
        "readers",
        "authorization = \"file:credential\"\nreaders",
        1,
    ));
    let write = |text: &str| std::fs::write(directory.path().join("credential"), text).unwrap();
    write("Basic first\n");
    let process = directory.run();
    let token = directory.token("alice", "tracker");
    let shown = || {
        assert_eq!(process.status("/api/x", &token), 200);
        let seen = std::mem::take(&mut *upstream.seen.lock().unwrap());
        let head = seen.last().unwrap().head.clone();
        head.lines().find_map(|line| line.strip_prefix("authorization: ").map(str::to_owned)).unwrap()
    };
    assert_eq!(shown(), "Basic first");
    write("Basic second\n");
    assert_eq!(shown(), "Basic first", "nobody has asked for the new one yet");
    process.signal(Signal::HUP);
    process.words.wait_for_nth("configuration reloaded", 1);
    assert_eq!(shown(), "Basic second");
    write("");
    process.signal(Signal::HUP);
    let line = process.words.wait_for_nth("the previous configuration stays in force", 1);
    assert!(line.contains("is empty"), "{line}");
    assert_eq!(shown(), "Basic second");
}

#[test]
fn level_of_the_log_and_time_to_drain_are_reloaded() {
    let (upstream, _over) = Upstream::endless();
    let directory = TestDirectory::new(&services(upstream.address));
    let mut process = directory.run();
    let token = directory.token("alice", "tracker");
    let mut stream = process.open("/api/stream", &token);
    assert_eq!(stream.head().status, 200);
    let changed = directory.read().replace("drain = \"30s\"", "drain = \"200ms\"");
    directory.write_all(&format!("{changed}[log]\nlevel = \"error\"\n"));
    directory.check("reload", 0);
    let asked = Instant::now();
    process.signal(Signal::TERM);
    assert_eq!(process.end().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(20), "the time to drain: {:?}", asked.elapsed());
    let words = process.words.text();
    assert!(words.contains("ready") && !words.contains("draining"), "the level: {words}");
}
