//! Rows that have had their time: tokens that ended long ago, answers that were remembered, audit
//! events beyond their retention. A page a minute, in the wake of other changes.

use super::{Pending, Writer, once};
use crate::{
    authz::{secret::TokenId, time::Timestamp},
    store::{
        ReadError,
        audit::AuditHead,
        engine::CommitError,
        model::{AuditStart, TokenRecord},
        op::Op,
    },
};

/// Rows of revoked and replaced tokens stay this long, in seconds, so that their reuse is
/// recognised.
const ENDED_KEPT: i64 = 90 * 24 * 3600;
const PERIOD: i64 = 60;
const PAGE: usize = 1000;

/// How far the round has come.
pub(crate) struct Upkeep {
    next: Timestamp,
    after: Option<TokenId>,
}

impl Upkeep {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { next: now, after: None }
    }
}

impl Writer {
    pub(super) fn keep_up(&mut self) {
        if self.desk.now < self.upkeep.next || self.shared.closed().is_some() {
            return;
        }
        self.upkeep.next = self.desk.now.plus_seconds(PERIOD);
        match self.sweep() {
            Ok(pending) if pending.ops.is_empty() => {}
            Ok(pending) => match self.shared.engine.commit(&pending.ops) {
                Ok(()) => {
                    let gone = pending.ops.iter().filter(|op| matches!(op, Op::DropToken { .. })).count();
                    tracing::debug!(tokens = gone, "dropped rows of tokens that ended long ago");
                    self.publish(pending);
                }
                Err(CommitError::Refused(reason)) => tracing::warn!(reason, "old rows could not be dropped"),
                Err(CommitError::Failed(reason)) => {
                    tracing::error!(
                        reason,
                        "changes do not last any more: restart permgate when the disk is sound"
                    );
                    self.shared.close(reason);
                }
            },
            Err(error) => tracing::warn!(%error, "old rows could not be looked for"),
        }
    }

    fn sweep(&mut self) -> Result<Pending, ReadError> {
        let mut pending = Pending::default();
        let forgotten = self.desk.now.plus_seconds(-once::KEPT);
        let keys = self.shared.engine.idempotency_before(forgotten, PAGE)?;
        pending.ops.extend(keys.into_iter().map(|key| Op::DropIdempotency { key }));

        let (sessions, invitations) = self.shared.sessions.ended(self.desk.now);
        for digest in sessions.into_iter().take(PAGE) {
            pending.ops.push(Op::DropSession(digest));
            pending.sessions.insert(digest, None);
        }
        for digest in invitations.into_iter().take(PAGE) {
            pending.ops.push(Op::DropInvitation(digest));
            pending.invitations.insert(digest, None);
        }

        let page = self.shared.engine.tokens(self.upkeep.after, PAGE)?;
        self.upkeep.after = page.last().filter(|_| page.len() == PAGE).map(|record| record.id);
        let limit = self.desk.now.plus_seconds(-ENDED_KEPT);
        for record in page.into_iter().filter(|record| ended_before(record, limit)) {
            if record.imported {
                self.desk.standing.imported = self.desk.standing.imported.saturating_sub(1);
            }
            pending.index.push((record.digest, None));
            pending.ops.push(Op::DropToken { id: record.id, owner: record.owner });
        }
        pending.ops.extend(self.outdated_audit()?.map(Op::TrimAudit));
        Ok(pending)
    }

    /// Where the chain begins once a page of what is too old to keep is gone.
    fn outdated_audit(&self) -> Result<Option<AuditStart>, ReadError> {
        let Some(kept) = self.desk.standing.policy.audit_retention else { return Ok(None) };
        let limit = self.desk.now.plus_seconds(-i64::try_from(kept.as_secs()).unwrap_or(i64::MAX));
        let engine = &self.shared.engine;
        let first = engine.audit_start()?.map_or(AuditHead::START.seq, |kept| kept.seq);
        let page = engine.audit_from(first, PAGE)?;
        let last = page.iter().take_while(|event| event.at < limit).last();
        Ok(last.map(|event| AuditStart { seq: event.seq + 1, prev: event.hash }))
    }
}

fn ended_before(record: &TokenRecord, limit: Timestamp) -> bool {
    let ended = match (&record.revoked, record.rotation) {
        (Some(revoked), _) => Some(revoked.at),
        (None, Some(rotation)) => Some(rotation.grace_until),
        (None, None) => None,
    };
    ended.is_some_and(|at| at < limit)
}
