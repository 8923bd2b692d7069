//! A worker's coarse clock: one ticker per worker instead of one timer per request. Also the throttles, which
//! bound what a client can cause with each request: a warning, or a search of a full table.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::Notify;

use crate::authz::time::Timestamp;

/// A worker's coarse clock. Its ticker runs while there are connections or armed deadlines.
#[derive(Clone)]
pub struct Clock(Rc<Inner>);

/// A timeout that is armed and disarmed without a timer of its own, and fires at most one tick late.
/// Reusable: keep one per upstream connection.
pub struct Deadline {
    clock: Clock,
    key: usize,
}

/// The time limit of [`Clock::timeout`] has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out after {} ms", .0.as_millis())]
pub struct Elapsed(pub Duration);

struct Inner {
    now: Cell<Instant>,
    tick: Cell<Duration>,
    /// The tick while no armed deadline needs a shorter one.
    longest_tick: Cell<Duration>,
    /// Number of connections and armed deadlines. The ticker rests at 0.
    watched: Cell<usize>,
    wake: Notify,
    slots: RefCell<Slab<Slot>>,
}

#[derive(Default)]
struct Slot {
    due: Option<Instant>,
    /// The longest tick that is exact enough for it.
    tick: Duration,
    expired: bool,
    waker: Option<Waker>,
}

const MAX_TICK: Duration = Duration::from_millis(100);
const MIN_TICK: Duration = Duration::from_millis(5);

impl Clock {
    pub(super) fn new() -> Self {
        Self(Rc::new(Inner {
            now: Cell::new(Instant::now()),
            tick: Cell::new(MAX_TICK),
            longest_tick: Cell::new(MAX_TICK),
            watched: Cell::new(0),
            wake: Notify::new(),
            slots: RefCell::default(),
        }))
    }

    /// Returns the monotonic time: at most one tick old, and refreshed at the start of every request.
    pub fn now(&self) -> Instant {
        self.0.now.get()
    }

    /// Reads the wall clock, so that clock steps and suspends take effect at once.
    pub fn wall(&self) -> Timestamp {
        SystemTime::now().into()
    }

    pub fn deadline(&self) -> Deadline {
        let key = self.0.slots.borrow_mut().insert(Slot::default());
        Deadline { clock: self.clone(), key }
    }

    pub async fn timeout<F: Future>(&self, after: Duration, work: F) -> Result<F::Output, Elapsed> {
        let deadline = self.deadline();
        deadline.arm(after);
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            deadline.poll_expired(cx).map(|()| Err(Elapsed(after)))
        })
        .await
    }

    pub(super) fn refresh(&self) -> Instant {
        let now = Instant::now();
        self.0.now.set(now);
        now
    }

    /// Makes ticks frequent enough for timeouts of this length that have no deadline of their own.
    pub(super) fn set_resolution_for(&self, timeout: Duration) {
        self.0.longest_tick.set(tick_for(timeout));
        self.shorten_tick(tick_for(timeout));
    }

    fn shorten_tick(&self, tick: Duration) {
        self.0.tick.set(self.0.tick.get().min(tick));
    }

    pub(super) fn watch(&self) {
        let watched = self.0.watched.get();
        self.0.watched.set(watched + 1);
        if watched == 0 {
            self.refresh();
            self.0.wake.notify_one();
        }
    }

    pub(super) fn unwatch(&self) {
        self.0.watched.set(self.0.watched.get() - 1);
    }

    /// Waits for the next tick. While nothing is watched, there are no ticks.
    pub(super) async fn next_tick(&self) -> Instant {
        while self.0.watched.get() == 0 {
            self.0.wake.notified().await;
        }
        tokio::time::sleep(self.0.tick.get()).await;
        let now = self.refresh();
        self.expire(now);
        now
    }

    fn expire(&self, now: Instant) {
        let mut woken = Vec::new();
        let mut tick = self.0.longest_tick.get();
        for (_, slot) in self.0.slots.borrow_mut().iter_mut() {
            match slot.due {
                Some(due) if due <= now => {
                    slot.due = None;
                    slot.expired = true;
                    self.unwatch();
                    woken.extend(slot.waker.take());
                }
                Some(_) => tick = tick.min(slot.tick),
                None => {}
            }
        }
        // A short deadline makes ticks frequent only until it has passed.
        self.0.tick.set(tick);
        woken.into_iter().for_each(Waker::wake);
    }
}

/// The longest tick that is exact enough for a timeout of this length.
fn tick_for(timeout: Duration) -> Duration {
    (timeout / 4).clamp(MIN_TICK, MAX_TICK)
}

impl Deadline {
    /// Starts the timeout, and replaces an earlier one.
    pub fn arm(&self, after: Duration) {
        let tick = tick_for(after);
        self.clock.shorten_tick(tick);
        let rested = self.clock.0.watched.get() == 0;
        let now = if rested { self.clock.refresh() } else { self.clock.now() };
        let fresh = {
            let slot = &mut self.clock.0.slots.borrow_mut()[self.key];
            (slot.expired, slot.tick) = (false, tick);
            slot.due.replace(now + after).is_none()
        };
        if fresh {
            self.clock.watch();
        }
    }

    pub fn disarm(&self) {
        let armed = {
            let slot = &mut self.clock.0.slots.borrow_mut()[self.key];
            slot.expired = false;
            slot.due.take().is_some()
        };
        if armed {
            self.clock.unwatch();
        }
    }

    /// Ready once an armed deadline has passed, until it is armed or disarmed again.
    pub fn poll_expired(&self, cx: &mut Context<'_>) -> Poll<()> {
        let slot = &mut self.clock.0.slots.borrow_mut()[self.key];
        if slot.expired {
            return Poll::Ready(());
        }
        slot.waker.get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        self.disarm();
        let slot = self.clock.0.slots.borrow_mut().remove(self.key);
        drop(slot);
    }
}

/// Lets something happen once in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    last: Option<Instant>,
}

/// Lets one warning a minute through.
#[derive(Debug, Default)]
pub struct LogThrottle(Mutex<Throttle>);

const LOG_INTERVAL: Duration = Duration::from_secs(60);

impl Throttle {
    /// Whether it may happen now. If so, it may again after `interval`.
    pub fn is_due(&mut self, now: Instant, interval: Duration) -> bool {
        let is_due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= interval);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

impl LogThrottle {
    /// Whether to log now. If so, the next warning is due a minute later.
    pub fn is_due(&self, now: Instant) -> bool {
        self.0.lock().is_due(now, LOG_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]

    use std::future::pending;

    use super::*;

    /// Runs `work` beside a ticker, as on a worker.
    fn check(work: impl AsyncFnOnce(Clock)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let clock = Clock::new();
        let ticking = clock.clone();
        runtime.block_on(async move {
            tokio::select! {
                () = work(clock) => {}
                () = async { loop { ticking.next_tick().await; } } => {}
            }
        });
    }

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn timeout_ends_work_that_does_not_finish() {
        check(async |clock| {
            let begun = Instant::now();
            assert_eq!(clock.timeout(SHORT, pending::<()>()).await, Err(Elapsed(SHORT)));
            assert!(begun.elapsed() >= SHORT);
            assert_eq!(clock.timeout(LONG, async { 1 }).await, Ok(1));
        });
    }

    #[test]
    fn deadline_can_be_rearmed_and_disarmed() {
        check(async |clock| {
            let (moved, lifted, kept) = (clock.deadline(), clock.deadline(), clock.deadline());
            for deadline in [&moved, &lifted, &kept] {
                deadline.arm(SHORT);
            }
            moved.arm(LONG);
            lifted.disarm();
            poll_fn(|cx| kept.poll_expired(cx)).await;
            let expired = |deadline: &Deadline| {
                deadline.poll_expired(&mut Context::from_waker(Waker::noop())).is_ready()
            };
            assert!(!expired(&moved) && !expired(&lifted));
            assert!(expired(&kept), "until it is armed again");
            kept.arm(LONG);
            assert!(!expired(&kept));
        });
    }

    #[test]
    fn clock_stops_ticking_without_deadlines() {
        check(async |clock| {
            let deadline = clock.deadline();
            deadline.arm(SHORT);
            deadline.arm(LONG);
            assert_eq!(clock.0.watched.get(), 1);
            deadline.disarm();
            deadline.disarm();
            assert_eq!(clock.0.watched.get(), 0);
            deadline.arm(SHORT);
            poll_fn(|cx| deadline.poll_expired(cx)).await;
            assert_eq!(clock.0.watched.get(), 0, "an expired one is none");
            deadline.arm(LONG);
            drop(deadline);
            assert_eq!(clock.0.watched.get(), 0);
            clock.deadline().arm(LONG);
            assert_eq!(clock.0.slots.borrow().vacant_key(), 0, "places are used again");
        });
    }

    #[test]
    fn short_deadline_makes_ticks_frequent_only_until_it_has_passed() {
        check(async |clock| {
            let (long, short) = (clock.deadline(), clock.deadline());
            long.arm(LONG);
            assert_eq!(clock.0.tick.get(), MAX_TICK);
            short.arm(SHORT);
            assert_eq!(clock.0.tick.get(), MIN_TICK);
            poll_fn(|cx| short.poll_expired(cx)).await;
            assert_eq!(clock.0.tick.get(), MAX_TICK);
            clock.set_resolution_for(SHORT);
            short.arm(SHORT);
            poll_fn(|cx| short.poll_expired(cx)).await;
            assert_eq!(clock.0.tick.get(), MIN_TICK, "timeouts without deadlines still need it");
        });
    }

    #[test]
    fn one_warning_a_minute_is_due() {
        let (throttle, start) = (LogThrottle::default(), Instant::now());
        let due = [0, 0, 1, 59, 60, 61, 119, 120].map(|at| throttle.is_due(start + Duration::from_secs(at)));
        assert_eq!(due, [true, false, false, false, true, false, false, true]);
    }
}
