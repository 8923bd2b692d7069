//! Limits how fast an account may make changes, so that none delays the others or fills the disk.

use std::{collections::HashMap, time::Duration};

use crate::{authz::time::Timestamp, settings::Rate};

/// By account, or by account and kind of change: when it has its whole burst again, in nanoseconds of wall
/// time.
#[derive(Default)]
pub(crate) struct WriteRates(HashMap<String, i128>);

/// Above this number, accounts that have their whole burst are dropped.
const MAX_TRACKED: usize = 4096;

impl WriteRates {
    /// Counts a change; `Err` is how long to wait.
    pub(crate) fn take(&mut self, key: &str, rate: Rate, now: Timestamp) -> Result<(), Duration> {
        let nanos = |duration: Duration| i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX);
        let now = i128::from(now.as_millis()) * 1_000_000;
        let interval = nanos(rate.window / rate.count.get()).max(1);
        let burst = interval * i128::from(rate.burst.get());
        if self.0.len() >= MAX_TRACKED {
            self.0.retain(|_, whole| *whole > now);
        }
        if !self.0.contains_key(key) {
            self.0.insert(key.to_owned(), now);
        }
        let Some(whole) = self.0.get_mut(key) else { return Ok(()) };
        // After a clock was set back, no account waits longer than for its burst.
        *whole = (*whole).clamp(now, now + burst);
        let wait = *whole + interval - burst - now;
        if wait > 0 {
            return Err(Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)));
        }
        *whole += interval;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let number = |n| NonZeroU32::new(n).unwrap();
        let rate = Rate { count: number(50), window: Duration::from_secs(1), burst: number(500) };
        let mut rates = WriteRates::default();
        let mut takes = |account: &str, millis: i64| {
            let now = Timestamp::from_millis(millis);
            (0..1000).take_while(|_| rates.take(account, rate, now).is_ok()).count()
        };
        assert_eq!(takes("ann", 0), 500, "the burst");
        assert_eq!(takes("bob", 0), 500, "each account for itself");
        assert_eq!(takes("ann", 1000), 50);
        assert_eq!(takes("ann", 1019), 0);
        assert_eq!(takes("ann", 1020), 1);
        assert_eq!(takes("ann", 3_600_000), 500, "no more than the burst comes back");
        assert_eq!(takes("ann", 0), 0);
        assert_eq!(takes("ann", 1000), 50, "a clock that was set back");
        assert_eq!(rates.take("bob", rate, Timestamp::from_millis(0)), Err(Duration::from_millis(20)));
    }
}
