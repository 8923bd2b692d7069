//! Whether this node may forward at all, and until when. A node of a cluster must not serve by a state that
//! the other nodes have left behind.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// Time since the machine booted, including suspends (CLOCK_BOOTTIME). Never compared between machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(Duration);

impl BootTime {
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        // Counted from boot, so neither is negative.
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Self(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
    }

    #[cfg(test)]
    pub const fn from_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    pub const fn since_start(self) -> Duration {
        self.0
    }
}

impl std::ops::Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// The end of the permission to forward, read for every request. Without a cluster the permission never ends,
/// and the clock is never read.
pub struct ForwardPermission {
    /// Nanoseconds since the machine booted.
    until: AtomicU64,
}

const FOREVER: u64 = u64::MAX;

impl Default for ForwardPermission {
    /// For a node without a cluster.
    fn default() -> Self {
        Self { until: AtomicU64::new(FOREVER) }
    }
}

impl ForwardPermission {
    pub fn is_valid(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until == FOREVER || nanoseconds(BootTime::now()) < until
    }

    /// Sets the first moment at which nothing may be forwarded; `None`: nothing may be forwarded at all.
    pub fn set_until(&self, until: Option<BootTime>) {
        let until = until.map_or(0, |until| nanoseconds(until).min(FOREVER - 1));
        self.until.store(until, Ordering::Release);
    }
}

fn nanoseconds(time: BootTime) -> u64 {
    u64::try_from(time.0.as_nanos()).unwrap_or(FOREVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permission_expires_and_can_be_extended() {
        let permission = ForwardPermission::default();
        assert!(permission.is_valid(), "alone");
        permission.set_until(None);
        assert!(!permission.is_valid(), "none yet");
        permission.set_until(Some(BootTime::now() + Duration::from_secs(60)));
        assert!(permission.is_valid());
        permission.set_until(Some(BootTime::now()));
        assert!(!permission.is_valid(), "over");
        permission.set_until(Some(BootTime::from_start(Duration::MAX)));
        assert!(permission.is_valid());
    }
}
