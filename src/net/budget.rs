//! Budgets of the process: limits on what all clients together may use, so that no client uses up everything.
//! Also a worker's own stock of a budget, and the log of budgets that are used up.

mod connections;
mod limits;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Relaxed},
        },
    },
    time::{Duration, Instant},
};

use self::connections::ConnectionLimit;
pub(super) use self::connections::{ConnectionPermit, LimitReached};
pub use self::limits::{BudgetLimits, Machine};
use super::LogThrottle;

/// The budgets of one kind of listener. All of the proxy's clients share one set. The admin listener has its
/// own, which the proxy's clients cannot use up.
pub struct Budgets {
    pub(super) connections: Arc<ConnectionLimit>,
    /// Sockets to upstreams, including pooled ones.
    pub upstream_connections: Arc<Budget>,
    /// Open HTTP/2 streams of clients.
    pub streams: Arc<Budget>,
    pub tunnels: Arc<Budget>,
    /// Bytes of responses that clients have not read yet. Measured by the tickers, not reserved in advance.
    pub send_buffers: Arc<Budget>,
    /// Bytes that HTTP/2 clients may send before a service reads them.
    pub receive_buffers: Arc<Budget>,
    /// Bytes of request bodies that are buffered in memory.
    pub bodies: Arc<Budget>,
}

/// A limit on a resource, and how much of it is in use.
///
/// A holder (a connection, an upstream) gets no more once it has `multiple` times what is left for all
/// others, so that even a greedy holder leaves some for them.
pub struct Budget {
    limit: AtomicUsize,
    /// 0: a holder may have all of it.
    multiple: AtomicUsize,
    used: AtomicUsize,
    refused: AtomicU64,
}

/// How much of a budget one holder has.
#[derive(Clone, Debug, Default)]
pub struct Holder(Arc<AtomicUsize>);

/// A part of a budget. Dropping it returns the part.
pub struct Reservation {
    budget: Arc<Budget>,
    holder: Holder,
    amount: usize,
}

/// How much of a budget is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The name in metrics and in the output of `check`.
    pub name: &'static str,
    pub limit: usize,
    pub used: usize,
    pub refused: u64,
}

impl Budget {
    pub fn new(limit: usize, multiple: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicUsize::new(limit),
            multiple: AtomicUsize::new(multiple),
            used: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// Reserves a part for this holder. Returns `None` and counts a refusal if too little is left or the
    /// holder already has its share.
    pub fn take(self: &Arc<Self>, holder: &Holder, amount: usize) -> Option<Reservation> {
        let reservation = self.try_take(holder, amount);
        if reservation.is_none() {
            self.refused.fetch_add(1, Relaxed);
        }
        reservation
    }

    /// Like [`Budget::take`], but a failure does not count as a refusal, because the caller can do without.
    pub fn try_take(self: &Arc<Self>, holder: &Holder, amount: usize) -> Option<Reservation> {
        let mut reservation = Reservation { budget: self.clone(), holder: holder.clone(), amount: 0 };
        reservation.grow(amount).then_some(reservation)
    }

    /// Sets how many times what is left a holder may have; 0: no such limit.
    pub fn set_multiple(&self, multiple: usize) {
        self.multiple.store(multiple, Relaxed);
    }

    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    pub fn limit(&self) -> usize {
        self.limit.load(Relaxed)
    }

    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    pub fn left(&self) -> usize {
        self.limit().saturating_sub(self.used())
    }

    pub fn count_refusal(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Replaces the value that one of several writers measured before.
    pub(super) fn replace_measured(&self, before: usize, now: usize) {
        // Wraps on purpose: the sum of all differences is the sum of all values.
        self.used.fetch_add(now.wrapping_sub(before), Relaxed);
    }

    pub(super) fn reading(&self, name: &'static str) -> Reading {
        Reading { name, limit: self.limit(), used: self.used(), refused: self.refused.load(Relaxed) }
    }
}

impl Holder {
    #[cfg(test)]
    fn held(&self) -> usize {
        self.0.load(Relaxed)
    }
}

impl Reservation {
    /// Reserves more of the budget. Returns false and reserves nothing if too little is left or the holder
    /// has its share.
    pub fn grow(&mut self, amount: usize) -> bool {
        let used = self.budget.used.fetch_add(amount, AcqRel) + amount;
        let held = self.holder.0.fetch_add(amount, AcqRel) + amount;
        let limit = self.budget.limit();
        let multiple = self.budget.multiple.load(Relaxed);
        let fair = multiple == 0 || held <= limit.saturating_sub(used).saturating_mul(multiple);
        if used <= limit && fair {
            self.amount += amount;
            return true;
        }
        self.budget.used.fetch_sub(amount, AcqRel);
        self.holder.0.fetch_sub(amount, AcqRel);
        false
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.amount, AcqRel);
        self.holder.0.fetch_sub(self.amount, AcqRel);
    }
}

impl Budgets {
    /// Returns the budgets for the proxy's clients.
    pub fn for_proxy(limits: &BudgetLimits) -> Arc<Self> {
        Self::with(ConnectionLimit::new(limits.connections, false), limits)
    }

    /// Returns the budgets for the admin listener. A quarter of its connections is reserved for unix sockets.
    pub fn for_admin(limits: &BudgetLimits) -> Arc<Self> {
        let limits = limits.for_admin();
        Self::with(ConnectionLimit::new(limits.connections, true), &limits)
    }

    /// Returns budgets derived from the limits of this process, for a standalone server.
    pub fn for_process() -> Arc<Self> {
        Self::for_proxy(&BudgetLimits::new(Machine::with_raised_file_limit(), 1, None))
    }

    fn with(connections: Arc<ConnectionLimit>, limits: &BudgetLimits) -> Arc<Self> {
        Arc::new(Self {
            connections,
            upstream_connections: Budget::new(limits.upstream_connections, 0),
            streams: Budget::new(limits.streams, 0),
            tunnels: Budget::new(limits.tunnels, 0),
            send_buffers: Budget::new(limits.send_buffers, 0),
            receive_buffers: Budget::new(limits.receive_buffers, 0),
            bodies: Budget::new(limits.bodies, 1),
        })
    }

    /// Takes effect at once. What is in use beyond a lower limit is not revoked.
    pub fn set(&self, limits: &BudgetLimits) {
        self.connections.set_max(limits.connections);
        self.upstream_connections.set_limit(limits.upstream_connections);
        self.streams.set_limit(limits.streams);
        self.tunnels.set_limit(limits.tunnels);
        self.send_buffers.set_limit(limits.send_buffers);
        self.receive_buffers.set_limit(limits.receive_buffers);
        self.bodies.set_limit(limits.bodies);
    }

    /// Returns the number of open client connections, over all workers.
    pub fn open(&self) -> usize {
        self.connections.open()
    }

    /// How many client connections there may be, over all workers.
    pub fn max_connections(&self) -> usize {
        self.connections.max()
    }

    /// Returns use and limit of each budget that the proxy's clients share, in the order of docs/limits.md.
    pub fn readings(&self) -> Vec<Reading> {
        let mut readings = vec![
            self.connections.reading("connections"),
            self.upstream_connections.reading("upstream_connections"),
            self.streams.reading("streams"),
            self.tunnels.reading("tunnels"),
            self.send_buffers.reading("send_buffers"),
            self.receive_buffers.reading("receive_buffers"),
        ];
        readings.extend(self.connections.reading_per_address());
        readings
    }

    /// The same for the admin listener.
    pub fn admin_readings(&self) -> Vec<Reading> {
        vec![self.connections.reading("admin_connections"), self.bodies.reading("admin_bodies")]
    }
}

/// How often to look for refusals.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Logs each budget that was used up, because clients see no more than a closed connection. Never returns.
pub async fn log_refusals(proxy: Arc<Budgets>, admin: Arc<Budgets>) {
    let mut tick = tokio::time::interval(WATCH_INTERVAL);
    let mut logged = Logged::new();
    loop {
        tick.tick().await;
        for reading in [proxy.readings(), admin.admin_readings()].concat() {
            if let Some(times) = refusals_to_log(&mut logged, &reading, Instant::now()) {
                let Reading { name, limit, .. } = reading;
                tracing::warn!(budget = name, limit, times, "a budget is used up");
            }
        }
    }
}

/// The refusals of each budget that were logged, and when it was logged last.
type Logged = BTreeMap<&'static str, (u64, LogThrottle)>;

/// How often the budget has refused since it was logged; `None` if there is nothing to log now.
fn refusals_to_log(logged: &mut Logged, reading: &Reading, now: Instant) -> Option<u64> {
    let (before, throttle) = logged.entry(reading.name).or_default();
    if reading.refused == *before || !throttle.is_due(now) {
        return None;
    }
    Some(reading.refused - std::mem::replace(before, reading.refused))
}

/// A worker's own stock of a budget, taken and given back in blocks.
pub struct WorkerBudget {
    budget: Arc<Budget>,
    stock: RefCell<Stock>,
}

#[derive(Default)]
struct Stock {
    blocks: Vec<Reservation>,
    used: usize,
}

/// Units per block: few compared with any budget, many compared with what one connection takes at a time.
const BLOCK: usize = 16;

impl WorkerBudget {
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, stock: RefCell::default() }
    }

    /// Takes one unit for a connection that already holds `held`. Returns false if none is left, or if the
    /// connection holds as many as are left for all others.
    pub fn take(&self, held: usize) -> bool {
        let mut stock = self.stock.borrow_mut();
        let spare = stock.blocks.len() * BLOCK - stock.used;
        if held > 0 && held >= self.budget.left() + spare {
            self.budget.count_refusal();
            return false;
        }
        if spare == 0 {
            // Each block has its own holder: fairness is decided per connection, not per worker.
            let Some(block) = self.budget.take(&Holder::default(), BLOCK) else { return false };
            stock.blocks.push(block);
        }
        stock.used += 1;
        true
    }

    pub fn give_back(&self) {
        let mut stock = self.stock.borrow_mut();
        stock.used -= 1;
        if stock.blocks.len() * BLOCK >= stock.used + 2 * BLOCK {
            stock.blocks.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_reservation_returns_its_share() {
        let (budget, holder) = (Budget::new(10, 0), Holder::default());
        let mut reservation = budget.take(&holder, 4).expect("there is enough");
        assert!(reservation.grow(6) && !reservation.grow(1));
        assert_eq!((budget.used(), holder.held(), budget.left()), (10, 10, 0));
        assert!(budget.take(&Holder::default(), 1).is_none());
        assert_eq!(budget.reading("x").refused, 1);
        drop(reservation);
        assert_eq!((budget.used(), holder.held()), (0, 0));
    }

    #[test]
    fn greedy_holder_leaves_a_share_for_others() {
        let check = |multiple: usize, hogs: usize, expected: usize| {
            let budget = Budget::new(1000, multiple);
            let holders: Vec<Holder> = (0..hogs).map(|_| Holder::default()).collect();
            let mut shares = Vec::new();
            loop {
                let before = shares.len();
                shares.extend(holders.iter().filter_map(|holder| budget.take(holder, 1)));
                if shares.len() == before {
                    break;
                }
            }
            assert_eq!(budget.left(), expected, "{hogs} with {multiple} times the rest");
            let neighbour = budget.take(&Holder::default(), 1);
            assert_eq!(neighbour.is_some(), expected > 1, "{hogs} with {multiple} times the rest");
        };
        check(0, 1, 0);
        check(1, 1, 500);
        check(1, 9, 100);
        check(7, 1, 125);
        check(7, 2, 67);
    }

    #[test]
    fn used_up_budget_is_logged_once_a_minute_with_all_refusals() {
        let (mut logged, began) = (Logged::new(), Instant::now());
        let mut check = |name: &'static str, seconds: u64, refused: u64, expected: Option<u64>| {
            let reading = Reading { name, limit: 9, used: 9, refused };
            let found = refusals_to_log(&mut logged, &reading, began + Duration::from_secs(seconds));
            assert_eq!(found, expected, "{name} after {seconds} s");
        };
        check("streams", 0, 0, None);
        check("streams", 1, 2, Some(2));
        check("streams", 2, 5, None);
        check("tunnels", 2, 1, Some(1));
        check("streams", 60, 5, None);
        check("streams", 61, 6, Some(4));
        check("streams", 122, 6, None);
        check("streams", 130, 7, Some(1));
    }

    #[test]
    fn measurements_of_several_workers_are_summed() {
        let budget = Budget::new(100, 0);
        budget.replace_measured(0, 60);
        budget.replace_measured(0, 50);
        assert_eq!(budget.left(), 0);
        budget.replace_measured(60, 10);
        assert_eq!(budget.used(), 60);
    }

    #[test]
    fn blocks_are_taken_and_returned() {
        let budget = Budget::new(40, 0);
        let (one, other) = (WorkerBudget::new(budget.clone()), WorkerBudget::new(budget.clone()));
        assert!((0..BLOCK).all(|_| one.take(0)));
        assert_eq!(budget.used(), BLOCK);
        assert!(other.take(0));
        assert!(!one.take(0), "less than a block is left");
        assert!((0..10).all(|held| other.take(held)));
        assert!(!other.take(20), "a holder with more than what is left");
        (0..BLOCK).for_each(|_| one.give_back());
        assert_eq!(budget.used(), 2 * BLOCK, "one block is kept");
        drop(one);
        assert!((0..10).all(|_| other.take(0)), "others have it now");
    }
}
