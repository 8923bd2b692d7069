//! A change on its way through the writer: a plan that can be run again, and the caller that waits.

use std::mem;

use tokio::sync::oneshot;

use super::Transaction;
use crate::{
    fence::{Affected, Completion},
    store::{ChangeError, cluster::Completed, state::Effects},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskKind {
    /// Counted by [`WriteRates`](super::WriteRates).
    Counted,
    /// Not counted.
    Exempt,
    /// Not counted, and removes nothing: no other node is waited for.
    Unfenced,
    /// Only removes power: takes effect even if it cannot be made durable, and is never held up.
    OnlyRemoves,
}

type Plan = Box<dyn FnMut(&mut Transaction) -> Result<(), ChangeError> + Send>;

pub(crate) struct Task {
    kind: TaskKind,
    plan: Plan,
    /// The result of the plan.
    planned: Result<(), ChangeError>,
    /// Whether a run of the plan has counted it for its account's rate.
    was_counted: bool,
    /// From whom it takes something.
    pub affected: Option<Affected>,
    reply: oneshot::Sender<Result<Published, ChangeError>>,
}

/// A change that is published; its fence may be incomplete.
pub(crate) struct Published {
    /// Its fence on this node.
    pub completion: Option<Completion>,
    /// Its fence on every node, this one included.
    pub on_all_nodes: Option<oneshot::Receiver<Completed>>,
    /// Why a restart may lose it.
    pub not_durable: Option<String>,
}

impl Task {
    pub(crate) fn new(
        kind: TaskKind,
        plan: Plan,
        reply: oneshot::Sender<Result<Published, ChangeError>>,
    ) -> Self {
        Self { kind, plan, planned: Ok(()), was_counted: false, affected: None, reply }
    }

    /// The same change without a caller. This one is not planned again.
    pub(super) fn detach(&mut self) -> Self {
        let plan = mem::replace(&mut self.plan, Box::new(|_| Ok(())));
        Self { affected: self.affected, ..Self::new(self.kind, plan, oneshot::channel().0) }
    }

    pub(crate) fn plan(&mut self, tx: &mut Transaction) {
        tx.affected = None;
        tx.power_changes = Effects::default();
        tx.counted = self.kind == TaskKind::Counted;
        tx.was_counted = self.was_counted;
        self.planned = (self.plan)(tx);
        self.was_counted = tx.was_counted;
        if self.is_planned() {
            tx.drop_orphaned_invitations();
        }
        self.affected = tx.affected.take().filter(|_| self.is_planned());
    }

    /// What was planned cannot be written.
    pub(crate) fn fail(&mut self, reason: String) {
        self.planned = Err(ChangeError::Closed(reason));
        self.affected = None;
    }

    /// Whether it was planned, not refused.
    pub(crate) fn is_planned(&self) -> bool {
        self.planned.is_ok()
    }

    pub(crate) fn only_removes(&self) -> bool {
        self.kind == TaskKind::OnlyRemoves
    }

    /// Whether it is answered only once it is in force on every node.
    pub(crate) fn is_fenced(&self) -> bool {
        self.is_planned() && self.kind != TaskKind::Unfenced
    }

    /// Why it was refused, if it was.
    pub(super) fn refusal(&self) -> Option<&ChangeError> {
        self.planned.as_ref().err()
    }

    /// Why the change could not be written, if it was refused for that.
    pub(crate) fn unwritable(&self) -> Option<&str> {
        match &self.planned {
            Err(ChangeError::Closed(reason)) => Some(reason),
            _ => None,
        }
    }

    /// Answers the caller; a refusal takes precedence.
    pub(crate) fn answer(self, published: Result<Published, ChangeError>) {
        let answer = self.planned.and(published);
        // The caller may be gone; the change is in force all the same.
        let _ = self.reply.send(answer);
    }
}
