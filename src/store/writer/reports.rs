//! Records what requests leave behind: last uses, and refusals and cuts for the audit log.

use serde_json::json;

use super::Transaction;
use crate::{
    authz::secret::Digest,
    fence::LiveRow,
    store::{
        Actor,
        model::{AuditEvent, LastUsed},
        op::Op,
    },
};

impl Transaction {
    /// Records last uses of tokens that still exist. The engine keeps the latest one.
    pub(crate) fn record_use(&mut self, uses: &[(Digest, LastUsed)]) {
        for (digest, used) in uses {
            if let Some(token) = self.shared.state.index().with(digest, |token| token.map(|token| token.id)) {
                self.apply(Op::PutLastUsed { token, used: used.clone() });
            }
        }
    }

    pub(crate) fn record_cut(&mut self, actor: &Actor, row: &LiveRow) {
        let user = row.user.and_then(|ix| self.state.accounts.user(ix));
        let change = json!({
            "request_id": row.request_id,
            "user": user.map(|user| user.record.login.as_str()),
            "service": row.service,
            "method": row.method,
            "path": row.path,
        });
        let target = row.token.map_or_else(|| format!("live:{}", row.id), |token| format!("token:{token}"));
        self.audit_as(actor, "live.cut", target, Some(change));
    }

    /// Adds refusals to the audit chain. The caller has counted and bounded them.
    pub(crate) fn record_refusals(&mut self, refusals: &[AuditEvent]) {
        refusals.iter().for_each(|refusal| self.audit(refusal.clone()));
    }
}
