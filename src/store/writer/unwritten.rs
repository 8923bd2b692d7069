//! Removals that are in force on this node although the log in etcd could not be written. They are kept,
//! and written once that is possible, on top of what other nodes have written meanwhile.

use std::{
    mem,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Batch, CommitError, Published, State, Task, Writer};
use crate::store::{ChangeError, model::AuditEvent, op::Op, replica::Table};

/// Maximum removals to keep. Beyond that, the node accepts no changes until it is restarted.
const MAX_UNWRITTEN: usize = 10_000;

/// Pause between tries.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct Unwritten {
    /// The state as the log has it, without the removals.
    pub logged: State,
    tasks: Vec<Task>,
    /// The audit events of each removal.
    audit_events: Vec<Vec<AuditEvent>>,
    last_try: Instant,
}

impl Writer {
    /// Puts a change in force that only removes power, although it is not durable. Refuses any other
    /// change.
    pub(super) fn apply_undurable(&mut self, mut task: Task, error: ChangeError, closes: bool) {
        if !task.only_removes() {
            return task.answer(Err(error));
        }
        let reason = error.to_string();
        let before = self.tx.state.clone();
        self.tx.batch.staged.ignore_damage = true;
        self.plan(&mut task);
        self.tx.state.audit = before.audit;
        // A repetition finds it done already and plans nothing. Its answer says that it is not durable, as
        // every answer does until the removals that are kept have been written.
        if task.is_planned() && !self.tx.batch.ops.is_empty() {
            let (mut audit_events, mut tokens) = (Vec::new(), Vec::new());
            for op in &self.tx.batch.ops {
                match op {
                    Op::AppendAudit(event) => audit_events.push(event.clone()),
                    Op::PutToken(record) => tokens.push((record.id, record.clone())),
                    _ => {}
                }
            }
            for AuditEvent { event, actor, target, .. } in &audit_events {
                tracing::warn!(event, actor, target, reason, "in force, but not durable");
            }
            if closes || !self.keep_unwritten(task.detach(), audit_events, before) {
                self.close_after(&reason);
            }
            self.shared.unsaved(|unsaved| unsaved.extend(tokens));
        }
        self.publish();
        let (completion, not_durable) = (self.raise(&task), Some(reason));
        task.answer(Ok(Published { completion, on_all_nodes: None, not_durable }));
    }

    /// Keeps a removal that is in force here, with its audit events. `logged`: the state of the log without
    /// it. Returns `false` if there are too many.
    fn keep_unwritten(&mut self, task: Task, audit_events: Vec<AuditEvent>, logged: State) -> bool {
        let unwritten = self.unwritten.get_or_insert_with(|| {
            let last_try = Instant::now();
            Unwritten { logged, tasks: Vec::new(), audit_events: Vec::new(), last_try }
        });
        if unwritten.tasks.len() == MAX_UNWRITTEN {
            return false;
        }
        unwritten.tasks.push(task);
        unwritten.audit_events.push(audit_events);
        self.shared.unwritten.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Plans the kept removals again on top of another node's batch, which is in the log and about to be
    /// published: it has the rows without them.
    pub(super) fn reapply_unwritten(&mut self) {
        let Some(Unwritten { logged, tasks, .. }) = &mut self.unwritten else { return };
        let effects = &self.tx.batch.effects;
        let undone = self.shared.unsaved(|unsaved| {
            self.tx.batch.ops.iter().any(|op| match op {
                Op::PutToken(token) => unsaved.contains_key(&token.id),
                Op::PutSession(_) | Op::PutInvitation(_) | Op::PutIdentity(_) => true,
                _ => false,
            })
        });
        if !undone && effects.users.is_empty() && !effects.all_users {
            return;
        }
        let (logged, mut tasks) = (logged.clone(), mem::take(tasks));
        let followed = mem::take(&mut self.tx.batch);
        self.tx.state = logged.clone();
        self.tx.as_logged = true;
        self.tx.batch.staged.ignore_damage = true;
        tasks.iter_mut().for_each(|task| self.plan(task));
        self.tx.as_logged = false;
        self.tx.state.audit = logged.audit;
        let Batch { ops, mut staged, effects, .. } = mem::replace(&mut self.tx.batch, followed);
        let tokens = ops.into_iter().filter_map(|op| match op {
            Op::PutToken(record) => Some(record),
            _ => None,
        });
        let tokens: Vec<_> = tokens.collect();
        self.shared.unsaved(|unsaved| unsaved.extend(tokens.iter().map(|token| (token.id, token.clone()))));
        self.tx.batch.republished.extend(tokens);
        self.tx.batch.effects.add(effects);
        // One that is refused now is no longer in the state.
        self.tx.batch.effects.all_users |= tasks.iter().any(|task| task.refusal().is_some());
        // The followed batch is in the log: what is left of it here is only published.
        for table in [Table::Sessions, Table::Invitations, Table::IdentityCache] {
            self.tx.batch.staged.overlay(&mut staged, table);
        }
        if let Some(unwritten) = &mut self.unwritten {
            unwritten.tasks = tasks;
        }
    }

    /// Audits that a removal was in force here, but no longer fits what other nodes have changed, and has
    /// ended.
    fn note_reverted(&mut self, error: &ChangeError, audit_events: &[AuditEvent]) {
        for AuditEvent { event, actor, target, request_id, .. } in audit_events {
            tracing::warn!(event, actor, target, %error, "a removal was in force on this node, but other nodes' changes contradict it: it is undone");
            let change = json!({"event": event, "by": actor, "reason": error.to_string()});
            let reverted = AuditEvent::new(self.tx.now, "removal.revert", "system", target, Some(change));
            self.tx.audit(AuditEvent { request_id: request_id.clone(), ..reverted });
        }
    }

    /// Tries to write the removals that are in force here but not in etcd yet. Until that has succeeded, no
    /// other change is written.
    pub(super) fn write_unwritten(&mut self) {
        let due = |unwritten: &mut Unwritten| unwritten.last_try.elapsed() >= RETRY_INTERVAL;
        let Some(Unwritten { logged, mut tasks, audit_events, .. }) = self.unwritten.take_if(due) else {
            return;
        };
        let in_force = mem::replace(&mut self.tx.state, logged.clone());
        self.tx.as_logged = true;
        for (task, audit_events) in tasks.iter_mut().zip(&audit_events) {
            self.plan(task);
            // What cannot be read contradicts nothing.
            if let Some(error) = task.refusal().filter(|_| task.unwritable().is_none()) {
                self.note_reverted(error, audit_events);
            }
        }
        self.tx.as_logged = false;
        self.add_affected(&tasks);
        let planned = tasks.iter().filter(|task| task.is_planned()).count();
        let unreadable = tasks.iter().find_map(Task::unwritable).map(ToOwned::to_owned);
        let committed = match unreadable {
            Some(reason) => Err(CommitError::Failed(reason)),
            None => self.commit(planned),
        };
        match committed {
            Ok(()) => {
                tracing::info!(planned, "the removals made while etcd could not be written are now durable");
                self.shared.unwritten.store(0, Ordering::Relaxed);
                self.shared.metrics.reverted.add((tasks.len() - planned) as u64);
                // The tokens left in `unsaved` are those whose removal was refused: they are again as the
                // log has them.
                let unsaved = self.shared.unsaved(mem::take);
                let logged = unsaved.into_keys().filter_map(|id| self.tx.rows().token(id).ok().flatten());
                let logged: Vec<_> = logged.collect();
                self.tx.batch.republished.extend(logged);
                self.tx.batch.effects.all_users = true;
                // No caller waits for these answers any more.
                drop(self.publish_all(tasks));
            }
            Err(error) => {
                self.tx.batch = Batch::default();
                self.tx.state = in_force;
                self.unwritten = Some(Unwritten { logged, tasks, audit_events, last_try: Instant::now() });
                match error {
                    CommitError::Failed(reason) => self.close_after(&reason),
                    // The entries of other nodes are applied to both states; the next try starts from
                    // there.
                    CommitError::Conflict(to) => drop(self.follow(to)),
                    CommitError::Refused(reason)
                    | CommitError::Unavailable(reason)
                    | CommitError::UnknownOutcome(reason) => {
                        tracing::debug!(
                            reason,
                            "removals that are in force on this node cannot be written yet"
                        );
                    }
                }
            }
        }
    }
}
