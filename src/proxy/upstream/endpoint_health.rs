//! The process-wide state of one URL of an upstream: whether health checks pass, whether requests fail, and
//! the addresses of its name. Written only when that changes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::settings::Ejection;

/// Shared by the workers that send to the URL and by the tasks that maintain it.
pub struct EndpointHealth {
    since: Instant,
    up: AtomicBool,
    /// Consecutive failures.
    failures: AtomicU32,
    ejections: AtomicU32,
    /// Milliseconds since `since`; 0: not ejected.
    ejected_until: AtomicU64,
    addresses: watch::Sender<Addresses>,
    generation: AtomicU64,
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Addresses {
    NotYet,
    Unresolvable,
    Known(Arc<[SocketAddr]>),
}

impl Default for EndpointHealth {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            up: AtomicBool::new(true),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            addresses: watch::channel(Addresses::NotYet).0,
            generation: AtomicU64::new(0),
        }
    }
}

impl EndpointHealth {
    /// The result of the health checks; true until they fail.
    pub fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    pub fn set_up(&self, up: bool) {
        self.up.store(up, Relaxed);
    }

    pub fn is_ejected(&self, now: Instant) -> bool {
        let until = self.ejected_until.load(Relaxed);
        until != 0 && until > self.millis(now)
    }

    /// Whether requests may be sent to it.
    pub fn is_available(&self, now: Instant) -> bool {
        self.is_up() && !self.is_ejected(now)
    }

    pub fn succeeded(&self) {
        // Writes only if there is something to reset, which is rare.
        if self.failures.load(Relaxed) != 0 || self.ejections.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.ejections.store(0, Relaxed);
            self.ejected_until.store(0, Relaxed);
        }
    }

    /// Counts a failure. Returns whether the URL has failed often enough in a row to be ejected.
    pub fn failed(&self, ejection: Ejection, now: Instant) -> bool {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        // Failures of requests that began before the ejection do not count. After a back-off, one more
        // failure is enough.
        !self.is_ejected(now) && (failures >= ejection.failures || self.ejections.load(Relaxed) > 0)
    }

    pub fn eject(&self, ejection: Ejection, now: Instant) {
        let times = self.ejections.fetch_add(1, Relaxed);
        let back_off =
            ejection.back_off.saturating_mul(1 << times.min(6)).min(Ejection::MAX.max(ejection.back_off));
        self.failures.store(0, Relaxed);
        self.ejected_until.store(self.millis(now + back_off).max(1), Relaxed);
    }

    /// Changes with the addresses. A connection of an earlier generation may lead to an
    /// address that is no longer valid.
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Returns the addresses, after waiting for the first lookup. `None`: the name cannot be resolved.
    pub async fn addresses(&self) -> Option<Arc<[SocketAddr]>> {
        if let Addresses::Known(known) = &*self.addresses.borrow() {
            return Some(known.clone());
        }
        let mut watched = self.addresses.subscribe();
        match &*watched.wait_for(|addresses| *addresses != Addresses::NotYet).await.ok()? {
            Addresses::Known(known) => Some(known.clone()),
            Addresses::NotYet | Addresses::Unresolvable => None,
        }
    }

    /// Records the result of a lookup. If it is empty, the last good addresses stay.
    /// Returns whether the set has changed.
    pub fn set_addresses(&self, mut addresses: Vec<SocketAddr>) -> bool {
        if addresses.is_empty() {
            self.addresses.send_if_modified(|known| {
                let first = *known == Addresses::NotYet;
                if first {
                    *known = Addresses::Unresolvable;
                }
                first
            });
            return false;
        }
        // Name servers rotate the order, so only the set is compared.
        let mut seen = addresses.clone();
        seen.sort_unstable();
        seen.dedup();
        let mut others_were_known = false;
        let changed = self.addresses.send_if_modified(|known| {
            if let Addresses::Known(known) = known {
                let mut before = known.to_vec();
                before.sort_unstable();
                if before == seen {
                    return false;
                }
                others_were_known = true;
            }
            let mut first = std::collections::HashSet::new();
            addresses.retain(|address| first.insert(*address));
            *known = Addresses::Known(addresses.as_slice().into());
            true
        });
        // Requests wait for the first lookup, so no connection is older than it.
        if others_were_known {
            self.generation.fetch_add(1, Relaxed);
        }
        changed
    }

    fn millis(&self, at: Instant) -> u64 {
        let since: Duration = at.saturating_duration_since(self.since);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ejection_time_doubles_with_each_failure() {
        let health = EndpointHealth::default();
        let ejection = Ejection { failures: 2, back_off: Duration::from_secs(5) };
        let at = |seconds: u64| health.since + Duration::from_secs(seconds);
        let check = |row: &str, seconds: u64, expected: bool| {
            assert_eq!(health.is_ejected(at(seconds)), expected, "{row}");
        };
        assert!(!health.failed(ejection, at(0)), "one is chance");
        health.succeeded();
        assert!(!health.failed(ejection, at(0)), "not in a row");
        assert!(health.failed(ejection, at(0)));
        health.eject(ejection, at(0));
        assert!(!health.failed(ejection, at(1)), "was under way");
        check("within the back-off", 4, true);
        check("after it", 5, false);
        assert!(health.failed(ejection, at(5)), "one more is enough");
        health.eject(ejection, at(5));
        check("double", 14, true);
        check("after the double", 15, false);
        for _ in 0..9 {
            health.eject(ejection, at(15));
        }
        check("no longer than the longest", 15 + 59, true);
        check("and then", 15 + 60, false);
        health.succeeded();
        assert!(!health.failed(ejection, at(80)), "all is forgotten");
    }

    #[tokio::test]
    async fn failed_lookup_keeps_previous_addresses() {
        let health = EndpointHealth::default();
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        assert!(!health.set_addresses(Vec::new()));
        assert_eq!(health.addresses().await, None);
        let found = |ports: &[u16]| health.set_addresses(ports.iter().copied().map(address).collect());
        let check = |row: &str, ports: &[u16], changed: bool| {
            let generation = health.generation();
            assert_eq!(found(ports), changed, "{row}");
            assert_eq!(health.generation() - generation, u64::from(changed), "{row}");
        };
        assert!(found(&[1, 2, 1]));
        assert_eq!(health.generation(), 0, "no connection led elsewhere before the first");
        check("another order", &[2, 1], false);
        check("nothing", &[], false);
        assert_eq!(health.addresses().await.as_deref(), Some(&[address(1), address(2)][..]));
        check("one vanished", &[2], true);
        assert_eq!(health.addresses().await.as_deref(), Some(&[address(2)][..]));
    }
}
