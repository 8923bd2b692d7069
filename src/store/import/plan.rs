//! Turns lines into operations: validates names, finds or creates owners, skips what already exists.

use std::collections::{HashMap, HashSet};

use super::{ImportRecord, Options, Report};
use crate::{
    authz::{
        accounts::{Account, Accounts, fold},
        administration::names,
        secret::{Digest, TokenId},
        subject::{Access, UserIx},
    },
    store::{
        ImportedToken, ReadError,
        engine::Engine,
        load,
        model::{GroupRecord, TokenRecord, UserId, UserKind, UserRecord},
        op::Op,
        writer::REGISTERED_AND_ENDED,
    },
};

/// The part of the store that an import needs to know, and the operations to commit.
pub(super) struct Plan<'a> {
    engine: &'a Engine,
    options: &'a Options<'a>,
    /// As the planned operations leave them.
    accounts: Accounts,
    /// The owners of all tokens; `None`: the token was revoked or replaced.
    digests: HashMap<Digest, Option<UserIx>>,
    /// Owners and folded names of the tokens in `ops`.
    names: HashSet<(UserIx, String)>,
    /// The same for the batch that was drained last, which the engine may not have yet.
    in_flight: HashSet<(UserIx, String)>,
    ops: Vec<Op>,
    /// The last token's id. They follow each other: last uses are stored by id, and random ones in many
    /// places.
    id: TokenId,
}

/// The result of a valid line.
pub(super) enum Outcome {
    Added,
    /// It existed already.
    Skipped,
}

/// Maximum number of entries in a scope (docs/domain.md).
const MAX_SCOPE: usize = 50;

impl<'a> Plan<'a> {
    pub(super) fn new(engine: &'a Engine, options: &'a Options<'a>) -> Result<Self, ReadError> {
        let accounts = load::accounts(engine)?;
        let mut digests = HashMap::new();
        engine
            .load(&mut |digest, row| {
                let owner = accounts.user_by_id(row.owner).filter(|owner| owner.record.deleted_at.is_none());
                digests.insert(digest, owner.map(|owner| owner.ix).filter(|_| !row.is_ended()));
            })?
            .map_err(|damage| ReadError(damage.to_string()))?;
        let mut random = Ok(());
        let id = TokenId::generate(&mut |bytes| random = getrandom::fill(bytes));
        random.map_err(|e| ReadError(format!("no random numbers: {e}")))?;
        Ok(Self {
            engine,
            options,
            accounts,
            digests,
            names: HashSet::new(),
            in_flight: HashSet::new(),
            ops: Vec::new(),
            id,
        })
    }

    /// Plans a line; `Err` is the message for the operator.
    pub(super) fn add(&mut self, line: ImportRecord, report: &mut Report) -> Result<Outcome, String> {
        match line {
            ImportRecord::Token(token) => self.token(token, report),
            ImportRecord::User { login, name, kind } => {
                if self.accounts.user_by_login(&login).is_some() {
                    return Ok(Outcome::Skipped);
                }
                self.make_user(&login, name.as_deref(), kind, report)?;
                Ok(Outcome::Added)
            }
            ImportRecord::Group { name, members } => self.group(&name, &members, report),
        }
    }

    pub(super) fn planned(&self) -> usize {
        self.ops.len()
    }

    /// Takes the operations. The engine must have those that were drained before.
    pub(super) fn drain(&mut self) -> Vec<Op> {
        std::mem::swap(&mut self.names, &mut self.in_flight);
        self.names.clear();
        // Room for the batch's event and whatever the last line adds: growing would copy everything.
        let room = Vec::with_capacity(self.ops.len() + 64);
        std::mem::replace(&mut self.ops, room)
    }

    fn token(&mut self, token: ImportedToken, report: &mut Report) -> Result<Outcome, String> {
        if let Some(owner) = self.digests.get(&token.digest) {
            let named = self.accounts.user_by_login(&token.owner).map(|user| user.ix);
            let same = owner.is_some() && *owner == named;
            let refused = || match owner {
                Some(_) => "a token with this digest is already registered for another owner",
                None => REGISTERED_AND_ENDED,
            };
            return if same { Ok(Outcome::Skipped) } else { Err(refused().to_owned()) };
        }
        let name = names::text("token name", &token.name, 1, 100).map_err(|e| e.message)?;
        let scope = self.scope(token.scope)?;
        if token.expires_at.is_some_and(|end| end <= self.options.now) {
            return Err("the token has already expired".to_owned());
        }
        let (ix, owner) = self.owner(&token.owner, report)?;
        let folded = fold(&name);
        let taken = self.has_live(&owner, &folded).map_err(|e| e.to_string())?;
        let key = (ix, folded.clone());
        if taken || self.in_flight.contains(&key) || !self.names.insert(key) {
            return Err(format!("{} already has a token named {name:?}", token.owner));
        }
        let id = self.id.successor();
        self.id = id;
        self.digests.insert(token.digest, Some(ix));
        let record = TokenRecord {
            imported: true,
            expires_at: token.expires_at,
            ..TokenRecord::new(id, token.digest, owner, name, scope, self.options.now)
        };
        self.ops.push(Op::PutToken(record));
        report.tokens += 1;
        Ok(Outcome::Added)
    }

    /// Whether the owner has a live token of this name; an expired one does not count.
    fn has_live(&self, owner: &str, name: &str) -> Result<bool, ReadError> {
        Ok(self.engine.live_token_named(owner, name, self.options.now)?.is_some())
    }

    fn group(&mut self, name: &str, members: &[String], report: &mut Report) -> Result<Outcome, String> {
        let name = names::group(name).map_err(|e| e.message)?;
        if fold(&name) == "all-users" {
            return Err("every user is in the group all-users anyway: leave the line out".to_owned());
        }
        // All members first, so that nothing changes if one of them is unknown or cannot be created.
        for login in members.iter().filter(|login| self.accounts.user_by_login(login).is_none()) {
            self.may_make_owner(login)?;
        }
        let users = members.iter().map(|login| self.owner(login, report)).collect::<Result<Vec<_>, _>>()?;
        let mut outcome = Outcome::Skipped;
        let (group_ix, group) = match self.accounts.group_by_name(&name) {
            Some(group) => (group.ix, group.record.id.clone()),
            None => {
                let id = uuid::Uuid::now_v7().to_string();
                let record = GroupRecord { id: id.clone(), name, parent: None, revision: 1 };
                self.ops.push(Op::PutGroup(record.clone()));
                report.groups += 1;
                outcome = Outcome::Added;
                (self.accounts.put_group(record), id)
            }
        };
        for (ix, user) in users {
            let is_in = |user: &Account| user.groups.binary_search(&group_ix).is_ok();
            if !self.accounts.user(ix).is_some_and(is_in) {
                self.accounts.set_member(&group, &user, true);
                self.ops.push(Op::PutMember { group: group.clone(), user });
                report.members += 1;
                outcome = Outcome::Added;
            }
        }
        Ok(outcome)
    }

    fn may_make_owner(&self, login: &str) -> Result<(), String> {
        if !self.options.make_owners {
            return Err(format!("there is no user {login:?}"));
        }
        names::login(login).map(drop).map_err(|e| e.message)
    }

    /// The user with this login, who is created if that is wanted.
    fn owner(&mut self, login: &str, report: &mut Report) -> Result<(UserIx, UserId), String> {
        if let Some(user) = self.accounts.user_by_login(login) {
            return Ok((user.ix, user.record.id.clone()));
        }
        self.may_make_owner(login)?;
        self.make_user(login, None, UserKind::Service, report)
    }

    fn make_user(
        &mut self,
        login: &str,
        name: Option<&str>,
        kind: UserKind,
        report: &mut Report,
    ) -> Result<(UserIx, UserId), String> {
        let login = names::login(login).map_err(|e| e.message)?;
        let name = names::text("user name", name.unwrap_or(&login), 1, 200).map_err(|e| e.message)?;
        let id = uuid::Uuid::now_v7().to_string();
        let record = UserRecord::new(id.clone(), login, name, kind, self.options.now);
        self.ops.push(Op::PutUser(record.clone()));
        report.users += 1;
        Ok((self.accounts.put_user(record), id))
    }

    fn scope(&self, mut scope: Vec<(String, Access)>) -> Result<Vec<(String, Access)>, String> {
        scope.sort_unstable();
        if scope.is_empty() || scope.len() > MAX_SCOPE {
            return Err(format!("a scope has 1 to {MAX_SCOPE} services"));
        }
        if let Some(twice) = scope.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("the scope names {} twice", twice[0].0));
        }
        match scope.iter().find(|(service, _)| !(self.options.has_service)(service)) {
            Some((service, _)) => Err(format!("the configuration has no service {service:?}")),
            None => Ok(scope),
        }
    }
}
