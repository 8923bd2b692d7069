//! The writer: one thread that makes every change, in batches, and is the only publisher. Durable
//! first, then index, snapshot, fence, answer; it never waits for the fence itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};

use super::{
    ChangeError,
    engine::{CommitError, Engine},
    log::Head,
    model::TokenRecord,
    op::{BatchReader, Op},
    record::TokenHead,
    replica::Table,
    sessions::Sessions,
    state::State,
};
use crate::{
    authz::{
        accounts::{Accounts, compile, recompile},
        administration::RefusalCode,
        secret::{Digest, TokenId},
        time::Timestamp,
    },
    fence::{Affected, Fence, Ticket},
    metrics::StoreMetrics,
    state::{self, Snapshot},
};

mod gather;
mod groups;
mod import;
mod issued;
mod once;
mod provided;
mod rate;
mod reload;
mod reports;
mod roles;
mod sessions;
mod tokens;
mod transaction;
mod upkeep;
mod users;

pub(crate) use import::Line;
pub(crate) use provided::Ids;
pub(crate) use rate::WriteRates;
pub(crate) use tokens::Text;
pub(crate) use transaction::{Batch, Transaction};
pub(crate) use upkeep::Upkeep;

use gather::Gather;

/// Commands that wait for the writer; beyond that, callers wait to hand theirs in.
pub(crate) const QUEUE: usize = 1024;
/// A batch ends here, so that the first of it is not kept waiting by the last.
const BATCH: usize = 256;
const BATCH_OPS: usize = 20_000;

const PERMISSION_DENIED: RefusalCode = RefusalCode::PermissionDenied;

/// What the writer and the readers share.
pub(crate) struct Shared {
    pub engine: Arc<Engine>,
    pub state: Arc<state::State>,
    pub accounts: ArcSwap<Accounts>,
    pub sessions: Arc<Sessions>,
    /// Tokens that hold otherwise than the engine knows.
    pub unsaved: Mutex<HashMap<TokenId, TokenRecord>>,
    /// Why no change is taken any more.
    pub closed: Mutex<Option<String>>,
    pub clock: Clock,
    pub metrics: Arc<StoreMetrics>,
}

pub(crate) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What waits in the queue.
pub(crate) enum Command {
    Change(Box<dyn Task>),
    /// Others may have appended to the log.
    Follow(oneshot::Sender<Result<Followed, String>>),
    /// Everything before it is answered, the engine is closed, the thread ends.
    Close(oneshot::Sender<()>),
}

/// A change that can be planned again when its batch could not be committed.
pub(crate) trait Task: Send {
    fn plan(&mut self, tx: &mut Transaction);
    fn fail(&mut self, reason: String);
    fn affected(&self) -> Option<Affected>;
    /// Whether it was planned, not refused.
    fn is_planned(&self) -> bool;
    /// Whether it only takes power away: then it holds even when it cannot be made to last.
    fn only_removes(&self) -> bool;
    fn answer(self: Box<Self>, how: How);
}

/// How far the log was followed.
pub(crate) struct Followed {
    pub head: Head,
    /// Of what was taken away: once these are done it is in force here.
    pub tickets: Vec<Ticket>,
}

/// What became of a planned change.
pub(crate) enum How {
    Durable(Option<Ticket>),
    NotDurable(String, Option<Ticket>),
    Not(String),
}

/// The usual task: a plan that can be run again, and who waits for its answer.
pub(crate) struct Job<T, P> {
    pub plan: P,
    pub planned: Option<Result<T, ChangeError>>,
    pub affected: Option<Affected>,
    pub kind: Kind,
    pub reply: oneshot::Sender<Result<Done<T>, ChangeError>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Counted by [`WriteRates`].
    Usual,
    /// Not counted.
    Exempt,
    /// Only takes power away: it holds even when it cannot be made to last, and is never held up.
    OnlyRemoves,
}

/// A change that is published; its fence may still be on the way.
pub(crate) struct Done<T> {
    pub result: T,
    pub ticket: Option<Ticket>,
    /// Why it may be lost by a restart.
    pub not_durable: Option<String>,
}

pub(crate) struct Writer {
    pub tx: Transaction,
    pub shared: Arc<Shared>,
    pub fence: Arc<Fence>,
    pub upkeep: Upkeep,
}

impl Writer {
    pub(crate) fn run(mut self, queue: mpsc::Receiver<Command>) {
        let guard = CloseOnPanic(self.shared.clone());
        let mut gather = Gather::new(queue);
        while let Some(first) = gather.first() {
            let mut batch = Vec::new();
            let mut next = Some(first);
            let (mut close, mut follow) = (None, None);
            let before = self.tx.state.clone();
            while let Some(command) = next.take() {
                match command {
                    Command::Change(mut task) => {
                        self.plan(&mut *task);
                        batch.push(task);
                    }
                    Command::Follow(done) => {
                        follow = Some(done);
                        break;
                    }
                    Command::Close(done) => {
                        close = Some(done);
                        break;
                    }
                }
                if batch.len() < BATCH && self.tx.batch.ops.len() < BATCH_OPS {
                    next = gather.next(batch.len());
                }
            }
            let (count, began) = (batch.len(), Instant::now());
            self.finish(batch, before);
            gather.answered(count, began.elapsed());
            if let Some(done) = follow {
                let _ = done.send(self.follow());
            }
            if let Some(done) = close {
                self.shared.close("the store was closed".into());
                for command in gather.close() {
                    let Command::Change(task) = command else { break };
                    task.answer(How::Not("the store was closed".into()));
                }
                self.shared.engine.close();
                drop(guard);
                let _ = done.send(());
                return;
            }
            self.keep_up();
        }
        self.shared.close("the store was closed".into());
        self.shared.engine.close();
    }

    /// Plans a change on top of the batch; one that cannot be written leaves nothing in it.
    fn plan(&mut self, task: &mut dyn Task) {
        self.tx.now = (self.shared.clock)();
        let (before, count) = (self.tx.state.clone(), self.tx.batch.ops.len());
        task.plan(&mut self.tx);
        let Some(error) = self.tx.failed.take() else { return };
        tracing::warn!(%error, "a change cannot be written");
        task.fail(error.to_string());
        self.tx.state = before;
        let effects = std::mem::take(&mut self.tx.batch.effects);
        let shown = std::mem::take(&mut self.tx.batch.shown);
        let mut ops = std::mem::take(&mut self.tx.batch).ops;
        ops.truncate(count);
        self.tx.batch = Batch { ops, effects, shown, ..Batch::default() };
        for op in &self.tx.batch.ops {
            // Each of them has been staged before.
            drop(self.shared.engine.stage(&mut self.tx.batch.staged, op));
        }
    }

    /// Commits what was planned, publishes it and answers; or goes back to `before`.
    fn finish(&mut self, mut batch: Vec<Box<dyn Task>>, before: State) {
        if !self.tx.batch.ops.is_empty() {
            for affected in batch.iter().filter(|task| task.is_planned()).filter_map(|task| task.affected()) {
                self.tx.apply(Op::Affects(self.tx.whom(affected)));
            }
        }
        let planned = batch.iter().filter(|task| task.is_planned()).count();
        match self.commit(planned) {
            Ok(()) => {
                self.publish();
                for task in batch {
                    let ticket = self.raise(&*task);
                    task.answer(How::Durable(ticket));
                }
            }
            Err(CommitError::Moved) => {
                self.tx.state = before;
                self.tx.batch = Batch::default();
                if let Err(reason) = self.follow() {
                    batch.into_iter().for_each(|task| task.answer(How::Not(reason.clone())));
                    return;
                }
                let before = self.tx.state.clone();
                batch.iter_mut().for_each(|task| self.plan(&mut **task));
                self.finish(batch, before);
            }
            Err(CommitError::Refused(reason)) if batch.len() > 1 => {
                tracing::warn!(
                    reason,
                    "a batch of changes was refused by the engine; trying them one by one"
                );
                self.tx.state = before;
                self.tx.batch = Batch::default();
                for mut task in batch {
                    let before = self.tx.state.clone();
                    self.plan(&mut *task);
                    self.finish(vec![task], before);
                }
            }
            Err(error) => {
                let reason = error.to_string();
                self.tx.state = before;
                self.tx.batch = Batch::default();
                // A removal that holds only in memory would look done to whoever repeats it: from
                // there on, every answer says that nothing lasts.
                if matches!(error, CommitError::Failed(_))
                    || batch.iter().any(|task| task.only_removes() && task.is_planned())
                {
                    self.lost(&reason);
                }
                for task in batch {
                    self.without_engine(task, &reason);
                }
            }
        }
    }

    fn lost(&self, reason: &str) {
        if self.shared.closed().is_none() {
            tracing::error!(reason, "changes do not last any more: restart permgate when the disk is sound");
            self.shared.close(reason.to_owned());
        }
    }

    /// Makes the batch durable.
    fn commit(&mut self, planned: usize) -> Result<(), CommitError> {
        if let Some(reason) = self.shared.closed() {
            return Err(CommitError::Failed(reason));
        }
        let Batch { ops, staged, .. } = &self.tx.batch;
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
                // What is stored is right again about these.
                self.shared.unsaved(|unsaved| {
                    let stored = |op: &Op, id| matches!(op, Op::PutToken(token) if token.id == id);
                    unsaved.retain(|id, _| !ops.iter().any(|op| stored(op, *id)));
                });
            }
            Err(CommitError::Failed(_)) => metrics.sync_failures.add(1),
            Err(CommitError::Refused(_) | CommitError::Moved) => {}
        }
        committed
    }

    /// Applies what others have appended to the log, as the same operations of our own would be. Answers
    /// how far that is, and the fences that were raised for it.
    fn follow(&mut self) -> Result<Followed, String> {
        let engine = self.shared.engine.clone();
        let mut reader = BatchReader::new(engine.head());
        let mut tickets = Vec::new();
        loop {
            let batches = engine.behind(&mut reader).map_err(|error| error.to_string())?;
            if batches.is_empty() {
                return Ok(Followed { head: engine.head(), tickets });
            }
            for (ops, head) in batches {
                ops.into_iter().for_each(|op| self.tx.apply(op));
                let applied = match self.tx.failed.take() {
                    Some(error) => Err(format!("position {} of the log: {error}", head.position)),
                    None => engine.follow(&self.tx.batch.staged, head).map_err(|error| error.to_string()),
                };
                if let Err(reason) = applied {
                    // This node no longer knows what holds.
                    self.lost(&reason);
                    return Err(reason);
                }
                let affected = std::mem::take(&mut self.tx.batch.effects.affected);
                self.publish();
                tickets.extend(affected.into_iter().map(|affected| self.fence.raise(affected)));
            }
        }
    }

    /// A change that only takes power away holds at once, though it does not last.
    fn without_engine(&mut self, mut task: Box<dyn Task>, reason: &str) {
        if !task.only_removes() {
            // A refusal stands; what would have been done has not been.
            return task.answer(How::Not(reason.to_owned()));
        }
        let audit = self.tx.state.audit;
        self.plan(&mut *task);
        self.tx.state.audit = audit;
        if task.is_planned() {
            for op in &self.tx.batch.ops {
                if let Op::AppendAudit(event) = op {
                    let (event, actor, target) = (&event.event, &event.actor, &event.target);
                    tracing::warn!(event, actor, target, reason, "in force, but not durable");
                }
            }
            let tokens = self.tx.batch.ops.iter().filter_map(|op| match op {
                Op::PutToken(record) => Some((record.id, record.clone())),
                _ => None,
            });
            self.shared.unsaved(|unsaved| unsaved.extend(tokens));
        }
        self.publish();
        let ticket = self.raise(&*task);
        task.answer(How::NotDurable(reason.to_owned(), ticket));
    }

    /// The one way by which a batch reaches workers and the admin listener, whoever planned it: index
    /// first, then the snapshot.
    fn publish(&mut self) {
        let Batch { staged, effects, shown, .. } = std::mem::take(&mut self.tx.batch);
        let (state, ids) = (&self.tx.state, &mut self.tx.ids);
        let published = &self.shared.state;
        let index = published.index();
        for token in
            shown.iter().filter_map(|record| Some((record.digest, state.compile(record.head(), ids)?)))
        {
            index.put(token.0, token.1);
        }
        for (digest, row) in staged.changes(Table::Tokens) {
            let Ok(digest) = digest.try_into().map(Digest::from_bytes) else { continue };
            match row.and_then(|row| state.compile(TokenHead::decode(row).ok()?, ids)) {
                Some(token) => index.put(digest, token),
                None => index.remove(&digest),
            }
        }
        index.set_imported(index.imported().saturating_add_signed(staged.imported()));
        self.shared.sessions.apply(&staged);
        if effects.users.is_empty() && !effects.everybody {
            return;
        }
        let directory = if effects.everybody {
            compile(&state.accounts, &state.rules)
        } else {
            let now = published.snapshot();
            recompile(&now.directory, &state.accounts, &state.rules, &effects.users)
        };
        self.shared.accounts.store(Arc::new(state.accounts.clone()));
        published.publish(Snapshot {
            rules: state.rules.clone(),
            directory: Arc::new(directory),
            proxy: state.proxy.clone(),
        });
    }

    fn raise(&self, task: &dyn Task) -> Option<Ticket> {
        if !task.is_planned() {
            return None;
        }
        task.affected().map(|affected| self.fence.raise(affected))
    }
}

impl Shared {
    pub(crate) fn closed(&self) -> Option<String> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first reason stays.
    pub(crate) fn close(&self, reason: String) {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
    }

    fn unsaved<T>(&self, work: impl FnOnce(&mut HashMap<TokenId, TokenRecord>) -> T) -> T {
        work(&mut self.unsaved.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T, P> Task for Job<T, P>
where
    T: Send,
    P: FnMut(&mut Transaction) -> Result<T, ChangeError> + Send,
{
    fn plan(&mut self, tx: &mut Transaction) {
        tx.affected = None;
        tx.counted = self.kind == Kind::Usual;
        self.planned = Some((self.plan)(tx));
        if self.is_planned() {
            tx.drop_orphaned_invitations();
        }
        self.affected = tx.affected.take();
    }

    fn fail(&mut self, reason: String) {
        self.planned = Some(Err(ChangeError::Closed(reason)));
        self.affected = None;
    }

    fn affected(&self) -> Option<Affected> {
        self.affected
    }

    fn is_planned(&self) -> bool {
        matches!(self.planned, Some(Ok(_)))
    }

    fn only_removes(&self) -> bool {
        self.kind == Kind::OnlyRemoves
    }

    fn answer(self: Box<Self>, how: How) {
        let answer = match (self.planned, how) {
            (Some(Err(refused)), _) => Err(refused),
            (None, How::Not(reason)) | (Some(Ok(_)), How::Not(reason)) => Err(ChangeError::Closed(reason)),
            (None, _) => Err(ChangeError::Closed("the change was never planned".into())),
            (Some(Ok(result)), How::Durable(ticket)) => Ok(Done { result, ticket, not_durable: None }),
            (Some(Ok(result)), How::NotDurable(reason, ticket)) => {
                Ok(Done { result, ticket, not_durable: Some(reason) })
            }
        };
        // Who asked may have gone away; the change holds all the same.
        let _ = self.reply.send(answer);
    }
}

/// A writer that panics takes no more changes; what workers read stays as it was published.
struct CloseOnPanic(Arc<Shared>);

impl Drop for CloseOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close("the writer thread ended by a panic".into());
        }
    }
}
