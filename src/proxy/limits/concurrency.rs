//! Counts the requests under way for each key, exactly over all workers, and queues requests for a slot.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::table::{CountKey, Table};
use crate::settings::Queue;

#[derive(Debug, Default)]
pub struct ConcurrencyLimit {
    inside: Table<u32>,
    queue: Mutex<WaitingLists>,
}

/// A slot under the limit. Dropping it passes it to the first waiter of the same key.
#[derive(Debug)]
pub struct ConcurrencySlot {
    limit: Option<Arc<ConcurrencyLimit>>,
    key: CountKey,
}

/// A position in the queue. Dropping it leaves the queue.
#[derive(Debug)]
pub struct Waiting {
    limit: Arc<ConcurrencyLimit>,
    key: CountKey,
    slot: oneshot::Receiver<ConcurrencySlot>,
    timeout: Duration,
}

#[derive(Debug, Default)]
struct WaitingLists {
    by_key: HashMap<CountKey, VecDeque<QueuedRequest>>,
    /// Number of waiters in all lists.
    length: usize,
}

#[derive(Debug)]
struct QueuedRequest {
    cap: NonZeroU32,
    slot: oneshot::Sender<ConcurrencySlot>,
}

/// The most waiters of one limit over all keys, which bounds memory.
const MAX_WAITERS: usize = 10_000;

impl ConcurrencyLimit {
    /// Returns a slot, else a position in the queue, else `Err(None)`.
    pub fn enter(
        self: &Arc<Self>,
        key: CountKey,
        cap: NonZeroU32,
        queue: Queue,
    ) -> Result<ConcurrencySlot, Option<Waiting>> {
        let try_enter = || {
            let (key, entered) =
                self.inside.update(key, Instant::now, is_empty, |inside| match inside < cap.get() {
                    true => (Some(inside + 1), true),
                    false => (None, false),
                });
            if entered { Ok(ConcurrencySlot { limit: Some(Arc::clone(self)), key }) } else { Err(key) }
        };
        let key = match try_enter() {
            Ok(slot) => return Ok(slot),
            Err(_) if queue.length == 0 => return Err(None),
            Err(key) => key,
        };
        let mut lists = self.queue.lock();
        // Try again under the lock: a slot may have been released while the queue was still empty.
        if let Ok(slot) = try_enter() {
            return Ok(slot);
        }
        let waiting = lists.by_key.get(&key).map_or(0, VecDeque::len);
        if waiting >= queue.length || lists.length >= MAX_WAITERS {
            return Err(None);
        }
        let (sender, slot) = oneshot::channel();
        lists.by_key.entry(key).or_default().push_back(QueuedRequest { cap, slot: sender });
        lists.length += 1;
        Err(Some(Waiting { limit: Arc::clone(self), key, slot, timeout: queue.timeout }))
    }

    /// Passes a slot to the first waiter, or frees it.
    fn release(self: &Arc<Self>, key: CountKey) {
        loop {
            let mut lists = self.queue.lock();
            let cap = lists.by_key.get(&key).and_then(|list| list.front()).map(|waiter| waiter.cap);
            let (_, passed) = self.inside.update(key, Instant::now, is_empty, |inside| match cap {
                // If a reload has lowered the cap below the count, the slot is not passed on.
                Some(cap) if inside <= cap.get() => (None, true),
                _ => (Some(inside.saturating_sub(1)), false),
            });
            if !passed {
                return;
            }
            let Some(waiter) = lists.pop(key) else { return };
            drop(lists);
            let slot = ConcurrencySlot { limit: Some(Arc::clone(self)), key };
            match waiter.slot.send(slot) {
                Ok(()) => return,
                // This waiter is gone, so try the next one.
                Err(mut slot) => drop(slot.limit.take()),
            }
        }
    }
}

impl WaitingLists {
    fn pop(&mut self, key: CountKey) -> Option<QueuedRequest> {
        let list = self.by_key.get_mut(&key)?;
        let first = list.pop_front();
        if list.is_empty() {
            self.by_key.remove(&key);
        }
        self.length -= usize::from(first.is_some());
        first
    }
}

impl ConcurrencySlot {
    pub fn is_for(&self, limit: &Arc<ConcurrencyLimit>, key: CountKey) -> bool {
        self.key == key && self.limit.as_ref().is_some_and(|ours| Arc::ptr_eq(ours, limit))
    }
}

impl Waiting {
    /// Waits for the slot. `None`: the queue's timeout has passed.
    pub async fn slot(mut self) -> Option<ConcurrencySlot> {
        let timeout = self.timeout;
        tokio::time::timeout(timeout, &mut self.slot).await.ok()?.ok()
    }
}

impl Drop for ConcurrencySlot {
    fn drop(&mut self) {
        if let Some(limit) = self.limit.take() {
            limit.release(self.key);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.slot.close();
        let mut lists = self.limit.queue.lock();
        let Some(mut list) = lists.by_key.remove(&self.key) else { return };
        let before = list.len();
        list.retain(|waiter| !waiter.slot.is_closed());
        lists.length -= before - list.len();
        if !list.is_empty() {
            lists.by_key.insert(self.key, list);
        }
        drop(lists);
        // A slot that was sent too late is passed to the next waiter.
        drop(mem::replace(&mut self.slot, oneshot::channel().1));
    }
}

fn is_empty(inside: u32) -> bool {
    inside == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::rules::ServiceId;

    const ONE: CountKey = CountKey::Service(ServiceId(1));

    fn cap(cap: u32) -> NonZeroU32 {
        NonZeroU32::new(cap).unwrap()
    }

    #[test]
    fn released_slot_is_free_again() {
        let concurrency = Arc::new(ConcurrencyLimit::default());
        let other = CountKey::Service(ServiceId(2));
        let enter = |key, number| concurrency.enter(key, cap(number), Queue::NONE).ok();
        let (first, second) = (enter(ONE, 2), enter(ONE, 2));
        assert!(first.is_some() && second.is_some() && enter(ONE, 2).is_none(), "two and no more");
        let others = enter(other, 1);
        assert!(others.is_some(), "another's are another's");
        assert!(enter(ONE, 1).is_none(), "under a smaller cap too");
        drop(first);
        assert!(enter(ONE, 1).is_none());
        let third = enter(ONE, 2);
        assert!(third.is_some());
        drop((second, third, others));
        assert_eq!(concurrency.inside.len(), 0, "nobody is remembered");
    }

    #[tokio::test]
    async fn waiters_are_served_in_order() {
        let concurrency = Arc::new(ConcurrencyLimit::default());
        let queue = Queue { length: 2, timeout: Duration::from_secs(60) };
        let first = concurrency.enter(ONE, cap(1), queue).unwrap();
        let wait = || concurrency.enter(ONE, cap(1), queue).unwrap_err();
        let (second, third) = (wait().unwrap(), wait().unwrap());
        assert!(wait().is_none(), "the queue is full");
        drop(second);
        let fourth = wait().expect("who left made room");
        drop(first);
        let third = third.slot().await.unwrap();
        assert!(third.is_for(&concurrency, ONE));
        assert!(concurrency.enter(ONE, cap(1), Queue::NONE).is_err(), "nobody overtakes");
        drop(third);
        // The slot has been sent when its waiter leaves.
        drop(fourth);
        let last = concurrency.enter(ONE, cap(1), Queue::NONE);
        assert!(last.is_ok());
        drop(last);
        assert_eq!((concurrency.inside.len(), concurrency.queue.lock().length), (0, 0));
    }

    #[tokio::test]
    async fn wait_times_out() {
        let concurrency = Arc::new(ConcurrencyLimit::default());
        let queue = Queue { length: 1, timeout: Duration::from_millis(1) };
        let first = concurrency.enter(ONE, cap(1), queue).unwrap();
        assert!(concurrency.enter(ONE, cap(1), queue).unwrap_err().unwrap().slot().await.is_none());
        assert_eq!(concurrency.queue.lock().length, 0);
        drop(first);
        assert_eq!(concurrency.inside.len(), 0);
    }

    #[test]
    fn lowered_cap_admits_no_request_until_below_it() {
        let concurrency = Arc::new(ConcurrencyLimit::default());
        let queue = Queue { length: 1, timeout: Duration::from_secs(60) };
        let enter = |number| concurrency.enter(ONE, cap(number), queue);
        let (first, second) = (enter(2).unwrap(), enter(2).unwrap());
        let mut waiting = enter(1).unwrap_err().unwrap();
        drop(first);
        assert!(waiting.slot.try_recv().is_err(), "one is still inside");
        drop(second);
        assert!(waiting.slot.try_recv().is_ok());
    }
}
