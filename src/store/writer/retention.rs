//! Drops old rows: what ended long ago, remembered answers, and audit events beyond their retention. Runs
//! now and then, after other changes, one page at a time.

use super::{Batch, Writer, tokens::IDEMPOTENCY_RETENTION};
use crate::{
    authz::{secret::TokenId, time::Timestamp},
    store::{
        Actor, ActorKind, ChangeError, ReadError,
        model::{AuditEvent, AuditPosition, InvitationRecord, RevokeReason, SessionRecord, TokenRecord},
        op::Op,
    },
};

/// Seconds for which rows of revoked and replaced tokens are kept, so that their reuse is recognised.
const ENDED_RETENTION: i64 = 90 * 24 * 3600;
/// Seconds for which expired rows are kept, so that a clock that was wrong for a while deletes nothing for
/// good.
const EXPIRED_RETENTION: i64 = 24 * 3600;
const PERIOD: i64 = 10;
/// Rows of a round, or of a part of a deletion: few enough that a revocation behind it hardly waits.
pub(super) const PAGE: usize = 1000;

/// The progress of the rounds.
pub(crate) struct Retention {
    next: Timestamp,
    /// The last token and the last idempotency key that were looked at.
    token: Option<TokenId>,
    key: Option<String>,
}

impl Retention {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { next: now, token: None, key: None }
    }
}

impl Writer {
    pub(super) fn apply_retention(&mut self) {
        // This node may be the only one that does it, and make no change of its own.
        self.tx.now = (self.shared.clock)();
        let others = self.shared.node.as_ref().is_some_and(|node| !node.is_eldest());
        // A clock that was ahead may have set the next round far ahead.
        let (next, latest) = (self.retention.next, self.tx.now.plus_seconds(PERIOD));
        let waits = self.tx.now < next && next <= latest;
        if waits || self.shared.close_reason().is_some() || others {
            return;
        }
        self.retention.next = latest;
        let before = self.tx.state.clone();
        let swept = self.sweep().map_err(|error| error.to_string());
        let failed = self.tx.failed.take().map_or(Ok(()), |error| Err(error.to_string()));
        if let Err(error) = swept.and(failed) {
            tracing::warn!(%error, "old rows could not be dropped");
            self.tx.state = before;
            self.tx.batch = Batch::default();
            return;
        }
        // No caller waits for it: what came too late is due again.
        drop(self.finish(Vec::new(), before));
    }

    fn sweep(&mut self) -> Result<(), ChangeError> {
        let (now, shared) = (self.tx.now, self.shared.clone());
        let forgotten = now.plus_seconds(-IDEMPOTENCY_RETENTION);
        let page = shared.engine.idempotency_records(self.retention.key.as_deref(), PAGE)?;
        self.retention.key = page.last().filter(|_| page.len() == PAGE).map(|record| record.key.clone());
        for record in page.into_iter().filter(|record| record.at < forgotten) {
            self.tx.apply(Op::DropIdempotency { key: record.key.into() });
        }
        let expired = now.plus_seconds(-EXPIRED_RETENTION);
        for session in shared.sessions.find(|one: &SessionRecord| !one.is_valid(expired)).iter().take(PAGE) {
            self.tx.apply(Op::DropSession(session.digest));
        }
        let invitations = shared.sessions.find(|one: &InvitationRecord| one.expires_at <= expired);
        for invitation in invitations.iter().take(PAGE) {
            self.tx.apply(Op::DropInvitation(invitation.digest));
        }

        let page = shared.engine.tokens(self.retention.token, PAGE)?;
        self.retention.token = page.last().filter(|_| page.len() == PAGE).map(|record| record.id);
        let ended = now.plus_seconds(-ENDED_RETENTION);
        for record in page {
            if is_past_retention(&record, ended, expired) {
                self.tx.apply(Op::DropToken { id: record.id, owner: record.owner });
            } else if record.revoked.is_none() && self.is_deleted(&record.owner) {
                // While a deletion goes on, or after one that was interrupted.
                self.tx.revoke_record(
                    &Actor::new(ActorKind::Operator),
                    record,
                    RevokeReason::OwnerDeleted,
                )?;
            }
        }
        let trimmed = self.outdated_audit()?;
        trimmed.into_iter().for_each(|start| self.tx.apply(Op::TrimAudit(start)));
        Ok(())
    }

    fn is_deleted(&self, user: &str) -> bool {
        self.tx.state.accounts.user_by_id(user).is_some_and(|user| user.record.deleted_at.is_some())
    }

    /// Where the chain begins once a page of outdated events is dropped.
    fn outdated_audit(&self) -> Result<Option<AuditPosition>, ReadError> {
        let Some(kept) = self.tx.state.policy.audit_retention else { return Ok(None) };
        let limit = self.tx.now.plus_seconds(-i64::try_from(kept.as_secs()).unwrap_or(i64::MAX));
        let engine = &self.shared.engine;
        let first = engine.audit_start()?.unwrap_or(AuditPosition::START);
        let page = engine.audit_from(first.seq, PAGE)?;
        let last = page.iter().take_while(|event| event.at < limit).last();
        Ok(last.map(AuditEvent::next))
    }
}

/// Whether a token was ended before `ended`, or expired before `expired`.
fn is_past_retention(record: &TokenRecord, ended: Timestamp, expired: Timestamp) -> bool {
    match (&record.revoked, record.rotation) {
        (Some(revoked), _) => revoked.at < ended,
        (None, Some(rotation)) => rotation.grace_until < ended,
        (None, None) => record.expires_at.is_some_and(|end| end < expired),
    }
}
