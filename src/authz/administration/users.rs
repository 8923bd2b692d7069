//! Checks for creating, changing, banning and deleting users.

use super::{AdminError, AdminErrorCode, AdminFacts, denied, invalid_value, names, not_found, refuse};
use crate::authz::{
    accounts::{Account, Accounts, UserKind, UserRecord},
    subject::Permission,
};

/// Finds a user that is not deleted.
pub fn find<'a>(accounts: &'a Accounts, login: &str) -> Result<&'a Account, AdminError> {
    accounts.user_by_login(login).map_or_else(|| not_found("user", login), Ok)
}

/// Finds a user for an action that needs the permission `others` unless it is the actor's own account.
/// Without the permission, the error is the same for known and unknown logins.
pub(super) fn find_for<'a>(
    facts: &AdminFacts<'a>,
    login: &str,
    others: Permission,
) -> Result<&'a Account, AdminError> {
    match find(facts.accounts, login) {
        Ok(user) if facts.principal.is(user.ix) => Ok(user),
        found => {
            facts.principal.require(others)?;
            found
        }
    }
}

/// Checks a new user. Setting its password lets the actor act as that user, so it requires further rights.
pub fn create(facts: &AdminFacts<'_>, record: UserRecord) -> Result<UserRecord, AdminError> {
    facts.principal.require(Permission::CreateUser)?;
    let record = validate(None, record)?;
    if record.password.is_some() {
        facts.principal.require(Permission::UpdateUser)?;
        facts.principal.require_unbounded()?;
        require_human(&record)?;
    }
    require_login_free(facts, &record)?;
    Ok(record)
}

/// Checks an account that a sign-in provider creates. A provider cannot give out a reserved login.
pub fn provision(facts: &AdminFacts<'_>, record: UserRecord) -> Result<UserRecord, AdminError> {
    let record = validate(None, record)?;
    require_login_free(facts, &record)?;
    Ok(record)
}

/// Checks the change of a user to `after`. Own name and address require `update-self`. Upstreams identify a
/// user by the login: to change another's is to take over the account, and one's own cannot be changed.
pub fn edit(facts: &AdminFacts<'_>, before: &Account, after: UserRecord) -> Result<UserRecord, AdminError> {
    let after = validate(Some(&before.record), after)?;
    if after.login == before.record.login {
        facts.principal.require_update(before.ix)?;
    } else {
        if facts.principal.is(before.ix) {
            return denied("you cannot change your own login");
        }
        facts.principal.require(Permission::UpdateUser)?;
        facts.require_covers_account(before)?;
        facts.principal.require_unbounded()?;
        require_login_free(facts, &after)?;
    }
    Ok(after)
}

/// Finds the user for [`edit`] and [`set_password`].
pub fn find_to_edit<'a>(facts: &AdminFacts<'a>, login: &str) -> Result<&'a Account, AdminError> {
    find_for(facts, login, Permission::UpdateUser)
}

/// Checks a ban (`Some`) or its removal (`None`). Returns the user and the cleaned reason.
pub fn ban<'a>(
    facts: &AdminFacts<'a>,
    login: &str,
    reason: Option<&str>,
) -> Result<(&'a Account, Option<String>), AdminError> {
    facts.principal.require(Permission::UpdateUser)?;
    let user = find(facts.accounts, login)?;
    if facts.principal.is(user.ix) {
        return refuse(AdminErrorCode::CannotBanSelf, "you cannot ban or unban yourself");
    }
    let reason = reason.map(|reason| names::text("reason", reason, 0, 500)).transpose()?;
    if reason.is_some() {
        let after = UserRecord { banned: reason.clone(), ..user.record.clone() };
        facts.require_remaining_admin(|accounts| accounts.put_user(after))?;
    }
    Ok((user, reason))
}

pub fn delete<'a>(facts: &AdminFacts<'a>, login: &str) -> Result<&'a Account, AdminError> {
    facts.principal.require(Permission::DeleteUser)?;
    let user = find(facts.accounts, login)?;
    if facts.principal.is(user.ix) {
        return denied("you cannot delete your own account");
    }
    let after = UserRecord { deleted_at: Some(facts.now), ..user.record.clone() };
    facts.require_remaining_admin(|accounts| accounts.put_user(after))?;
    Ok(user)
}

/// Checks that sessions may be ended: always the actor's own; others' with `update-user`. No subset rule,
/// since this only removes power.
pub fn end_sessions<'a>(facts: &AdminFacts<'a>, login: &str) -> Result<&'a Account, AdminError> {
    let user = find_to_edit(facts, login)?;
    if !facts.principal.is(user.ix) {
        facts.principal.require(Permission::UpdateUser)?;
    }
    Ok(user)
}

/// Checks an invitation. It sets a password, so the rules of [`set_password`] apply. It is refused for the
/// actor's own account: a password change requires the current password, or an unlocked screen would be
/// enough to take over the account.
pub fn invite<'a>(facts: &AdminFacts<'a>, login: &str) -> Result<&'a Account, AdminError> {
    let user = set_password(facts, login, true)?;
    if facts.principal.is(user.ix) {
        return denied("you cannot invite yourself: change your password instead");
    }
    if user.record.banned.is_some() {
        return refuse(AdminErrorCode::UserBanned, "the account is disabled");
    }
    Ok(user)
}

/// Checks that a password may be set (`some`) or removed. Setting it takes over the account, so the subset
/// rule applies and a bounded token is not enough.
pub fn set_password<'a>(facts: &AdminFacts<'a>, login: &str, some: bool) -> Result<&'a Account, AdminError> {
    let user = find_to_edit(facts, login)?;
    facts.principal.require_update(user.ix)?;
    facts.require_covers_account(user)?;
    if some {
        facts.principal.require_unbounded()?;
        require_human(&user.record)?;
    }
    Ok(user)
}

fn require_human(record: &UserRecord) -> Result<(), AdminError> {
    match record.kind {
        UserKind::Human => Ok(()),
        UserKind::Service => invalid_value("a service account has no password, only tokens"),
    }
}

fn validate(before: Option<&UserRecord>, mut record: UserRecord) -> Result<UserRecord, AdminError> {
    record.login = names::login(&record.login)?;
    let name = |name: &str| names::text("name", name, 1, 200);
    record.name = names::edited(before.map(|before| &*before.name), &record.name, name)?;
    let kept = before.and_then(|before| before.email.as_deref());
    record.email = record.email.map(|email| names::edited(kept, &email, names::email)).transpose()?;
    Ok(record)
}

/// Checks that the login is free and that the actor may give it out.
fn require_login_free(facts: &AdminFacts<'_>, record: &UserRecord) -> Result<(), AdminError> {
    require_unreserved(facts, &record.login)?;
    match facts.accounts.user_by_login(&record.login) {
        Some(other) if other.record.id != record.id => {
            refuse(AdminErrorCode::NameTaken, format!("the login {:?} is taken", record.login))
        }
        _ => Ok(()),
    }
}

/// Reserved logins require `admin-write` and no bounded token, because upstreams may trust them.
fn require_unreserved(facts: &AdminFacts<'_>, login: &str) -> Result<(), AdminError> {
    let reserved = facts.reserved_logins.iter().any(|reserved| reserved.eq_ignore_ascii_case(login));
    if !reserved {
        return Ok(());
    }
    if facts.principal.has(Permission::AdminWrite) {
        return facts.principal.require_unbounded();
    }
    let message = format!(
        "the login {login:?} is reserved (admin.reserved_logins): giving it to an account needs admin-write"
    );
    denied(message)
}
