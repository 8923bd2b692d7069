//! Tokens registered by digest, so that callers move over untouched. Each line by itself.

use serde_json::json;

use super::{Desk, tokens::name_taken};
use crate::{
    authz::{
        accounts::{UserKind, UserRecord, fold},
        administration::{Acting, Refusal, RefusalCode, tokens, users},
        secret::TokenId,
        subject::Permission,
    },
    store::{
        ChangeError,
        change::{Actor, ImportedToken},
        model::TokenRecord,
        op::Op,
    },
};

/// A line with the ids it will use: a plan that is run again makes the same records.
pub(crate) struct Line {
    pub token: ImportedToken,
    pub id: TokenId,
    /// For an owner made on request.
    pub owner_id: String,
}

impl Desk {
    /// Needs `admin-write`, which covers every scope; the number of tokens is not limited.
    pub(crate) fn import_tokens(
        &mut self,
        actor: &Actor,
        lines: &[Line],
        make_owners: bool,
    ) -> Result<Vec<Result<TokenId, Refusal>>, ChangeError> {
        let parent = self.parent(actor)?;
        let acting = self.acting(actor, &parent)?;
        acting.require(Permission::AdminWrite)?;
        let mut answers = Vec::with_capacity(lines.len());
        for line in lines {
            match self.import(actor, &acting, line, make_owners) {
                Ok(id) => answers.push(Ok(id)),
                Err(ChangeError::Refused(refusal)) => answers.push(Err(refusal)),
                Err(error) => return Err(error),
            }
        }
        let taken = answers.iter().filter(|answer| answer.is_ok()).count();
        let change = json!({"tokens": taken, "refused": answers.len() - taken});
        self.note(actor, "token.import", "tokens".into(), Some(change));
        Ok(answers)
    }

    fn import(
        &mut self,
        actor: &Actor,
        acting: &Acting<'_>,
        line: &Line,
        make_owners: bool,
    ) -> Result<TokenId, ChangeError> {
        let token = &line.token;
        let name = tokens::name(&token.name)?;
        let scope = tokens::import(&self.world(), acting, &token.scope, token.expires_at)?;
        let known = self.standing.accounts.user_by_login(&token.owner).map(|user| user.record.id.clone());
        if let Some(id) = self.registered(line, known.as_deref(), &name)? {
            return Ok(id);
        }
        let folded = fold(&name);
        if let Some(owner) = &known
            && self.named(owner, &folded)?.is_some()
        {
            return Err(name_taken(&name).into());
        }
        let owner = match known {
            Some(id) => id,
            None if make_owners => self.make_owner(actor, acting, line)?,
            None => {
                let message = format!("there is no user {:?}", token.owner);
                return Err(Refusal::new(RefusalCode::NotFound, message).into());
            }
        };
        let record = TokenRecord {
            id: line.id,
            digest: token.digest,
            imported: true,
            owner,
            author: Desk::author(actor),
            name,
            note: String::new(),
            scope,
            allow_ips: Vec::new(),
            created_at: self.now,
            not_before: None,
            expires_at: token.expires_at,
            last_used: None,
            revoked: None,
            rotation: None,
            family: line.id,
            revision: 1,
        };
        self.take_name(&record.owner, folded, record.id);
        self.pending.digests.insert(record.digest);
        self.standing.imported += 1;
        self.put_token(record);
        Ok(line.id)
    }

    /// A line that was taken before is taken again, so that an import can be resumed.
    fn registered(
        &self,
        line: &Line,
        owner: Option<&str>,
        name: &str,
    ) -> Result<Option<TokenId>, ChangeError> {
        let digest = &line.token.digest;
        let indexed = self.state.index().with(digest, |token| token.map(|token| token.id));
        if indexed.is_none() && !self.pending.digests.contains(digest) {
            return Ok(None);
        }
        if let Some(id) = indexed
            && let Some(record) = self.token(id)?
            && Some(record.owner.as_str()) == owner
            && record.name == name
            && record.revoked.is_none()
        {
            return Ok(Some(id));
        }
        Err(Refusal::new(RefusalCode::NameTaken, "a token with this digest is registered already").into())
    }

    fn make_owner(&mut self, actor: &Actor, acting: &Acting<'_>, line: &Line) -> Result<String, ChangeError> {
        let login = &line.token.owner;
        let record = UserRecord {
            id: line.owner_id.clone(),
            login: login.clone(),
            name: login.clone(),
            email: None,
            kind: UserKind::Service,
            password: None,
            banned: None,
            created_at: self.now,
            deleted_at: None,
            revision: 1,
        };
        let record = users::create(&self.world(), acting, record)?;
        let id = record.id.clone();
        self.note(actor, "user.create", format!("user:{login}"), Some(json!({"kind": "service"})));
        let ix = self.standing.accounts.put_user(record.clone());
        self.pending.users.push(ix);
        self.pending.ops.push(Op::PutUser(record));
        Ok(id)
    }
}
