//! What each account may do through the admin listener (docs/domain.md, "Administration"), as functions of
//! the accounts, the rules and the acting account. They refuse a change or return its checked values; the
//! store applies it.

use std::{borrow::Cow, time::Duration};

use http::StatusCode;
use strum::IntoStaticStr;

use crate::authz::{
    accounts::{Account, Accounts, Power, of_membership},
    rules::Rules,
    subject::{Access, GroupIx, Permission, Token, TokenEnd, UserIx},
    time::Timestamp,
};

pub mod groups;
pub mod names;
pub mod roles;
pub mod tokens;
pub mod users;

/// The state by which a change is judged, and the account that asks for it.
#[derive(Clone, Copy)]
pub struct AdminFacts<'a> {
    pub principal: &'a Principal<'a>,
    pub accounts: &'a Accounts,
    pub rules: &'a Rules,
    pub now: Timestamp,
    /// The longest lifetime of a new token.
    pub max_lifetime: Option<Duration>,
    /// Logins that upstreams trust, in lower case. Taking one requires `admin-write`.
    pub reserved_logins: &'a [String],
}

/// The acting account, with its power.
#[derive(Clone, Debug)]
pub struct Principal<'a> {
    /// `None` for the operator on the unix socket, and for an actor without power.
    pub user: Option<UserIx>,
    pub power: Power,
    /// The token by which the account was authenticated, if any.
    pub parent: Option<Cow<'a, Token>>,
}

impl<'a> Principal<'a> {
    pub fn operator(rules: &Rules) -> Self {
        Self { user: None, power: Power::operator(rules), parent: None }
    }

    /// An actor without power.
    pub fn nobody() -> Self {
        Self { user: None, power: Power::default(), parent: None }
    }

    /// Fails if the account was banned or deleted since it was authenticated.
    pub fn user(
        accounts: &Accounts,
        rules: &Rules,
        id: &str,
        parent: Option<Cow<'a, Token>>,
    ) -> Result<Self, AdminError> {
        let account = accounts.user_by_id(id);
        match account.filter(|a| a.record.deleted_at.is_none() && a.record.banned.is_none()) {
            Some(account) => {
                let power = Power::of_user(accounts, rules, account);
                Ok(Self { user: Some(account.ix), power, parent })
            }
            None => denied("the caller's account is disabled"),
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
            denied(message)
        }
    }

    /// Requires `update-self` for the actor's own account, `update-user` for others.
    fn require_update(&self, user: UserIx) -> Result<(), AdminError> {
        self.require(if self.is(user) { Permission::UpdateSelf } else { Permission::UpdateUser })
    }

    /// The subset rule: an actor cannot give power that it lacks, or take over an account that has such
    /// power.
    fn require_covers(&self, power: &Power) -> Result<(), AdminError> {
        if self.power.covers(power) {
            Ok(())
        } else {
            refuse(AdminErrorCode::WouldEscalate, "this needs more power than your account has")
        }
    }

    /// Requires a session or an unbounded token. Given power and an account taken over outlast the request,
    /// so a token must be able to do as much as its owner, without expiry and from anywhere.
    fn require_unbounded(&self) -> Result<(), AdminError> {
        let unbounded = |token: &Token| {
            token.expires_at.is_none()
                && token.restrictions.end == TokenEnd::None
                && token.restrictions.allow_ips.is_empty()
                && self.power.readable.iter().all(|id| token.scope.access(id) == Some(Access::Full))
        };
        if self.parent.as_deref().is_none_or(unbounded) {
            return Ok(());
        }
        let message = "this gives lasting power: sign in, or use a token that does not expire, was not \
                       replaced, is not bound to addresses, and covers every service that its owner can read";
        refuse(AdminErrorCode::ExceedsParentToken, message)
    }

    /// Checks a change of the power that others have by a group or a role.
    fn require_can_change(&self, had: &Power, has: &Power) -> Result<(), AdminError> {
        self.require_covers(&had.union(has))?;
        if had.covers(has) { Ok(()) } else { self.require_unbounded() }
    }

    /// Checks a change that gives this power.
    fn require_can_give(&self, power: &Power) -> Result<(), AdminError> {
        self.require_covers(power)?;
        if power.is_none() { Ok(()) } else { self.require_unbounded() }
    }
}

impl AdminFacts<'_> {
    /// Applies the subset rule to an account's whole power, unless it is the actor's own account.
    fn require_covers_account(&self, target: &Account) -> Result<(), AdminError> {
        if self.principal.is(target.ix) {
            Ok(())
        } else {
            self.principal.require_covers(&Power::of_user(self.accounts, self.rules, target))
        }
    }

    /// The power that membership in a group gives.
    fn power_of_group(&self, group: GroupIx) -> Power {
        of_membership(self.accounts, self.rules, self.accounts.with_ancestors(group), &[])
    }

    /// Fails if no active account would keep `admin-write` after a change, although one has it now.
    fn require_remaining_admin<R>(&self, change: impl FnOnce(&mut Accounts) -> R) -> Result<(), AdminError> {
        let mut after = self.accounts.clone();
        change(&mut after);
        if has_administrator(&after) || !has_administrator(self.accounts) {
            Ok(())
        } else {
            refuse(AdminErrorCode::LastAdmin, "no enabled user with the permission admin-write would be left")
        }
    }
}

/// Whether an account that is neither banned nor deleted has `admin-write`.
pub fn has_administrator(accounts: &Accounts) -> bool {
    let active = accounts.users().filter(|user| user.record.banned.is_none());
    active.into_iter().any(|user| accounts.permissions_of(user).contains(Permission::AdminWrite))
}

fn refuse<T>(code: AdminErrorCode, message: impl Into<String>) -> Result<T, AdminError> {
    Err(AdminError::new(code, message))
}

fn denied<T>(message: impl Into<String>) -> Result<T, AdminError> {
    refuse(AdminErrorCode::PermissionDenied, message)
}

fn invalid_value<T>(message: impl Into<String>) -> Result<T, AdminError> {
    refuse(AdminErrorCode::InvalidValue, message)
}

fn not_found<T>(what: &str, name: &str) -> Result<T, AdminError> {
    refuse(AdminErrorCode::NotFound, format!("there is no {what} {name:?}"))
}

/// Why a change was refused (docs/domain.md, "Administration").
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AdminError {
    pub code: AdminErrorCode,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum AdminErrorCode {
    PermissionDenied,
    WouldEscalate,
    ServiceNotReadable,
    ExceedsParentToken,
    /// Not the current password, or no longer.
    WrongPassword,
    NotFound,
    NameTaken,
    UserBanned,
    TokenRevoked,
    CannotBanSelf,
    LastAdmin,
    /// Too many live tokens, including those in their grace period.
    TooManyTokens,
    /// Too many records of revoked and replaced tokens, which are dropped in time.
    #[strum(serialize = "too_many_tokens")]
    TooManyEndedTokens,
    /// An invalid login, name, note or address; the message says why.
    InvalidName,
    EmptyScope,
    DuplicateService,
    ExpiryInPast,
    LifetimeTooLong,
    CannotWiden,
    /// Any other invalid value (grace, cycle, depth, built-in): 422.
    InvalidValue,
}

impl AdminError {
    pub fn new(code: AdminErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub const fn status(&self) -> StatusCode {
        self.code.status()
    }
}

impl AdminErrorCode {
    /// The `error` member of the response.
    pub const fn word(self) -> &'static str {
        self.into_str()
    }

    pub const fn status(self) -> StatusCode {
        match self {
            AdminErrorCode::PermissionDenied
            | AdminErrorCode::WouldEscalate
            | AdminErrorCode::ServiceNotReadable
            | AdminErrorCode::ExceedsParentToken
            | AdminErrorCode::WrongPassword => StatusCode::FORBIDDEN,
            AdminErrorCode::NotFound => StatusCode::NOT_FOUND,
            AdminErrorCode::NameTaken
            | AdminErrorCode::UserBanned
            | AdminErrorCode::TokenRevoked
            | AdminErrorCode::CannotBanSelf
            | AdminErrorCode::LastAdmin
            | AdminErrorCode::TooManyTokens => StatusCode::CONFLICT,
            AdminErrorCode::TooManyEndedTokens => StatusCode::TOO_MANY_REQUESTS,
            AdminErrorCode::InvalidName
            | AdminErrorCode::EmptyScope
            | AdminErrorCode::DuplicateService
            | AdminErrorCode::ExpiryInPast
            | AdminErrorCode::LifetimeTooLong
            | AdminErrorCode::CannotWiden
            | AdminErrorCode::InvalidValue => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

#[cfg(test)]
mod tests;
