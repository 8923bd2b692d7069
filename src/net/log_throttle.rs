//! Bounds a warning that a client can cause with each request.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Lets one warning a minute through.
#[derive(Debug, Default)]
pub struct LogThrottle(Mutex<Option<Instant>>);

const INTERVAL: Duration = Duration::from_secs(60);

impl LogThrottle {
    /// Whether to log now. If so, the next warning is due a minute later.
    pub fn is_due(&self, now: Instant) -> bool {
        let mut logged = self.0.lock();
        let is_due = logged.is_none_or(|logged| now.saturating_duration_since(logged) >= INTERVAL);
        if is_due {
            *logged = Some(now);
        }
        is_due
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
