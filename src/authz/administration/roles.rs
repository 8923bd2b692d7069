//! Checks for roles and grants: they require `manage-role` and every permission of the role.

use super::{AdminError, AdminErrorCode, AdminFacts, invalid_value, names, not_found, refuse};
use crate::authz::{
    accounts::{Accounts, GrantRecord, Power, RoleRecord, built_in_roles},
    subject::Permission,
};

pub fn find<'a>(accounts: &'a Accounts, key: &str) -> Result<&'a RoleRecord, AdminError> {
    accounts.role(key).map_or_else(|| not_found("role", key), Ok)
}

pub fn create(facts: &AdminFacts<'_>, mut role: RoleRecord) -> Result<RoleRecord, AdminError> {
    facts.principal.require(Permission::ManageRole)?;
    role.key = names::role_key(&role.key)?;
    role.name = names::text("role name", &role.name, 1, 200)?;
    role.permissions.sort_unstable();
    role.permissions.dedup();
    facts.principal.require_can_give(&power_of(&role))?;
    if facts.accounts.role(&role.key).is_some() {
        return refuse(AdminErrorCode::NameTaken, format!("the role {:?} already exists", role.key));
    }
    Ok(role)
}

/// Checks the change of a role to `after`. The actor needs every permission that the role had or gets.
pub fn edit(
    facts: &AdminFacts<'_>,
    before: &RoleRecord,
    mut after: RoleRecord,
) -> Result<RoleRecord, AdminError> {
    facts.principal.require(Permission::ManageRole)?;
    require_editable(&before.key)?;
    let name = |name: &str| names::text("role name", name, 1, 200);
    after.name = names::edited(Some(&before.name), &after.name, name)?;
    after.permissions.sort_unstable();
    after.permissions.dedup();
    facts.principal.require_can_change(&power_of(before), &power_of(&after))?;
    facts.require_remaining_admin(|accounts| accounts.put_role(after.clone()))?;
    Ok(after)
}

/// Whether `after` gives no permission that `before` does not.
pub fn only_removes(before: &[Permission], after: &[Permission]) -> bool {
    permissions_of(before).covers(&permissions_of(after))
}

/// Checks the deletion of a role and its grants.
pub fn delete<'a>(facts: &AdminFacts<'a>, key: &str) -> Result<&'a RoleRecord, AdminError> {
    facts.principal.require(Permission::ManageRole)?;
    let role = find(facts.accounts, key)?;
    require_editable(key)?;
    facts.principal.require_covers(&power_of(role))?;
    facts.require_remaining_admin(|accounts| accounts.drop_role(key))?;
    Ok(role)
}

/// Checks that a role may be granted, or a grant removed. The actor needs every permission of the role.
pub fn grant(facts: &AdminFacts<'_>, grant: &GrantRecord, granted: bool) -> Result<(), AdminError> {
    facts.principal.require(Permission::ManageRole)?;
    let role = find(facts.accounts, &grant.role)?;
    if granted {
        facts.principal.require_can_give(&power_of(role))?;
    } else {
        facts.principal.require_covers(&power_of(role))?;
        facts.require_remaining_admin(|accounts| accounts.set_grant(grant, false))?;
    }
    Ok(())
}

fn require_editable(key: &str) -> Result<(), AdminError> {
    if built_in_roles().iter().any(|built_in| built_in.key == key) {
        return invalid_value(format!("the role {key:?} is built in"));
    }
    Ok(())
}

fn power_of(role: &RoleRecord) -> Power {
    permissions_of(&role.permissions)
}

fn permissions_of(permissions: &[Permission]) -> Power {
    Power { permissions: permissions.iter().copied().collect(), ..Power::default() }
}
