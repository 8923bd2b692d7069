//! Waits for what another thread or process does.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Longer than a working gateway takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until the condition holds. Fails after [`PATIENCE`].
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        // Sleeps instead of yielding, because the other threads need the processor.
        thread::sleep(Duration::from_millis(1));
    }
}
