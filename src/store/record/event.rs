//! The audit log and its beginning, and idempotency records.

use serde::{Deserialize, Serialize};

use super::{record, wire};
use crate::{
    authz::{secret::TokenId, time::Timestamp},
    store::model::{AuditEvent, AuditStart, IdempotencyRecord},
};

#[derive(Serialize, Deserialize)]
#[serde(remote = "AuditEvent")]
struct EventV1 {
    seq: u64,
    #[serde(with = "wire")]
    at: Timestamp,
    event: String,
    actor: String,
    target: String,
    service: Option<String>,
    request_id: Option<String>,
    outcome: String,
    reason: Option<String>,
    change: Option<String>,
    prev: [u8; 32],
    hash: [u8; 32],
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "AuditStart")]
struct AuditStartV1 {
    seq: u64,
    prev: [u8; 32],
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "IdempotencyRecord")]
struct IdempotencyV1 {
    key: String,
    request: [u8; 32],
    #[serde(with = "wire")]
    token: TokenId,
    #[serde(with = "wire")]
    at: Timestamp,
}

record!(AuditEvent, "audit", EventV1);
record!(AuditStart, "audit start", AuditStartV1);
record!(IdempotencyRecord, "idempotency", IdempotencyV1);
