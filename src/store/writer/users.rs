//! Creates, edits, bans and deletes users.

use serde_json::json;

use super::Transaction;
use crate::{
    authz::{
        accounts::{Account, GrantRecord, Grantee, UserRecord},
        administration::{AdminError, AdminErrorCode, users},
        secret::TokenId,
    },
    fence::Affected,
    store::{
        ChangeError, audit,
        change::{Actor, NewUser, UserEdit},
        model::{RevokeReason, TokenRecord},
        op::Op,
    },
};

impl Transaction {
    pub(crate) fn create_user(
        &mut self,
        actor: &Actor,
        new: &NewUser,
        id: &str,
    ) -> Result<UserRecord, ChangeError> {
        let principal = self.principal(actor)?;
        let (email, password) = (new.email.clone(), new.password.clone());
        let record = UserRecord {
            email,
            password,
            ..UserRecord::new(id.to_owned(), new.login.clone(), new.name.clone(), new.kind, self.now)
        };
        let record = users::create(&self.admin_facts(&principal), record)?;
        let change = json!({"id": record.id, "name": record.name, "kind": record.kind.word()});
        self.audit_as(actor, "user.create", target(&record.login), Some(change));
        if record.password.is_some() {
            self.audit_as(actor, "user.password", target(&record.login), Some(json!({"password": "set"})));
        }
        self.apply(Op::PutUser(record.clone()));
        Ok(record)
    }

    pub(crate) fn edit_user(
        &mut self,
        actor: &Actor,
        login: &str,
        if_revision: Option<u64>,
        edit: &UserEdit,
    ) -> Result<UserRecord, ChangeError> {
        let principal = self.principal(actor)?;
        let admin_facts = self.admin_facts(&principal);
        let user = users::find_to_edit(&admin_facts, login)?;
        let (ix, before) = (user.ix, user.record.clone());
        let mut after = before.clone();
        after.login = edit.login.clone().unwrap_or(after.login);
        after.name = edit.name.clone().unwrap_or(after.name);
        after.email = edit.email.clone().unwrap_or(after.email);
        let after = users::edit(&admin_facts, user, after)?;
        if if_revision.is_some_and(|revision| revision != before.revision) {
            return Err(ChangeError::Stale);
        }
        if after == before {
            return Ok(before);
        }
        if after.login != before.login {
            // Upstreams got the old login.
            self.affected = Some(Affected::User(ix));
        }
        let after = UserRecord { revision: before.revision + 1, ..after };
        let change = json!({
            "login": audit::changed(&before.login, &after.login),
            "name": audit::changed(&before.name, &after.name),
            "email": audit::changed(&before.email, &after.email),
        });
        self.audit_as(actor, "user.edit", target(&before.login), Some(change));
        self.apply(Op::PutUser(after.clone()));
        Ok(after)
    }

    /// `Some` bans, `None` lifts the ban.
    pub(crate) fn ban_user(
        &mut self,
        actor: &Actor,
        login: &str,
        reason: Option<&str>,
    ) -> Result<UserRecord, ChangeError> {
        let principal = self.principal(actor)?;
        let (user, reason) = users::ban(&self.admin_facts(&principal), login, reason)?;
        let (ix, before) = (user.ix, user.record.clone());
        if reason.is_some() {
            self.affected = Some(Affected::User(ix));
        }
        if before.banned == reason {
            return Ok(before);
        }
        if before.banned.is_some() && reason.is_some() {
            self.count_removal(actor)?;
        }
        if reason.is_some() {
            self.sign_out(ix, &before.id);
            self.drop_invitations_of(&before.id);
        }
        let event = if reason.is_some() { "user.ban" } else { "user.unban" };
        let change = reason.as_ref().map(|reason| json!({"reason": reason}));
        self.audit_as(actor, event, target(&before.login), change);
        let after = UserRecord { banned: reason, revision: before.revision + 1, ..before };
        self.apply(Op::PutUser(after.clone()));
        Ok(after)
    }

    /// Leaves a tombstone, which refuses the user's tokens, and revokes them. With more than a page of them it does
    /// not, and returns `true`: [`Self::revoke_of_deleted`] has to follow.
    pub(crate) fn delete_user(
        &mut self,
        actor: &Actor,
        login: &str,
    ) -> Result<(UserRecord, bool), ChangeError> {
        let principal = self.principal(actor)?;
        let Account { ix, record: before, groups, roles } =
            users::delete(&self.admin_facts(&principal), login)?.clone();
        let counts = self.rows().counts(&before.id)?;

        self.affected = Some(Affected::User(ix));
        self.sign_out(ix, &before.id);
        self.drop_invitations_of(&before.id);
        let has_many = counts.all > self.page_size();
        let mut revoked = counts.all - counts.ended;
        if !has_many {
            let tokens = self.tokens_of(&before.id)?;
            revoked = tokens.iter().filter(|token| token.revoked.is_none()).count();
            for token in tokens {
                self.revoke_record(actor, token, RevokeReason::OwnerDeleted)?;
            }
        }
        for ix in groups {
            if let Some(group) = self.state.accounts.group(ix) {
                let (group, user) = (group.record.id.clone(), before.id.clone());
                self.put_member(group, user, false);
            }
        }
        for role in roles {
            let to = Grantee::User(before.id.clone());
            self.apply(Op::DropGrant(GrantRecord { role, to }));
        }
        let change = json!({"id": before.id, "revoked_tokens": revoked});
        self.audit_as(actor, "user.delete", target(&before.login), Some(change));
        let after = UserRecord {
            password: None,
            deleted_at: Some(self.now),
            revision: before.revision + 1,
            ..before
        };
        self.apply(Op::PutUser(after.clone()));
        Ok((after, has_many))
    }

    /// Revokes a page of a deleted user's tokens behind `after`. Returns the last one; `None`: none follows.
    pub(crate) fn revoke_of_deleted(
        &mut self,
        actor: &Actor,
        owner: &str,
        after: Option<TokenId>,
    ) -> Result<Option<TokenId>, ChangeError> {
        let size = self.page_size();
        let page = self.shared.engine.tokens_of(owner, after, size)?;
        for TokenRecord { id, .. } in &page {
            if let Some(token) = self.token(*id)? {
                self.revoke_record(actor, token, RevokeReason::OwnerDeleted)?;
            }
        }
        Ok(page.last().filter(|_| page.len() == size).map(|token| token.id))
    }

    /// Fails if the actor may not set the user's password.
    pub(crate) fn may_set_password(&mut self, actor: &Actor, login: &str) -> Result<(), ChangeError> {
        let principal = self.principal(actor)?;
        users::set_password(&self.admin_facts(&principal), login, true)?;
        Ok(())
    }

    /// Sets a password. A user's own replaces the one that was `verified`; one that was set meanwhile
    /// stays.
    pub(crate) fn set_password(
        &mut self,
        actor: &Actor,
        login: &str,
        verified: Option<&Option<String>>,
        phc: Option<&str>,
    ) -> Result<UserRecord, ChangeError> {
        let principal = self.principal(actor)?;
        let user = users::set_password(&self.admin_facts(&principal), login, phc.is_some())?;
        if verified != principal.is(user.ix).then_some(&user.record.password) {
            let message = "the password was changed since the current one was checked";
            return Err(AdminError::new(AdminErrorCode::WrongPassword, message).into());
        }
        let (ix, before) = (user.ix, user.record.clone());
        let change = json!({"password": if phc.is_some() { "set" } else { "removed" }});
        self.audit_as(actor, "user.password", target(&before.login), Some(change));
        Ok(self.replace_password(ix, before, phc))
    }
}

/// A user as the target of an audit event.
pub(super) fn target(login: &str) -> String {
    format!("user:{login}")
}
