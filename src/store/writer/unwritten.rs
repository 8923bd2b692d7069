//! Removals that are in force on this node although the log in etcd could not be written. They are kept,
//! and written once that is possible, on top of what other nodes have written meanwhile.

use std::{
    mem,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Batch, CommitError, State, Task, Writer};
use crate::store::{ChangeError, audit::NewAuditEvent, model::AuditEvent};

/// Maximum removals to keep. Beyond that, the node accepts no changes until it is restarted.
const MOST: usize = 10_000;

/// Pause between tries.
const AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Unwritten {
    /// The state as the log has it, without the removals.
    pub logged: State,
    tasks: Vec<Task>,
    /// The audit events of each removal.
    told: Vec<Vec<AuditEvent>>,
    tried: Instant,
}

impl Writer {
    /// Keeps a removal that is in force here. `told`: its audit events; `logged`: the state of the log
    /// without it. Fails if there are too many.
    pub(super) fn keep_unwritten(
        &mut self,
        task: Task,
        told: Vec<AuditEvent>,
        logged: State,
    ) -> Result<(), TooMany> {
        let unwritten = self.unwritten.get_or_insert_with(|| {
            let tried = Instant::now();
            Unwritten { logged, tasks: Vec::new(), told: Vec::new(), tried }
        });
        if unwritten.tasks.len() == MOST {
            return Err(TooMany);
        }
        unwritten.tasks.push(task);
        unwritten.told.push(told);
        self.shared.unwritten.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Audits that a removal was in force here, but no longer fits what other nodes have changed, and has
    /// ended.
    fn note_reverted(&mut self, error: &ChangeError, told: &[AuditEvent]) {
        for AuditEvent { event, actor, target, request_id, .. } in told {
            tracing::warn!(event, actor, target, %error, "a removal was in force on this node, but other nodes' changes contradict it: it is undone");
            let change = json!({"event": event, "by": actor, "reason": error.to_string()});
            let reverted = NewAuditEvent::new("removal.revert", "system", target.clone(), Some(change));
            self.tx.audit(NewAuditEvent { request_id: request_id.clone(), ..reverted });
        }
    }

    /// Tries to write what is kept. Until that has succeeded, no other change is written.
    pub(super) fn write_unwritten(&mut self) {
        let due = |unwritten: &mut Unwritten| unwritten.tried.elapsed() >= AGAIN;
        let Some(Unwritten { logged, mut tasks, told, .. }) = self.unwritten.take_if(due) else { return };
        let in_force = mem::replace(&mut self.tx.state, logged.clone());
        self.tx.as_logged = true;
        for (task, told) in tasks.iter_mut().zip(&told) {
            self.plan(task);
            if let Some(error) = task.refusal() {
                self.note_reverted(error, told);
            }
        }
        self.tx.as_logged = false;
        self.add_affected(&tasks);
        let planned = tasks.iter().filter(|task| task.is_planned()).count();
        match self.commit(planned) {
            Ok(()) => {
                tracing::info!(planned, "the removals made while etcd could not be written are now durable");
                self.shared.unwritten.store(0, Ordering::Relaxed);
                self.shared.metrics.reverted.add((tasks.len() - planned) as u64);
                // The tokens left in `unsaved` are those whose removal was refused: they are again as the
                // log has them.
                let unsaved = self.shared.unsaved(mem::take);
                let logged = unsaved.into_keys().filter_map(|id| self.tx.rows().token(id).ok().flatten());
                let logged: Vec<_> = logged.collect();
                self.tx.batch.shown.extend(logged);
                self.tx.batch.effects.everybody = true;
                // No caller waits for these answers any more.
                drop(self.publish_all(tasks));
            }
            Err(error) => {
                self.tx.batch = Batch::default();
                self.tx.state = in_force;
                self.unwritten = Some(Unwritten { logged, tasks, told, tried: Instant::now() });
                match error {
                    CommitError::Failed(reason) => self.lost(&reason),
                    // The entries of other nodes are applied to both states; the next try starts from
                    // there.
                    CommitError::Moved(to) => drop(self.follow(to)),
                    CommitError::Refused(reason)
                    | CommitError::Unavailable(reason)
                    | CommitError::Unclear(reason) => {
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

/// There are more removals than can be kept.
pub(super) struct TooMany;
