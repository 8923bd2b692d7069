//! Idempotency: a request that is repeated within a day gets the record of the first one.

use super::Transaction;
use crate::store::{
    ChangeError,
    change::Idempotency,
    model::{IdempotencyRecord, TokenRecord},
    op::Op,
};

/// Seconds for which an answer is remembered.
pub(super) const RETENTION: i64 = 24 * 3600;

impl Transaction {
    /// The token that the first request with this key created.
    pub(super) fn repeated(
        &self,
        idempotency: Option<&Idempotency>,
    ) -> Result<Option<TokenRecord>, ChangeError> {
        let Some(idempotency) = idempotency else { return Ok(None) };
        let first = self.rows().idempotency(&idempotency.key)?;
        match first.filter(|first| first.at.plus_seconds(RETENTION) > self.now) {
            Some(first) if first.request != idempotency.request => Err(ChangeError::IdempotencyKeyReused),
            Some(first) => Ok(self.token(first.token)?),
            None => Ok(None),
        }
    }

    pub(super) fn remember(&mut self, idempotency: Option<&Idempotency>, made: &TokenRecord) {
        let Some(idempotency) = idempotency else { return };
        let record = IdempotencyRecord {
            key: idempotency.key.clone(),
            request: idempotency.request,
            token: made.id,
            at: self.now,
        };
        self.apply(Op::PutIdempotency(record));
    }
}
