//! Tokens per second that sixteen callers of the admin API create, each answered once its token is on disk:
//! `cargo bench --bench writes -- [--seconds N] [--writers N] [--dir PATH]`.
//! Callers and gateway share this process and its cores.

#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use support::{gateway::Gateway, http::Client};

/// The allocator of the permgate binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One caller creates more tokens than an owner may have by default.
const TOKENS: &str = "[tokens]\nmax_per_user = 1000000\n";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        Some(arguments.get(at + 1).expect("something behind the option").as_str())
    };
    let number = |name: &str, default: u64| option(name).map_or(default, |text| text.parse().unwrap());
    let (writers, span) = (number("--writers", 16), Duration::from_secs(number("--seconds", 5)));
    let within = option("--dir").map_or_else(std::env::temp_dir, PathBuf::from);

    let dir = tempfile::tempdir_in(&within).unwrap();
    println!("{}: {:.0} bare writes of 4 KiB with fdatasync a second", within.display(), baseline(&dir));
    let nobody = "127.0.0.1:9".parse().unwrap();
    let gateway = Gateway::on(dir, &Gateway::text(&(Gateway::services(nobody) + TOKENS)));
    for writer in 0..writers {
        gateway.developer(&format!("writer{writer}"));
    }
    let commits = || -> u64 {
        let page = gateway.operator("GET", "/metrics", None);
        let line = page.text().lines().find_map(|line| line.strip_prefix("permgate_store_commits_total "));
        line.unwrap().parse().unwrap()
    };
    let before = commits();
    let end = Instant::now() + span;
    let mut waits: Vec<Duration> = std::thread::scope(|scope| {
        let socket = &gateway.socket;
        let writing = (0..writers)
            .map(|writer| scope.spawn(move || write(&mut Client::unix(socket), writer, end)))
            .collect::<Vec<_>>();
        writing.into_iter().flat_map(|waits| waits.join().unwrap()).collect()
    });
    let commits = commits() - before;
    waits.sort_unstable();
    let per_second = |count: f64| count / span.as_secs_f64();
    let (made, synced) = (waits.len(), u32::try_from(commits).unwrap());
    println!(
        "{writers} writers: {:.0} durable creates/s, {:.0} syncs/s, {:.1} creates a sync; p50 {:.1?}, p99 {:.1?}",
        per_second(f64::from(u32::try_from(made).unwrap())),
        per_second(f64::from(synced)),
        f64::from(u32::try_from(made).unwrap()) / f64::from(synced),
        waits[made / 2],
        waits[made * 99 / 100],
    );
}

/// Creates tokens one after the other. Returns how long each took.
fn write(client: &mut Client, writer: u64, end: Instant) -> Vec<Duration> {
    let mut waits = Vec::new();
    let target = format!("/v1/users/writer{writer}/tokens");
    while Instant::now() < end {
        let body = format!(r#"{{"name": "token {}", "scope": [{{"service": "tracker"}}]}}"#, waits.len());
        let begun = Instant::now();
        let answer = client.request("POST", &target, &[], Some(&body));
        assert_eq!(answer.status, 201, "{}", answer.text());
        waits.push(begun.elapsed());
    }
    waits
}

/// Bare writes per second that the disk can sync.
fn baseline(dir: &tempfile::TempDir) -> f64 {
    let file = File::create(dir.path().join("probe")).unwrap();
    let (begun, mut count) = (Instant::now(), 0_u32);
    while begun.elapsed() < Duration::from_secs(1) {
        file.write_all_at(&[7; 4096], u64::from(count % 256) * 4096).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / begun.elapsed().as_secs_f64()
}
