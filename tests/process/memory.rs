//! A new token is wiped from the process's memory once it has been shown.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use crate::{
    harness::{TestDirectory, services},
    support::upstream::Upstream,
};

const PAGE: u64 = 4096;

/// How often these bytes occur in a process's memory, which only root can read.
fn count_in_memory(process: u32, needle: &[u8]) -> usize {
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
        // Runs of pages that are present, because most of a heap is unused.
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
fn new_token_does_not_stay_in_memory_after_its_response() {
    if !rustix::process::geteuid().is_root() {
        // Only root can read the memory, because core dumps and debuggers are disabled.
        return;
    }
    let upstream = Upstream::plain();
    let directory = TestDirectory::new(&services(upstream.address));
    let process = directory.run();
    let created = directory.token("alice", "tracker");
    let (rotated, _) = directory.check(&format!("token rotate {}", &created[4..16]), 0);
    assert!(count_in_memory(process.id(), b"alice") > 0, "what is there is found");
    for token in [created.as_str(), rotated.trim_end()] {
        let secret = &token.as_bytes()[17..60];
        let deadline = Instant::now() + Duration::from_secs(10);
        while count_in_memory(process.id(), secret) > 0 {
            assert!(Instant::now() < deadline, "{} copies are left", count_in_memory(process.id(), secret));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
