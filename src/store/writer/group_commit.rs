//! How commands become batches: those that wait, and those of callers who were answered together
//! just now and are about to ask again. Without the latter, the first of them to come would have a
//! sync for itself, and all the others would wait for the next one.

use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::Command;

/// However slow the disk is, nobody waits longer for somebody else to come.
const LONGEST: Duration = Duration::from_millis(5);

/// The queue as the writer takes from it, on one thread.
pub(super) struct GroupCommit {
    queue: mpsc::Receiver<Command>,
    waker: Waker,
    /// How many callers the last batch answered.
    together: usize,
    /// How long the batch at hand may wait for as many.
    patience: Duration,
    until: Instant,
}

/// `together` where a batch had one caller: nobody else is about to ask again, so nobody is waited for.
const ALONE: usize = 1;

impl GroupCommit {
    /// For the thread that calls it.
    pub(super) fn new(queue: mpsc::Receiver<Command>) -> Self {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        Self { queue, waker, together: ALONE, patience: Duration::ZERO, until: Instant::now() }
    }

    /// Begins a batch, whenever something comes. `None`: nobody is left who could hand anything in.
    pub(super) fn first(&mut self) -> Option<Command> {
        let first = self.queue.blocking_recv();
        self.until = Instant::now() + self.patience;
        first
    }

    /// What else belongs into a batch that has so many.
    pub(super) fn next(&mut self, has: usize) -> Option<Command> {
        if let Ok(waiting) = self.queue.try_recv() {
            return Some(waiting);
        }
        while has < self.together {
            if let Poll::Ready(came) = self.queue.poll_recv(&mut Context::from_waker(&self.waker)) {
                return came;
            }
            let left = self.until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            thread::park_timeout(left);
        }
        None
    }

    /// So many were answered, after a commit that took this long. To wait for them longer than for
    /// half of another one would cost more than it spares.
    pub(super) fn answered(&mut self, count: usize, took: Duration) {
        self.together = count.max(ALONE);
        self.patience = (took / 2).min(LONGEST);
    }

    /// Takes nothing more; what waits is given out.
    pub(super) fn close(mut self) -> impl Iterator<Item = Command> {
        self.queue.close();
        std::iter::from_fn(move || self.queue.try_recv().ok())
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn bench() -> (mpsc::Sender<Command>, GroupCommit) {
        let (sender, queue) = mpsc::channel(8);
        (sender, GroupCommit::new(queue))
    }

    fn send(sender: &mpsc::Sender<Command>) {
        sender.try_send(Command::Close(oneshot::channel().0)).unwrap();
    }

    #[test]
    fn what_waits_goes_together_and_nobody_else_is_waited_for() {
        let (sender, mut group_commit) = bench();
        group_commit.patience = Duration::from_secs(60);
        (0..3).for_each(|_| send(&sender));
        assert!(group_commit.first().is_some());
        assert!(group_commit.next(1).is_some());
        assert!(group_commit.next(2).is_some());
        assert!(group_commit.next(3).is_none());
    }

    #[test]
    fn those_who_were_answered_together_are_waited_for() {
        let (sender, mut group_commit) = bench();
        group_commit.answered(2, Duration::ZERO);
        group_commit.patience = Duration::from_secs(60);
        send(&sender);
        assert!(group_commit.first().is_some());
        std::thread::scope(|scope| {
            scope.spawn(|| send(&sender));
            assert!(group_commit.next(1).is_some());
        });
        assert!(group_commit.next(2).is_none(), "as many as there were");
    }

    #[test]
    fn who_does_not_come_again_is_not_waited_for_long() {
        let (sender, mut group_commit) = bench();
        group_commit.answered(2, Duration::from_secs(60));
        assert_eq!(group_commit.patience, LONGEST);
        send(&sender);
        assert!(group_commit.first().is_some());
        assert!(group_commit.next(1).is_none());
    }

    #[test]
    fn the_end_gives_out_what_waits() {
        let (sender, mut group_commit) = bench();
        (0..3).for_each(|_| send(&sender));
        assert!(group_commit.first().is_some());
        assert_eq!(group_commit.close().count(), 2);
        assert!(sender.is_closed());
    }
}
