//! Roles and grants: `manage-role`, and only permissions that one has.

use super::{Acting, AdminError, AdminErrorCode, World, keeps_an_admin, names, not_found, refuse};
use crate::authz::{
    accounts::{GrantRecord, Power, RoleRecord, built_in_roles},
    subject::Permission,
};

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
        return refuse(AdminErrorCode::NameTaken, format!("the role {:?} exists", role.key));
    }
    Ok(role)
}

/// With its grants.
pub fn delete<'a>(world: &World<'a>, acting: &Acting<'_>, key: &str) -> Result<&'a RoleRecord, AdminError> {
    acting.require(Permission::ManageRole)?;
    let Some(role) = world.accounts.role(key) else { return not_found("role", key) };
    if built_in_roles().iter().any(|built_in| built_in.key == key) {
        return refuse(AdminErrorCode::InvalidValue, format!("the role {key:?} is built in"));
    }
    acting.require_cover(&power_of(role))?;
    let mut next = world.accounts.clone();
    next.drop_role(key);
    keeps_an_admin(world.accounts, &next)?;
    Ok(role)
}

/// To grant, or to take a grant away. Whoever gives or takes it has every permission of the role.
pub fn grant(
    world: &World<'_>,
    acting: &Acting<'_>,
    grant: &GrantRecord,
    granted: bool,
) -> Result<(), AdminError> {
    acting.require(Permission::ManageRole)?;
    let Some(role) = world.accounts.role(&grant.role) else { return not_found("role", &grant.role) };
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

fn power_of(role: &RoleRecord) -> Power {
    Power { permissions: role.permissions.iter().copied().collect(), ..Power::default() }
}
