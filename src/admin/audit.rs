//! `/v1/audit`: the audit log, newest first, and the verification of its hash chain.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    ApiResult, Caller, Context,
    offload::READS,
    pagination::{self, PageRequest, Params},
    verify::VERIFICATIONS,
    wire::{Page, Time, ok},
};
use crate::{
    authz::subject::Permission,
    store::{Verified, VerifyError, model::AuditEvent},
};

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = AuditEvent)]
pub struct AuditView {
    pub seq: u64,
    pub time: Time,
    pub event: String,
    pub actor: String,
    pub target: String,
    pub service: Option<String>,
    pub request_id: Option<String>,
    pub outcome: String,
    pub reason: Option<String>,
    pub change: Option<Value>,
    /// BLAKE3 of the previous event (`prev`) and of this one (`hash`), in hexadecimal digits.
    pub prev: String,
    pub hash: String,
}

pub async fn list(context: Context, caller: Caller, Params(paging): Params<PageRequest>) -> ApiResult {
    caller.require(Permission::ReadAudit)?;
    let (limit, cursor) = (paging.limit()?, paging.cursor);
    if cursor.as_deref().is_some_and(|cursor| cursor.parse::<u64>().is_err()) {
        return Err(pagination::bad_cursor());
    }
    let read = move || {
        let page = context.store.audit(cursor.as_deref(), limit)?;
        let items = page.items.into_iter().map(AuditView::new).collect();
        Ok(ok(&Page { items, next: page.next }))
    };
    READS.run(read).await?
}

/// Verifies the whole chain, which may be long: off the control thread and one at a time.
pub async fn verify(context: Context, caller: Caller) -> ApiResult {
    caller.require(Permission::ReadAudit)?;
    let store = context.store.clone();
    let body = match VERIFICATIONS.run(move || store.verify_audit()).await? {
        Ok(Verified { events, last }) => {
            let last = last.map(|(seq, hash)| json!({"seq": seq, "hash": hex(&hash)}));
            json!({"valid": true, "events": events, "last": last})
        }
        Err(VerifyError::Broken { seq, what }) => json!({"valid": false, "seq": seq, "error": what}),
        Err(error @ (VerifyError::CutOff { seq, .. } | VerifyError::Behind { seq, .. })) => {
            json!({"valid": false, "seq": seq, "error": error.to_string()})
        }
        Err(VerifyError::Read(error)) => return Err(error.into()),
    };
    Ok(ok(&body))
}

impl AuditView {
    pub(super) fn new(event: AuditEvent) -> Self {
        Self {
            seq: event.seq,
            time: Time(event.at),
            event: event.event,
            actor: event.actor,
            target: event.target,
            service: event.service,
            request_id: event.request_id,
            outcome: event.outcome,
            reason: event.reason,
            change: event.change.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))),
            prev: hex(&event.prev),
            hash: hex(&event.hash),
        }
    }
}

pub(super) fn hex(hash: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*hash).to_hex().to_string()
}
