//! The audit log, where it begins, and requests that were answered once.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{DecodeError, EncodeError, Record, V1, pack, token::token_id, unpack_v1};
use crate::{
    authz::time::Timestamp,
    store::model::{AuditEvent, AuditStart, IdempotencyRecord},
};

#[derive(Serialize, Deserialize)]
struct EventV1<'a> {
    seq: u64,
    at: i64,
    event: Cow<'a, str>,
    actor: Cow<'a, str>,
    target: Cow<'a, str>,
    service: Option<Cow<'a, str>>,
    request_id: Option<Cow<'a, str>>,
    outcome: Cow<'a, str>,
    reason: Option<Cow<'a, str>>,
    change: Option<Cow<'a, str>>,
    prev: [u8; 32],
    hash: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct AuditStartV1 {
    seq: u64,
    prev: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct IdempotencyV1<'a> {
    key: Cow<'a, str>,
    request: [u8; 32],
    token: [u8; 12],
    at: i64,
}

impl Record for AuditEvent {
    const KIND: &'static str = "audit";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let row = EventV1 {
            seq: self.seq,
            at: self.at.as_millis(),
            event: Cow::Borrowed(&self.event),
            actor: Cow::Borrowed(&self.actor),
            target: Cow::Borrowed(&self.target),
            service: self.service.as_deref().map(Cow::Borrowed),
            request_id: self.request_id.as_deref().map(Cow::Borrowed),
            outcome: Cow::Borrowed(&self.outcome),
            reason: self.reason.as_deref().map(Cow::Borrowed),
            change: self.change.as_deref().map(Cow::Borrowed),
            prev: self.prev,
            hash: self.hash,
        };
        pack(Self::KIND, V1, &row)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let row: EventV1<'_> = unpack_v1(Self::KIND, bytes)?;
        Ok(Self {
            seq: row.seq,
            at: Timestamp::from_millis(row.at),
            event: row.event.into_owned(),
            actor: row.actor.into_owned(),
            target: row.target.into_owned(),
            service: row.service.map(Cow::into_owned),
            request_id: row.request_id.map(Cow::into_owned),
            outcome: row.outcome.into_owned(),
            reason: row.reason.map(Cow::into_owned),
            change: row.change.map(Cow::into_owned),
            prev: row.prev,
            hash: row.hash,
        })
    }
}

impl Record for AuditStart {
    const KIND: &'static str = "audit start";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        pack(Self::KIND, V1, &AuditStartV1 { seq: self.seq, prev: self.prev })
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let row: AuditStartV1 = unpack_v1(Self::KIND, bytes)?;
        Ok(Self { seq: row.seq, prev: row.prev })
    }
}

impl Record for IdempotencyRecord {
    const KIND: &'static str = "idempotency";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let row = IdempotencyV1 {
            key: Cow::Borrowed(&self.key),
            request: self.request,
            token: super::token::id_bytes(self.token),
            at: self.at.as_millis(),
        };
        pack(Self::KIND, V1, &row)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let row: IdempotencyV1<'_> = unpack_v1(Self::KIND, bytes)?;
        Ok(Self {
            key: row.key.into_owned(),
            request: row.request,
            token: token_id(Self::KIND, &row.token)?,
            at: Timestamp::from_millis(row.at),
        })
    }
}
