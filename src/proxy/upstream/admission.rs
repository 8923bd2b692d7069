//! Places of which there are only so many, over all workers, and the line of those who wait for
//! one: first come, first served. Touched only where a limit is configured.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::sync::{Notify, oneshot};

/// The requests, or the connections, of one upstream. Survives reloads, its limit does not: the
/// one that was told last holds.
#[derive(Default)]
pub struct SlotQueue {
    inner: Mutex<Inner>,
    /// As long as the line, readable without the lock.
    waiting: AtomicUsize,
    yielders: Mutex<Vec<Weak<Notify>>>,
}

/// Given back when dropped; then the next in line has it.
pub struct Permit(Arc<SlotQueue>);

/// Whoever comes gets a place, or a wait for one.
pub enum Admission {
    Permit(Permit),
    Wait(Waiter),
}

/// The line is as long as it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A future that ends when it is this one's turn. Dropped, it has left the line.
pub struct Waiter {
    line: Arc<SlotQueue>,
    number: u64,
    wants: usize,
    called: oneshot::Receiver<Notice>,
}

/// What a turn comes to.
pub enum Turn {
    Permit(Permit),
    /// A connection of the kind that was wanted lies idle; it has its place already.
    Idle,
}

#[derive(Clone, Copy)]
enum Notice {
    Permit,
    Idle,
}

#[derive(Default)]
struct Inner {
    limit: usize,
    taken: usize,
    next: u64,
    line: VecDeque<Waiting>,
    /// How many in a row were called before their turn.
    passed: u32,
}

struct Waiting {
    number: u64,
    wants: usize,
    call: oneshot::Sender<Notice>,
}

/// A connection is passed on within its worker, which saves making another, but only so often in a
/// row while somebody else is first.
const PASS: u32 = 16;

impl SlotQueue {
    /// `room`: how many may wait. `wants`: what kind of idle connection would do as well.
    pub fn enter(self: &Arc<Self>, limit: usize, room: usize, wants: usize) -> Result<Admission, Full> {
        let inner = &mut *self.lock();
        inner.limit = limit;
        self.call_next(inner);
        if inner.taken < limit {
            inner.taken += 1;
            return Ok(Admission::Permit(Permit(self.clone())));
        }
        if inner.line.len() >= room {
            return Err(Full);
        }
        let number = inner.next;
        inner.next += 1;
        Ok(Admission::Wait(self.wait(inner, number, wants)))
    }

    fn wait(self: &Arc<Self>, inner: &mut Inner, number: u64, wants: usize) -> Waiter {
        let (call, called) = oneshot::channel();
        let at = inner.line.partition_point(|other| other.number < number);
        inner.line.insert(at, Waiting { number, wants, call });
        self.waiting.store(inner.line.len(), Ordering::Relaxed);
        Waiter { line: self.clone(), number, wants, called }
    }

    /// Whether anybody waits.
    pub fn waits(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// A connection of this kind became idle: calls somebody who wants one. `false`: close it, so
    /// that the first in line can have its place.
    pub fn notify_waiter(&self, kind: usize) -> bool {
        let inner = &mut *self.lock();
        let Some(at) = inner.line.iter().position(|waiting| waiting.wants == kind) else {
            return inner.line.is_empty();
        };
        if at > 0 && inner.passed >= PASS {
            inner.passed = 0;
            return false;
        }
        inner.passed = if at > 0 { inner.passed + 1 } else { 0 };
        if let Some(waiting) = inner.line.remove(at) {
            self.waiting.store(inner.line.len(), Ordering::Relaxed);
            let _ = waiting.call.send(Notice::Idle);
        }
        true
    }

    /// Who is notified when somebody waits: an idle connection has a place that another could use.
    pub fn add_yielder(&self, yielder: &Arc<Notify>) {
        let mut yielders = self.yielders();
        yielders.retain(|other| other.strong_count() > 0);
        yielders.push(Arc::downgrade(yielder));
    }

    pub fn ask_to_yield(&self) {
        self.yielders().iter().filter_map(Weak::upgrade).for_each(|yielder| yielder.notify_one());
    }

    /// How many places are taken, and how many wait.
    pub fn figures(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.taken, inner.line.len())
    }

    fn call_next(&self, inner: &mut Inner) {
        while inner.taken < inner.limit
            && let Some(first) = inner.line.pop_front()
        {
            // Who is in line listens: it leaves under the lock before it stops.
            inner.taken += 1;
            let _ = first.call.send(Notice::Permit);
        }
        self.waiting.store(inner.line.len(), Ordering::Relaxed);
    }

    fn release(&self) {
        let inner = &mut *self.lock();
        inner.taken -= 1;
        self.call_next(inner);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn yielders(&self) -> MutexGuard<'_, Vec<Weak<Notify>>> {
        self.yielders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// Once more where it was in line: the idle connection that it was called for is gone.
    pub fn again(self) -> Self {
        let (line, number, wants) = (self.line.clone(), self.number, self.wants);
        // It was called, so that its end takes nobody out of the line.
        drop(self);
        let inner = &mut *line.lock();
        let waiter = line.wait(inner, number, wants);
        line.call_next(inner);
        waiter
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Future for Waiter {
    type Output = Turn;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Turn> {
        Pin::new(&mut self.called).poll(cx).map(|call| match call {
            Ok(Notice::Permit) => Turn::Permit(Permit(self.line.clone())),
            // The line outlives its waiters, so that a call is never lost.
            Ok(Notice::Idle) | Err(_) => Turn::Idle,
        })
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        {
            let inner = &mut *self.line.lock();
            if let Some(at) = inner.line.iter().position(|waiting| waiting.number == self.number) {
                inner.line.remove(at);
                self.line.waiting.store(inner.line.len(), Ordering::Relaxed);
                return;
            }
        }
        // Called, but nobody heard it.
        match self.called.try_recv() {
            Ok(Notice::Permit) => self.line.release(),
            Ok(Notice::Idle) if !self.line.notify_waiter(self.wants) => self.line.ask_to_yield(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]

    use std::task::Waker;

    use super::*;

    fn enter(line: &Arc<SlotQueue>, limit: usize, kind: usize) -> Admission {
        line.enter(limit, 3, kind).unwrap()
    }

    fn place(line: &Arc<SlotQueue>, limit: usize) -> Permit {
        let Admission::Permit(place) = enter(line, limit, 0) else { panic!("there is no place") };
        place
    }

    fn wait(line: &Arc<SlotQueue>, kind: usize) -> Waiter {
        let Admission::Wait(waiter) = enter(line, 1, kind) else { panic!("there is a place") };
        waiter
    }

    fn poll(waiter: &mut Waiter) -> Poll<Turn> {
        Pin::new(waiter).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn the_first_in_line_has_the_next_place() {
        let line = Arc::new(SlotQueue::default());
        let held = place(&line, 1);
        let [mut first, second, mut third] = [0; 3].map(|kind| wait(&line, kind));
        assert!(line.enter(1, 3, 0).is_err(), "the line is full");
        assert!(poll(&mut first).is_pending());
        drop(second);
        assert_eq!(line.figures(), (1, 2), "who leaves is gone at once");
        drop(held);
        assert!(poll(&mut third).is_pending());
        let Poll::Ready(Turn::Permit(held)) = poll(&mut first) else { panic!("it is the first one's turn") };
        drop((first, held));
        // Called, and gone before it heard.
        drop(third);
        assert_eq!(line.figures(), (0, 0));
        assert!(!line.waits());
    }

    #[test]
    fn a_higher_limit_calls_those_who_wait() {
        let line = Arc::new(SlotQueue::default());
        let _held = place(&line, 1);
        let mut waiter = wait(&line, 0);
        let _other = place(&line, 3);
        let Poll::Ready(_turn) = poll(&mut waiter) else { panic!("nobody called it") };
        assert_eq!(line.figures(), (3, 0));
    }

    #[test]
    fn an_idle_connection_is_passed_on_to_who_wants_it() {
        let line = Arc::new(SlotQueue::default());
        assert!(line.notify_waiter(7), "nobody waits: keep it");
        let held = place(&line, 1);
        let (mut stranger, mut local) = (wait(&line, 1), wait(&line, 7));
        assert!(line.notify_waiter(7));
        assert!(matches!(poll(&mut local), Poll::Ready(Turn::Idle)));
        assert!(!line.notify_waiter(7), "only a stranger waits: close it");
        let mut local = local.again();
        assert!(poll(&mut stranger).is_pending());
        drop(held);
        assert!(matches!(poll(&mut stranger), Poll::Ready(Turn::Permit(_))), "in the order of coming");
        assert!(matches!(poll(&mut local), Poll::Ready(Turn::Permit(_))), "that place was given back");
        assert_eq!(line.figures(), (0, 0));
    }

    #[test]
    fn who_is_first_is_passed_so_often_only() {
        let line = Arc::new(SlotQueue::default());
        let _held = place(&line, 1);
        let _stranger = wait(&line, 1);
        for _ in 0..PASS {
            let _local = wait(&line, 7);
            assert!(line.notify_waiter(7));
        }
        let _local = wait(&line, 7);
        assert!(!line.notify_waiter(7));
    }

    #[test]
    fn a_notice_to_yield_reaches_every_worker_that_is_there() {
        let line = SlotQueue::default();
        let (here, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        line.add_yielder(&gone);
        line.add_yielder(&here);
        drop(gone);
        line.ask_to_yield();
        let mut notified = std::pin::pin!(here.notified());
        assert!(notified.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    }
}
