//! The connections of a worker: their list for the ticker, their limits and timeouts, as they are set and as
//! they apply, and the worker's use of the budgets. Also the drain, which stops accepting on every worker and
//! limits how long requests in progress may take.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use slab::Slab;
use tokio::sync::{Notify, watch};

use super::{
    Clock, Connection, Peer,
    budget::{Budgets, ConnectionPermit, LimitReached, WorkerBudget},
    connection::{CloseReason, ConnectionCommand},
};
use crate::authz::forwarding::TrustedProxies;

/// What the connections of one worker share.
pub struct Worker {
    limits: RefCell<Rc<Limits>>,
    clock: Clock,
    pub(super) budgets: Arc<Budgets>,
    /// Open HTTP/2 streams.
    pub(super) streams: WorkerBudget,
    /// Bytes of responses that clients had not read at the last tick.
    held: Cell<usize>,
    connections: RefCell<Slab<Rc<Connection>>>,
    /// Whether new connections find no free slot.
    pub(super) full: Cell<bool>,
    draining: Cell<bool>,
    emptied: Notify,
}

/// A connection's entry in its worker's list, with its permit; both are released when dropped.
pub(super) struct ConnectionSlot {
    worker: Rc<Worker>,
    key: usize,
    permit: ConnectionPermit,
}

impl Worker {
    /// Creates a worker and starts its ticker. Call on the thread's local runtime.
    pub fn new(limits: Limits, budgets: Arc<Budgets>) -> Rc<Self> {
        let worker = Rc::new(Self {
            limits: RefCell::new(Rc::new(Limits::default())),
            clock: Clock::new(),
            streams: WorkerBudget::new(budgets.streams.clone()),
            budgets,
            held: Cell::new(0),
            connections: RefCell::new(Slab::new()),
            full: Cell::new(false),
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
        let (connections, watched) = (worker.budgets.connections.clone(), Rc::downgrade(&worker));
        tokio::task::spawn_local(async move {
            loop {
                connections.wait_for_slot_request().await;
                let Some(worker) = watched.upgrade() else { return };
                if worker.make_room() {
                    connections.clear_slot_request();
                }
            }
        });
        worker
    }

    /// Takes effect at once, also for open connections.
    pub fn set_limits(&self, limits: Limits) {
        self.clock.set_resolution_for(limits.shortest_timeout());
        self.limits.replace(Rc::new(limits));
    }

    pub fn limits(&self) -> Rc<Limits> {
        self.limits.borrow().clone()
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns the number of open connections of this worker.
    pub fn connections(&self) -> usize {
        self.connections.borrow().len()
    }

    pub(super) fn permit(&self, peer: &Peer) -> Result<ConnectionPermit, LimitReached> {
        let is_unix = matches!(peer, Peer::Unix { .. });
        self.budgets.connections.permit(&self.limits.borrow(), peer.limited_address(), is_unix)
    }

    pub(super) fn register(
        self: &Rc<Self>,
        connection: Rc<Connection>,
        permit: ConnectionPermit,
    ) -> ConnectionSlot {
        let key = self.connections.borrow_mut().insert(connection);
        self.clock.watch();
        ConnectionSlot { worker: self.clone(), key, permit }
    }

    /// Closes connections to free slots: all whose client has closed its side; else the oldest of the first
    /// of these kinds that there is: those whose last response was sent, idle ones, those whose handshake or
    /// head is incomplete, and those on which no request was permitted, even during one. Returns false if
    /// there is nothing to close here and nothing that closes already.
    pub(super) fn make_room(&self) -> bool {
        let connections = self.connections.borrow();
        if connections.iter().filter(|(_, one)| one.presume_gone()).count() > 0 {
            return true;
        }
        let kinds: [fn(&Connection) -> Option<Instant>; 4] = [
            Connection::closing_since,
            Connection::idle_since,
            Connection::slow_since,
            Connection::unpermitted_since,
        ];
        let kind =
            |one: &Connection| kinds.iter().zip(0..).find_map(|(since, kind)| Some((kind, since(one)?)));
        let (ending, others): (Vec<&Connection>, Vec<_>) =
            connections.iter().map(|(_, one)| &**one).partition(|one| one.is_ending());
        let mut ranked: Vec<_> = others.into_iter().filter_map(|one| Some((kind(one)?, one))).collect();
        ranked.sort_unstable_by_key(|(rank, _)| *rank);
        let Some(((first, _), _)) = ranked.first() else { return !ending.is_empty() };
        let of_kind = ranked.iter().take_while(|((kind, _), _)| kind == first);
        for (_, connection) in of_kind.take((connections.len() / CLOSED_ONE_OF).clamp(1, MAX_CLOSED)) {
            if *first == kinds.len() - 1 {
                connection.close_for(CloseReason::OverBudget);
            } else {
                connection.command(ConnectionCommand::MakeRoom);
            }
        }
        true
    }

    pub(super) fn draining(&self) -> bool {
        self.draining.get()
    }

    /// Makes every connection finish what is in progress and close.
    pub(super) fn begin_drain(&self) {
        if !self.draining.replace(true) {
            self.for_each(Connection::wake);
        }
    }

    /// Waits until no connection is left.
    pub(super) async fn wait_until_empty(&self) {
        while self.connections() > 0 {
            self.emptied.notified().await;
        }
    }

    /// Aborts every connection at the deadline of a drain. Returns their number.
    pub(super) fn abort_all(&self) -> usize {
        self.for_each(|connection| connection.close_for(CloseReason::Drained))
    }

    fn check(&self) {
        let (now, limits, draining) = (self.clock.now(), self.limits(), self.draining());
        let budget = &self.budgets.send_buffers;
        let crowded = budget.used() > budget.limit() / 2;
        let (mut held, mut most) = (0, (0, None));
        let connections = self.connections.borrow();
        for (_, connection) in connections.iter() {
            connection.check(now, &limits, draining, crowded);
            let holds = connection.held();
            held += holds;
            if holds > most.0 {
                most = (holds, Some(connection));
            }
        }
        // One per tick, because its effect is measured at the next tick.
        if let (true, (_, Some(connection))) = (budget.used() > budget.limit(), most) {
            budget.count_refusal();
            connection.close_for(CloseReason::OverBudget);
        }
        self.measure(held);
    }

    fn measure(&self, held: usize) {
        self.budgets.send_buffers.replace_measured(self.held.replace(held), held);
    }

    fn for_each(&self, mut apply: impl FnMut(&Connection)) -> usize {
        // Visits wake tasks but do not run them, so the list does not change.
        let connections = self.connections.borrow();
        connections.iter().map(|(_, connection)| apply(connection)).count()
    }
}

/// How many connections are closed at once to make room: one of so many, and at most. In a flood every new
/// connection needs a slot, and looking at thousands of others for each would keep it waiting.
const CLOSED_ONE_OF: usize = 256;
const MAX_CLOSED: usize = 16;

impl ConnectionSlot {
    /// Assigns a trusted proxy's connection, which counted for no address, to the client that it names.
    /// Returns false if the client has reached its limit.
    pub(super) fn assign_client(&mut self, client: Rc<Connection>) -> bool {
        let address = client.peer.limited_address();
        if !self.permit.assign_address(&self.worker.limits.borrow(), address) {
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
            // No tick measures this worker from now on.
            self.worker.measure(0);
            self.worker.emptied.notify_waiters();
        }
    }
}

/// Begins the drain of every worker that holds its `Draining`.
pub struct Drain(watch::Sender<Option<Instant>>);

/// A worker's end of a `Drain`.
#[derive(Clone)]
pub struct Draining(watch::Receiver<Option<Instant>>);

/// How serving a listener ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were cut at the deadline.
    pub cut: usize,
}

pub fn drain() -> (Drain, Draining) {
    let (sender, receiver) = watch::channel(None);
    (Drain(sender), Draining(receiver))
}

impl Drain {
    /// Begins the drain. Requests in progress have until `deadline`. A second call can only make it earlier.
    pub fn begin(&self, deadline: Instant) {
        self.0.send_modify(|present| {
            *present = Some(present.map_or(deadline, |present| present.min(deadline)));
        });
    }
}

impl Draining {
    /// Waits until the drain begins. If the `Drain` is dropped, it begins with no time left.
    pub(super) async fn begun(&mut self) {
        let _ = self.0.wait_for(Option::is_some).await;
    }

    pub(super) fn has_begun(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits for the drain's deadline, including later changes to it.
    pub(super) async fn deadline(&mut self) {
        loop {
            let Some(deadline) = *self.0.borrow_and_update() else { return };
            tokio::select! {
                () = tokio::time::sleep_until(deadline.into()) => return,
                changed = self.0.changed() => if changed.is_err() {
                    return tokio::time::sleep_until(deadline.into()).await;
                },
            }
        }
    }
}

/// Limits and timeouts of client connections.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Request line and fields together, bytes.
    pub head: usize,
    /// Name and value of one field, bytes.
    pub field: usize,
    pub fields: usize,
    /// Request target, bytes.
    pub target: usize,
    /// Connections over all workers.
    pub connections: usize,
    /// `None`: no limit per client address.
    pub connections_per_address: Option<usize>,
    /// Exempt from the limit per address.
    pub trusted_proxies: TrustedProxies,
    /// From the first byte of a head until the service is called.
    pub head_timeout: Duration,
    pub tls_handshake_timeout: Duration,
    /// Between requests. Longer than the 60 seconds for which load balancers keep connections.
    pub idle_timeout: Duration,
    /// How long the service waits for more of a request's body.
    pub body_timeout: Duration,
    /// How long a client may take no bytes of its response.
    pub write_timeout: Duration,
    /// An HTTP/2 client that is silent for this long is pinged, and closed after twice the time.
    pub ping: Duration,
}

impl Limits {
    /// The shortest of all timeouts, which the ticker must resolve.
    pub(super) fn shortest_timeout(&self) -> Duration {
        let exchange = self.head_timeout.min(self.body_timeout).min(self.write_timeout);
        exchange.min(self.tls_handshake_timeout).min(self.idle_timeout).min(self.ping)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: 32 << 10,
            field: 16 << 10,
            fields: 200,
            target: 16 << 10,
            connections: 10_000,
            connections_per_address: None,
            trusted_proxies: TrustedProxies::default(),
            head_timeout: Duration::from_secs(10),
            tls_handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            ping: Duration::from_secs(20),
        }
    }
}
