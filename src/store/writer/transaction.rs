//! A batch that is being planned: what plans read, and the operations that result. Later plans of a batch
//! see the results of earlier ones, although nothing is durable yet.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::json;

use super::{Shared, WriteRates, retention::PAGE};
use crate::{
    authz::{
        administration::{AdminError, AdminFacts, Principal},
        decide::is_allowed_from,
        rules::{BUILT_IN_SERVICE, ServiceIds},
        secret::{Digest, TokenId},
        subject::{Access, Token, TokenEnd},
        time::Timestamp,
    },
    fence::Affected,
    store::{
        ChangeError, ReadError,
        change::{Actor, ActorKind},
        model::{AuditEvent, TokenRecord},
        op::{AffectedSubject, Op},
        replica::{StageError, Staged, StagedView, Table},
        state::{Effects, State},
    },
};

/// The state that a batch starts from, and the batch.
pub(crate) struct Transaction {
    pub shared: Arc<Shared>,
    pub now: Timestamp,
    pub state: State,
    pub ids: ServiceIds,
    pub batch: Batch,
    /// The batch before, while it is being made durable. Only of an offline import, which plans the next batch
    /// meanwhile.
    pub committing: Option<Arc<Batch>>,
    /// From whom the current command takes something.
    pub affected: Option<Affected>,
    /// Whose power the current command changes.
    pub power_changes: Effects,
    /// Whether the current command counts for its account's rate.
    pub counted: bool,
    /// Whether it has been counted.
    pub was_counted: bool,
    pub rates: WriteRates,
    /// Whether plans see rows as the log has them, without removals that could not be written.
    pub as_logged: bool,
    /// Why the current command cannot be written.
    pub failed: Option<StageError>,
}

/// Operations and their effects.
#[derive(Default)]
pub(crate) struct Batch {
    pub ops: Vec<Op>,
    pub staged: Staged,
    pub effects: Effects,
    /// Tokens to put into the index although no row changes: after a failed commit, the rows may have a
    /// change that the index lacks.
    pub republished: Vec<TokenRecord>,
}

impl Transaction {
    /// Adds an operation to the batch: to what the log will get, to the staged rows, and to the state in
    /// memory.
    pub(crate) fn apply(&mut self, op: Op) {
        match self.shared.engine.stage(&mut self.batch.staged, &op) {
            Ok(()) => {
                let effects = self.state.apply(&op);
                self.power_changes.add(effects.clone());
                self.batch.effects.add(effects);
                self.batch.ops.push(op);
            }
            Err(error) => drop(self.failed.get_or_insert(error)),
        }
    }

    /// What is stored, overlaid with the batch.
    pub(crate) fn rows(&self) -> StagedView<'_> {
        self.shared.engine.with_staged(&self.batch.staged)
    }

    pub(crate) fn admin_facts<'a>(&'a self, principal: &'a Principal<'_>) -> AdminFacts<'a> {
        AdminFacts {
            principal,
            accounts: &self.state.accounts,
            rules: &self.state.rules,
            now: self.now,
            max_lifetime: self.state.policy.max_lifetime,
            reserved_logins: &self.state.policy.reserved_logins,
        }
    }

    /// Counts a change that gives no power, but can be repeated without end, unlike a revocation: apart from
    /// other changes, so that these do not hold it up. One that is in force already is not counted.
    pub(crate) fn count_removal(&mut self, actor: &Actor) -> Result<(), ChangeError> {
        match &actor.kind {
            ActorKind::User(account) if !self.as_logged => self.count(&format!("{account} removals")),
            _ => Ok(()),
        }
    }

    /// Counts the current command, unless an earlier run of its plan did.
    fn count(&mut self, key: &str) -> Result<(), ChangeError> {
        if self.was_counted {
            return Ok(());
        }
        let taken = self.rates.take(key, self.state.policy.write_rate, self.now);
        self.was_counted = taken.is_ok();
        // In whole seconds, as Retry-After is.
        let seconds = |wait: Duration| u32::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        taken.map_err(|wait| ChangeError::RateLimited(seconds(wait)))
    }

    /// The token that authenticated the actor, if any. It must still be valid, as must a session.
    fn parent(&mut self, actor: &Actor) -> Result<Option<Token>, ChangeError> {
        if let ActorKind::User(account) = &actor.kind
            && self.counted
        {
            self.count(account)?;
        }
        // A removal that is written late was in force before: it must not end because time has passed, nor
        // because its caller has signed out.
        let signed_out = |digest: Digest| !self.as_logged && self.session(&digest).is_none();
        if actor.session.is_some_and(signed_out) {
            return Err(AdminError::new(super::PERMISSION_DENIED, "the caller's session has ended").into());
        }
        let Some(id) = actor.parent else { return Ok(None) };
        let gone = || AdminError::new(super::PERMISSION_DENIED, "the caller's token is no longer valid");
        let record = self.token(id)?.ok_or_else(gone)?;
        let token = self.state.compile(record.head(), &mut self.ids).ok_or_else(gone)?;
        let ended = match token.restrictions.end {
            TokenEnd::None => false,
            TokenEnd::Rotated { grace_until } => !self.as_logged && grace_until <= self.now,
            TokenEnd::Revoked => true,
        };
        // The token may have been narrowed since, and the actor's own request is exempt from that fence.
        let built_in = self.state.rules.service_by_key(BUILT_IN_SERVICE);
        let asks = built_in.is_some_and(|service| token.scope.access(service.id) == Some(Access::Full));
        let elsewhere = actor.client.is_some_and(|client| !is_allowed_from(&token, client));
        let expired = token.expires_at.is_some_and(|end| end <= self.now);
        if ended || !asks || !self.as_logged && (elsewhere || expired) {
            return Err(gone().into());
        }
        Ok(Some(token))
    }

    /// The acting account. The session or the token that authenticated it must still be valid.
    pub(crate) fn principal(&mut self, actor: &Actor) -> Result<Principal<'static>, ChangeError> {
        let parent = self.parent(actor)?.map(Cow::Owned);
        Ok(match &actor.kind {
            ActorKind::Operator => Principal::operator(&self.state.rules),
            ActorKind::User(id) => Principal::user(&self.state.accounts, &self.state.rules, id, parent)?,
        })
    }

    pub(crate) fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, ReadError> {
        Ok(self.rows().token(id)?.map(|record| self.apply_unsaved(record)))
    }

    pub(crate) fn token_by_digest(&self, digest: &Digest) -> Result<Option<TokenRecord>, ReadError> {
        Ok(self.rows().token_by_digest(digest)?.map(|record| self.apply_unsaved(record)))
    }

    /// How many rows one change removes. One that is not durable is followed by no other, so it removes all: in
    /// memory. If its log takes it later, retention does the rest.
    pub(super) fn page_size(&self) -> usize {
        if self.batch.staged.ignore_damage { usize::MAX } else { PAGE }
    }

    /// All tokens of an owner, live or not.
    pub(crate) fn tokens_of(&self, owner: &str) -> Result<Vec<TokenRecord>, ReadError> {
        let tokens = self.rows().tokens_of(owner)?;
        Ok(tokens.into_iter().map(|record| self.apply_unsaved(record)).collect())
    }

    /// Corrects a stored record by a removal that could not be made durable.
    fn apply_unsaved(&self, record: TokenRecord) -> TokenRecord {
        if self.as_logged || self.batch.staged.change(Table::Tokens, record.digest.as_bytes()).is_some() {
            return record;
        }
        self.shared.unsaved(|unsaved| unsaved.get(&record.id).cloned()).unwrap_or(record)
    }

    /// The live token that has the name; an expired one does not count.
    pub(crate) fn token_named(&self, owner: &str, name: &str) -> Result<Option<TokenId>, ReadError> {
        let mut named = self.rows().live_token_named(owner, name, self.now)?;
        if let (None, Some(batch)) = (&named, &self.committing) {
            named = self.shared.engine.with_staged(&batch.staged).live_token_named(owner, name, self.now)?;
        }
        let named = named.map(|record| self.apply_unsaved(record));
        Ok(named.filter(|record| is_live(record, self.now)).map(|record| record.id))
    }

    /// Whether an owner has this many live tokens, those in their grace included, and exchanged ones not.
    pub(crate) fn has_live_tokens(&self, owner: &str, count: usize) -> Result<bool, ReadError> {
        let in_grace = self.rows().in_grace(owner, self.now)?;
        let saved = |id| self.as_logged || self.shared.unsaved(|unsaved| !unsaved.contains_key(&id));
        let live = self.rows().count_live(owner, self.now, count.saturating_sub(in_grace), saved)?;
        Ok(live + in_grace >= count)
    }

    pub(crate) fn audit(&mut self, event: AuditEvent) {
        let mut head = self.state.audit;
        self.apply(Op::AppendAudit(head.append(event)));
    }

    /// Audits an event by an actor, about a target. `change` gets `from`: the address and the token of the request.
    pub(crate) fn audit_as(
        &mut self,
        actor: &Actor,
        event: &'static str,
        target: String,
        change: Option<serde_json::Value>,
    ) {
        let request_id = actor.request_id.clone();
        let client = actor.client.map(|client| ("client", client.to_string()));
        let token = actor.parent.map(|token| ("token", token.to_string()));
        let from: BTreeMap<_, _> = client.into_iter().chain(token).collect();
        let mut change = change;
        if !from.is_empty() {
            change.get_or_insert_default()["from"] = json!(from);
        }
        let event = AuditEvent::new(self.now, event, self.actor_name(actor), target, change);
        self.audit(AuditEvent { request_id, ..event });
    }

    fn actor_name(&self, actor: &Actor) -> String {
        match &actor.kind {
            ActorKind::Operator => "operator".into(),
            ActorKind::User(id) => match self.state.accounts.user_by_id(id) {
                Some(user) => user.record.login.clone(),
                None => id.clone(),
            },
        }
    }

    /// Adds a subject that the current command takes something from, for commands that may affect several.
    pub(crate) fn affects(&mut self, affected: Affected) {
        self.affected = match self.affected {
            Some(before) if before != affected => Some(Affected::All),
            _ => Some(affected),
        };
    }

    /// An affected subject in the form that is stored.
    pub(crate) fn affected_subject(&self, affected: Affected) -> AffectedSubject {
        match affected {
            Affected::All => AffectedSubject::All,
            Affected::Token(digest) => AffectedSubject::Token(digest),
            Affected::User(ix) => match self.state.accounts.user(ix) {
                Some(user) => AffectedSubject::User(user.record.id.clone()),
                None => AffectedSubject::All,
            },
        }
    }

    /// The user that is recorded as author or revoker; `None` for the operator.
    pub(crate) fn author(actor: &Actor) -> Option<String> {
        match &actor.kind {
            ActorKind::Operator => None,
            ActorKind::User(id) => Some(id.clone()),
        }
    }
}

/// Whether a token occupies its name and counts among its owner's live tokens.
pub(crate) fn is_live(record: &TokenRecord, now: Timestamp) -> bool {
    record.revoked.is_none() && record.rotation.is_none() && record.expires_at.is_none_or(|end| end > now)
}
