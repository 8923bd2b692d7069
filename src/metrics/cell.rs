//! Counters and histograms as relaxed atomics. Each value is exact, but several of them are not a snapshot.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A counter that any thread may add to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Upper bounds of the buckets in nanoseconds; one more bucket has no bound.
pub(super) const BOUNDS: [u64; 16] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];

/// Durations in buckets with fixed bounds.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// The values of a histogram, or the sum of several.
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

impl Distribution {
    pub(super) fn combine(&mut self, other: &Self, with: fn(u64, u64) -> u64) {
        for (bucket, of_other) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket = with(*bucket, of_other);
        }
        self.nanos = with(self.nanos, other.nanos);
    }
}

impl Histogram {
    /// May be called by any thread.
    pub fn observe(&self, duration: Duration) {
        let nanos = nanos(duration);
        self.buckets[bucket(nanos)].fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
    }

    /// Observes without a locked instruction. Only for the one thread that writes this histogram.
    pub(super) fn observe_single_writer(&self, duration: Duration) {
        let nanos = nanos(duration);
        add_single_writer(&self.buckets[bucket(nanos)], 1);
        add_single_writer(&self.nanos, nanos);
    }

    pub(super) fn add_to(&self, sum: &mut Distribution) {
        for (total, bucket) in sum.buckets.iter_mut().zip(&self.buckets) {
            *total += bucket.load(Relaxed);
        }
        sum.nanos = sum.nanos.wrapping_add(self.nanos.load(Relaxed));
    }
}

/// Adds to a value that only the calling thread writes. Readers see the value before or after.
pub(super) fn add_single_writer(cell: &AtomicU64, amount: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(amount), Relaxed);
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn bucket(nanos: u64) -> usize {
    BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_counts_in_first_bucket_that_contains_it() {
        fn check(name: &str, duration: Duration, expected: usize) {
            let histogram = Histogram::default();
            histogram.observe(duration);
            histogram.observe_single_writer(duration);
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
    fn bucket_bounds_increase() {
        assert!(BOUNDS.is_sorted_by(|one, next| one < next));
    }
}
