//! Forms batches of the commands that wait and of those that callers, who were just answered together, are
//! about to send. Without the latter, the first of these callers would have a sync of its own, and the
//! others would wait for the next one. Removals overtake other commands: they never wait for more than the
//! current batch, however long the queue is.

use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{self, error::SendError};

use super::Command;

/// Maximum time to wait for more commands, however slow the disk is.
const MAX_WAIT: Duration = Duration::from_millis(5);

/// Commands of each kind that may wait for the writer; beyond that, senders wait.
const CAPACITY: usize = 1024;

/// The sending end of the queue.
#[derive(Clone)]
pub(crate) struct Queue {
    removals: mpsc::Sender<Command>,
    others: mpsc::Sender<Command>,
}

/// The receiving end of the queue.
pub(crate) struct QueueReceiver {
    removals: mpsc::Receiver<Command>,
    others: mpsc::Receiver<Command>,
}

impl Queue {
    pub(crate) fn new() -> (Self, QueueReceiver) {
        let ((removals, first), (others, second)) = (mpsc::channel(CAPACITY), mpsc::channel(CAPACITY));
        (Self { removals, others }, QueueReceiver { removals: first, others: second })
    }

    /// Waits for a place in the queue. Fails if the writer has ended.
    pub(crate) async fn send(&self, command: Command) -> Result<(), SendError<Command>> {
        let removes = match &command {
            Command::Change(task) => task.only_removes(),
            // Another node may have removed something.
            Command::Follow(..) => true,
            Command::Close(_) => false,
        };
        if removes { &self.removals } else { &self.others }.send(command).await
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.others.is_closed()
    }

    /// Resolves when the writer has ended.
    pub(crate) async fn closed(&self) {
        self.others.closed().await;
    }
}

/// The queue as the writer reads it, on one thread.
pub(super) struct GroupCommit {
    queue: QueueReceiver,
    waker: Waker,
    /// Number of callers that the last batch answered.
    last_batch: usize,
    /// How long the current batch may wait for as many.
    max_wait: Duration,
    until: Instant,
}

/// `last_batch` after a batch with one caller: no other caller is about to send again, so none is waited for.
const ALONE: usize = 1;

impl GroupCommit {
    /// Must be called by the thread that reads the queue.
    pub(super) fn new(queue: QueueReceiver) -> Self {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        Self { queue, waker, last_batch: ALONE, max_wait: Duration::ZERO, until: Instant::now() }
    }

    /// Waits for the first command of a batch. `None`: all senders are gone.
    pub(super) fn first(&mut self) -> Option<Command> {
        let first = loop {
            match self.poll(0) {
                Poll::Ready(first) => break first,
                Poll::Pending => thread::park(),
            }
        };
        self.until = Instant::now() + self.max_wait;
        first
    }

    /// The next command for a batch that has `has` of them; `None` when the batch is complete.
    pub(super) fn next(&mut self, has: usize) -> Option<Command> {
        loop {
            if let Poll::Ready(came) = self.poll(has) {
                return came;
            }
            if has >= self.last_batch {
                return None;
            }
            let left = self.until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            thread::park_timeout(left);
        }
    }

    /// Alternates between the kinds, so that a flood of removals does not stop everything else.
    fn poll(&mut self, has: usize) -> Poll<Option<Command>> {
        let QueueReceiver { removals, others } = &mut self.queue;
        let (ahead, behind) = if has.is_multiple_of(2) { (removals, others) } else { (others, removals) };
        let cx = &mut Context::from_waker(&self.waker);
        match ahead.poll_recv(cx) {
            Poll::Ready(Some(came)) => Poll::Ready(Some(came)),
            _ => behind.poll_recv(cx),
        }
    }

    /// Takes a removal that waits.
    pub(super) fn try_removal(&mut self) -> Option<Command> {
        self.queue.removals.try_recv().ok()
    }

    /// A batch of `count` was answered, after a commit that took this long. Waiting for its callers for
    /// more than half a commit would cost more than it saves.
    pub(super) fn batch_done(&mut self, count: usize, took: Duration) {
        self.last_batch = count.max(ALONE);
        self.max_wait = (took / 2).min(MAX_WAIT);
    }

    /// Accepts no more commands; returns those that wait.
    pub(super) fn close(mut self) -> impl Iterator<Item = Command> {
        let QueueReceiver { removals, others } = &mut self.queue;
        removals.close();
        others.close();
        std::iter::from_fn(move || self.try_removal().or_else(|| self.queue.others.try_recv().ok()))
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

    use super::{
        super::{Task, TaskKind},
        *,
    };

    fn bench() -> (Queue, GroupCommit) {
        let (queue, waiting) = Queue::new();
        (queue, GroupCommit::new(waiting))
    }

    fn send(queue: &Queue) {
        queue.others.try_send(Command::Close(oneshot::channel().0)).unwrap();
    }

    fn remove(queue: &Queue) {
        let task = Task::new(TaskKind::OnlyRemoves, Box::new(|_| Ok(())), oneshot::channel().0);
        queue.removals.try_send(Command::Change(task)).unwrap();
    }

    /// However many commands wait before it.
    #[test]
    fn a_removal_is_overtaken_by_one_other_at_most() {
        let (queue, mut group_commit) = bench();
        (0..5).for_each(|_| send(&queue));
        remove(&queue);
        assert!(matches!(group_commit.first(), Some(Command::Change(_))));
        (0..3).for_each(|_| remove(&queue));
        let batch: Vec<_> = (1..).map_while(|has| group_commit.next(has)).collect();
        let removals: Vec<_> = batch.iter().map(|one| matches!(one, Command::Change(_))).collect();
        assert_eq!(removals, [false, true, false, true, false, true, false, false]);
    }

    #[test]
    fn what_waits_goes_together_and_nobody_else_is_waited_for() {
        let (queue, mut group_commit) = bench();
        group_commit.max_wait = Duration::from_secs(60);
        (0..3).for_each(|_| send(&queue));
        assert!(group_commit.first().is_some());
        assert!(group_commit.next(1).is_some());
        assert!(group_commit.next(2).is_some());
        assert!(group_commit.next(3).is_none());
    }

    #[test]
    fn those_who_were_answered_together_are_waited_for() {
        let (queue, mut group_commit) = bench();
        group_commit.batch_done(2, Duration::ZERO);
        group_commit.max_wait = Duration::from_secs(60);
        send(&queue);
        assert!(group_commit.first().is_some());
        std::thread::scope(|scope| {
            scope.spawn(|| send(&queue));
            assert!(group_commit.next(1).is_some());
        });
        assert!(group_commit.next(2).is_none(), "as many as there were");
    }

    #[test]
    fn who_does_not_come_again_is_not_waited_for_long() {
        let (queue, mut group_commit) = bench();
        group_commit.batch_done(2, Duration::from_secs(60));
        assert_eq!(group_commit.max_wait, MAX_WAIT);
        send(&queue);
        assert!(group_commit.first().is_some());
        assert!(group_commit.next(1).is_none());
    }

    #[test]
    fn the_end_gives_out_what_waits() {
        let (queue, mut group_commit) = bench();
        (0..3).for_each(|_| send(&queue));
        remove(&queue);
        assert!(group_commit.first().is_some());
        assert_eq!(group_commit.close().count(), 3);
        assert!(queue.is_closed());
    }
}
