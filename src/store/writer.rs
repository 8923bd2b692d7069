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
    model::TokenRecord,
    op::Op,
    sessions::Sessions,
};
use crate::{
    authz::{
        accounts::{Accounts, compile, recompile},
        administration::RefusalCode,
        secret::TokenId,
        time::Timestamp,
    },
    fence::{Affected, Completion, Fence},
    metrics::StoreMetrics,
    state::{Snapshot, State},
};

mod desk;
mod gather;
mod groups;
mod import;
mod issued;
mod once;
mod provided;
mod reload;
mod reports;
mod roles;
mod sessions;
mod tokens;
mod upkeep;
mod users;

pub(crate) use desk::{Desk, Pending, Replaced, Standing, intern};
pub(crate) use import::Line;
pub(crate) use provided::Ids;
pub(crate) use tokens::Text;
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
    pub state: Arc<State>,
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
    /// Everything before it is answered, the engine is closed, the thread ends.
    Close(oneshot::Sender<()>),
}

/// A change that can be planned again when its batch could not be committed.
pub(crate) trait Task: Send {
    fn plan(&mut self, desk: &mut Desk);
    fn affected(&self) -> Option<Affected>;
    /// Whether it was planned, not refused.
    fn is_planned(&self) -> bool;
    /// Whether it only takes power away: then it holds even when it cannot be made to last.
    fn only_removes(&self) -> bool;
    fn answer(self: Box<Self>, how: How);
}

/// What became of a planned change.
pub(crate) enum How {
    Durable(Option<Completion>),
    NotDurable(String, Option<Completion>),
    Not(String),
}

/// The usual task: a plan that can be run again, and who waits for its answer.
pub(crate) struct Job<T, P> {
    pub plan: P,
    pub planned: Option<Result<T, ChangeError>>,
    pub affected: Option<Affected>,
    pub only_removes: bool,
    pub reply: oneshot::Sender<Result<Done<T>, ChangeError>>,
}

/// A change that is published; its fence may still be on the way.
pub(crate) struct Done<T> {
    pub result: T,
    pub ticket: Option<Completion>,
    /// Why it may be lost by a restart.
    pub not_durable: Option<String>,
}

pub(crate) struct Writer {
    pub desk: Desk,
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
            let mut close = None;
            let before = self.desk.standing.clone();
            while let Some(command) = next.take() {
                match command {
                    Command::Change(mut task) => {
                        self.desk.now = (self.shared.clock)();
                        task.plan(&mut self.desk);
                        batch.push(task);
                    }
                    Command::Close(done) => {
                        close = Some(done);
                        break;
                    }
                }
                if batch.len() < BATCH && self.desk.pending.ops.len() < BATCH_OPS {
                    next = gather.next(batch.len());
                }
            }
            let (count, began) = (batch.len(), Instant::now());
            self.finish(batch, before);
            gather.answered(count, began.elapsed());
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

    /// Commits what was planned, publishes it and answers; or goes back to `before`.
    fn finish(&mut self, mut batch: Vec<Box<dyn Task>>, before: Standing) {
        let mut pending = std::mem::take(&mut self.desk.pending);
        if !pending.ops.is_empty() {
            let affected = batch.iter().filter(|task| task.is_planned()).filter_map(|task| task.affected());
            pending.ops.extend(affected.map(|affected| Op::Affects(self.desk.whom(affected))));
        }
        let closed = self.shared.closed();
        let committed = match &closed {
            Some(reason) => Err(CommitError::Failed(reason.clone())),
            None if pending.ops.is_empty() => Ok(()),
            None => self.commit(&pending, &batch),
        };
        match committed {
            Ok(()) => {
                self.saved(&pending);
                self.publish(pending);
                for task in batch {
                    let ticket = self.raise(&*task);
                    task.answer(How::Durable(ticket));
                }
            }
            Err(CommitError::Refused(reason)) if batch.len() > 1 => {
                tracing::warn!(
                    reason,
                    "a batch of changes was refused by the engine; trying them one by one"
                );
                self.desk.standing = before;
                for mut task in batch {
                    let before = self.desk.standing.clone();
                    task.plan(&mut self.desk);
                    self.finish(vec![task], before);
                }
            }
            Err(error) => {
                let reason = error.to_string();
                self.desk.standing = before;
                // A removal that holds only in memory would look done to whoever repeats it: from
                // there on, every answer says that nothing lasts.
                let lost = matches!(error, CommitError::Failed(_))
                    || batch.iter().any(|task| task.only_removes() && task.is_planned());
                if lost && closed.is_none() {
                    tracing::error!(
                        reason,
                        "changes do not last any more: restart permgate when the disk is sound"
                    );
                    self.shared.close(reason.clone());
                }
                for task in batch.drain(..) {
                    self.without_engine(task, &reason);
                }
            }
        }
    }

    fn commit(&self, pending: &Pending, batch: &[Box<dyn Task>]) -> Result<(), CommitError> {
        let (metrics, began) = (&self.shared.metrics, Instant::now());
        let committed = self.shared.engine.commit(&pending.ops);
        match &committed {
            Ok(()) => {
                let planned = batch.iter().filter(|task| task.is_planned()).count();
                metrics.commits.add(1);
                metrics.changes.add(u64::try_from(planned).unwrap_or(u64::MAX));
                metrics.commit_duration.observe(began.elapsed());
            }
            Err(CommitError::Failed(_)) => metrics.sync_failures.add(1),
            Err(CommitError::Refused(_)) => {}
        }
        committed
    }

    /// A change that only takes power away holds at once, though it does not last.
    fn without_engine(&mut self, mut task: Box<dyn Task>, reason: &str) {
        if !task.only_removes() {
            // A refusal stands; what would have been done has not been.
            return task.answer(How::Not(reason.to_owned()));
        }
        let audit = self.desk.standing.audit;
        task.plan(&mut self.desk);
        self.desk.standing.audit = audit;
        let pending = std::mem::take(&mut self.desk.pending);
        if task.is_planned() {
            for op in &pending.ops {
                if let Op::AppendAudit(event) = op {
                    let (event, actor, target) = (&event.event, &event.actor, &event.target);
                    tracing::warn!(event, actor, target, reason, "in force, but not durable");
                }
            }
            let changed = pending.tokens.iter().map(|(id, record)| (*id, record.clone()));
            self.desk.unsaved.extend(changed);
            self.shared.set_unsaved(&self.desk.unsaved);
        }
        self.publish(pending);
        let ticket = self.raise(&*task);
        task.answer(How::NotDurable(reason.to_owned(), ticket));
    }

    /// The engine is right again about these.
    fn saved(&mut self, pending: &Pending) {
        if !self.desk.unsaved.is_empty() {
            self.desk.unsaved.retain(|id, _| !pending.tokens.contains_key(id));
            self.shared.set_unsaved(&self.desk.unsaved);
        }
    }

    /// Index first, then the snapshot.
    fn publish(&mut self, pending: Pending) {
        let index = self.shared.state.index();
        for (digest, token) in pending.index {
            match token {
                Some(token) => index.put(digest, token),
                None => index.remove(&digest),
            }
        }
        index.set_imported(self.desk.standing.imported);
        for (digest, session) in pending.sessions {
            self.shared.sessions.put(digest, session);
        }
        for (digest, invitation) in pending.invitations {
            self.shared.sessions.put_invitation(digest, invitation);
        }
        for (key, identity) in pending.identities {
            self.shared.sessions.put_identity(key, identity);
        }
        if pending.users.is_empty() && !pending.everybody {
            return;
        }
        let standing = &self.desk.standing;
        let directory = if pending.everybody {
            compile(&standing.accounts, &standing.rules)
        } else {
            let now = self.shared.state.snapshot();
            recompile(&now.directory, &standing.accounts, &standing.rules, &pending.users)
        };
        self.shared.accounts.store(Arc::new(standing.accounts.clone()));
        self.shared.state.publish(Snapshot {
            rules: standing.rules.clone(),
            directory: Arc::new(directory),
            proxy: standing.proxy.clone(),
        });
    }

    fn raise(&self, task: &dyn Task) -> Option<Completion> {
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

    fn set_unsaved(&self, unsaved: &HashMap<TokenId, TokenRecord>) {
        unsaved.clone_into(&mut self.unsaved.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl<T, P> Task for Job<T, P>
where
    T: Send,
    P: FnMut(&mut Desk) -> Result<T, ChangeError> + Send,
{
    fn plan(&mut self, desk: &mut Desk) {
        desk.affected = None;
        self.planned = Some((self.plan)(desk));
        if self.is_planned() {
            desk.drop_orphaned_invitations();
        }
        self.affected = desk.affected.take();
    }

    fn affected(&self) -> Option<Affected> {
        self.affected
    }

    fn is_planned(&self) -> bool {
        matches!(self.planned, Some(Ok(_)))
    }

    fn only_removes(&self) -> bool {
        self.only_removes
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
