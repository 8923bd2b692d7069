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
use crate::net::Limits;

/// The limit on connections over all workers. Updated when a connection begins or ends, never per request.
pub struct ConnectionLimit {
    open: AtomicUsize,
    most: AtomicUsize,
    /// How many of these are reserved for unix sockets.
    for_unix: usize,
    refused: AtomicU64,
    /// A worker waits for a slot that it cannot free itself.
    wished: AtomicBool,
    wish: Notify,
    addresses: Mutex<HashMap<IpAddr, usize>>,
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
    Everybody,
    ThisAddress,
}

impl ConnectionLimit {
    pub(super) fn new(most: usize, for_unix: usize) -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            most: AtomicUsize::new(most),
            for_unix,
            refused: AtomicU64::new(0),
            wished: AtomicBool::new(false),
            wish: Notify::new(),
            addresses: Mutex::default(),
        })
    }

    pub(super) fn set_most(&self, most: usize) {
        self.most.store(most, Relaxed);
    }

    /// Connections that are open now, over all workers.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Whether connections on which no user has signed in may be closed to make room, as on the admin
    /// listener.
    pub fn is_for_users(&self) -> bool {
        self.for_unix > 0
    }

    pub fn permit(
        self: &Arc<Self>,
        limits: &Limits,
        address: Option<IpAddr>,
        is_unix: bool,
    ) -> Result<ConnectionPermit, LimitReached> {
        let reserved = if is_unix { 0 } else { self.for_unix };
        let most = limits.connections.min(self.most.load(Relaxed).saturating_sub(reserved));
        if self.open.fetch_add(1, Relaxed) >= most {
            self.open.fetch_sub(1, Relaxed);
            return Err(LimitReached::Everybody);
        }
        let mut permit = ConnectionPermit { limit: self.clone(), address: None };
        if permit.counts_for(limits, address) { Ok(permit) } else { Err(LimitReached::ThisAddress) }
    }

    pub fn count_refusal(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Requests a slot from all workers.
    pub fn wish(&self) {
        self.wished.store(true, Relaxed);
        self.wish.notify_waiters();
    }

    /// Waits until a slot is requested that no worker has freed yet.
    pub async fn wished(&self) {
        loop {
            self.wish.notified().await;
            if self.wished.load(Relaxed) {
                return;
            }
        }
    }

    /// Records that the requested slot was freed.
    pub fn fulfilled(&self) {
        self.wished.store(false, Relaxed);
    }

    pub(super) fn reading(&self, name: &'static str) -> Reading {
        let (limit, refused) = (self.most.load(Relaxed), self.refused.load(Relaxed));
        Reading { name, limit, used: self.open(), refused }
    }
}

impl ConnectionPermit {
    /// Counts the connection for this address from now on. Returns false if the address has reached its
    /// limit.
    pub fn counts_for(&mut self, limits: &Limits, address: Option<IpAddr>) -> bool {
        if let (Some(most), Some(address)) = (limits.connections_per_address, address)
            && !limits.trusted_proxies.contains(address)
        {
            let mut addresses = self.limit.addresses.lock();
            let count = addresses.entry(address).or_default();
            if *count >= most {
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
