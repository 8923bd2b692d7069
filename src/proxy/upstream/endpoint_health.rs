//! How one url of an upstream stands, as the whole process knows it: whether its health checks
//! pass, whether requests to it fail, where its name leads. Written when that changes alone.

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

/// Shared by the workers that send to the url and by what looks after it.
pub struct EndpointHealth {
    since: Instant,
    up: AtomicBool,
    /// In a row.
    failures: AtomicU32,
    ejections: AtomicU32,
    /// Milliseconds since `since`; 0: not left out.
    ejected_until: AtomicU64,
    addresses: watch::Sender<Addresses>,
    generation: AtomicU64,
}

/// Where a name leads.
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
    /// What the health checks say; up until they say otherwise.
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

    /// Whether it may be asked.
    pub fn serves(&self, now: Instant) -> bool {
        self.is_up() && !self.is_ejected(now)
    }

    pub fn succeeded(&self) {
        // Nearly always there is nothing to forget, and then nothing is written.
        if self.failures.load(Relaxed) != 0 || self.ejections.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.ejections.store(0, Relaxed);
            self.ejected_until.store(0, Relaxed);
        }
    }

    /// Counts a failure; whether the url has had enough of them in a row to be left out.
    pub fn failed(&self, ejection: Ejection, now: Instant) -> bool {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        // What was under way when it was left out tells nothing new. After a back-off one more
        // failure is enough.
        !self.is_ejected(now) && (failures >= ejection.failures || self.ejections.load(Relaxed) > 0)
    }

    pub fn eject(&self, ejection: Ejection, now: Instant) {
        let times = self.ejections.fetch_add(1, Relaxed);
        let back_off =
            ejection.back_off.saturating_mul(1 << times.min(6)).min(Ejection::LONGEST.max(ejection.back_off));
        self.failures.store(0, Relaxed);
        self.ejected_until.store(self.millis(now + back_off).max(1), Relaxed);
    }

    /// Changes with the addresses: a connection of an earlier generation may lead to an address
    /// that has vanished.
    pub fn generation(&self) -> u64 {
        self.generation.load(Relaxed)
    }

    /// Where the name leads; waits until it was looked up for the first time.
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

    /// What a look-up found; nothing: the last good answer stays. Whether the set is another one.
    pub fn found(&self, mut addresses: Vec<SocketAddr>) -> bool {
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
        // Name servers turn the order; it means nothing here.
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
        // What the first answer brought about leads nowhere else: requests wait for it.
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
    fn who_keeps_failing_is_left_out_for_longer_and_longer() {
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
    async fn the_last_good_answer_stays() {
        let health = EndpointHealth::default();
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        assert!(!health.found(Vec::new()));
        assert_eq!(health.addresses().await, None);
        let found = |ports: &[u16]| health.found(ports.iter().copied().map(address).collect());
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
