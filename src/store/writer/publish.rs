//! Publishes batches to the workers and the admin listener, whichever node planned them.

use std::{collections::HashSet, sync::Arc};

use super::{Batch, Published, Task, Transaction, Writer};
use crate::{
    authz::{
        accounts::{compile, recompile},
        secret::Digest,
    },
    fence::Completion,
    state::Snapshot,
    store::{
        cluster::MemberChange,
        log::Head,
        op::{BatchReader, Op},
        record::TokenHead,
        replica::Table,
    },
};

/// How far the log was followed.
pub(crate) struct FollowResult {
    pub head: Head,
    /// The fences of what was taken away. Once they are complete, it is in force here.
    pub completions: Vec<Completion>,
}

impl Writer {
    /// Applies what other nodes have appended to the log, like this node's own operations. Returns the head
    /// and the fences that were raised. `to`: a position known to be in the log; `None`: up to its end.
    pub(super) fn follow(&mut self, to: Option<u64>) -> Result<FollowResult, String> {
        let engine = self.shared.engine.clone();
        let mut reader = BatchReader::new(engine.head());
        let mut completions = Vec::new();
        loop {
            if to.is_some_and(|to| to <= engine.head().position) {
                return Ok(FollowResult { head: engine.head(), completions });
            }
            let batches = engine.next_batches(&mut reader).map_err(|error| error.to_string())?;
            if batches.is_empty() {
                return Ok(FollowResult { head: engine.head(), completions });
            }
            for (ops, head) in batches {
                let members = member_changes(&ops);
                for op in ops {
                    if let Some(unwritten) = &mut self.unwritten {
                        unwritten.logged.apply(&op);
                    }
                    self.tx.apply(op);
                }
                let applied = match self.tx.failed.take() {
                    Some(error) => Err(format!("position {} of the log: {error}", head.position)),
                    None => engine.follow(&self.tx.batch.staged, head).map_err(|error| error.to_string()),
                };
                if let Err(reason) = applied {
                    // This node no longer knows what is in force.
                    self.close_after(&reason);
                    return Err(reason);
                }
                let affected = std::mem::take(&mut self.tx.batch.effects.affected);
                self.reapply_unwritten();
                self.publish();
                let raised = affected.into_iter().map(|affected| self.fence.raise(affected));
                match &self.shared.node {
                    None => completions.extend(raised),
                    Some(node) => drop(node.applied(head, &members, raised.collect(), 0)),
                }
            }
        }
    }

    /// Publishes a committed batch, raises its fences and passes them to the node, if there is one.
    pub(super) fn publish_all(&mut self, batch: Vec<Task>) -> Vec<(Task, Published)> {
        let (members, committed) = (member_changes(&self.tx.batch.ops), !self.tx.batch.ops.is_empty());
        self.publish();
        let mut completions: Vec<_> = batch.iter().map(|task| self.raise(task)).collect();
        let mut on_all_nodes = Vec::new().into_iter();
        if let Some(node) = &self.shared.node {
            let count = batch.iter().filter(|task| task.is_fenced()).count();
            let receivers = if committed {
                let completions = completions.iter_mut().filter_map(Option::take).collect();
                node.applied(self.shared.engine.head(), &members, completions, count)
            } else {
                // Nothing is new, but the state that these changes found may not be in force everywhere
                // yet.
                node.wait(count)
            };
            on_all_nodes = receivers.into_iter();
        }
        let mut published = Vec::with_capacity(batch.len());
        for (task, completion) in batch.into_iter().zip(completions) {
            let on_all_nodes = if task.is_fenced() { on_all_nodes.next() } else { None };
            published.push((task, Published { completion, on_all_nodes, not_durable: None }));
        }
        published
    }

    pub(super) fn raise(&self, task: &Task) -> Option<Completion> {
        task.affected.map(|affected| self.fence.raise(affected))
    }

    /// The only way in which a batch reaches the workers and the admin listener, whichever node planned it:
    /// the index first, then the snapshot.
    pub(super) fn publish(&mut self) {
        let batch = std::mem::take(&mut self.tx.batch);
        self.tx.index(&batch);
        let Batch { staged, effects, .. } = batch;
        let (state, published) = (&self.tx.state, &self.shared.state);
        self.shared.sessions.apply(&staged);
        if effects.users.is_empty() && !effects.all_users {
            return;
        }
        let directory = if effects.all_users {
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
}

impl Transaction {
    /// Brings a batch's tokens into the index.
    pub(crate) fn index(&mut self, Batch { staged, republished, .. }: &Batch) {
        let (state, ids) = (&self.state, &mut self.ids);
        let index = self.shared.state.index();
        for token in
            republished.iter().filter_map(|record| Some((record.digest, state.compile(record.head(), ids)?)))
        {
            index.put(token.0, token.1);
        }
        let republished: HashSet<_> = republished.iter().map(|record| record.digest).collect();
        for (digest, row) in staged.changes(Table::Tokens) {
            let Ok(digest) = digest.try_into().map(Digest::from_bytes) else { continue };
            if republished.contains(&digest) {
                continue;
            }
            match row.and_then(|row| state.compile(TokenHead::decode(row).ok()?, ids)) {
                Some(token) => index.put(digest, token),
                None => index.remove(&digest),
            }
        }
        index.set_imported(index.imported().saturating_add_signed(staged.imported()));
    }
}

/// The changes of the cluster's members in a batch.
fn member_changes(ops: &[Op]) -> Vec<MemberChange> {
    let change = |op: &Op| match op {
        Op::Node(change) => Some(change.clone()),
        _ => None,
    };
    ops.iter().filter_map(change).collect()
}
