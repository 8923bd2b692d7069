//! Sign-in through an OpenID Connect provider. The user is found by issuer and subject, or created at the
//! first sign-in, put into the groups that the provider controls, and signed in, all in one change.

use serde_json::json;

use super::{
    Transaction,
    sessions::{SessionParameters, self_actor},
};
use crate::{
    authz::{
        accounts::{GroupRecord, UserKind, UserRecord},
        administration::{AdminError, AdminErrorCode, Principal, groups, names, users},
        subject::UserIx,
    },
    fence::Affected,
    store::{
        ChangeError,
        change::{Actor, FederatedSession},
        model::{AuditEvent, IdentityRecord, SessionRecord, SignedInBy},
        op::Op,
        sessions::KeyedByDigest as _,
    },
};

/// Ids for the records that may have to be created.
pub(crate) struct NewIds {
    pub user: String,
    /// One for each group.
    pub groups: Vec<String>,
}

/// Maximum length of a subject (OpenID Connect Core, section 2). An issuer is a URL.
const MAX_SUBJECT: usize = 255;
const MAX_ISSUER: usize = 1024;

impl Transaction {
    /// Creates the account if there is none, follows the provider's groups and opens the session, in one
    /// change.
    pub(crate) fn begin_federated_session(
        &mut self,
        new: &FederatedSession,
        ids: &NewIds,
    ) -> Result<SessionRecord, ChangeError> {
        let key = IdentityRecord::digest(&new.issuer, &new.subject);
        let user = match self.staged_record::<IdentityRecord>(&key) {
            Some(identity) => {
                let user = self.state.accounts.user_by_id(&identity.user);
                require_sign_in_allowed(user.map(|user| &user.record))?
            }
            None => self.provision(new, &ids.user)?,
        };
        let ix = self.state.accounts.user_by_id(&user.id).map(|user| user.ix);
        let ix =
            ix.ok_or_else(|| ChangeError::Closed("an account that was just created is missing".into()))?;
        for ((group, member), id) in new.groups.iter().zip(&ids.groups) {
            if *member && self.state.accounts.group_by_name(group).is_none() {
                let record = GroupRecord { id: id.clone(), name: group.clone(), parent: None, revision: 1 };
                let operator = Principal::operator(&self.state.rules);
                let group = groups::create(&self.admin_facts(&operator), record)?;
                self.audit_federated(
                    new,
                    "group.create",
                    format!("group:{}", group.name),
                    json!({"id": group.id}),
                );
                self.apply(Op::PutGroup(group));
            }
            self.sync_membership(new, group, (ix, &user), *member);
        }
        let FederatedSession { digest, client, replaces, .. } = *new;
        let request_id = Some(new.request_id.clone());
        let actor = Actor { request_id, ..self_actor(&user, client) };
        Ok(self.open_session(
            &actor,
            ix,
            &user,
            SessionParameters { digest, client, replaces, by: SignedInBy::Provider },
        ))
    }

    /// Links the identity to the user. A user who had it before must be deleted.
    pub(crate) fn link_identity(
        &mut self,
        actor: &Actor,
        login: &str,
        issuer: &str,
        subject: &str,
    ) -> Result<IdentityRecord, ChangeError> {
        let principal = self.principal(actor)?;
        // As for setting the password: whoever controls the identity can be that user.
        let user = users::invite(&self.admin_facts(&principal), login)?.record.clone();
        let issuer = names::text("provider's issuer", issuer, 1, MAX_ISSUER)?;
        let subject = names::text("subject", subject, 1, MAX_SUBJECT)?;
        let key = IdentityRecord::digest(&issuer, &subject);
        if let Some(before) = self.staged_record::<IdentityRecord>(&key) {
            if before.user == user.id {
                return Ok(before);
            }
            let holder = self.state.accounts.user_by_id(&before.user).map(|holder| &holder.record);
            if let Some(holder) = holder.filter(|holder| holder.deleted_at.is_none()) {
                let message =
                    format!("this provider's subject is already linked to the account {:?}", holder.login);
                return Err(AdminError::new(AdminErrorCode::NameTaken, message).into());
            }
        }
        let change = json!({"issuer": issuer, "subject": subject});
        self.audit_as(actor, "user.link", format!("user:{}", user.login), Some(change));
        let record = IdentityRecord { issuer, subject, user: user.id };
        self.apply(Op::PutIdentity(record.clone()));
        Ok(record)
    }

    /// Unlinks all of the user's identities and signs the user out; returns how many identities there were.
    pub(crate) fn unlink_identities(&mut self, actor: &Actor, login: &str) -> Result<usize, ChangeError> {
        let principal = self.principal(actor)?;
        let user = users::end_sessions(&self.admin_facts(&principal), login)?;
        let (ix, user) = (user.ix, user.record.clone());
        let identities = self.staged_records(|record: &IdentityRecord| record.user == user.id);
        for identity in &identities {
            self.apply(Op::DropIdentity(identity.key()));
        }
        if !identities.is_empty() {
            self.sign_out(ix, &user.id);
            let change = json!({"identities": identities.len()});
            self.audit_as(actor, "user.unlink", format!("user:{}", user.login), Some(change));
        }
        Ok(identities.len())
    }

    /// The account for a first sign-in: a new one, or the one that has the login already, if the operator
    /// trusts the provider with logins.
    fn provision(&mut self, new: &FederatedSession, id: &str) -> Result<UserRecord, ChangeError> {
        let login = names::login(&new.login)?;
        let taken = self.state.accounts.user_by_login(&login).map(|user| user.record.clone());
        let user = match taken {
            Some(_) if !new.adopt => {
                let message = format!(
                    "the login {login:?} belongs to an account that is not linked to this provider: ask an \
                     administrator"
                );
                return Err(AdminError::new(AdminErrorCode::NameTaken, message).into());
            }
            Some(user) => {
                let user = require_sign_in_allowed(Some(&user))?;
                self.audit_federated(new, "user.link", format!("user:{login}"), json!({"id": user.id}));
                user
            }
            None => {
                let name = names::text("name", &new.name, 1, 200).unwrap_or_else(|_| login.clone());
                let record = UserRecord {
                    email: new.email.as_deref().and_then(|email| names::email(email).ok()),
                    ..UserRecord::new(id.to_owned(), login, name, UserKind::Human, self.now)
                };
                let record = users::provision(&self.admin_facts(&Principal::nobody()), record)?;
                let change = json!({"id": record.id, "name": record.name, "kind": "human"});
                self.audit_federated(new, "user.create", format!("user:{}", record.login), change);
                self.apply(Op::PutUser(record.clone()));
                record
            }
        };
        let (issuer, subject) = (new.issuer.clone(), new.subject.clone());
        self.apply(Op::PutIdentity(IdentityRecord { issuer, subject, user: user.id.clone() }));
        Ok(user)
    }

    /// Adds the user to a group or removes them from it, as the provider says.
    fn sync_membership(
        &mut self,
        new: &FederatedSession,
        group: &str,
        (ix, user): (UserIx, &UserRecord),
        member: bool,
    ) {
        let Some(group) = self.state.accounts.group_by_name(group) else { return };
        let account = self.state.accounts.user(ix);
        let was = account.is_some_and(|account| account.groups.binary_search(&group.ix).is_ok());
        let group = group.record.clone();
        if was == member {
            return;
        }
        if !member {
            self.affected = Some(Affected::User(ix));
        }
        let event = if member { "group.member.add" } else { "group.member.remove" };
        self.audit_federated(new, event, format!("group:{}", group.name), json!({"user": user.login}));
        self.put_member(group.id, user.id.clone(), member);
    }

    /// Audits a change that a provider caused.
    fn audit_federated(
        &mut self,
        new: &FederatedSession,
        event: &'static str,
        target: String,
        mut change: serde_json::Value,
    ) {
        change["issuer"] = new.issuer.as_str().into();
        change["subject"] = new.subject.as_str().into();
        change["from"] = json!({"client": new.client.to_string()});
        let request_id = Some(new.request_id.clone());
        self.audit(AuditEvent { request_id, ..AuditEvent::new(self.now, event, "system", target, change) });
    }
}

/// A user who may sign in. The provider has identified the user, so the error may say what is wrong.
fn require_sign_in_allowed(user: Option<&UserRecord>) -> Result<UserRecord, AdminError> {
    match user {
        Some(user) if user.may_sign_in() => Ok(user.clone()),
        Some(user) if user.deleted_at.is_none() => {
            Err(AdminError::new(AdminErrorCode::UserBanned, "the account is disabled: ask an administrator"))
        }
        _ => Err(AdminError::new(
            AdminErrorCode::PermissionDenied,
            "the account was deleted: ask an administrator",
        )),
    }
}
