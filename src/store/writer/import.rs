//! Registers tokens by digest, so that clients move over unchanged. Each line stands by itself.

use std::collections::BTreeMap;

use serde_json::json;

use super::Transaction;
use crate::{
    authz::{
        accounts::{UserKind, fold},
        administration::{AdminError, AdminErrorCode, Principal, tokens, users},
        secret::{Digest, TokenId},
        subject::{Permission, Token, TokenEnd},
    },
    store::{
        ChangeError,
        change::{AcceptedImport, Actor, ImportedToken, NewUser},
        model::TokenRecord,
        op::Op,
        record::TokenHead,
        replica::Table,
    },
};

/// A line with the ids that it will use, so that a plan that is run again makes the same records.
pub(crate) struct PlannedImport {
    pub token: ImportedToken,
    pub id: TokenId,
    /// For an owner that is created.
    pub owner_id: String,
}

/// Lines that one audit event names: with the longest logins they fit into its record.
const PER_EVENT: usize = 100;

/// The error for a digest whose token has ended: an import brings no token back.
const REGISTERED_AND_ENDED: &str =
    "a token with this digest was registered before and has been revoked or replaced";

impl Transaction {
    /// Needs `admin-write`, which covers every scope; the number of tokens is not limited.
    pub(crate) fn import_tokens(
        &mut self,
        actor: &Actor,
        lines: &[PlannedImport],
        make_owners: bool,
    ) -> Result<Vec<Result<AcceptedImport, AdminError>>, ChangeError> {
        let principal = self.principal(actor)?;
        principal.require(Permission::AdminWrite)?;
        let mut answers = Vec::with_capacity(lines.len());
        for line in lines {
            let owner_id = make_owners.then_some(|| line.owner_id.clone());
            match self.import_token(actor, &principal, &line.token, line.id, owner_id) {
                Ok(accepted) => answers.push(Ok(accepted)),
                Err(ChangeError::Refused(refusal)) => answers.push(Err(refusal)),
                Err(error) => return Err(error),
            }
        }
        for (lines, answers) in lines.chunks(PER_EVENT).zip(answers.chunks(PER_EVENT)) {
            let refused = answers.iter().filter(|answer| answer.is_err()).count();
            let (mut imported, mut owners) = (0, BTreeMap::<&str, Vec<&str>>::new());
            for (line, answer) in lines.iter().zip(answers) {
                if answer.as_ref().is_ok_and(|accepted| !accepted.known) {
                    imported += 1;
                    owners.entry(&line.token.owner).or_default().push(line.id.as_str());
                }
            }
            // Else nothing happened, as when an import is resumed.
            if imported + refused > 0 {
                let change = json!({"tokens": imported, "refused": refused, "owners": owners});
                self.audit_as(actor, "token.import", "tokens".into(), Some(change));
            }
        }
        Ok(answers)
    }

    /// Imports one token; one that was imported before is known. `owner_id` makes the id of an owner that does
    /// not exist; `None`: that is refused.
    pub(crate) fn import_token(
        &mut self,
        actor: &Actor,
        principal: &Principal<'_>,
        token: &ImportedToken,
        id: TokenId,
        owner_id: Option<impl FnOnce() -> String>,
    ) -> Result<AcceptedImport, ChangeError> {
        let ImportedToken { digest, owner: login, expires_at, .. } = token;
        let owner = self.state.accounts.user_by_login(login).map(|user| (user.ix, user.record.id.clone()));
        // First: since the import, the token may have expired, or its name or service may be refused.
        if let Some(Token { id, owner: of, restrictions, .. }) = self.registered(digest) {
            return match owner {
                _ if restrictions.end != TokenEnd::None => Err(taken(REGISTERED_AND_ENDED).into()),
                Some((ix, _)) if ix == of => Ok(AcceptedImport { id, known: true }),
                _ => Err(taken("a token with this digest is already registered for another owner").into()),
            };
        }
        let name = tokens::name(&token.name)?;
        let scope = tokens::import(&self.admin_facts(principal), &token.scope, *expires_at)?;
        if let Some((_, owner)) = &owner
            && self.token_named(owner, &fold(&name))?.is_some()
        {
            return Err(taken(&format!("{login} already has a token named {name:?}")).into());
        }
        let owner = match owner {
            Some((_, id)) => id,
            None => match owner_id {
                Some(new_id) => self.make_owner(actor, login, &new_id())?,
                None => users::find(&self.state.accounts, login)?.record.id.clone(),
            },
        };
        let record = TokenRecord {
            imported: true,
            author: Transaction::author(actor),
            expires_at: *expires_at,
            ..TokenRecord::new(id, *digest, owner, name, scope, self.now)
        };
        self.batch.staged.absent = Some(*digest);
        self.apply(Op::PutToken(record));
        Ok(AcceptedImport { id, known: false })
    }

    /// The token of a digest: as this batch leaves it, or else as published, which is far faster to find than
    /// its row.
    fn registered(&mut self, digest: &Digest) -> Option<Token> {
        match self.batch.staged.change(Table::Tokens, digest.as_bytes()) {
            Some(row) => self.state.compile(TokenHead::decode(row?).ok()?, &mut self.ids),
            None => self.shared.state.index().with(digest, |token| Some(token?.clone())),
        }
    }

    /// Creates the owner or member of an import's line, and returns its id.
    pub(crate) fn make_owner(&mut self, actor: &Actor, login: &str, id: &str) -> Result<String, ChangeError> {
        let (login, name) = (login.to_owned(), login.to_owned());
        let new = NewUser { login, name, email: None, kind: UserKind::Service, password: None };
        Ok(self.create_user(actor, &new, id)?.id)
    }
}

fn taken(message: &str) -> AdminError {
    AdminError::new(AdminErrorCode::NameTaken, message)
}
