//! A worker's connections: the list that the ticker goes through, the current limits, and the limit on
//! connections that all workers share.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::IpAddr,
    rc::Rc,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use slab::Slab;
use tokio::sync::Notify;

use super::{
    Clock, Connection, Limits,
    connection::{CloseReason, ConnectionCommand},
};

/// What the sockets of one thread share.
pub struct Worker {
    limits: RefCell<Rc<Limits>>,
    clock: Clock,
    limit: Arc<ConnectionLimit>,
    connections: RefCell<Slab<Rc<Connection>>>,
    draining: Cell<bool>,
    emptied: Notify,
}

/// Connections over all workers. Written when a connection begins or ends, never per request.
pub struct ConnectionLimit {
    open: AtomicUsize,
    /// What the process's limit of open files leaves room for.
    most: usize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place in its worker's list, with its permit; given back when dropped.
pub(super) struct ConnectionSlot {
    worker: Rc<Worker>,
    key: usize,
    permit: ConnectionPermit,
}

/// A connection's permit in the limit.
pub(super) struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    address: Option<IpAddr>,
}

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LimitReached {
    /// For anybody, for now.
    Everybody,
    ThisAddress,
}

/// Descriptors kept for listeners, the store and the logs. Of the others, every connection needs
/// one for itself and one for its upstream.
const RESERVE: usize = 64;

impl Worker {
    /// Starts the ticker: call on the thread's local runtime.
    pub fn new(limits: Limits, limit: Arc<ConnectionLimit>) -> Rc<Self> {
        let worker = Rc::new(Self {
            limits: RefCell::new(Rc::new(Limits::default())),
            clock: Clock::new(),
            limit,
            connections: RefCell::new(Slab::new()),
            draining: Cell::new(false),
            emptied: Notify::new(),
        });
        worker.set_limits(limits);
        let (clock, watched) = (worker.clock.clone(), Rc::downgrade(&worker));
        tokio::task::spawn_local(async move {
            loop {
                clock.next_tick().await;
                let Some(worker) = watched.upgrade() else { return };
                worker.check();
            }
        });
        worker
    }

    /// Takes effect at once, for connections that are open too.
    pub fn set_limits(&self, limits: Limits) {
        self.clock.refine(limits.finest());
        self.limits.replace(Rc::new(limits));
    }

    pub fn limits(&self) -> Rc<Limits> {
        self.limits.borrow().clone()
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// How many connections are open here.
    pub fn connections(&self) -> usize {
        self.connections.borrow().len()
    }

    pub(super) fn permit(&self, address: Option<IpAddr>) -> Result<ConnectionPermit, LimitReached> {
        self.limit.permit(&self.limits.borrow(), address)
    }

    pub(super) fn enlist(
        self: &Rc<Self>,
        connection: Rc<Connection>,
        permit: ConnectionPermit,
    ) -> ConnectionSlot {
        let key = self.connections.borrow_mut().insert(connection);
        self.clock.watch();
        ConnectionSlot { worker: self.clone(), key, permit }
    }

    /// Lets the connection go that has been idle for the longest time.
    pub(super) fn make_room(&self) {
        let connections = self.connections.borrow();
        let idle = connections
            .iter()
            .filter_map(|(_, connection)| connection.idle_since().map(|since| (since, connection)));
        if let Some((_, connection)) = idle.min_by_key(|(since, _)| *since) {
            connection.command(ConnectionCommand::Close);
        }
    }

    pub(super) fn draining(&self) -> bool {
        self.draining.get()
    }

    /// From now on every connection finishes what it has under way and closes.
    pub(super) fn begin_drain(&self) {
        if !self.draining.replace(true) {
            self.each(Connection::begin_drain);
        }
    }

    /// Ends when no connection is left.
    pub(super) async fn emptied(&self) {
        while self.connections() > 0 {
            self.emptied.notified().await;
        }
    }

    /// The time of a drain is over: what is still under way ends here.
    pub(super) fn abort_all(&self) -> usize {
        self.each(|connection| connection.close_for(CloseReason::Drained))
    }

    fn check(&self) {
        let (now, limits, draining) = (self.clock.now(), self.limits(), self.draining());
        self.each(|connection| connection.check(now, &limits, draining));
    }

    fn each(&self, mut visit: impl FnMut(&Connection)) -> usize {
        // Visits wake tasks but run none, so the list stays as it is.
        let connections = self.connections.borrow();
        connections.iter().map(|(_, connection)| visit(connection)).count()
    }
}

impl ConnectionLimit {
    /// Raises the process's soft limit of open files to the hard one.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            open: AtomicUsize::new(0),
            most: (open_files().saturating_sub(RESERVE) / 2).max(1),
            addresses: Mutex::default(),
        })
    }

    /// Connections that are open now, over all workers.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn permit(
        self: &Arc<Self>,
        limits: &Limits,
        address: Option<IpAddr>,
    ) -> Result<ConnectionPermit, LimitReached> {
        let most = limits.connections.min(self.most);
        if self.open.fetch_add(1, Ordering::Relaxed) >= most {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(LimitReached::Everybody);
        }
        let mut permit = ConnectionPermit { limit: self.clone(), address: None };
        if permit.counts_for(limits, address) { Ok(permit) } else { Err(LimitReached::ThisAddress) }
    }
}

impl ConnectionPermit {
    /// Counts for this address from now on, unless that has enough of them.
    fn counts_for(&mut self, limits: &Limits, address: Option<IpAddr>) -> bool {
        if let (Some(most), Some(address)) = (limits.connections_per_address, address)
            && !limits.trusted_proxies.contains(address)
        {
            let mut addresses = self.limit.addresses.lock().unwrap_or_else(PoisonError::into_inner);
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

impl ConnectionSlot {
    /// A trusted proxy, which counts for no address, has named the client: the permit is that
    /// client's, unless it has enough of them.
    pub(super) fn hand_over(&mut self, client: Rc<Connection>) -> bool {
        let address = client.peer.counted();
        if !self.permit.counts_for(&self.worker.limits.borrow(), address) {
            return false;
        }
        self.worker.connections.borrow_mut()[self.key] = client;
        true
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let connection = self.worker.connections.borrow_mut().remove(self.key);
        drop(connection);
        self.worker.clock.unwatch();
        if self.worker.connections() == 0 {
            self.worker.emptied.notify_waiters();
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limit.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.address {
            let mut addresses = self.limit.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = addresses.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    addresses.remove(&address);
                }
            }
        }
    }
}

/// The limit of open files, after raising it as far as the process may.
fn open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    current.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX)
}
