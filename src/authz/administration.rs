//! Who may do what on the admin listener: the table of domain.md, "Administration", as functions
//! of the accounts, the rules and who acts. They refuse or they say what the change comes to;
//! making it is the store's affair.

use std::{borrow::Cow, time::Duration};

use crate::authz::{
    accounts::{Account, Accounts, Power},
    rules::Rules,
    subject::{Access, Permission, Token, TokenEnd, UserIx},
    time::Timestamp,
};

mod admin_error;
pub mod groups;
pub mod names;
pub mod roles;
pub mod tokens;
pub mod users;

pub use admin_error::{AdminError, AdminErrorCode};

/// What a judgement looks at.
#[derive(Clone, Copy)]
pub struct World<'a> {
    pub accounts: &'a Accounts,
    pub rules: &'a Rules,
    pub now: Timestamp,
    /// The longest life a new token may have.
    pub max_lifetime: Option<Duration>,
    /// Logins that upstreams trust, in lower case: taking one needs `admin-write`.
    pub reserved_logins: &'a [String],
}

/// Who acts, with all they can do.
#[derive(Clone, Debug)]
pub struct Acting<'a> {
    /// `None`: the operator, the peer of the unix socket.
    pub user: Option<UserIx>,
    pub power: Power,
    /// The token it is asked with.
    pub parent: Option<Cow<'a, Token>>,
}

impl<'a> Acting<'a> {
    pub fn operator(rules: &Rules) -> Self {
        Self { user: None, power: Power::operator(rules), parent: None }
    }

    /// Who may do nothing.
    pub(super) fn nobody() -> Self {
        Self { user: None, power: Power::default(), parent: None }
    }

    /// Refused when the account has been banned or deleted since it was recognised.
    pub fn user(world: &World<'_>, id: &str, parent: Option<&'a Token>) -> Result<Self, AdminError> {
        let account = world.accounts.user_by_id(id);
        match account.filter(|a| a.record.deleted_at.is_none() && a.record.banned.is_none()) {
            Some(account) => {
                let power = Power::of(world.accounts, world.rules, account);
                Ok(Self { user: Some(account.ix), power, parent: parent.map(Cow::Borrowed) })
            }
            None => refuse(AdminErrorCode::PermissionDenied, "the account that asks is disabled"),
        }
    }

    pub fn is(&self, user: UserIx) -> bool {
        self.user == Some(user)
    }

    pub fn has(&self, permission: Permission) -> bool {
        self.power.permissions.contains(permission)
    }

    pub fn require(&self, permission: Permission) -> Result<(), AdminError> {
        if self.has(permission) {
            Ok(())
        } else {
            let message = format!("the permission {} is needed", permission.word());
            refuse(AdminErrorCode::PermissionDenied, message)
        }
    }

    /// `update-self` on oneself, `update-user` on others.
    pub(super) fn require_update(&self, user: UserIx) -> Result<(), AdminError> {
        self.require(if self.is(user) { Permission::UpdateSelf } else { Permission::UpdateUser })
    }

    /// Profile and tokens: always one's own; of others `admin-read` or `update-user`.
    pub fn require_sight(&self, user: UserIx) -> Result<(), AdminError> {
        if self.is(user) || self.has(Permission::AdminRead) {
            Ok(())
        } else {
            self.require(Permission::UpdateUser)
        }
    }

    /// The subset rule: nobody gives, or takes hold of, power that they lack.
    pub(super) fn require_cover(&self, power: &Power) -> Result<(), AdminError> {
        if self.power.covers(power) {
            Ok(())
        } else {
            refuse(
                AdminErrorCode::WouldEscalate,
                "this needs power that the acting account does not have itself",
            )
        }
    }

    /// Taking hold of an account, and giving power, outlasts the request: a token may do so only where
    /// it can do as much as its owner, for good and from anywhere.
    pub(super) fn require_unbounded(&self) -> Result<(), AdminError> {
        let unbounded = |token: &Token| {
            token.expires_at.is_none()
                && token.end == TokenEnd::None
                && token.allow_ips.is_empty()
                && self.power.readable.iter().all(|id| token.scope.access(id) == Some(Access::Full))
        };
        if self.parent.as_deref().is_none_or(unbounded) {
            return Ok(());
        }
        let message = "this gives lasting power, which a token cannot do that expires, was replaced, is bound \
                       to addresses, or does not cover every service that its owner can read: sign in, or use \
                       a token without these limits";
        refuse(AdminErrorCode::ExceedsParentToken, message)
    }

    /// For a change that gives this power to somebody.
    pub(super) fn require_gift(&self, power: &Power) -> Result<(), AdminError> {
        self.require_cover(power)?;
        if power.is_none() { Ok(()) } else { self.require_unbounded() }
    }

    /// The subset rule about somebody's whole power; oneself is no question.
    pub(super) fn require_cover_of(&self, world: &World<'_>, target: &Account) -> Result<(), AdminError> {
        if self.is(target.ix) {
            Ok(())
        } else {
            self.require_cover(&Power::of(world.accounts, world.rules, target))
        }
    }
}

/// Whether a change leaves somebody who holds `admin-write`, if there was one.
pub fn keeps_an_admin(before: &Accounts, after: &Accounts) -> Result<(), AdminError> {
    if has_an_admin(after) || !has_an_admin(before) {
        Ok(())
    } else {
        refuse(AdminErrorCode::LastAdmin, "nobody would be left who holds admin-write")
    }
}

fn has_an_admin(accounts: &Accounts) -> bool {
    let active = accounts.users().filter(|user| user.record.banned.is_none());
    active.into_iter().any(|user| accounts.permissions_of(user).contains(Permission::AdminWrite))
}

fn refuse<T>(code: AdminErrorCode, message: impl Into<String>) -> Result<T, AdminError> {
    Err(AdminError::new(code, message))
}

fn not_found<T>(what: &str, name: &str) -> Result<T, AdminError> {
    refuse(AdminErrorCode::NotFound, format!("there is no {what} {name:?}"))
}

#[cfg(test)]
mod tests;
