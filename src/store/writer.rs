//! The writer: one thread that makes every change, in batches, and is the only publisher. A batch is made
//! durable, published to index and snapshot, fenced and answered, in this order. The writer never waits for
//! the fence itself.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{
    ChangeError,
    cluster::Node,
    engine::{CommitError, Engine},
    model::TokenRecord,
    op::Op,
    sessions::Sessions,
    state::State,
};
use crate::{
    authz::{accounts::Accounts, administration::AdminErrorCode, secret::TokenId, time::Timestamp},
    fence::Fence,
    metrics::StoreMetrics,
    state,
};

mod federated;
mod group_commit;
mod groups;
mod import;
mod issued;
mod publish;
mod rate;
mod reload;
mod reports;
mod retention;
mod roles;
mod sessions;
mod task;
mod tokens;
mod transaction;
mod unwritten;
mod users;

pub(crate) use federated::NewIds;
pub(crate) use group_commit::{Queue, QueueReceiver};
pub(crate) use import::PlannedImport;
pub(crate) use publish::FollowResult;
pub(crate) use rate::WriteRates;
pub(crate) use retention::Retention;
pub(crate) use task::{Published, Task, TaskKind};
pub(crate) use tokens::NewSecret;
pub(crate) use transaction::{Batch, Transaction};
pub(crate) use unwritten::Unwritten;

use group_commit::GroupCommit;

const CLOSED: &str = "the store was closed";

/// The error of other changes while removals wait to be written.
const REMOVALS_PENDING: &str = "earlier removals have yet to be written to etcd";

/// Maximum changes in a batch, so that the first one does not wait long for the last one, nor a removal for
/// a batch that it has just missed.
const MAX_BATCH_CHANGES: usize = 256;
const MAX_BATCH_OPS: usize = 500;
/// Maximum time for planning a batch: a plan may read more than it writes. Tests that need one batch must get one
/// on a busy machine, too.
const MAX_PLANNING_TIME: Duration = Duration::from_millis(if cfg!(test) { 1000 } else { 10 });

const PERMISSION_DENIED: AdminErrorCode = AdminErrorCode::PermissionDenied;

/// What the writer and the readers share.
pub(crate) struct Shared {
    pub engine: Arc<Engine>,
    pub state: Arc<state::State>,
    pub accounts: ArcSwap<Accounts>,
    pub sessions: Arc<Sessions>,
    /// Tokens whose state in force differs from the stored one.
    pub unsaved: Mutex<HashMap<TokenId, TokenRecord>>,
    /// Number of removals that the writer could not write and keeps.
    pub unwritten: AtomicU64,
    /// Why no change is accepted any more.
    pub closed: Mutex<Option<String>>,
    pub clock: Clock,
    pub metrics: Arc<StoreMetrics>,
    /// This process's node in its cluster; `None` for a gateway that runs alone.
    pub node: Option<Arc<Node>>,
}

pub(crate) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// A command in the writer's queue.
pub(crate) enum Command {
    Change(Task),
    /// Other nodes have appended to the log up to this position, or may have appended anything.
    Follow(Option<u64>, oneshot::Sender<Result<FollowResult, String>>),
    /// Answers everything before it, closes the engine and ends the thread.
    Close(oneshot::Sender<()>),
}

pub(crate) struct Writer {
    pub tx: Transaction,
    pub shared: Arc<Shared>,
    pub fence: Arc<Fence>,
    pub retention: Retention,
    /// Only where the log is in etcd: elsewhere, a change that cannot be written closes the store.
    pub unwritten: Option<Unwritten>,
}

impl Writer {
    pub(crate) fn run(mut self, queue: QueueReceiver) {
        let guard = CloseOnPanic(self.shared.clone());
        let mut group_commit = GroupCommit::new(queue);
        let mut late: Vec<Task> = Vec::new();
        let done = loop {
            // Changes that came too late share their batch with whatever waits by now.
            let mut next = if late.is_empty() {
                let Some(first) = group_commit.first() else { break None };
                Some(first)
            } else {
                group_commit.next(late.len())
            };
            let (mut close, mut follow) = (None, None);
            self.write_unwritten();
            if let Some(position) = self.shared.engine.latest_known() {
                // A plan without these entries would come too late. The next commit reports the error, if
                // any.
                drop(self.follow(Some(position)));
            }
            let (before, begun) = (self.tx.state.clone(), Instant::now());
            let mut batch = std::mem::take(&mut late);
            batch.iter_mut().for_each(|task| self.plan(task));
            while let Some(command) = next.take() {
                match command {
                    Command::Change(mut task) => {
                        self.plan(&mut task);
                        batch.push(task);
                    }
                    Command::Follow(to, done) => {
                        follow = Some((to, done));
                        break;
                    }
                    Command::Close(done) => {
                        close = Some(done);
                        while let Some(Command::Change(mut task)) = group_commit.try_removal() {
                            self.plan(&mut task);
                            batch.push(task);
                        }
                        break;
                    }
                }
                let has_room = batch.len() < MAX_BATCH_CHANGES && self.tx.batch.ops.len() < MAX_BATCH_OPS;
                if has_room && begun.elapsed() < MAX_PLANNING_TIME {
                    next = group_commit.next(batch.len());
                }
            }
            let (count, began) = (batch.len(), Instant::now());
            late = self.finish(batch, before);
            while close.is_some() && !late.is_empty() {
                let before = self.tx.state.clone();
                late.iter_mut().for_each(|task| self.plan(task));
                late = self.finish(late, before);
            }
            if late.is_empty() {
                group_commit.batch_done(count, began.elapsed());
            }
            if let Some((to, done)) = follow {
                let _ = done.send(self.follow(to));
            }
            if close.is_some() {
                break close;
            }
            self.apply_retention();
        };
        self.shared.close(CLOSED.to_owned());
        for command in group_commit.close() {
            let Command::Change(task) = command else { continue };
            task.answer(Err(ChangeError::Closed(CLOSED.to_owned())));
        }
        self.shared.engine.close();
        drop(guard);
        // `None` if every sender is gone.
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    /// Plans a change on top of the batch; one that is refused leaves nothing in it.
    fn plan(&mut self, task: &mut Task) {
        self.tx.now = (self.shared.clock)();
        let (before, count) = (self.tx.state.clone(), self.tx.batch.ops.len());
        let effects = self.tx.batch.effects.clone();
        task.plan(&mut self.tx);
        if let Some(error) = self.tx.failed.take() {
            tracing::warn!(%error, "a change cannot be written");
            task.fail(error.to_string());
        }
        if task.is_planned() || self.tx.batch.ops.len() == count {
            return;
        }
        self.tx.state = before;
        let Batch { mut ops, staged, republished, .. } = std::mem::take(&mut self.tx.batch);
        ops.truncate(count);
        let ignore_damage = staged.ignore_damage;
        self.tx.batch = Batch { ops, effects, republished, ..Batch::default() };
        self.tx.batch.staged.ignore_damage = ignore_damage;
        for op in &self.tx.batch.ops {
            // Each of them has been staged before, so this does not fail.
            drop(self.shared.engine.stage(&mut self.tx.batch.staged, op));
        }
    }

    /// Makes what was planned durable, or goes back to `before`, and answers. Returns the changes that came
    /// too late and must be planned again.
    #[must_use]
    fn finish(&mut self, batch: Vec<Task>, before: State) -> Vec<Task> {
        let unwritable = |task: &Task| task.only_removes() && task.unwritable().is_some();
        let (unwritable, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(unwritable);
        let late = self.finish_writable(batch, before);
        for task in unwritable {
            let reason = task.unwritable().unwrap_or_default().to_owned();
            self.apply_undurable(task, ChangeError::Closed(reason), true);
        }
        late
    }

    fn finish_writable(&mut self, batch: Vec<Task>, before: State) -> Vec<Task> {
        let mut late = Vec::new();
        self.add_affected(&batch);
        let planned = batch.iter().filter(|task| task.is_planned()).count();
        let committed = self.commit(planned);
        if committed.is_err() {
            self.tx.state = before;
            self.tx.batch = Batch::default();
        }
        match committed {
            Ok(()) => {
                for (task, published) in self.publish_all(batch) {
                    task.answer(Ok(published));
                }
            }
            Err(CommitError::Conflict(to)) => match self.follow(to) {
                Ok(_) => late = batch,
                Err(reason) => {
                    for task in batch {
                        self.apply_undurable(task, ChangeError::Closed(reason.clone()), false);
                    }
                }
            },
            Err(CommitError::Refused(reason)) if batch.len() > 1 => {
                tracing::warn!(
                    reason,
                    "a batch of changes was refused by the engine; trying them one by one"
                );
                for mut task in batch {
                    let before = self.tx.state.clone();
                    self.plan(&mut task);
                    late.extend(self.finish(vec![task], before));
                }
            }
            // Too large for one entry: it would be kept, and never be written.
            Err(CommitError::Refused(reason)) if self.shared.engine.is_shared() => {
                for task in batch {
                    task.answer(Err(ChangeError::Closed(reason.clone())));
                }
            }
            Err(error) => {
                let reason = error.to_string();
                // The log may have the batch; only later changes have certainly not been made. A log that
                // cannot be reached may become reachable again.
                let closes = !matches!(error, CommitError::Unavailable(_) | CommitError::UnknownOutcome(_));
                let error = match error {
                    CommitError::UnknownOutcome(_) => ChangeError::Unknown,
                    CommitError::Failed(_) if self.shared.close_reason().is_none() => {
                        self.close_after(&reason);
                        ChangeError::Unknown
                    }
                    _ => ChangeError::Closed,
                };
                for task in batch {
                    self.apply_undurable(task, error(reason.clone()), closes);
                }
            }
        }
        late
    }

    /// Adds an [`Op::Affects`] for each subject that the batch takes something from, for the other nodes.
    fn add_affected(&mut self, batch: &[Task]) {
        if !self.tx.batch.ops.is_empty() {
            for affected in batch.iter().filter_map(|task| task.affected) {
                self.tx.apply(Op::Affects(self.tx.affected_subject(affected)));
            }
        }
    }

    fn close_after(&self, reason: &str) {
        if self.shared.close_reason().is_none() {
            tracing::error!(
                reason,
                "changes are no longer durable: restart permgate when the disk works again"
            );
            self.shared.close(reason.to_owned());
        }
    }

    /// Makes the batch durable.
    fn commit(&mut self, planned: usize) -> Result<(), CommitError> {
        if let Some(reason) = self.shared.close_reason() {
            return Err(CommitError::Failed(reason));
        }
        let Batch { ops, staged, .. } = &self.tx.batch;
        // A removal that is in force already plans no operation, but it may be among those.
        if self.unwritten.is_some() && (planned > 0 || !ops.is_empty()) {
            return Err(CommitError::Unavailable(REMOVALS_PENDING.to_owned()));
        }
        if ops.is_empty() {
            return Ok(());
        }
        let (metrics, began) = (&self.shared.metrics, Instant::now());
        let committed = self.shared.engine.append(ops, staged);
        match &committed {
            Ok(()) => {
                metrics.commits.add(1);
                metrics.changes.add(u64::try_from(planned).unwrap_or(u64::MAX));
                metrics.commit_duration.observe(began.elapsed());
                // The stored rows of these tokens are correct again.
                self.shared.unsaved(|unsaved| {
                    let stored = |op: &Op, id| matches!(op, Op::PutToken(token) if token.id == id);
                    unsaved.retain(|id, _| !ops.iter().any(|op| stored(op, *id)));
                });
            }
            Err(CommitError::Failed(_)) => metrics.sync_failures.add(1),
            Err(_) => {}
        }
        committed
    }
}

impl Shared {
    pub(crate) fn close_reason(&self) -> Option<String> {
        self.closed.lock().clone()
    }

    /// Accepts no more changes; the first reason is kept.
    pub(crate) fn close(&self, reason: String) {
        self.closed.lock().get_or_insert(reason);
    }

    pub(super) fn unsaved<T>(&self, work: impl FnOnce(&mut HashMap<TokenId, TokenRecord>) -> T) -> T {
        work(&mut self.unsaved.lock())
    }
}

/// Closes the store when the writer panics. Workers keep what was published.
struct CloseOnPanic(Arc<Shared>);

impl Drop for CloseOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close("the writer thread ended by a panic".into());
        }
    }
}
