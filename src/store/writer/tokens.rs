//! Creates, edits, rotates and revokes tokens. A request that is repeated within a day gets the record of the
//! first one.

use std::time::Duration;

use serde_json::json;

use super::{Transaction, issued::by_rotation, transaction::is_live};
use crate::{
    authz::{
        accounts::{Account, fold},
        administration::{
            AdminError, AdminErrorCode, Principal, names,
            tokens::{self, TokenBounds},
        },
        secret::{Digest, TokenId},
        subject::{Permission, scope_text},
    },
    fence::Affected,
    store::{
        ChangeError,
        audit::{self, time_json},
        change::{Actor, Idempotency, NewToken, Policy, TokenEdit},
        model::{IdempotencyRecord, Revocation, RevokeReason, Rotation, TokenRecord},
        op::Op,
    },
};

/// Seconds for which an answer is remembered.
pub(super) const IDEMPOTENCY_RETENTION: i64 = 24 * 3600;

/// The id and the digest of a new token's text, which the writer never sees.
#[derive(Clone, Copy)]
pub(crate) struct NewSecret {
    pub id: TokenId,
    pub digest: Digest,
}

impl Transaction {
    /// Returns `false` if the idempotency key was repeated; the record is then that of the first request.
    pub(crate) fn create_token(
        &mut self,
        actor: &Actor,
        new: &NewToken,
        idempotency: Option<&Idempotency>,
        text: NewSecret,
    ) -> Result<(TokenRecord, bool), ChangeError> {
        let principal = self.principal(actor)?;
        if let Some(first) = self.repeated(&principal, idempotency)? {
            return Ok((first, false));
        }
        let admin_facts = self.admin_facts(&principal);
        let owner = tokens::owner(&admin_facts, &new.owner)?;
        let name = tokens::name(&new.name)?;
        let note = tokens::note(&new.note)?;
        let (scope, allow_ips) = (new.scope.clone(), new.allow_ips.clone());
        let bounds = TokenBounds { scope, expires_at: new.expires_at, allow_ips };
        let bounds = tokens::create(&admin_facts, owner, bounds, new.not_before)?;
        let owner = owner.record.id.clone();
        let record = TokenRecord {
            author: Transaction::author(actor),
            note,
            allow_ips: bounds.allow_ips,
            not_before: new.not_before,
            expires_at: bounds.expires_at,
            ..TokenRecord::new(text.id, text.digest, owner, name, bounds.scope, self.now)
        };
        let name = fold(&record.name);
        if self.token_named(&record.owner, &name)?.is_some() {
            return Err(name_taken(&record.name).into());
        }
        self.require_token_quota(&record.owner)?;
        self.require_ended_quota(&record.owner)?;
        self.remember(idempotency, &record);
        let owner = self.state.accounts.user_by_id(&record.owner);
        let change = json!({
            "owner": owner.map_or(record.owner.as_str(), |owner| owner.record.login.as_str()),
            "name": record.name,
            "scope": scope_text(&record.scope),
            "not_before": record.not_before.map(time_json),
            "expires_at": record.expires_at.map(time_json),
            "allow_ips": record.allow_ips.iter().map(ToString::to_string).collect::<Vec<_>>(),
        });
        self.audit_as(actor, "token.create", target(&record), Some(change));
        self.apply(Op::PutToken(record.clone()));
        Ok((record, true))
    }

    pub(crate) fn edit_token(
        &mut self,
        actor: &Actor,
        id: TokenId,
        if_revision: Option<u64>,
        edit: &TokenEdit,
    ) -> Result<TokenRecord, ChangeError> {
        let before = self.find_token(id)?;
        let principal = self.principal(actor)?;
        let mut bounds = before.bounds();
        if let Some(scope) = &edit.scope {
            bounds.scope.clone_from(scope);
            bounds.scope.sort();
        }
        bounds.expires_at = edit.expires_at.or(bounds.expires_at);
        if let Some(networks) = &edit.allow_ips {
            bounds.allow_ips.clone_from(networks);
        }
        let owner = self.owner_of(&before)?;
        let is_own = principal.is(owner.ix);
        let bounds = tokens::edit(&self.admin_facts(&principal), owner, &before.bounds(), bounds)?;
        if before.revoked.is_some()
            || before.rotation.is_some_and(|rotation| rotation.grace_until <= self.now)
        {
            return Err(revoked().into());
        }
        let TokenBounds { scope, expires_at, allow_ips } = bounds;
        let mut after = TokenRecord { scope, expires_at, allow_ips, ..before.clone() };
        if let Some(name) = &edit.name {
            after.name = names::edited(Some(&before.name), name, tokens::name)?;
        }
        if let Some(note) = &edit.note {
            after.note = names::edited(Some(&before.note), note, tokens::note)?;
        }
        if if_revision.is_some_and(|revision| revision != before.revision) {
            return Err(ChangeError::Stale);
        }
        let (old_name, new_name) = (fold(&before.name), fold(&after.name));
        let renamed = old_name != new_name;
        if renamed && is_live(&before, self.now) && self.token_named(&before.owner, &new_name)?.is_some() {
            return Err(name_taken(&after.name).into());
        }
        if after.bounds() != before.bounds() {
            self.affected = Some(Affected::Token(before.digest));
        }
        if after == before {
            self.batch.republished.push(before.clone());
            return Ok(before);
        }
        // Others' tokens are narrowed without a limit, since an incident may need that for many at once.
        if is_own || !tokens::exceeds(&before.bounds(), &after.bounds()) {
            self.count_removal(actor)?;
        }
        let after = TokenRecord { revision: before.revision + 1, ..after };
        self.audit_as(actor, "token.edit", target(&after), Some(audit::difference(&before, &after)));
        self.apply(Op::PutToken(after.clone()));
        Ok(after)
    }

    pub(crate) fn rotate_token(
        &mut self,
        actor: &Actor,
        id: TokenId,
        grace: Option<Duration>,
        idempotency: Option<&Idempotency>,
        text: NewSecret,
        by_itself: bool,
    ) -> Result<(TokenRecord, bool), ChangeError> {
        let principal = self.principal(actor)?;
        if let Some(first) = self.repeated(&principal, idempotency)? {
            return Ok((first, false));
        }
        let mut before = self.find_token(id)?;
        Transaction::refuse_exchanged(&before)?;
        let owner = self.owner_of(&before)?;
        let grace = tokens::rotate(&self.admin_facts(&principal), owner, &before.bounds(), grace);
        if let Some(rotation) = before.rotation {
            let message = format!("the token was already replaced by {}", rotation.to);
            return Err(AdminError::new(AdminErrorCode::TokenRevoked, message).into());
        }
        if before.revoked.is_some() {
            return Err(revoked().into());
        }
        let grace = grace?;
        // Without a grace, the new token takes the old one's place.
        if !grace.is_zero() {
            self.require_token_quota(&before.owner)?;
        }
        self.require_ended_quota(&before.owner)?;
        // The token that is replaced, or one that it was made from and that is in its grace.
        let caller = actor.parent.map(|id| self.token(id)).transpose()?.flatten();
        let by_itself = by_itself || caller.is_some_and(|token| token.family == before.family);
        let author = if by_itself { Some(by_rotation(id)) } else { Transaction::author(actor) };
        let after = TokenRecord {
            id: text.id,
            digest: text.digest,
            imported: false,
            author,
            created_at: self.now,
            last_used: None,
            revision: 1,
            ..before.clone()
        };
        let grace_until = self.now.plus_seconds(i64::try_from(grace.as_secs()).unwrap_or(i64::MAX));
        before.rotation = Some(Rotation { to: after.id, grace_until });
        before.revision += 1;
        self.remember(idempotency, &after);
        let change = json!({"to": after.id.as_str(), "grace_until": time_json(grace_until)});
        self.audit_as(actor, "token.rotate", target(&before), Some(change));
        self.affected = Some(Affected::Token(before.digest));
        // The new token first: a client that sees the old one replaced can use the new one.
        self.apply(Op::PutToken(after.clone()));
        self.apply(Op::PutToken(before));
        Ok((after, true))
    }

    pub(crate) fn revoke_token(
        &mut self,
        actor: &Actor,
        id: TokenId,
        reason: RevokeReason,
    ) -> Result<TokenRecord, ChangeError> {
        let record = self.find_token(id)?;
        let principal = self.principal(actor)?;
        tokens::revoke(&principal, self.owner_of(&record)?)?;
        self.end_token(actor, record, reason)
    }

    /// Revokes the tokens of texts that the caller has: a caller with a text could do worse. `leaked`: the
    /// texts were reported as leaked. `None` for an unknown token; otherwise the record, and whether the token
    /// was in force until now.
    pub(crate) fn revoke_by_value(
        &mut self,
        actor: &Actor,
        digests: &[Digest],
        leaked: bool,
    ) -> Result<Vec<Option<(TokenRecord, bool)>>, ChangeError> {
        let is_admin = self.principal(actor)?.has(Permission::UpdateUser);
        let author = Transaction::author(actor);
        let mut revoked = Vec::with_capacity(digests.len());
        for digest in digests {
            let Some(record) = self.token_by_digest(digest)? else {
                revoked.push(None);
                continue;
            };
            let fresh = record.revoked.is_none();
            let reason = match author.as_ref() == Some(&record.owner) {
                true if !leaked => RevokeReason::User,
                false if !leaked && is_admin => RevokeReason::Admin,
                // An account without the permission has the text of another's token.
                _ => RevokeReason::Leaked,
            };
            revoked.push(Some((self.end_token(actor, record, reason)?, fresh)));
        }
        Ok(revoked)
    }

    /// Ends a token, and the successors that it made by rotating itself.
    fn end_token(
        &mut self,
        actor: &Actor,
        record: TokenRecord,
        reason: RevokeReason,
    ) -> Result<TokenRecord, ChangeError> {
        // A token that was already revoked has taken its successors with it, and there may be thousands.
        // After a failed commit, they are ended again, since the index may lack that.
        let durable = self.shared.close_reason().is_none();
        let over = |token: &TokenRecord| token.revoked.is_some() && durable;
        let was_over = over(&record);
        let ended = self.revoke_record(actor, record, reason)?;
        let mut affected = Affected::Token(ended.digest);
        let mut last = ended.clone();
        while !was_over
            && let Some(rotation) = last.rotation
            && let Some(next) = self.token(rotation.to)?
            && next.author == Some(by_rotation(last.id))
            && !over(&next)
        {
            last = self.revoke_record(actor, next, reason)?;
            affected = Affected::User(self.owner_of(&last)?.ix);
        }
        self.affects(affected);
        Ok(ended)
    }

    /// Revokes a token, unless it is revoked already. Its owner's deletion is audited as a whole.
    pub(super) fn revoke_record(
        &mut self,
        actor: &Actor,
        mut record: TokenRecord,
        reason: RevokeReason,
    ) -> Result<TokenRecord, ChangeError> {
        if record.revoked.is_some() {
            self.batch.republished.push(record.clone());
            return Ok(record);
        }
        record.revoked = Some(Revocation { at: self.now, by: Transaction::author(actor), reason });
        record.revision += 1;
        if reason != RevokeReason::OwnerDeleted {
            let change = json!({"reason": reason.into_str()});
            self.audit_as(actor, "token.revoke", target(&record), Some(change));
        }
        self.apply(Op::PutToken(record.clone()));
        Ok(record)
    }

    /// Fails if the owner may not have another live token.
    fn require_token_quota(&mut self, owner: &str) -> Result<(), ChangeError> {
        let most = self.state.policy.max_tokens;
        if !self.has_live_tokens(owner, most)? {
            return Ok(());
        }
        let message =
            format!("the user already has {most} live tokens, including those in their grace period");
        Err(AdminError::new(AdminErrorCode::TooManyTokens, message).into())
    }

    /// Fails if the owner has too many tokens that were ended or have expired. Their rows are kept, so this
    /// stops an owner that keeps creating tokens. It is never checked where tokens only end.
    fn require_ended_quota(&self, owner: &str) -> Result<(), ChangeError> {
        let Policy { max_ended_tokens, max_expired_tokens, .. } = self.state.policy;
        let has_expired = || {
            let Some(others) = self.rows().named(owner)?.checked_sub(max_expired_tokens) else {
                return Ok(false);
            };
            Ok::<_, ChangeError>(self.rows().count_live(owner, self.now, others + 1, |_| true)? <= others)
        };
        let message = if self.rows().counts(owner)?.ended >= max_ended_tokens {
            format!(
                "the user has {max_ended_tokens} revoked or replaced tokens, the limit; their rows are kept \
                 for 90 days"
            )
        } else if has_expired()? {
            format!(
                "the user has {max_expired_tokens} expired tokens, the limit; their rows are kept for a day"
            )
        } else {
            return Ok(());
        };
        Err(AdminError::new(AdminErrorCode::TooManyEndedTokens, message).into())
    }

    /// The token that the first request with this key created, if the actor may still see it: since then it
    /// may have lost the power to create it.
    fn repeated(
        &self,
        principal: &Principal<'_>,
        idempotency: Option<&Idempotency>,
    ) -> Result<Option<TokenRecord>, ChangeError> {
        let Some(idempotency) = idempotency else { return Ok(None) };
        let first = self.rows().idempotency(&idempotency.key)?;
        let first = match first.filter(|first| first.at.plus_seconds(IDEMPOTENCY_RETENTION) > self.now) {
            Some(first) if first.request != idempotency.request => {
                return Err(ChangeError::IdempotencyKeyReused);
            }
            Some(first) => self.token(first.token)?,
            None => None,
        };
        if let Some(token) = &first
            && !principal.is(self.owner_of(token)?.ix)
        {
            principal.require(Permission::UpdateUser)?;
        }
        Ok(first)
    }

    fn remember(&mut self, idempotency: Option<&Idempotency>, made: &TokenRecord) {
        let Some(idempotency) = idempotency else { return };
        let record = IdempotencyRecord {
            key: idempotency.key.clone(),
            request: idempotency.request,
            token: made.id,
            at: self.now,
        };
        self.apply(Op::PutIdempotency(record));
    }

    fn find_token(&self, id: TokenId) -> Result<TokenRecord, ChangeError> {
        let unknown =
            || AdminError::new(AdminErrorCode::NotFound, format!("there is no token {:?}", id.as_str()));
        Ok(self.token(id)?.ok_or_else(unknown)?)
    }

    fn owner_of(&self, record: &TokenRecord) -> Result<&Account, AdminError> {
        let owner = self.state.accounts.user_by_id(&record.owner);
        owner.ok_or_else(|| AdminError::new(AdminErrorCode::NotFound, "the token's owner is unknown"))
    }
}

pub(super) fn target(record: &TokenRecord) -> String {
    format!("token:{}", record.id)
}

pub(super) fn name_taken(name: &str) -> AdminError {
    AdminError::new(AdminErrorCode::NameTaken, format!("the user already has a live token named {name:?}"))
}

fn revoked() -> AdminError {
    AdminError::new(AdminErrorCode::TokenRevoked, "the token was revoked")
}
