//! Checks for creating, changing, banning and deleting users.

use super::{Acting, AdminError, AdminErrorCode, World, keeps_an_admin, names, not_found, refuse};
use crate::authz::{
    accounts::{Account, Accounts, UserKind, UserRecord},
    subject::Permission,
};

/// Finds a user that is not deleted.
pub fn find<'a>(world: &World<'a>, login: &str) -> Result<&'a Account, AdminError> {
    world.accounts.user_by_login(login).map_or_else(|| not_found("user", login), Ok)
}

/// Finds a user for an action that needs the permission `others` unless it is the actor's own account.
/// Without the permission, the error is the same for known and unknown logins.
pub(super) fn find_for<'a>(
    world: &World<'a>,
    acting: &Acting<'_>,
    login: &str,
    others: Permission,
) -> Result<&'a Account, AdminError> {
    match find(world, login) {
        Ok(user) if acting.is(user.ix) => Ok(user),
        found => {
            acting.require(others)?;
            found
        }
    }
}

/// Checks a new user. Setting its password lets the actor act as that user, so it requires further rights.
pub fn create(world: &World<'_>, acting: &Acting<'_>, record: UserRecord) -> Result<UserRecord, AdminError> {
    acting.require(Permission::CreateUser)?;
    let record = checked(record)?;
    if record.password.is_some() {
        acting.require(Permission::UpdateUser)?;
        acting.require_unbounded()?;
        require_human(&record)?;
    }
    take_login(world, acting, &record)?;
    Ok(record)
}

/// Checks an account that a sign-in provider creates. A provider cannot give out a reserved login.
pub fn provision(world: &World<'_>, record: UserRecord) -> Result<UserRecord, AdminError> {
    let record = checked(record)?;
    take_login(world, &Acting::nobody(), &record)?;
    Ok(record)
}

/// Checks the change of a user to `after`. Own name and address require `update-self`. Upstreams identify a
/// user by the login: to change another's is to take over the account, and one's own cannot be changed.
pub fn edit(
    world: &World<'_>,
    acting: &Acting<'_>,
    before: &Account,
    after: UserRecord,
) -> Result<UserRecord, AdminError> {
    let after = checked(after)?;
    if after.login == before.record.login {
        acting.require_update(before.ix)?;
    } else {
        if acting.is(before.ix) {
            return refuse(AdminErrorCode::PermissionDenied, "you cannot change your own login");
        }
        acting.require(Permission::UpdateUser)?;
        acting.require_cover_of(world, before)?;
        acting.require_unbounded()?;
        take_login(world, acting, &after)?;
    }
    Ok(after)
}

/// Finds the user for [`edit`] and [`set_password`].
pub fn find_to_edit<'a>(
    world: &World<'a>,
    acting: &Acting<'_>,
    login: &str,
) -> Result<&'a Account, AdminError> {
    find_for(world, acting, login, Permission::UpdateUser)
}

/// Checks a ban (`Some`) or its removal (`None`). Returns the user and the cleaned reason.
pub fn ban<'a>(
    world: &World<'a>,
    acting: &Acting<'_>,
    login: &str,
    reason: Option<&str>,
) -> Result<(&'a Account, Option<String>), AdminError> {
    acting.require(Permission::UpdateUser)?;
    let user = find(world, login)?;
    if acting.is(user.ix) {
        return refuse(AdminErrorCode::CannotBanSelf, "you cannot ban or unban yourself");
    }
    let reason = reason.map(|reason| names::text("reason", reason, 0, 500)).transpose()?;
    if reason.is_some() {
        let mut after = world.accounts.clone();
        after.put_user(UserRecord { banned: reason.clone(), ..user.record.clone() });
        keeps_an_admin(world.accounts, &after)?;
    }
    Ok((user, reason))
}

pub fn delete<'a>(world: &World<'a>, acting: &Acting<'_>, login: &str) -> Result<&'a Account, AdminError> {
    acting.require(Permission::DeleteUser)?;
    let user = find(world, login)?;
    if acting.is(user.ix) {
        return refuse(AdminErrorCode::PermissionDenied, "you cannot delete your own account");
    }
    let mut after: Accounts = world.accounts.clone();
    after.put_user(UserRecord { deleted_at: Some(world.now), ..user.record.clone() });
    keeps_an_admin(world.accounts, &after)?;
    Ok(user)
}

/// Checks that sessions may be ended: always the actor's own; others' with `update-user`. No subset rule,
/// since this only removes power.
pub fn end_sessions<'a>(
    world: &World<'a>,
    acting: &Acting<'_>,
    login: &str,
) -> Result<&'a Account, AdminError> {
    let user = find_to_edit(world, acting, login)?;
    if !acting.is(user.ix) {
        acting.require(Permission::UpdateUser)?;
    }
    Ok(user)
}

/// Checks an invitation. It sets a password, so the rules of [`set_password`] apply. It is refused for the
/// actor's own account: a password change requires the current password, or an unlocked screen would be
/// enough to take over the account.
pub fn invite<'a>(world: &World<'a>, acting: &Acting<'_>, login: &str) -> Result<&'a Account, AdminError> {
    let user = set_password(world, acting, login, true)?;
    if acting.is(user.ix) {
        return refuse(
            AdminErrorCode::PermissionDenied,
            "you cannot invite yourself: change your password instead",
        );
    }
    if user.record.banned.is_some() {
        return refuse(AdminErrorCode::UserBanned, "the account is disabled");
    }
    Ok(user)
}

/// Checks that a password may be set (`some`) or removed. Setting it takes over the account, so the subset
/// rule applies and a bounded token is not enough.
pub fn set_password<'a>(
    world: &World<'a>,
    acting: &Acting<'_>,
    login: &str,
    some: bool,
) -> Result<&'a Account, AdminError> {
    let user = find_to_edit(world, acting, login)?;
    acting.require_update(user.ix)?;
    acting.require_cover_of(world, user)?;
    if some {
        acting.require_unbounded()?;
        require_human(&user.record)?;
    }
    Ok(user)
}

fn require_human(record: &UserRecord) -> Result<(), AdminError> {
    match record.kind {
        UserKind::Human => Ok(()),
        UserKind::Service => {
            refuse(AdminErrorCode::InvalidValue, "a service account has no password, only tokens")
        }
    }
}

fn checked(mut record: UserRecord) -> Result<UserRecord, AdminError> {
    record.login = names::login(&record.login)?;
    record.name = names::text("name", &record.name, 1, 200)?;
    record.email = record.email.map(|email| names::email(&email)).transpose()?;
    Ok(record)
}

/// Checks that the login is free and that the actor may give it out.
fn take_login(world: &World<'_>, acting: &Acting<'_>, record: &UserRecord) -> Result<(), AdminError> {
    require_unreserved(world, acting, &record.login)?;
    match world.accounts.user_by_login(&record.login) {
        Some(other) if other.record.id != record.id => {
            refuse(AdminErrorCode::NameTaken, format!("the login {:?} is taken", record.login))
        }
        _ => Ok(()),
    }
}

/// Reserved logins require `admin-write` and no bounded token, because upstreams may trust them.
fn require_unreserved(world: &World<'_>, acting: &Acting<'_>, login: &str) -> Result<(), AdminError> {
    let reserved = world.reserved_logins.iter().any(|reserved| reserved.eq_ignore_ascii_case(login));
    if !reserved {
        return Ok(());
    }
    if acting.has(Permission::AdminWrite) {
        return acting.require_unbounded();
    }
    let message = format!(
        "the login {login:?} is reserved (admin.reserved_logins): giving it to an account needs admin-write"
    );
    refuse(AdminErrorCode::PermissionDenied, message)
}
