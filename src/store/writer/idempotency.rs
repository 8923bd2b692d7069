//! Idempotency: a request that is repeated within a day gets the record of the first one.

use super::Transaction;
use crate::store::{
    ChangeError,
    change::Idempotency,
    model::{IdempotencyRecord, TokenRecord},
    op::Op,
};

/// Seconds for which an answer is remembered.
pub(super) const KEPT: i64 = 24 * 3600;

impl Transaction {
    /// The token that the first request with this key created.
    pub(super) fn repeated(&self, once: Option<&Idempotency>) -> Result<Option<TokenRecord>, ChangeError> {
        let Some(once) = once else { return Ok(None) };
        let first = self.rows().idempotency(&once.key)?;
        match first.filter(|first| first.at.plus_seconds(KEPT) > self.now) {
            Some(first) if first.request != once.request => Err(ChangeError::KeyReused),
            Some(first) => Ok(self.token(first.token)?),
            None => Ok(None),
        }
    }

    pub(super) fn remember(&mut self, once: Option<&Idempotency>, made: &TokenRecord) {
        let Some(once) = once else { return };
        let record =
            IdempotencyRecord { key: once.key.clone(), request: once.request, token: made.id, at: self.now };
        self.apply(Op::PutIdempotency(record));
    }
}
