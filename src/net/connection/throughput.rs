//! How fast a client takes what is sent to it.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// The bytes that had been sent when the current span began.
pub struct Throughput(Cell<(Instant, u64)>);

/// A client that takes fewer bytes in such a span is slow.
const SPAN: Duration = Duration::from_secs(60);
const BYTES: u64 = 60 << 10;
/// How much earlier a span may begin than bytes begin to wait.
const STALE: Duration = Duration::from_secs(1);

impl Throughput {
    pub fn new(now: Instant) -> Self {
        Self(Cell::new((now, 0)))
    }

    /// Whether less than 1 KiB a second was taken over a whole span. `waits`: bytes wait for the client now;
    /// a span in which it has everything says nothing.
    pub fn is_slow(&self, now: Instant, sent: u64, waits: bool) -> bool {
        let (since, before) = self.0.get();
        let age = now.saturating_duration_since(since);
        if waits && sent - before < BYTES {
            return age >= SPAN;
        }
        // Not with every tick: most connections rest most of the time.
        if age >= STALE {
            self.0.set((now, sent));
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_slow_by_the_minute() {
        let now = Instant::now();
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        let throughput = Throughput::new(now);
        assert!(!throughput.is_slow(at(59), 0, true));
        assert!(throughput.is_slow(at(60), BYTES - 1, true));
        assert!(throughput.is_slow(at(61), BYTES - 1, true), "it stays slow");
        assert!(!throughput.is_slow(at(62), BYTES, true), "until it takes as much as it should");
        assert!(!throughput.is_slow(at(121), BYTES, true));
        assert!(!throughput.is_slow(at(122), BYTES, false), "it has everything");
        assert!(!throughput.is_slow(at(181), BYTES, true));
        assert!(throughput.is_slow(at(182), BYTES, true));
    }
}
