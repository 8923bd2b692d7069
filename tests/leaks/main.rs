//! Failures on either side, repeated hundreds of times, leave nothing behind: no file
//! descriptor, no live request, no task.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod multiplexed;
mod plain;
#[path = "../support/mod.rs"]
mod support;

use std::{
    alloc::System,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use support::{gateway::Gateway, wait::eventually};

/// Counts allocations, because a leaked task owns at least some memory.
#[global_allocator]
static MEMORY: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const THREADS: usize = 20;

/// How often each thread runs each fault; many faults last as long as a timeout. `PERMGATE_TEST_FAULTS`
/// overrides it: 50 make a thousand of each.
const ROUNDS: usize = 10;

/// Allocations that caches and logs may add meanwhile.
const ALLOCATION_TOLERANCE: usize = 100;

/// The counts before anything failed.
struct Baseline<'a> {
    gateway: &'a Gateway,
    token: &'a str,
    descriptors: usize,
    pieces: usize,
}

fn rounds() -> usize {
    std::env::var("PERMGATE_TEST_FAULTS").ok().map_or(ROUNDS, |n| n.parse().unwrap())
}

/// Runs one test at a time, because descriptors and memory are counted for the process.
fn lock_tests() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Allocations in use.
fn allocations() -> usize {
    let stats = MEMORY.stats();
    stats.allocations - stats.deallocations
}

impl<'a> Baseline<'a> {
    fn measure(gateway: &'a Gateway, token: &'a str) -> Self {
        let mut before = Self { gateway, token, descriptors: usize::MAX, pieces: usize::MAX };
        before.wait_until_idle("at the start");
        // Idle connections close by themselves.
        thread::sleep(Duration::from_millis(300));
        (before.descriptors, before.pieces) = (descriptors(), allocations());
        before
    }

    /// Waits until no request is live except for this call itself.
    fn wait_until_idle(&self, row: &str) {
        eventually(&format!("{row}: nothing is in flight"), || {
            self.gateway.must("GET", "/v1/live", None)["items"].as_array().unwrap().len() <= 1
        });
    }

    /// After a row, checks that the counts are as before and that requests pass. `forget`
    /// releases what the test itself keeps.
    fn check_nothing_left(&mut self, row: &str, forget: impl Fn()) {
        self.wait_until_idle(row);
        let (mut open, mut held) = (0, 0);
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            forget();
            (open, held) = (descriptors(), allocations());
            if open <= self.descriptors && held <= self.pieces + ALLOCATION_TOLERANCE {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        println!("{row}: {open} descriptors of {}, {held} pieces of {}", self.descriptors, self.pieces);
        assert!(open <= self.descriptors, "{row}: {} descriptors before, {open} after", self.descriptors);
        assert!(
            held <= self.pieces + ALLOCATION_TOLERANCE,
            "{row}: {} pieces before, {held} after",
            self.pieces
        );
        self.pieces = self.pieces.max(held);
        assert_eq!(self.gateway.get("/api/x", Some(self.token)).status, 200, "{row}");
        eventually("its connections are closed", || descriptors() <= self.descriptors);
    }
}
