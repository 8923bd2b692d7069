//! The limit on client connections, in total and per address.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Reading;
use crate::{authz::network, net::Limits};

/// The limit on connections over all workers. Updated when a connection begins or ends, never per request.
pub struct ConnectionLimit {
    open: AtomicUsize,
    max: AtomicUsize,
    /// Whether a quarter of these is reserved for unix sockets.
    reserves_for_unix: bool,
    refused: AtomicU64,
    /// A worker waits for a slot that it cannot free itself.
    slot_requested: AtomicBool,
    slot_request: Notify,
    addresses: Mutex<HashMap<IpAddr, usize>>,
    /// The limit per address; 0: none.
    max_per_address: AtomicUsize,
    refused_per_address: AtomicU64,
}

/// Permission for one open connection. Dropping it frees the slot.
pub struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    address: Option<IpAddr>,
}

/// Why a connection gets no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitReached {
    /// The limit over all connections is reached.
    Total,
    PerAddress,
}

impl ConnectionLimit {
    pub(super) fn new(max: usize, reserves_for_unix: bool) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            max: AtomicUsize::new(max),
            reserves_for_unix,
            refused: AtomicU64::new(0),
            slot_requested: AtomicBool::new(false),
            slot_request: Notify::new(),
            addresses: Mutex::default(),
            max_per_address: AtomicUsize::new(0),
            refused_per_address: AtomicU64::new(0),
        })
    }

    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max, Relaxed);
    }

    pub(super) fn max(&self) -> usize {
        self.max.load(Relaxed)
    }

    /// Connections that are open now, over all workers.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    pub fn permit(
        self: &Arc<Self>,
        limits: &Limits,
        address: Option<IpAddr>,
        is_unix: bool,
    ) -> Result<ConnectionPermit, LimitReached> {
        let max = self.max();
        let reserved = if self.reserves_for_unix && !is_unix { max.div_ceil(4) } else { 0 };
        let max = limits.connections.min(max - reserved);
        if self.open.fetch_add(1, Relaxed) >= max {
            self.open.fetch_sub(1, Relaxed);
            return Err(LimitReached::Total);
        }
        let mut permit = ConnectionPermit { limit: self.clone(), address: None };
        if permit.assign_address(limits, address) { Ok(permit) } else { Err(LimitReached::PerAddress) }
    }

    pub fn count_refusal(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Requests a slot from all workers.
    pub fn request_slot(&self) {
        self.slot_requested.store(true, Relaxed);
        self.slot_request.notify_waiters();
    }

    /// Waits until a slot is requested that no worker has freed yet.
    pub async fn wait_for_slot_request(&self) {
        loop {
            self.slot_request.notified().await;
            if self.slot_requested.load(Relaxed) {
                return;
            }
        }
    }

    /// Records that the requested slot was freed.
    pub fn clear_slot_request(&self) {
        self.slot_requested.store(false, Relaxed);
    }

    pub(super) fn reading(&self, name: &'static str) -> Reading {
        let (limit, refused) = (self.max.load(Relaxed), self.refused.load(Relaxed));
        Reading { name, limit, used: self.open(), refused }
    }

    /// Of the limit per address, if there is one: how much the busiest address uses of it.
    pub(super) fn reading_per_address(&self) -> Option<Reading> {
        let limit = self.max_per_address.load(Relaxed);
        let refused = self.refused_per_address.load(Relaxed);
        let used = self.addresses.lock().values().max().copied().unwrap_or(0);
        (limit > 0).then_some(Reading { name: "connections_per_address", limit, used, refused })
    }
}

impl ConnectionPermit {
    /// Counts the connection for this address from now on, an IPv6 /64 as one. Returns false, and counts a
    /// refusal, if the address has reached its limit.
    pub fn assign_address(&mut self, limits: &Limits, address: Option<IpAddr>) -> bool {
        self.limit.max_per_address.store(limits.connections_per_address.unwrap_or(0), Relaxed);
        if let (Some(max), Some(address)) = (limits.connections_per_address, address)
            && !limits.trusted_proxies.contains(address)
        {
            let address = network::of_client(address);
            let mut addresses = self.limit.addresses.lock();
            let count = addresses.entry(address).or_default();
            if *count >= max {
                self.limit.refused_per_address.fetch_add(1, Relaxed);
                return false;
            }
            *count += 1;
            self.address = Some(address);
        }
        true
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limit.open.fetch_sub(1, Relaxed);
        if let Some(address) = self.address {
            let mut addresses = self.limit.addresses.lock();
            if let Some(count) = addresses.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    addresses.remove(&address);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{BudgetLimits, Budgets, Machine};

    #[test]
    fn three_quarters_of_the_admin_connections_are_for_tcp_after_every_reload() {
        let with = |connections: usize| {
            BudgetLimits::new(Machine { files: 1024, memory: 1 << 30 }, 1, Some(connections))
        };
        let budgets = Budgets::for_admin(&with(256));
        let check = |tcp: usize, all: usize| {
            let permit = |is_unix: bool| {
                budgets.connections.permit(
                    &Limits { connections: usize::MAX, ..Limits::default() },
                    None,
                    is_unix,
                )
            };
            let mut held: Vec<_> = std::iter::from_fn(|| permit(false).ok()).collect();
            assert_eq!(held.len(), tcp, "of {all}");
            held.extend(std::iter::from_fn(|| permit(true).ok()));
            assert_eq!(held.len(), all, "of {all}");
        };
        check(192, 256);
        for (connections, tcp) in [(32, 24), (8, 6), (256, 192)] {
            budgets.set(&with(connections).for_admin());
            check(tcp, connections);
        }
    }
}
