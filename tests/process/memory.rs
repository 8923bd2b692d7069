//! What of a token is left in the process's memory: nothing, once its connections over HTTP/1 are gone.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use crate::{
    harness::{Place, services},
    support::{http::Client, upstream::Upstream},
};

const PAGE: u64 = 4096;

/// How often these bytes stand in the memory of a process, of which root alone can look at another's.
fn copies(process: u32, needle: &[u8]) -> usize {
    let open = |name: &str| File::open(format!("/proc/{process}/{name}")).unwrap();
    let (pages, memory) = (open("pagemap"), open("mem"));
    let mut found = 0;
    for line in fs::read_to_string(format!("/proc/{process}/maps")).unwrap().lines() {
        let mut words = line.split(' ');
        let (range, mode) = (words.next().unwrap(), words.next().unwrap());
        if !mode.starts_with("rw") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut present = vec![0; usize::try_from((end - start) / PAGE * 8).unwrap()];
        if pages.read_exact_at(&mut present, start / PAGE * 8).is_err() {
            continue;
        }
        // Runs of pages that are there: most of a heap is room.
        let mut run = Vec::new();
        for (at, entry) in present.chunks_exact(8).chain([&[0; 8][..]]).enumerate() {
            if entry[7] & 0x80 != 0 {
                let mut page = [0; PAGE as usize];
                if memory.read_exact_at(&mut page, start + at as u64 * PAGE).is_ok() {
                    run.extend_from_slice(&page);
                    continue;
                }
            }
            found += memchr::memmem::find_iter(&run, needle).count();
            run.clear();
        }
    }
    found
}

#[test]
fn no_token_outlasts_its_connections() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else may look, which is what `core_dumps_are_off` is about.
        return;
    }
    let upstream = Upstream::plain();
    let place = Place::new(&services(upstream.address));
    let process = place.run();
    let tokens: Vec<String> = ["alice", "bob"].map(|login| place.token(login, "tracker")).into();
    for token in &tokens {
        assert_eq!(process.status("/api/x", token), 200);
        // Twice on one connection, and refused.
        let mut client = Client::tcp(process.proxy);
        let head = |path: &str| {
            format!("GET {path} HTTP/1.1\r\nHost: gateway.example\r\nAuthorization: Bearer {token}\r\n\r\n")
        };
        for (path, status) in [("/api/y", 200), ("/hub/z", 403)] {
            client.send(head(path));
            assert_eq!(client.answer("GET").status, status, "{path}");
        }
        assert!(copies(process.id(), b"gateway.example") > 0, "what is there is found");
    }
    for token in &tokens {
        let secret = &token.as_bytes()[17..60];
        let deadline = Instant::now() + Duration::from_secs(10);
        while copies(process.id(), secret) > 0 {
            assert!(Instant::now() < deadline, "{} copies are left", copies(process.id(), secret));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
