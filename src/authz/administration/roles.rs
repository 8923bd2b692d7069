//! Checks for roles and grants: they require `manage-role` and every permission of the role.

use super::{Acting, AdminError, AdminErrorCode, World, keeps_an_admin, names, not_found, refuse};
use crate::authz::{
    accounts::{GrantRecord, Power, RoleRecord, built_in_roles},
    subject::Permission,
};

pub fn find<'a>(world: &World<'a>, key: &str) -> Result<&'a RoleRecord, AdminError> {
    world.accounts.role(key).map_or_else(|| not_found("role", key), Ok)
}

pub fn create(
    world: &World<'_>,
    acting: &Acting<'_>,
    mut role: RoleRecord,
) -> Result<RoleRecord, AdminError> {
    acting.require(Permission::ManageRole)?;
    role.key = names::role_key(&role.key)?;
    role.name = names::text("role name", &role.name, 1, 200)?;
    role.permissions.sort_unstable();
    role.permissions.dedup();
    acting.require_gift(&power_of(&role))?;
    if world.accounts.role(&role.key).is_some() {
        return refuse(AdminErrorCode::NameTaken, format!("the role {:?} already exists", role.key));
    }
    Ok(role)
}

/// Checks the change of a role to `after`. The actor needs every permission that the role had or gets.
pub fn edit(
    world: &World<'_>,
    acting: &Acting<'_>,
    before: &RoleRecord,
    mut after: RoleRecord,
) -> Result<RoleRecord, AdminError> {
    acting.require(Permission::ManageRole)?;
    require_editable(&before.key)?;
    after.name = names::text("role name", &after.name, 1, 200)?;
    after.permissions.sort_unstable();
    after.permissions.dedup();
    let (had, has) = (power_of(before), power_of(&after));
    acting.require_cover(&had.union(&has))?;
    if !had.covers(&has) {
        acting.require_unbounded()?;
    }
    let mut next = world.accounts.clone();
    next.put_role(after.clone());
    keeps_an_admin(world.accounts, &next)?;
    Ok(after)
}

/// Whether `after` gives no permission that `before` does not.
pub fn only_removes(before: &[Permission], after: &[Permission]) -> bool {
    permissions_of(before).covers(&permissions_of(after))
}

/// Checks the deletion of a role and its grants.
pub fn delete<'a>(world: &World<'a>, acting: &Acting<'_>, key: &str) -> Result<&'a RoleRecord, AdminError> {
    acting.require(Permission::ManageRole)?;
    let role = find(world, key)?;
    require_editable(key)?;
    acting.require_cover(&power_of(role))?;
    let mut next = world.accounts.clone();
    next.drop_role(key);
    keeps_an_admin(world.accounts, &next)?;
    Ok(role)
}

/// Checks that a role may be granted, or a grant removed. The actor needs every permission of the role.
pub fn grant(
    world: &World<'_>,
    acting: &Acting<'_>,
    grant: &GrantRecord,
    granted: bool,
) -> Result<(), AdminError> {
    acting.require(Permission::ManageRole)?;
    let role = find(world, &grant.role)?;
    if granted {
        acting.require_gift(&power_of(role))?;
    } else {
        acting.require_cover(&power_of(role))?;
        let mut next = world.accounts.clone();
        next.set_grant(grant, false);
        keeps_an_admin(world.accounts, &next)?;
    }
    Ok(())
}

fn require_editable(key: &str) -> Result<(), AdminError> {
    if built_in_roles().iter().any(|built_in| built_in.key == key) {
        return refuse(AdminErrorCode::InvalidValue, format!("the role {key:?} is built in"));
    }
    Ok(())
}

fn power_of(role: &RoleRecord) -> Power {
    permissions_of(&role.permissions)
}

fn permissions_of(permissions: &[Permission]) -> Power {
    Power { permissions: permissions.iter().copied().collect(), ..Power::default() }
}
