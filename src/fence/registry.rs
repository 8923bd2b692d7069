//! The live registry of one participant: what it has in flight, judged again whenever the state or
//! the time may have changed the answer.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use slab::Slab;
use tokio::sync::Notify;

use super::{Affected, Command, LiveRow, Participant};
use crate::authz::{answer::Reason, time::Timestamp};

/// Beside the nearest deadline, time is looked at this often, so that clock steps and suspends are
/// seen.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(1);

/// A wall clock that moved this much against the monotonic one was stepped: reauthorize everything.
const CLOCK_STEP_MS: i64 = 2_000;

/// How long a cut entry may take to leave before the sweep goes on without it. It moves no byte
/// from the cut on; leaving is the close of its connection.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Something in flight that was permitted once and must stay permitted.
pub trait Revocable: 'static {
    /// Whether the change may have taken something from this entry.
    fn affected_by(&self, affected: &Affected) -> bool;

    /// Decides again by the present state; an error is the reason to cut.
    fn reauthorize(&self) -> Result<(), Reason>;

    /// Synchronous: when it returns, no byte is taken from client or upstream any more.
    fn cut(&self, reason: Reason);

    fn row(&self) -> LiveRow;

    /// When the decision changes by itself (expiry, end of grace).
    fn deadline(&self) -> Option<Timestamp>;
}

/// Entries of one participant; lives on its thread.
pub struct Registry<E> {
    participant: RefCell<Option<Participant>>,
    number: usize,
    entries: RefCell<Slab<Numbered<E>>>,
    entered: Cell<u64>,
    /// When deadlines are looked at next, wall time.
    next_look: Cell<Timestamp>,
    sooner: Notify,
    left: Notify,
    /// Whether a sweep waits for entries to leave; else leaving tells nobody.
    awaited: Cell<bool>,
}

struct Numbered<E> {
    number: u64,
    entry: Rc<E>,
}

/// An entry's place in the registry; dropping it leaves.
pub struct Registration<E: Revocable> {
    registry: Rc<Registry<E>>,
    key: usize,
    entry: Rc<E>,
}

impl<E: Revocable> Registry<E> {
    pub fn new(participant: Participant) -> Rc<Self> {
        Rc::new(Self {
            number: participant.number(),
            participant: RefCell::new(Some(participant)),
            entries: RefCell::default(),
            entered: Cell::new(0),
            next_look: Cell::new(Timestamp::from_millis(i64::MAX)),
            sooner: Notify::new(),
            left: Notify::new(),
            awaited: Cell::new(false),
        })
    }

    /// Registers what has just been permitted. Call it in the same synchronous block as the
    /// decision: a sweep runs on this thread, so no change can slip between the two.
    pub fn enter(self: &Rc<Self>, entry: Rc<E>) -> Registration<E> {
        let number = self.entered.get();
        self.entered.set(number + 1);
        if entry.deadline().is_some_and(|at| at < self.next_look.get()) {
            self.sooner.notify_one();
        }
        let key = self.entries.borrow_mut().insert(Numbered { number, entry: entry.clone() });
        Registration { registry: self.clone(), key, entry }
    }

    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The participant's loop; ends when the fence is gone. Run it once.
    pub async fn run(self: Rc<Self>) {
        let Some(mut participant) = self.participant.borrow_mut().take() else { return };
        let mut clock = Clock::read();
        loop {
            let pause = self.until_next_look(clock.wall);
            let command = tokio::select! {
                // A change that waits goes before a look at the clock.
                biased;
                command = participant.command() => match command {
                    Some(command) => Some(command),
                    None => return,
                },
                () = self.sooner.notified() => None,
                () = tokio::time::sleep(pause) => None,
            };
            match command {
                Some(Command::Change { epoch, affected }) => {
                    self.take_over(&mut participant, epoch, affected).await;
                }
                Some(other) => self.answer(other).await,
                None => {
                    let stepped = clock.advance();
                    let now = clock.wall;
                    self.sweep(|e| stepped || e.deadline().is_some_and(|at| at <= now)).await;
                }
            }
        }
    }

    /// Takes over a change and whatever else waits behind it, in one sweep.
    async fn take_over(&self, participant: &mut Participant, epoch: u64, affected: Affected) {
        let mut changes = vec![(epoch, affected, 0)];
        let mut others = Vec::new();
        while let Some(command) = participant.waiting_command() {
            match command {
                Command::Change { epoch, affected } => changes.push((epoch, affected, 0)),
                other => others.push(other),
            }
        }
        for entry in self.sweep(|e| changes.iter().any(|(_, affected, _)| e.affected_by(affected))).await {
            // Several changes in one sweep: the first that concerns the entry is told of it.
            if let Some((.., cut)) = changes.iter_mut().find(|(_, affected, _)| entry.affected_by(affected)) {
                *cut += 1;
            }
        }
        participant.acknowledge(changes.iter().map(|(epoch, _, cut)| (*epoch, *cut)));
        for other in others {
            self.answer(other).await;
        }
    }

    async fn answer(&self, command: Command) {
        match command {
            // `take_over` has every change, so none comes here.
            Command::Change { .. } => {}
            Command::List(reply) => {
                let _ = reply.send(self.rows());
            }
            Command::Cut { number, done } => {
                let find =
                    |(key, e): (usize, &Numbered<E>)| (e.number == number).then(|| (key, e.entry.clone()));
                let found = self.entries.borrow().iter().find_map(find);
                if let Some((key, entry)) = &found {
                    entry.cut(Reason::CutByAdmin);
                    self.gone(&[(*key, number)]).await;
                }
                let _ = done.send(found.is_some());
            }
        }
    }

    fn rows(&self) -> Vec<LiveRow> {
        let row = |e: &Numbered<E>| LiveRow { id: format!("{}-{}", self.number, e.number), ..e.entry.row() };
        self.entries.borrow().iter().map(|(_, e)| row(e)).collect()
    }

    /// Judges what `of_interest` names and cuts what is no longer permitted; returns those, once
    /// they have left.
    async fn sweep(&self, of_interest: impl Fn(&E) -> bool) -> Vec<Rc<E>> {
        // Collected first: a cut may make an entry leave, which borrows the slab again.
        let forbidden: Vec<(usize, u64, Rc<E>, Reason)> = self
            .entries
            .borrow()
            .iter()
            .filter(|(_, e)| of_interest(&e.entry))
            .filter_map(|(key, e)| Some((key, e.number, e.entry.clone(), e.entry.reauthorize().err()?)))
            .collect();
        let mut places = Vec::with_capacity(forbidden.len());
        let mut cut = Vec::with_capacity(forbidden.len());
        for (key, number, entry, reason) in forbidden {
            entry.cut(reason);
            places.push((key, number));
            cut.push(entry);
        }
        self.gone(&places).await;
        cut
    }

    /// Waits until the entries at these places have left.
    async fn gone(&self, places: &[(usize, u64)]) {
        let all_left = async {
            loop {
                // Made before the look, so that who leaves in between is not missed.
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

    /// How long to wait before deadlines are looked at again, after a look at `looked`.
    fn until_next_look(&self, looked: Timestamp) -> Duration {
        let entries = self.entries.borrow();
        // What was due at the last look has been judged then.
        let ahead = entries.iter().filter_map(|(_, e)| e.entry.deadline()).filter(|at| *at > looked);
        let now = Timestamp::from(SystemTime::now());
        let pause = ahead.min().map_or(LOOK_AT_CLOCK, |at| {
            let ms = at.as_millis().saturating_sub(now.as_millis());
            // One more millisecond, since sleeping to the very instant may wake just before it.
            Duration::from_millis(u64::try_from(ms).unwrap_or(0) + 1).min(LOOK_AT_CLOCK)
        });
        let pause_ms = i64::try_from(pause.as_millis()).unwrap_or(1_000);
        self.next_look.set(Timestamp::from_millis(now.as_millis().saturating_add(pause_ms)));
        pause
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
        // The removed entry is dropped outside the borrow: it may hold what enters or leaves.
        let removed = self.registry.entries.borrow_mut().try_remove(self.key);
        drop(removed);
        if self.registry.awaited.get() {
            self.registry.left.notify_waiters();
        }
    }
}

/// Wall time beside monotonic time, to see steps of the one against the other.
struct Clock {
    wall: Timestamp,
    monotonic: Instant,
}

impl Clock {
    fn read() -> Self {
        Self { wall: SystemTime::now().into(), monotonic: Instant::now() }
    }

    /// Reads again; whether wall time was stepped since the last look.
    fn advance(&mut self) -> bool {
        let next = Self::read();
        let elapsed = i64::try_from((next.monotonic - self.monotonic).as_millis()).unwrap_or(i64::MAX);
        let drift = (next.wall.as_millis() - self.wall.as_millis()).saturating_sub(elapsed);
        *self = next;
        drift.abs() > CLOCK_STEP_MS
    }
}
