//! The live registry of one participant: its in-flight entries, which are reauthorized whenever the state or
//! the time may have changed the decision.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use slab::Slab;
use tokio::sync::Notify;

use super::{Affected, Command, LiveRow, Participant};
use crate::authz::{reason::Reason, time::Timestamp};

/// Time is checked at least this often, even before the nearest deadline, so that clock steps and suspends
/// are noticed.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A wall clock that deviates this much from the monotonic clock was stepped, and every entry is
/// reauthorized.
const CLOCK_STEP_MS: i64 = 2_000;

/// How long a sweep waits for a cut entry to leave, which it does when its connection closes. No byte moves
/// from the cut on.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Something in flight that was permitted and must remain permitted.
pub trait Revocable: 'static {
    /// Whether the change may forbid this entry.
    fn affected_by(&self, affected: &Affected) -> bool;

    /// Decides again by the current state. The error is the reason to cut the entry.
    fn reauthorize(&self) -> Result<(), Reason>;

    /// Cuts the entry. Synchronous: when it returns, no more bytes are read from the client or the upstream.
    fn cut(&self, reason: Reason);

    fn row(&self) -> LiveRow;

    /// When the decision changes without a change of the state (expiry, end of the grace period).
    fn deadline(&self) -> Option<Timestamp>;
}

/// The entries of one participant. Lives on its thread.
pub struct Registry<E> {
    participant: RefCell<Option<Participant>>,
    number: usize,
    /// How long a sweep may take to decide. Entries beyond are cut, so that a client cannot end the process
    /// by requests that are expensive to decide.
    sweep_limit: Duration,
    entries: RefCell<Slab<NumberedEntry<E>>>,
    entered: Cell<u64>,
    /// When deadlines are checked next, wall time.
    next_check: Cell<Timestamp>,
    earlier_deadline: Notify,
    left: Notify,
    /// Whether a sweep waits for entries to leave. If not, leaving notifies no task.
    awaited: Cell<bool>,
}

struct NumberedEntry<E> {
    number: u64,
    entry: Rc<E>,
}

/// An entry's registration. Dropping it removes the entry.
pub struct Registration<E: Revocable> {
    registry: Rc<Registry<E>>,
    key: usize,
    entry: Rc<E>,
}

impl<E: Revocable> Registry<E> {
    pub fn new(participant: Participant) -> Rc<Self> {
        Rc::new(Self {
            number: participant.number,
            sweep_limit: participant.fence.timeout / 2,
            participant: RefCell::new(Some(participant)),
            entries: RefCell::default(),
            entered: Cell::new(0),
            next_check: Cell::new(Timestamp::from_millis(i64::MAX)),
            earlier_deadline: Notify::new(),
            left: Notify::new(),
            awaited: Cell::new(false),
        })
    }

    /// Registers an entry that has just been permitted. Call this in the same synchronous block as the
    /// decision: sweeps run on this thread, so no change can come between the two.
    pub fn enter(self: &Rc<Self>, entry: Rc<E>) -> Registration<E> {
        let number = self.entered.get();
        self.entered.set(number + 1);
        if entry.deadline().is_some_and(|at| at < self.next_check.get()) {
            self.earlier_deadline.notify_one();
        }
        let key = self.entries.borrow_mut().insert(NumberedEntry { number, entry: entry.clone() });
        Registration { registry: self.clone(), key, entry }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Runs the participant's loop until the fence is gone. Call it once.
    pub async fn run(self: Rc<Self>) {
        let Some(mut participant) = self.participant.borrow_mut().take() else { return };
        let mut clock = Clock::read();
        let mut due = self.schedule_check(clock.wall);
        loop {
            let command = tokio::select! {
                // A waiting change takes precedence over a check of the clock.
                biased;
                command = participant.commands.recv() => match command {
                    Some(command) => Some(command),
                    None => return,
                },
                () = self.earlier_deadline.notified() => None,
                () = tokio::time::sleep_until(due.into()) => None,
            };
            let was_idle = command.is_none();
            match command {
                Some(Command::Change { epoch, affected }) => {
                    self.take_over(&mut participant, epoch, affected).await;
                }
                Some(other) => self.handle(other).await,
                None => {}
            }
            // However many commands follow each other, deadlines are enforced between them.
            if was_idle || due <= Instant::now() {
                let stepped = clock.advance();
                let now = clock.wall;
                self.sweep(|e| stepped || e.deadline().is_some_and(|at| at <= now)).await;
                due = self.schedule_check(now);
            } else {
                // The change may have brought a deadline forward.
                due = due.min(self.schedule_check(clock.wall));
            }
        }
    }

    /// Applies a change, and all others that wait behind it, in one sweep.
    async fn take_over(&self, participant: &mut Participant, epoch: u64, affected: Affected) {
        let mut changes = vec![(epoch, affected, 0)];
        let mut others = Vec::new();
        while let Ok(command) = participant.commands.try_recv() {
            match command {
                Command::Change { epoch, affected } => changes.push((epoch, affected, 0)),
                other => others.push(other),
            }
        }
        for entry in self.sweep(|e| changes.iter().any(|(_, affected, _)| e.affected_by(affected))).await {
            // With several changes in one sweep, the first that affects the entry counts the cut.
            if let Some((.., cut)) = changes.iter_mut().find(|(_, affected, _)| entry.affected_by(affected)) {
                *cut += 1;
            }
        }
        participant
            .fence
            .acknowledge(participant.number, changes.iter().map(|(epoch, _, cut)| (*epoch, *cut)));
        for other in others {
            self.handle(other).await;
        }
    }

    async fn handle(&self, command: Command) {
        match command {
            // Changes go to `take_over`, so none reaches this arm.
            Command::Change { .. } => {}
            Command::List(reply) => {
                let _ = reply.send(self.rows());
            }
            Command::Cut { number, done } => {
                let find = |(key, e): (usize, &NumberedEntry<E>)| {
                    (e.number == number).then(|| (key, e.entry.clone()))
                };
                let found = self.entries.borrow().iter().find_map(find);
                if let Some((key, entry)) = &found {
                    entry.cut(Reason::CutByAdmin);
                    self.wait_until_left(&[(*key, number)]).await;
                }
                let _ = done.send(found.is_some());
            }
        }
    }

    fn rows(&self) -> Vec<LiveRow> {
        let row =
            |e: &NumberedEntry<E>| LiveRow { id: format!("{}-{}", self.number, e.number), ..e.entry.row() };
        self.entries.borrow().iter().map(|(_, e)| row(e)).collect()
    }

    /// Reauthorizes the entries that `is_affected` selects, and cuts those that are no longer permitted, or
    /// for which there was no time. Returns the cut entries once they have left.
    async fn sweep(&self, is_affected: impl Fn(&E) -> bool) -> Vec<Rc<E>> {
        let begun = Instant::now();
        let refused = |entry: &E| match begun.elapsed() < self.sweep_limit {
            true => entry.reauthorize().err(),
            false => Some(Reason::OverBudget),
        };
        // Collected first: a cut may make an entry leave, which borrows the slab again.
        let forbidden: Vec<(usize, u64, Rc<E>, Reason)> = self
            .entries
            .borrow()
            .iter()
            .filter(|(_, e)| is_affected(&e.entry))
            .filter_map(|(key, e)| Some((key, e.number, e.entry.clone(), refused(&e.entry)?)))
            .collect();
        let mut places = Vec::with_capacity(forbidden.len());
        let mut cut = Vec::with_capacity(forbidden.len());
        for (key, number, entry, reason) in forbidden {
            entry.cut(reason);
            places.push((key, number));
            cut.push(entry);
        }
        self.wait_until_left(&places).await;
        cut
    }

    /// Waits until these entries have left, for at most `LEAVE_TIMEOUT`.
    async fn wait_until_left(&self, places: &[(usize, u64)]) {
        let all_left = async {
            loop {
                // Created before the check, so that an entry that leaves in between is not missed.
                let left = self.left.notified();
                let present = {
                    let entries = self.entries.borrow();
                    places.iter().any(|(key, number)| entries.get(*key).is_some_and(|e| e.number == *number))
                };
                if !present {
                    return;
                }
                left.await;
            }
        };
        self.awaited.set(true);
        if tokio::time::timeout(LEAVE_TIMEOUT, all_left).await.is_err() {
            tracing::warn!("a cut request moves no byte any more, but its connection is not closed yet");
        }
        self.awaited.set(false);
    }

    /// Returns when deadlines are to be checked again, after a check at `checked_at`.
    fn schedule_check(&self, checked_at: Timestamp) -> Instant {
        let entries = self.entries.borrow();
        // Entries that were due at the last check were reauthorized then.
        let ahead = entries.iter().filter_map(|(_, e)| e.entry.deadline()).filter(|at| *at > checked_at);
        let now = Timestamp::from(SystemTime::now());
        let pause = ahead.min().map_or(CLOCK_CHECK_INTERVAL, |at| {
            let ms = at.as_millis().saturating_sub(now.as_millis());
            // One more millisecond, since a sleep until the exact instant may end just before it.
            Duration::from_millis(u64::try_from(ms).unwrap_or(0) + 1).min(CLOCK_CHECK_INTERVAL)
        });
        let pause_ms = i64::try_from(pause.as_millis()).unwrap_or(1_000);
        self.next_check.set(Timestamp::from_millis(now.as_millis().saturating_add(pause_ms)));
        Instant::now() + pause
    }
}

impl<E: Revocable> std::ops::Deref for Registration<E> {
    type Target = Rc<E>;

    fn deref(&self) -> &Rc<E> {
        &self.entry
    }
}

impl<E: Revocable> Drop for Registration<E> {
    fn drop(&mut self) {
        // Drops the removed entry outside the borrow: its own drop may use the registry.
        let removed = self.registry.entries.borrow_mut().try_remove(self.key);
        drop(removed);
        if self.registry.awaited.get() {
            self.registry.left.notify_waiters();
        }
    }
}

/// Wall time and monotonic time together, to detect steps of the wall clock.
struct Clock {
    wall: Timestamp,
    monotonic: Instant,
}

impl Clock {
    fn read() -> Self {
        Self { wall: SystemTime::now().into(), monotonic: Instant::now() }
    }

    /// Reads both again. Returns whether the wall clock was stepped since the last reading.
    fn advance(&mut self) -> bool {
        let next = Self::read();
        let elapsed = i64::try_from((next.monotonic - self.monotonic).as_millis()).unwrap_or(i64::MAX);
        let drift = (next.wall.as_millis() - self.wall.as_millis()).saturating_sub(elapsed);
        *self = next;
        drift.abs() > CLOCK_STEP_MS
    }
}
