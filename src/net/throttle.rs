//! Bounds what a client can cause with each request: a warning, or a search of a full table.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets something happen once in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    last: Option<Instant>,
}

/// Lets one warning a minute through.
#[derive(Debug, Default)]
pub struct LogThrottle(Mutex<Throttle>);

const INTERVAL: Duration = Duration::from_secs(60);

impl Throttle {
    /// Whether it may happen now. If so, it may again after `interval`.
    pub fn is_due(&mut self, now: Instant, interval: Duration) -> bool {
        let is_due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= interval);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

impl LogThrottle {
    /// Whether to log now. If so, the next warning is due a minute later.
    pub fn is_due(&self, now: Instant) -> bool {
        self.0.lock().is_due(now, INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_warning_a_minute_is_due() {
        let (throttle, start) = (LogThrottle::default(), Instant::now());
        let due = [0, 0, 1, 59, 60, 61, 119, 120].map(|at| throttle.is_due(start + Duration::from_secs(at)));
        assert_eq!(due, [true, false, false, false, true, false, false, true]);
    }
}
