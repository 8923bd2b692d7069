//! The engine on sled: one directory, one process.
#![allow(unused_variables, clippy::unused_self, reason = "signatures first")]

use crate::{
    authz::{secret::TokenId, time::Timestamp},
    store::{
        ReadError, Settings,
        engine::{Checkpoint, CommitError, IdempotencyRecord, Op, TokenRow},
        model::{AuditEvent, GrantRecord, GroupRecord, RoleRecord, TokenRecord, UserId, UserRecord},
    },
};

/// sled behind one writer: transaction, flush, sync of our own descriptor.
pub(crate) struct Embedded {}

/// Why a store directory does not open. Each message says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{0}")]
    Todo(String),
}

impl Embedded {
    /// Takes the lock first.
    pub(crate) fn open(settings: &Settings) -> Result<Self, OpenError> {
        todo!()
    }

    pub(crate) fn commit(&self, ops: &[Op]) -> Result<(), CommitError> {
        todo!()
    }
    pub(crate) fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, ReadError> {
        todo!()
    }
    pub(crate) fn tokens(&self, after: Option<TokenId>, limit: usize) -> Result<Vec<TokenRecord>, ReadError> {
        todo!()
    }
    pub(crate) fn tokens_of(
        &self,
        owner: &str,
        after: Option<TokenId>,
        limit: usize,
    ) -> Result<Vec<TokenRecord>, ReadError> {
        todo!()
    }
    pub(crate) fn named(&self, owner: &str, name: &str) -> Result<Option<TokenId>, ReadError> {
        todo!()
    }
    pub(crate) fn names_of(&self, owner: &str) -> Result<Vec<(String, TokenId)>, ReadError> {
        todo!()
    }
    pub(crate) fn scan_tokens(&self, visit: &mut dyn FnMut(TokenRow<'_>)) -> Result<(), ReadError> {
        todo!()
    }
    pub(crate) fn users(&self) -> Result<Vec<UserRecord>, ReadError> {
        todo!()
    }
    pub(crate) fn groups(&self) -> Result<Vec<GroupRecord>, ReadError> {
        todo!()
    }
    pub(crate) fn members(&self) -> Result<Vec<(String, UserId)>, ReadError> {
        todo!()
    }
    pub(crate) fn roles(&self) -> Result<Vec<RoleRecord>, ReadError> {
        todo!()
    }
    pub(crate) fn grants(&self) -> Result<Vec<GrantRecord>, ReadError> {
        todo!()
    }
    pub(crate) fn audit_before(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<AuditEvent>, ReadError> {
        todo!()
    }
    pub(crate) fn audit_from(&self, seq: u64, limit: usize) -> Result<Vec<AuditEvent>, ReadError> {
        todo!()
    }
    pub(crate) fn checkpoint(&self) -> Result<Option<Checkpoint>, ReadError> {
        todo!()
    }
    pub(crate) fn idempotency(&self, key: &str) -> Result<Option<IdempotencyRecord>, ReadError> {
        todo!()
    }
    pub(crate) fn idempotency_before(&self, at: Timestamp, limit: usize) -> Result<Vec<String>, ReadError> {
        todo!()
    }
    pub(crate) fn close(&self) {
        todo!()
    }
    #[cfg(test)]
    pub(crate) fn break_sync(&self) {
        todo!()
    }
}
