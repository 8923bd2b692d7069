//! The in-memory state that plans and workers use besides the rows, and how an operation changes it.

use std::sync::Arc;

use super::{
    change::Policy,
    model::AuditPosition,
    op::{AffectedSubject, Op},
    record::TokenHead,
};
use crate::{
    authz::{
        accounts::{Accounts, Grantee},
        rules::{Rules, ServiceIds, ServiceKey},
        subject::{Scope, Token, TokenEnd, TokenRestrictions, UserIx},
    },
    fence::Affected,
    settings::ProxySettings,
};

/// The part of the store that is held in memory, at one position of its log. Cheap to clone: a plan changes
/// a copy, which becomes the state once the log has the changes.
#[derive(Clone)]
pub(crate) struct State {
    pub accounts: Accounts,
    pub audit: AuditPosition,
    /// This node's configuration, like the two fields below: no operation changes them.
    pub rules: Arc<Rules>,
    pub proxy: Arc<ProxySettings>,
    pub policy: Policy,
}

/// What must be published for an operation besides its rows, and whom the fence concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Users whose directory entries must be recompiled.
    pub users: Vec<UserIx>,
    /// Whether groups, roles or rules changed, so that the whole directory must be recompiled.
    pub all_users: bool,
    pub affected: Vec<Affected>,
}

impl State {
    /// The only way in which an operation changes the state in memory, whichever node planned it.
    /// [`Replica::stage`](super::replica::Replica::stage) writes its row.
    pub(crate) fn apply(&mut self, op: &Op) -> Effects {
        let accounts = &mut self.accounts;
        match op {
            Op::PutUser(user) => return Effects::of(Some(accounts.put_user(user.clone()))),
            Op::PutMember { group, user } | Op::DropMember { group, user } => {
                accounts.set_member(group, user, matches!(op, Op::PutMember { .. }));
                return Effects::of(accounts.user_by_id(user).map(|user| user.ix));
            }
            Op::PutGrant(grant) | Op::DropGrant(grant) => {
                accounts.set_grant(grant, matches!(op, Op::PutGrant(_)));
                if let Grantee::User(id) = &grant.to {
                    return Effects::of(accounts.user_by_id(id).map(|user| user.ix));
                }
            }
            Op::PutGroup(group) => drop(accounts.put_group(group.clone())),
            Op::DropGroup { id } => accounts.drop_group(id),
            Op::PutRole(role) => accounts.put_role(role.clone()),
            Op::DropRole { key } => accounts.drop_role(key),
            Op::AppendAudit(event) => {
                self.audit = event.next();
                return Effects::default();
            }
            Op::Affects(whom) => {
                let affected = match whom {
                    AffectedSubject::All => Affected::All,
                    AffectedSubject::Token(digest) => Affected::Token(*digest),
                    AffectedSubject::User(id) => {
                        accounts.user_by_id(id).map_or(Affected::All, |user| Affected::User(user.ix))
                    }
                };
                return Effects { affected: vec![affected], ..Effects::default() };
            }
            Op::PutToken(_)
            | Op::DropToken { .. }
            | Op::TakeName { .. }
            | Op::FreeName { .. }
            | Op::PutLastUsed { .. }
            | Op::TrimAudit(_)
            | Op::PutIdempotency(_)
            | Op::DropIdempotency { .. }
            | Op::PutSession(_)
            | Op::DropSession(_)
            | Op::PutInvitation(_)
            | Op::DropInvitation(_)
            | Op::PutIdentity(_)
            | Op::DropIdentity(_)
            | Op::Node(_) => return Effects::default(),
        }
        Effects { all_users: true, ..Effects::default() }
    }

    /// A token as workers use it; `None` if its owner or scope is invalid.
    pub(crate) fn compile(&self, token: TokenHead<'_>, ids: &mut ServiceIds) -> Option<Token> {
        let owner = self.accounts.user_by_id(token.owner)?.ix;
        let mut id = |key: &str| ids.get(key).or_else(|| ids.intern(&ServiceKey::parse(key)?));
        let scope = token.scope.iter().map(|(key, access)| Some((id(key)?, *access)));
        let scope = scope.collect::<Option<Vec<_>>>().and_then(Scope::new)?;
        let end = match (token.revoked_at, token.rotation) {
            (Some(_), _) => TokenEnd::Revoked,
            (None, Some(rotation)) => TokenEnd::Rotated { grace_until: rotation.grace_until },
            (None, None) => TokenEnd::None,
        };
        let TokenHead { id, not_before, expires_at, allow_ips, .. } = token;
        let restrictions = TokenRestrictions { not_before, end, allow_ips }.into();
        Some(Token { id, owner, scope, expires_at, restrictions })
    }
}

impl Effects {
    fn of(user: Option<UserIx>) -> Self {
        Self { users: user.into_iter().collect(), ..Self::default() }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.users.extend(other.users);
        self.all_users |= other.all_users;
        self.affected.extend(other.affected);
    }
}
