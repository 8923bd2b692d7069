//! What requests leave behind: last use, and refusals that are audited.

use super::Desk;
use crate::{
    authz::secret::Digest,
    store::{
        engine::Op,
        model::{AuditEvent, LastUsed},
    },
};

impl Desk {
    /// Of tokens that are still there; later uses win, in the engine.
    pub(crate) fn record_use(&mut self, uses: &[(Digest, LastUsed)]) {
        for (digest, used) in uses {
            if let Some(token) = self.state.index().with(digest, |token| token.map(|token| token.id)) {
                self.pending.ops.push(Op::PutLastUsed { token, used: used.clone() });
            }
        }
    }

    /// The caller has counted and bounded them; here they get their place in the chain.
    pub(crate) fn record_refusals(&mut self, refusals: &[AuditEvent]) {
        for refusal in refusals {
            let event = self.standing.audit.append(refusal.clone());
            self.pending.ops.push(Op::AppendAudit(event));
        }
    }
}
