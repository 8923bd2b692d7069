//! Waiting for what another thread or process brings about.

use std::{
    thread,
    time::{Duration, Instant},
};

/// No sound gateway takes this long, on a busy machine either.
const PATIENCE: Duration = Duration::from_secs(20);

/// Looks until it holds; a test that waits in vain fails.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        // A pause, not a mere yield: the threads that are waited for want the processor.
        thread::sleep(Duration::from_millis(1));
    }
}
