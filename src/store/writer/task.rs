//! A change on its way through the writer: a plan that can be run again, and who waits for its answer.

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
    Usual,
    /// Not counted.
    Exempt,
    /// Not counted, and takes nothing away: no other node is waited for.
    Unfenced,
    /// Only takes power away: it holds even when it cannot be made to last, and is never held up.
    OnlyRemoves,
}

type Plan = Box<dyn FnMut(&mut Transaction) -> Result<(), ChangeError> + Send>;

pub(crate) struct Task {
    kind: TaskKind,
    plan: Plan,
    /// What the plan came to.
    planned: Result<(), ChangeError>,
    /// Whom it takes something from.
    pub affected: Option<Affected>,
    reply: oneshot::Sender<Result<Published, ChangeError>>,
}

/// A change that is published; its fence may still be on the way.
pub(crate) struct Published {
    /// Its fence on this node.
    pub ticket: Option<Completion>,
    /// Its fence on every node, this one included.
    pub everywhere: Option<oneshot::Receiver<Completed>>,
    /// Why it may be lost by a restart.
    pub not_durable: Option<String>,
}

impl Task {
    pub(crate) fn new(
        kind: TaskKind,
        plan: Plan,
        reply: oneshot::Sender<Result<Published, ChangeError>>,
    ) -> Self {
        Self { kind, plan, planned: Ok(()), affected: None, reply }
    }

    /// The same change, for whose answer nobody waits; this one is planned no more.
    pub(super) fn again(&mut self) -> Self {
        let plan = mem::replace(&mut self.plan, Box::new(|_| Ok(())));
        Self { affected: self.affected, ..Self::new(self.kind, plan, oneshot::channel().0) }
    }

    pub(crate) fn plan(&mut self, tx: &mut Transaction) {
        tx.affected = None;
        tx.changed = Effects::default();
        tx.counted = self.kind == TaskKind::Usual;
        self.planned = (self.plan)(tx);
        if self.is_planned() {
            tx.drop_orphaned_invitations();
        }
        self.affected = tx.affected.take().filter(|_| self.is_planned());
    }

    /// What was planned cannot be.
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

    /// Whether it is answered only when it is in force on every node.
    pub(crate) fn is_fenced(&self) -> bool {
        self.is_planned() && self.kind != TaskKind::Unfenced
    }

    /// Why it was refused, if it was.
    pub(super) fn refusal(&self) -> Option<&ChangeError> {
        self.planned.as_ref().err()
    }

    /// Why what was asked for could not be written, if that is so.
    pub(crate) fn unwritable(&self) -> Option<&str> {
        match &self.planned {
            Err(ChangeError::Closed(reason)) => Some(reason),
            _ => None,
        }
    }

    /// A refusal stands.
    pub(crate) fn answer(self, published: Result<Published, ChangeError>) {
        let answer = self.planned.and(published);
        // Who asked may have gone away; the change holds all the same.
        let _ = self.reply.send(answer);
    }
}
