//! Reads from the engine, corrected by the changes that could not be saved. They never go through the
//! writer.

use std::sync::Arc;

use super::{
    Page, ReadError, Store, TokenFilter, TokenState, audit,
    audit::{Verified, VerifyError},
    model::{AuditEvent, TokenRecord},
    verify,
};
use crate::authz::{
    accounts::Accounts,
    secret::{Digest, TokenId},
    subject::Access,
    time::Timestamp,
};

/// Maximum rows that one page looks at: it is returned short, so that a filter with few matches does not
/// hold up the listener.
const MAX_SCANNED: usize = 20_000;
const SCAN_PAGE: usize = 500;

/// A slice of an owner's tokens.
#[derive(Debug)]
pub struct Slice {
    pub items: Vec<TokenRecord>,
    /// Number of tokens in total, without those in their grace after the slice.
    pub total: usize,
}

impl Store {
    /// Users, groups, members, roles and grants as they are now.
    pub fn accounts(&self) -> Arc<Accounts> {
        self.shared.accounts.load_full()
    }

    pub fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, ReadError> {
        match self.unsaved(id) {
            Some(record) => Ok(Some(record)),
            None => self.engine().token(id),
        }
    }

    pub fn token_by_digest(&self, digest: &Digest) -> Result<Option<TokenRecord>, ReadError> {
        match self.shared.state.index().with(digest, |token| token.map(|token| token.id)) {
            Some(id) => self.token(id),
            None => Ok(None),
        }
    }

    /// Tokens in the order of ids. A page may be short, or empty, and still have a next one.
    pub fn tokens(
        &self,
        filter: &TokenFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<TokenRecord>, ReadError> {
        let accounts = self.accounts();
        let now = (self.shared.clock)();
        let owner = match &filter.owner {
            None => None,
            Some(login) => match accounts.user_by_login(login) {
                Some(user) => Some(user.record.id.clone()),
                None => return Ok(Page { items: Vec::new(), next: None }),
            },
        };
        let mut after = position_of(cursor, TokenId::parse)?;
        let mut items = Vec::new();
        let mut looked_at = 0;
        loop {
            let rows = match &owner {
                Some(owner) => self.engine().tokens_of(owner, after, SCAN_PAGE)?,
                None => self.engine().tokens(after, SCAN_PAGE)?,
            };
            let last = rows.len() < SCAN_PAGE;
            for row in rows {
                if items.len() == limit || looked_at == MAX_SCANNED {
                    return Ok(Page { items, next: after.map(|id| id.as_str().to_owned()) });
                }
                after = Some(row.id);
                looked_at += 1;
                let row = self.unsaved(row.id).unwrap_or(row);
                let banned =
                    accounts.user_by_id(&row.owner).is_some_and(|owner| owner.record.banned.is_some());
                if filter.matches(&row, row.state(banned, now)) {
                    items.push(row);
                }
            }
            if last {
                return Ok(Page { items, next: None });
            }
        }
    }

    /// An owner's tokens that are not revoked or replaced, and those in their grace, in the order of ids:
    /// up to `top` of them, after the first `skip`. A client that fetches slices until it has `total` of them
    /// must get all of them.
    pub fn slice_of_tokens(&self, owner: &str, skip: usize, top: usize) -> Result<Slice, ReadError> {
        let now = (self.shared.clock)();
        let (mut items, mut seen) = (Vec::new(), 0);
        let mut after = None;
        let mut step = (skip + top).clamp(1, SCAN_PAGE);
        while seen < skip + top {
            let rows = self.engine().tokens_of(owner, after, step)?;
            let last = rows.len() < step;
            after = rows.last().map(|row| row.id);
            for row in rows {
                let row = self.unsaved(row.id).unwrap_or(row);
                if row.is_gone(now) || seen == skip + top {
                    continue;
                }
                seen += 1;
                if seen > skip {
                    items.push(row);
                }
            }
            if last && seen < skip + top {
                return Ok(Slice { items, total: seen });
            }
            // Ended tokens lie between: a small slice may take many steps.
            step = (step * 2).min(SCAN_PAGE);
        }
        let counts = self.engine().counts(owner)?;
        let total = counts.all.saturating_sub(counts.ended) + self.engine().in_grace(owner, now)?;
        Ok(Slice { items, total: total.max(seen) })
    }

    /// Events with `seq` below the cursor, newest first.
    pub fn audit(&self, cursor: Option<&str>, limit: usize) -> Result<Page<AuditEvent>, ReadError> {
        let before = position_of(cursor, |cursor| cursor.parse().ok())?;
        let items = self.engine().audit_before(before, limit)?;
        let next = items.last().filter(|event| items.len() == limit && event.seq > 1);
        let next = next.map(|event| event.seq.to_string());
        Ok(Page { items, next })
    }

    /// Verifies the whole chain, up to the newest acknowledged event.
    pub fn verify_audit(&self) -> Result<Verified, VerifyError> {
        let engine = self.engine();
        loop {
            let (from, acknowledged) = (engine.audit_start()?, engine.acknowledged_audit()?);
            let verified = audit::verify(from, acknowledged, |seq| engine.audit_from(seq, SCAN_PAGE));
            // Its beginning may have been trimmed meanwhile.
            if verified.is_ok() || engine.audit_start()? == from {
                return verified;
            }
        }
    }

    /// Reads everything that is stored, while changes continue, and reports what is wrong. `on_progress`
    /// may stop it. Blocks, so it must not run on a worker or the control runtime.
    pub fn verify(
        &self,
        on_progress: &mut verify::OnProgress<'_>,
    ) -> Result<verify::Report, verify::Stopped> {
        self.engine().verify(on_progress)
    }

    fn unsaved(&self, id: TokenId) -> Option<TokenRecord> {
        self.shared.unsaved(|unsaved| unsaved.get(&id).cloned())
    }
}

fn position_of<T>(cursor: Option<&str>, parse: fn(&str) -> Option<T>) -> Result<Option<T>, ReadError> {
    let wrong = || ReadError("the cursor is not the `next` of a page".into());
    cursor.map(|cursor| parse(cursor).ok_or_else(wrong)).transpose()
}

impl TokenFilter {
    fn matches(&self, token: &TokenRecord, state: TokenState) -> bool {
        let service =
            |key: &String| token.scope.iter().any(|(k, access)| k == key && *access >= Access::Read);
        self.service.as_ref().is_none_or(service)
            && self
                .unused_since
                .is_none_or(|since| token.last_used.as_ref().is_none_or(|used| used.at < since))
            && self.expiring_before.is_none_or(|limit| {
                let ended = matches!(state, TokenState::Expired | TokenState::Revoked | TokenState::Rotated);
                !ended && token.expires_at.is_some_and(|end| end < limit)
            })
            && self.state.is_none_or(|wanted| wanted == state)
    }
}

impl TokenRecord {
    /// The state at `now` (docs/domain.md, "The life of a token"), in the order in which a decision checks.
    pub fn state(&self, owner_banned: bool, now: Timestamp) -> TokenState {
        match self.rotation.map(|rotation| rotation.grace_until) {
            _ if self.revoked.is_some() => TokenState::Revoked,
            Some(grace_until) if grace_until <= now => TokenState::Rotated,
            _ if self.expires_at.is_some_and(|end| end <= now) => TokenState::Expired,
            _ if self.not_before.is_some_and(|start| now < start) => TokenState::Pending,
            _ if owner_banned => TokenState::Suspended,
            Some(_) => TokenState::Rotating,
            None => TokenState::Active,
        }
    }

    /// Whether it was revoked, or replaced and not in its grace, which ends with the token at the latest.
    pub fn is_gone(&self, now: Timestamp) -> bool {
        match self.state(false, now) {
            TokenState::Revoked | TokenState::Rotated => true,
            TokenState::Expired => self.rotation.is_some(),
            _ => false,
        }
    }
}
