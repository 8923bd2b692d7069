//! The writer's desk: how things stand, and what a batch is about to change. Later commands of a
//! batch see what earlier ones put down, though nothing is durable yet.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    authz::{
        accounts::Accounts,
        administration::{Acting, Refusal, World},
        rules::{BUILT_IN_SERVICE, Rules, ServiceId, ServiceIds, ServiceKey},
        secret::{Digest, TokenId},
        subject::{Access, Ending, Scope, Token, UserIx},
        time::Timestamp,
    },
    fence::Affected,
    settings::ProxySettings,
    state::State,
    store::{
        ChangeError, ReadError,
        audit::{AuditHead, Entry},
        change::{Actor, Policy, Who},
        engine::Engine,
        model::{IdempotencyRecord, IdentityRecord, InvitationRecord, SessionRecord, TokenRecord},
        op::{Op, Whom},
        sessions::Sessions,
    },
};

/// What the batch has changed so far, and what it stands on.
pub(crate) struct Desk {
    pub engine: Arc<Engine>,
    pub state: Arc<State>,
    pub sessions: Arc<Sessions>,
    pub now: Timestamp,
    pub standing: Standing,
    pub ids: ServiceIds,
    pub pending: Pending,
    /// Whom the command at hand takes something from.
    pub affected: Option<Affected>,
    /// Tokens changed without the engine; it is wrong about them.
    pub unsaved: HashMap<TokenId, TokenRecord>,
    /// By owner, the replaced tokens that may still be in their grace.
    pub replaced: Replaced,
}

pub(crate) type Replaced = HashMap<String, HashSet<TokenId>>;

/// What a batch falls back to when it cannot be committed. Clones cheaply.
#[derive(Clone)]
pub(crate) struct Standing {
    pub accounts: Accounts,
    pub rules: Arc<Rules>,
    pub proxy: Arc<ProxySettings>,
    pub policy: Policy,
    pub imported: u64,
    pub audit: AuditHead,
}

/// What a batch is about to change.
#[derive(Default)]
pub(crate) struct Pending {
    pub ops: Vec<Op>,
    pub tokens: HashMap<TokenId, TokenRecord>,
    pub names: HashMap<(String, String), Option<TokenId>>,
    pub digests: HashSet<Digest>,
    pub once: HashMap<String, IdempotencyRecord>,
    pub sessions: HashMap<Digest, Option<SessionRecord>>,
    pub invitations: HashMap<Digest, Option<InvitationRecord>>,
    pub identities: HashMap<Digest, Option<IdentityRecord>>,
    /// What the index is told, in order.
    pub index: Vec<(Digest, Option<Token>)>,
    pub users: Vec<UserIx>,
    /// Groups, roles or rules: the whole directory.
    pub everybody: bool,
}

impl Desk {
    pub(crate) fn world(&self) -> World<'_> {
        World {
            accounts: &self.standing.accounts,
            rules: &self.standing.rules,
            now: self.now,
            max_lifetime: self.standing.policy.max_lifetime,
            reserved_logins: &self.standing.policy.reserved_logins,
        }
    }

    /// The token that an actor asks with, as long as it still holds; a session, too, must.
    pub(crate) fn parent(&mut self, actor: &Actor) -> Result<Option<Token>, ChangeError> {
        if actor.session.is_some_and(|digest| self.session(&digest).is_none()) {
            return Err(Refusal::new(super::PERMISSION_DENIED, "the session that asks has ended").into());
        }
        let Some(id) = actor.parent else { return Ok(None) };
        let gone = || Refusal::new(super::PERMISSION_DENIED, "the token that asks holds no longer");
        let record = self.token(id)?.ok_or_else(gone)?;
        let token = self.compile(&record).ok_or_else(gone)?;
        let ended = match token.end {
            Ending::None => false,
            Ending::Rotated { grace_until } => grace_until <= self.now,
            Ending::Revoked => true,
        };
        // It may have been narrowed since it was recognised, and its request is exempt from that fence.
        let built_in = self.standing.rules.service_by_key(BUILT_IN_SERVICE);
        let asks = built_in.is_some_and(|service| token.scope.access(service.id) == Some(Access::Full));
        if ended || !asks || token.expires_at.is_some_and(|end| end <= self.now) {
            return Err(gone().into());
        }
        Ok(Some(token))
    }

    pub(crate) fn acting<'a>(
        &self,
        actor: &Actor,
        parent: &'a Option<Token>,
    ) -> Result<Acting<'a>, ChangeError> {
        match &actor.who {
            Who::Operator => Ok(Acting::operator(&self.standing.rules)),
            Who::User(id) => Ok(Acting::user(&self.world(), id, parent.as_ref())?),
        }
    }

    pub(crate) fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, ReadError> {
        match self.pending.tokens.get(&id).or_else(|| self.unsaved.get(&id)) {
            Some(record) => Ok(Some(record.clone())),
            None => self.engine.token(id),
        }
    }

    /// All of an owner's, live or not.
    pub(crate) fn tokens_of(&self, owner: &str) -> Result<Vec<TokenRecord>, ReadError> {
        const PAGE: usize = 1000;
        let mut all: Vec<TokenRecord> = Vec::new();
        loop {
            let page = self.engine.tokens_of(owner, all.last().map(|record| record.id), PAGE)?;
            let last = page.len() < PAGE;
            all.extend(page);
            if last {
                break;
            }
        }
        for record in &mut all {
            let newer = self.pending.tokens.get(&record.id).or_else(|| self.unsaved.get(&record.id));
            if let Some(newer) = newer {
                *record = newer.clone();
            }
        }
        let known: HashSet<TokenId> = all.iter().map(|record| record.id).collect();
        let made = self.pending.tokens.values().filter(|r| r.owner == owner && !known.contains(&r.id));
        all.extend(made.cloned());
        Ok(all)
    }

    /// Who holds a name now: an expired token does not.
    pub(crate) fn named(&self, owner: &str, name: &str) -> Result<Option<TokenId>, ReadError> {
        let holder = match self.pending.names.get(&(owner.to_owned(), name.to_owned())) {
            Some(holder) => *holder,
            None => self.engine.named(owner, name)?,
        };
        let Some(id) = holder else { return Ok(None) };
        Ok(self.token(id)?.filter(|record| is_live(record, self.now)).map(|_| id))
    }

    /// Every name that an owner's tokens have taken, with the token.
    pub(crate) fn names_of(&self, owner: &str) -> Result<HashMap<String, TokenId>, ReadError> {
        let mut holders: HashMap<String, TokenId> = self.engine.names_of(owner)?.into_iter().collect();
        for ((_, name), holder) in self.pending.names.iter().filter(|((of, _), _)| of == owner) {
            match holder {
                Some(id) => holders.insert(name.clone(), *id),
                None => holders.remove(name),
            };
        }
        Ok(holders)
    }

    /// Whether an owner has this many live tokens, those in their grace included.
    pub(crate) fn has_live_tokens(&mut self, owner: &str, count: usize) -> Result<bool, ReadError> {
        let taken = self.pending.names.iter().filter(|((of, _), holder)| of == owner && holder.is_some());
        let taken = taken.count();
        let in_grace = self.in_grace(owner)?;
        // Those that somebody ended are counted already, so that most owners need no closer look.
        let counts = self.engine.counts(owner);
        if counts.all - counts.ended + taken + in_grace < count {
            return Ok(false);
        }
        let mut live = in_grace;
        for id in self.names_of(owner)?.into_values() {
            live += usize::from(self.token(id)?.is_some_and(|record| is_live(&record, self.now)));
        }
        Ok(live >= count)
    }

    /// How many of an owner's tokens are in their grace. Forgets those that are not any more.
    fn in_grace(&mut self, owner: &str) -> Result<usize, ReadError> {
        let Some(replaced) = self.replaced.get(owner) else { return Ok(0) };
        let (mut kept, mut count) = (HashSet::new(), 0);
        for &id in replaced {
            count += usize::from(self.token(id)?.is_some_and(|record| is_in_grace(&record, self.now)));
            // What is pending comes back, or goes again, when the batch cannot be committed.
            let stored = self.engine.token(id)?.is_some_and(|record| is_in_grace(&record, self.now));
            if stored || self.pending.tokens.contains_key(&id) {
                kept.insert(id);
            }
        }
        if kept.is_empty() {
            self.replaced.remove(owner);
        } else {
            self.replaced.insert(owner.to_owned(), kept);
        }
        Ok(count)
    }

    /// How many rows of an owner's revoked and replaced tokens there are.
    pub(crate) fn ended_tokens(&self, owner: &str) -> usize {
        let ends = |record: &&TokenRecord| record.revoked.is_some() || record.rotation.is_some();
        let pending = self.pending.tokens.values().filter(|record| record.owner == owner).filter(ends);
        self.engine.counts(owner).ended + pending.count()
    }

    /// Puts a token down: stored, and told to the index.
    pub(crate) fn put_token(&mut self, record: TokenRecord) {
        self.show_token(&record);
        self.pending.ops.push(Op::PutToken(record.clone()));
        self.pending.tokens.insert(record.id, record);
    }

    /// Tells the index of a token as it is. Also when nothing changes: after a failed commit the
    /// engine may know of a change that the index does not.
    pub(crate) fn show_token(&mut self, record: &TokenRecord) {
        if let Some(token) = self.compile(record) {
            self.pending.index.push((record.digest, Some(token)));
        }
    }

    pub(crate) fn take_name(&mut self, owner: &str, name: String, token: TokenId) {
        self.pending.names.insert((owner.to_owned(), name.clone()), Some(token));
        self.pending.ops.push(Op::TakeName { owner: owner.to_owned(), name, token });
    }

    /// Whether the token still has taken the name; another one may have it since.
    pub(crate) fn has_name(&self, owner: &str, name: &str, token: TokenId) -> Result<bool, ReadError> {
        let holder = match self.pending.names.get(&(owner.to_owned(), name.to_owned())) {
            Some(holder) => *holder,
            None => self.engine.named(owner, name)?,
        };
        Ok(holder == Some(token))
    }

    pub(crate) fn free_name(&mut self, owner: &str, name: String) {
        self.pending.names.insert((owner.to_owned(), name.clone()), None);
        self.pending.ops.push(Op::FreeName { owner: owner.to_owned(), name });
    }

    pub(crate) fn audit(&mut self, entry: Entry) {
        let event = self.standing.audit.append(entry.at(self.now));
        self.pending.ops.push(Op::AppendAudit(event));
    }

    /// An event by an actor, about a target.
    pub(crate) fn note(
        &mut self,
        actor: &Actor,
        event: &'static str,
        target: String,
        change: Option<serde_json::Value>,
    ) {
        let who = self.actor_name(actor);
        let request_id = actor.request_id.clone();
        self.audit(Entry { event, actor: who, target, request_id, reason: None, change });
    }

    fn actor_name(&self, actor: &Actor) -> String {
        match &actor.who {
            Who::Operator => "operator".into(),
            Who::User(id) => match self.standing.accounts.user_by_id(id) {
                Some(user) => user.record.login.clone(),
                None => id.clone(),
            },
        }
    }

    /// From whom something is taken, by what lasts.
    pub(crate) fn whom(&self, affected: Affected) -> Whom {
        match affected {
            Affected::Everybody => Whom::Everybody,
            Affected::Token(digest) => Whom::Token(digest),
            Affected::User(ix) => match self.standing.accounts.user(ix) {
                Some(user) => Whom::User(user.record.id.clone()),
                None => Whom::Everybody,
            },
        }
    }

    /// Who is told as author or revoker.
    pub(crate) fn author(actor: &Actor) -> Option<String> {
        match &actor.who {
            Who::Operator => None,
            Who::User(id) => Some(id.clone()),
        }
    }

    /// A record as the index holds it; `None` for an owner or a scope that cannot be.
    pub(crate) fn compile(&mut self, record: &TokenRecord) -> Option<Token> {
        let owner = self.standing.accounts.user_by_id(&record.owner)?.ix;
        let mut scope = Vec::with_capacity(record.scope.len());
        for (key, access) in &record.scope {
            scope.push((intern(&mut self.ids, key)?, *access));
        }
        Some(Token {
            id: record.id,
            owner,
            scope: Scope::new(scope)?,
            not_before: record.not_before,
            expires_at: record.expires_at,
            end: match (&record.revoked, record.rotation) {
                (Some(_), _) => Ending::Revoked,
                (None, Some(rotation)) => Ending::Rotated { grace_until: rotation.grace_until },
                (None, None) => Ending::None,
            },
            allow_ips: record.allow_ips.as_slice().into(),
        })
    }
}

pub(crate) fn intern(ids: &mut ServiceIds, key: &str) -> Option<ServiceId> {
    ids.intern(&ServiceKey::parse(key)?)
}

/// Whether a token takes up its name and one of its owner's places.
pub(crate) fn is_live(record: &TokenRecord, now: Timestamp) -> bool {
    record.revoked.is_none() && record.rotation.is_none() && record.expires_at.is_none_or(|end| end > now)
}

/// Whether a token that was replaced still works.
fn is_in_grace(record: &TokenRecord, now: Timestamp) -> bool {
    record.revoked.is_none()
        && record.rotation.is_some_and(|rotation| rotation.grace_until > now)
        && record.expires_at.is_none_or(|end| end > now)
}
