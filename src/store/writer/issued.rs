//! Tokens that clients get through the proxy in exchange for another issuer's.

use serde_json::json;

use super::{NewSecret, Transaction, tokens::target};
use crate::{
    authz::{
        accounts::UserKind,
        administration::{AdminError, AdminErrorCode},
        secret::TokenId,
        subject::scope_text,
    },
    settings::ExchangeRule,
    store::{
        ChangeError,
        audit::time_json,
        change::ExchangedToken,
        model::{AuditEvent, TokenRecord},
        op::Op,
    },
};

/// The author of a token that its predecessor created.
pub(super) fn by_rotation(predecessor: TokenId) -> String {
    format!("rotation:{}", predecessor.as_str())
}

impl Transaction {
    /// Issues a token for one of another issuer, from which its id is derived, so that each is exchanged
    /// once. It takes no name, so it does not count among the tokens that users create.
    pub(crate) fn exchange_token(
        &mut self,
        new: &ExchangedToken,
        text: NewSecret,
    ) -> Result<(TokenRecord, bool), ChangeError> {
        let refuse = |code, message: &str| Err(AdminError::new(code, message).into());
        // The rule may have been removed since the request read it.
        let rules = &self.state.proxy.exchange;
        let Some(rule) = rules.iter().find(|rule| rule.author() == new.rule) else {
            return refuse(AdminErrorCode::NotFound, "the exchange rule no longer exists");
        };
        let (name, lifetime) = (rule.name.clone(), rule.lifetime);
        if self.token(text.id)?.is_some() {
            return refuse(AdminErrorCode::NameTaken, "the token was already exchanged");
        }
        let Some(owner) = self.state.accounts.user_by_login(&rule.account) else {
            return refuse(AdminErrorCode::NotFound, "the rule's account does not exist");
        };
        let owner = &owner.record;
        if owner.kind != UserKind::Service || owner.banned.is_some() || owner.deleted_at.is_some() {
            return refuse(
                AdminErrorCode::UserBanned,
                "the rule's account is not an enabled service account",
            );
        }
        let (owner_id, login) = (owner.id.clone(), owner.login.clone());
        let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        let own_name = format!("{name} {}", text.id.as_str());
        let record = TokenRecord {
            author: Some(new.rule.clone()),
            note: new.subject.clone(),
            expires_at: Some(self.now.plus_seconds(seconds)),
            ..TokenRecord::new(text.id, text.digest, owner_id, own_name, new.scope.clone(), self.now)
        };
        let change = json!({
            "owner": login,
            "subject": new.subject,
            "scope": scope_text(&record.scope),
            "expires_at": record.expires_at.map(time_json),
            "from": {"client": new.client.to_string()},
        });
        let actor = format!("exchange:{name}");
        let request_id = Some(new.request_id.clone());
        let event = AuditEvent::new(self.now, "token.exchange", actor, target(&record), change);
        self.audit(AuditEvent { request_id, ..event });
        self.apply(Op::PutToken(record.clone()));
        Ok((record, true))
    }

    /// Fails if the token was issued in exchange for one of another issuer.
    pub(super) fn refuse_exchanged(record: &TokenRecord) -> Result<(), AdminError> {
        if record.author.as_deref().is_some_and(ExchangeRule::is_author) {
            let message = "an exchanged token cannot be rotated: exchange another one";
            return Err(AdminError::new(AdminErrorCode::PermissionDenied, message));
        }
        Ok(())
    }
}
