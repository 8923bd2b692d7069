//! A rate limit by the generic cell rate algorithm: one number per key, exact over all workers. What was
//! taken can be given back.

use std::time::{Duration, Instant};

use super::table::{CountKey, Table};
use crate::settings::Rate;

#[derive(Debug)]
pub struct RateLimit {
    /// When each key regains its whole burst, in nanoseconds since `epoch`.
    full_at: Table<u64>,
    epoch: Instant,
    rate: Rate,
    /// Nanoseconds per request.
    interval: u64,
    /// Nanoseconds per whole burst.
    tolerance: u64,
}

/// What remains after an allowed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// The key that was counted, for [`RateLimit::give_back`].
    pub key: CountKey,
    pub rest: u64,
    pub full_in: Duration,
}

impl RateLimit {
    pub fn new(rate: Rate) -> Self {
        let interval = nanos(rate.window) / u64::from(rate.count.get());
        let interval = interval.max(1);
        let tolerance = interval.saturating_mul(rate.burst.get().into());
        Self { full_at: Table::default(), epoch: Instant::now(), rate, interval, tolerance }
    }

    pub fn burst(&self) -> u32 {
        self.rate.burst.get()
    }

    /// How long it takes to regain the whole burst.
    pub fn refill_time(&self) -> Duration {
        Duration::from_nanos(self.tolerance)
    }

    /// Takes one request, or returns how long to wait for it.
    pub fn take(&self, key: CountKey, now: Instant) -> Result<Remaining, Duration> {
        let at = now;
        let now = nanos(now.saturating_duration_since(self.epoch));
        let (key, taken) = self.full_at.update(
            key,
            || at,
            |full_at| full_at <= now,
            |full_at| {
                let next = full_at.max(now).saturating_add(self.interval);
                match next.checked_sub(now.saturating_add(self.tolerance)) {
                    Some(early @ 1..) => (None, Err(Duration::from_nanos(early))),
                    Some(0) | None => (Some(next), Ok(next)),
                }
            },
        );
        let next = taken?;
        let owed = next - now;
        let rest = self.tolerance.saturating_sub(owed) / self.interval;
        Ok(Remaining { key, rest, full_in: Duration::from_nanos(owed) })
    }

    /// Undoes a take. `key` is that of [`Remaining`].
    pub fn give_back(&self, key: CountKey) {
        self.full_at.update(
            key,
            Instant::now,
            |full_at| full_at == 0,
            |full_at| (Some(full_at.saturating_sub(self.interval)), ()),
        );
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, num::NonZeroU32};

    use super::*;

    fn rate_limit(count: u32, window: u64, burst: u32) -> RateLimit {
        let number = |n| NonZeroU32::new(n).unwrap();
        RateLimit::new(Rate {
            count: number(count),
            window: Duration::from_secs(window),
            burst: number(burst),
        })
    }

    fn key(n: u32) -> CountKey {
        CountKey::Address(Ipv4Addr::from(n).into())
    }

    #[test]
    fn rate_and_burst_are_enforced() {
        let rate_limit = rate_limit(2, 10, 3);
        let start = rate_limit.epoch;
        // (row, key, milliseconds, remaining requests or milliseconds to wait)
        let check = |row: &str, of: u32, at: u64, expected: Result<u64, u64>| {
            let taken = rate_limit.take(key(of), start + Duration::from_millis(at));
            let outcome =
                taken.map(|left| left.rest).map_err(|wait| u64::try_from(wait.as_millis()).unwrap());
            assert_eq!(outcome, expected, "{row}");
        };
        check("first", 1, 0, Ok(2));
        check("second", 1, 0, Ok(1));
        check("third, the burst is over", 1, 0, Ok(0));
        check("fourth", 1, 0, Err(5000));
        check("a refused one costs nothing", 1, 1000, Err(4000));
        check("another", 2, 1000, Ok(2));
        check("just too early", 1, 4999, Err(1));
        check("in time", 1, 5000, Ok(0));
        check("one at a time from here on", 1, 5000, Err(5000));
        check("a pause gives it all back", 1, 60_000, Ok(2));
        check("and no more than that", 1, 60_000, Ok(1));
        let left = rate_limit.take(key(1), start + Duration::from_millis(60_000)).unwrap();
        check("empty", 1, 60_000, Err(5000));
        rate_limit.give_back(left.key);
        check("given back", 1, 60_000, Ok(0));
    }

    #[test]
    fn idle_keys_are_forgotten_and_their_number_is_bounded() {
        let rate_limit = rate_limit(1, 1, 1);
        let start = rate_limit.epoch;
        for n in 0..300_000 {
            assert!(rate_limit.take(key(n), start).is_ok() || n > 200_000, "{n}");
        }
        assert!(rate_limit.full_at.len() <= 262_144 + 16, "{}", rate_limit.full_at.len());
        assert!(rate_limit.take(key(299_999), start).is_err(), "who finds no room shares a count");
        for n in 300_000..301_000 {
            let _ = rate_limit.take(key(n), start + Duration::from_secs(10));
        }
        assert!(rate_limit.full_at.len() <= 1016, "{}", rate_limit.full_at.len());
    }

    #[test]
    fn concurrent_threads_never_exceed_the_rate() {
        let rate_limit = rate_limit(1, 3600, 1000);
        let start = rate_limit.epoch;
        let passed: usize = std::thread::scope(|scope| {
            let take = || (0..2000).filter(|_| rate_limit.take(key(1), start).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 1000);
    }
}
