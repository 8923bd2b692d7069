//! The cells that are counted in: plain relaxed atomics, exact one by one, not among each other.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Written from anywhere.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Upper bounds in nanoseconds; the last bucket has none.
pub(super) const BOUNDS: [(u64, &str); 16] = [
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5"),
    (10_000_000_000, "10"),
    (30_000_000_000, "30"),
    (60_000_000_000, "60"),
];

/// Durations by `BOUNDS`.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// A histogram as read, and several added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Distribution {
    /// Not cumulative.
    pub(super) buckets: [u64; BOUNDS.len() + 1],
    pub(super) nanos: u64,
}

impl Counter {
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Histogram {
    /// From anywhere.
    pub fn observe(&self, duration: Duration) {
        let nanos = nanos(duration);
        self.buckets[bucket(nanos)].fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
    }

    /// From the one thread that writes this histogram: no locked instruction.
    pub(super) fn observe_alone(&self, duration: Duration) {
        let nanos = nanos(duration);
        add_alone(&self.buckets[bucket(nanos)], 1);
        add_alone(&self.nanos, nanos);
    }

    pub(super) fn add_to(&self, sum: &mut Distribution) {
        for (total, bucket) in sum.buckets.iter_mut().zip(&self.buckets) {
            *total += bucket.load(Relaxed);
        }
        sum.nanos = sum.nanos.wrapping_add(self.nanos.load(Relaxed));
    }
}

/// Adds where one thread alone writes; readers see either value.
pub(super) fn add_alone(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn bucket(nanos: u64) -> usize {
    BOUNDS.iter().position(|(bound, _)| nanos <= *bound).unwrap_or(BOUNDS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_in_the_first_bucket_that_holds_it() {
        fn check(name: &str, duration: Duration, expected: usize) {
            let histogram = Histogram::default();
            histogram.observe(duration);
            histogram.observe_alone(duration);
            let mut sum = Distribution::default();
            histogram.add_to(&mut sum);
            let mut buckets = [0; BOUNDS.len() + 1];
            buckets[expected] = 2;
            assert_eq!(sum.buckets, buckets, "{name}");
            assert_eq!(u128::from(sum.nanos), 2 * duration.as_nanos(), "{name}");
        }
        check("nothing", Duration::ZERO, 0);
        check("a bound belongs to its bucket", Duration::from_micros(500), 0);
        check("just beyond a bound", Duration::from_nanos(500_001), 1);
        check("the last bound", Duration::from_secs(60), 15);
        check("beyond all bounds", Duration::from_secs(61), 16);
    }

    #[test]
    fn bounds_rise_and_their_text_is_their_value() {
        assert!(BOUNDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (nanos, text) in BOUNDS {
            let seconds: f64 = text.parse().unwrap();
            assert_eq!((seconds * 1e9).round() as u64, nanos, "{text}");
        }
    }
}
