//! Registers tokens by digest, so that clients move over unchanged. Each line stands by itself.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Transaction, tokens::name_taken};
use crate::{
    authz::{
        accounts::{UserKind, UserRecord, fold},
        administration::{AdminError, AdminErrorCode, Principal, tokens, users},
        secret::TokenId,
        subject::Permission,
    },
    store::{
        ChangeError,
        change::{AcceptedImport, Actor, ImportedToken},
        model::TokenRecord,
        op::Op,
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
pub(crate) const REGISTERED_AND_ENDED: &str =
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
            match self.import(actor, &principal, line, make_owners) {
                Ok(accepted) => answers.push(Ok(accepted)),
                Err(ChangeError::Refused(refusal)) => answers.push(Err(refusal)),
                Err(error) => return Err(error),
            }
        }
        for (lines, answers) in lines.chunks(PER_EVENT).zip(answers.chunks(PER_EVENT)) {
            let taken = answers.iter().filter(|answer| answer.is_ok()).count();
            let mut owners: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for (line, answer) in lines.iter().zip(answers) {
                if answer.as_ref().is_ok_and(|accepted| !accepted.known) {
                    owners.entry(&line.token.owner).or_default().push(line.id.as_str());
                }
            }
            let change = json!({"tokens": taken, "refused": answers.len() - taken, "owners": owners});
            self.audit_as(actor, "token.import", "tokens".into(), Some(change));
        }
        Ok(answers)
    }

    fn import(
        &mut self,
        actor: &Actor,
        principal: &Principal<'_>,
        line: &PlannedImport,
        make_owners: bool,
    ) -> Result<AcceptedImport, ChangeError> {
        let token = &line.token;
        let known = self.state.accounts.user_by_login(&token.owner).map(|user| user.record.id.clone());
        // First: since the import, the token may have expired, or its name or service may be refused.
        if let Some(id) = self.registered(line, known.as_deref())? {
            return Ok(AcceptedImport { id, known: true });
        }
        let name = tokens::name(&token.name)?;
        let scope = tokens::import(&self.admin_facts(principal), &token.scope, token.expires_at)?;
        let folded = fold(&name);
        if let Some(owner) = &known
            && self.token_named(owner, &folded)?.is_some()
        {
            return Err(name_taken(&name).into());
        }
        let owner = match known {
            Some(id) => id,
            None if make_owners => self.make_owner(actor, principal, line)?,
            None => {
                let message = format!("there is no user {:?}", token.owner);
                return Err(AdminError::new(AdminErrorCode::NotFound, message).into());
            }
        };
        let record = TokenRecord {
            imported: true,
            author: Transaction::author(actor),
            expires_at: token.expires_at,
            ..TokenRecord::new(line.id, token.digest, owner, name, scope, self.now)
        };
        self.apply(Op::PutToken(record));
        Ok(AcceptedImport { id: line.id, known: false })
    }

    /// The token of a line that was imported before, so that an import can be resumed.
    fn registered(&self, line: &PlannedImport, owner: Option<&str>) -> Result<Option<TokenId>, ChangeError> {
        let Some(record) = self.token_by_digest(&line.token.digest)? else { return Ok(None) };
        let ended = record.is_ended();
        // But not in this batch: a line that comes twice is a mistake.
        if self.shared.state.index().with(&record.digest, |token| token.is_some())
            && Some(record.owner.as_str()) == owner
            && !ended
        {
            return Ok(Some(record.id));
        }
        let message =
            if ended { REGISTERED_AND_ENDED } else { "a token with this digest is already registered" };
        Err(AdminError::new(AdminErrorCode::NameTaken, message).into())
    }

    fn make_owner(
        &mut self,
        actor: &Actor,
        principal: &Principal<'_>,
        line: &PlannedImport,
    ) -> Result<String, ChangeError> {
        let login = &line.token.owner;
        let (id, name) = (line.owner_id.clone(), login.clone());
        let record = UserRecord::new(id, login.clone(), name, UserKind::Service, self.now);
        let record = users::create(&self.admin_facts(principal), record)?;
        let id = record.id.clone();
        self.audit_as(actor, "user.create", format!("user:{login}"), Some(json!({"kind": "service"})));
        self.apply(Op::PutUser(record));
        Ok(id)
    }
}
