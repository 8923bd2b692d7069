//! The limits on what upstreams may use. A configured limit is shared by all workers and has a first-in,
//! first-out queue. The process's budgets of sockets and tunnels are shared among upstreams, and one that
//! takes all it can get leaves some for the others.

use std::{
    rc::Rc,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, spawn_local},
};

use crate::{
    net::{Budgets, Holder, Reservation},
    proxy::upstream::endpoint::Endpoint,
};

/// Limits the requests or the connections of one upstream. It outlives reloads:
/// the latest `limit` that was passed applies.
pub struct SharedLimit {
    permits: Arc<Semaphore>,
    count: Mutex<Count>,
    waiting: AtomicUsize,
    yielders: YieldNotifier,
}

/// Notifies every worker that has idle connections of an upstream to close one. A worker's semaphore counts
/// the notices, because several requests may begin to wait before it acts on the first.
#[derive(Default)]
pub struct YieldNotifier(Mutex<Vec<Weak<Semaphore>>>);

#[derive(Default)]
struct Count {
    limit: usize,
    /// Permits in use beyond a limit that was lowered. They do not return to the semaphore.
    excess: usize,
}

/// Released when dropped; the first waiter gets it.
pub struct Permit {
    limit: Arc<SharedLimit>,
    permit: Option<OwnedSemaphorePermit>,
}

/// A position in the queue.
pub struct Waiting(Arc<SharedLimit>);

impl Default for SharedLimit {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(0)),
            count: Mutex::default(),
            waiting: AtomicUsize::new(0),
            yielders: YieldNotifier::default(),
        }
    }
}

impl SharedLimit {
    /// Takes a permit if fewer than `limit` are in use and no request waits.
    pub fn try_acquire(self: &Arc<Self>, limit: usize) -> Option<Permit> {
        self.set(limit);
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        Some(Permit { limit: Arc::clone(self), permit: Some(permit) })
    }

    /// Joins the queue of at most `room` waiters. `None`: it is full.
    pub fn wait(self: &Arc<Self>, room: usize) -> Option<Waiting> {
        let before = self.waiting.fetch_add(1, Relaxed);
        let waiting = Waiting(Arc::clone(self));
        (before < room).then_some(waiting)
    }

    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// The workers to notify when a request waits, because their idle connections hold permits.
    pub fn yielders(&self) -> &YieldNotifier {
        &self.yielders
    }

    /// Permits in use, and the length of the queue.
    pub fn usage(&self) -> (usize, usize) {
        let count = self.count.lock();
        ((count.limit + count.excess).saturating_sub(self.permits.available_permits()), self.waiting())
    }

    fn set(&self, limit: usize) {
        let mut count = self.count.lock();
        if limit > count.limit {
            let more = limit - count.limit;
            let kept = more.min(count.excess);
            count.excess -= kept;
            self.permits.add_permits(more - kept);
        } else if limit < count.limit {
            let fewer = count.limit - limit;
            count.excess += fewer - self.permits.forget_permits(fewer);
        }
        count.limit = limit;
    }
}

impl YieldNotifier {
    pub fn add(&self, yielder: &Arc<Semaphore>) {
        let mut yielders = self.0.lock();
        yielders.retain(|other| other.strong_count() > 0);
        yielders.push(Arc::downgrade(yielder));
    }

    /// Notifies every worker to close an idle connection.
    pub fn notify_all(&self) {
        self.0.lock().iter().filter_map(Weak::upgrade).for_each(|yielder| yielder.add_permits(1));
    }
}

impl Waiting {
    /// Waits for the permit.
    pub async fn permit(&self) -> Permit {
        // This cannot fail, because the semaphore is never closed.
        let permit = Arc::clone(&self.0.permits).acquire_owned().await.ok();
        Permit { limit: Arc::clone(&self.0), permit }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut count = self.limit.count.lock();
        if count.excess > 0
            && let Some(permit) = self.permit.take()
        {
            count.excess -= 1;
            permit.forget();
        }
    }
}

/// One per process.
pub struct Sockets {
    budgets: Arc<Budgets>,
    yielders: YieldNotifier,
}

/// One upstream's part of the budgets.
#[derive(Clone)]
pub struct UpstreamSockets {
    all: Arc<Sockets>,
    sockets: Holder,
    tunnels: Holder,
}

/// One upstream may hold this many times what is left for all others, so an eighth always remains.
const HOLDER_MULTIPLE: usize = 7;

impl Sockets {
    pub fn new(budgets: Arc<Budgets>) -> Arc<Self> {
        Arc::new(Self { budgets, yielders: YieldNotifier::default() })
    }

    /// Sets the number of upstreams that share the budgets. A single one may take everything.
    pub fn set_upstreams(&self, count: usize) {
        let multiple = if count > 1 { HOLDER_MULTIPLE } else { 0 };
        self.budgets.upstream_connections.set_multiple(multiple);
        self.budgets.tunnels.set_multiple(multiple);
    }

    pub fn of_upstream(self: &Arc<Self>) -> UpstreamSockets {
        UpstreamSockets { all: self.clone(), sockets: Holder::default(), tunnels: Holder::default() }
    }
}

impl UpstreamSockets {
    /// Takes a socket for a connection to the upstream. `None`: the budget is exhausted.
    pub fn take(&self) -> Option<Reservation> {
        self.all.budgets.upstream_connections.take(&self.sockets, 1)
    }

    pub fn take_tunnel(&self) -> Option<Reservation> {
        self.all.budgets.tunnels.take(&self.tunnels, 1)
    }

    /// Whether no socket is left for any upstream.
    pub fn is_exhausted(&self) -> bool {
        self.all.budgets.upstream_connections.left() <= 1
    }

    /// The workers to notify when idle connections should release their sockets.
    pub fn yielders(&self) -> &YieldNotifier {
        &self.all.yielders
    }
}

/// Spawns the task that closes an idle connection for each notice. A request that waits on another worker or
/// for another URL cannot use a connection that is idle here, but it can use its permit or socket.
pub fn yield_idle(
    limit: Option<Arc<SharedLimit>>,
    sockets: UpstreamSockets,
    endpoints: Vec<Rc<Endpoint>>,
) -> AbortHandle {
    let asked = Arc::new(Semaphore::new(0));
    sockets.yielders().add(&asked);
    if let Some(limit) = &limit {
        limit.yielders().add(&asked);
    }
    let task = spawn_local(async move {
        // The semaphore is never closed.
        while let Ok(notice) = asked.acquire().await {
            notice.forget();
            if sockets.is_exhausted() || limit.as_ref().is_some_and(|limit| limit.waiting() > 0) {
                let _ = endpoints.iter().any(|endpoint| endpoint.close_one());
            }
        }
    });
    task.abort_handle()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

    use std::{
        pin::Pin,
        task::{Context, Poll, Waker},
    };

    use super::*;

    fn poll<F: Future>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
        future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    fn wait(limit: &Arc<SharedLimit>) -> Pin<Box<impl Future<Output = Permit> + use<>>> {
        let waiting = limit.wait(3).unwrap();
        Box::pin(async move { waiting.permit().await })
    }

    #[test]
    fn next_permit_goes_to_the_first_waiter() {
        let limit = Arc::new(SharedLimit::default());
        let held = limit.try_acquire(1).unwrap();
        assert!(limit.try_acquire(1).is_none());
        let [mut first, mut second, mut third] = [0; 3].map(|_| wait(&limit));
        assert!(limit.wait(3).is_none(), "as many wait as may");
        assert!([&mut first, &mut second, &mut third].into_iter().all(|waiter| poll(waiter).is_pending()));
        drop(second);
        assert_eq!(limit.usage(), (1, 2), "who leaves is gone at once");
        drop(held);
        assert!(limit.try_acquire(1).is_none(), "others wait for it");
        assert!(poll(&mut third).is_pending());
        let Poll::Ready(held) = poll(&mut first) else { panic!("it is the first one's turn") };
        drop((first, held));
        // The permit is assigned, but the waiter leaves before it is polled.
        drop(third);
        assert_eq!(limit.usage(), (0, 0));
        assert!(limit.try_acquire(1).is_some());
    }

    #[test]
    fn latest_limit_applies() {
        let limit = Arc::new(SharedLimit::default());
        let held = [limit.try_acquire(3), limit.try_acquire(3)].map(Option::unwrap);
        assert!(limit.try_acquire(1).is_none());
        assert_eq!(limit.usage(), (2, 0));
        let mut waiter = wait(&limit);
        assert!(poll(&mut waiter).is_pending());
        let [one, other] = held;
        drop(one);
        assert!(poll(&mut waiter).is_pending(), "one is out, as many as may be");
        drop(other);
        let Poll::Ready(held) = poll(&mut waiter) else { panic!("one is free") };
        let more = limit.try_acquire(3).unwrap();
        assert_eq!(limit.usage(), (2, 0));
        drop((held, more));
        assert_eq!(limit.usage(), (0, 0));
    }

    #[test]
    fn yield_notice_reaches_every_live_worker() {
        let yielders = YieldNotifier::default();
        let (here, gone) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        yielders.add(&gone);
        yielders.add(&here);
        drop(gone);
        (0..3).for_each(|_| yielders.notify_all());
        assert_eq!(here.available_permits(), 3, "each notice counts");
    }
}
