//! Checks for creating, changing and filling groups. The subset rule applies to a group that carries power.

use super::{Acting, AdminError, AdminErrorCode, World, keeps_an_admin, names, not_found, refuse, users};
use crate::authz::{
    accounts::{ALL_USERS, Account, Group, GroupRecord, MAX_DEPTH, carried},
    subject::Permission,
};

pub fn find<'a>(world: &World<'a>, name: &str) -> Result<&'a Group, AdminError> {
    world.accounts.group_by_name(name).map_or_else(|| not_found("group", name), Ok)
}

/// Checks a new group; `record.parent` is an id. Its members get what its ancestors carry, and what the
/// configuration already gives to its name.
pub fn create(
    world: &World<'_>,
    acting: &Acting<'_>,
    record: GroupRecord,
) -> Result<GroupRecord, AdminError> {
    acting.require(Permission::CreateGroup)?;
    let record = checked(world, record)?;
    let parent = record.parent.as_deref().and_then(|id| world.accounts.group_by_id(id));
    let line: Vec<&Group> = parent.into_iter().flat_map(|parent| world.accounts.line(parent.ix)).collect();
    require_depth(line.len() + 1)?;
    acting.require_gift(&carried(world.accounts, world.rules, line.into_iter(), &[&record.name]))?;
    Ok(record)
}

/// Checks the change of a group to `after`. The actor needs the power that the group had and gets.
pub fn edit(
    world: &World<'_>,
    acting: &Acting<'_>,
    before: &Group,
    after: GroupRecord,
) -> Result<GroupRecord, AdminError> {
    acting.require(Permission::UpdateGroup)?;
    require_editable(before)?;
    let after = checked(world, after)?;
    let mut next = world.accounts.clone();
    if let Some(parent) = after.parent.as_deref().and_then(|id| world.accounts.group_by_id(id)) {
        if world.accounts.line(parent.ix).any(|group| group.ix == before.ix) {
            return refuse(AdminErrorCode::InvalidValue, "a group cannot be below itself");
        }
        require_depth(world.accounts.line(parent.ix).count() + height(world, &before.record.id))?;
    }
    let had = carried(world.accounts, world.rules, world.accounts.line(before.ix), &[]);
    next.put_group(after.clone());
    let has = carried(&next, world.rules, next.line(before.ix), &[]);
    acting.require_cover(&had.union(&has))?;
    if !had.covers(&has) {
        acting.require_unbounded()?;
    }
    keeps_an_admin(world.accounts, &next)?;
    Ok(after)
}

pub fn delete<'a>(world: &World<'a>, acting: &Acting<'_>, name: &str) -> Result<&'a Group, AdminError> {
    acting.require(Permission::DeleteGroup)?;
    let group = find(world, name)?;
    require_editable(group)?;
    if let Some(child) = world.accounts.children(&group.record.id).next() {
        let message =
            format!("the group {:?} is below it: move or delete that group first", child.record.name);
        return refuse(AdminErrorCode::InvalidValue, message);
    }
    acting.require_cover(&carried(world.accounts, world.rules, world.accounts.line(group.ix), &[]))?;
    let mut next = world.accounts.clone();
    next.drop_group(&group.record.id);
    keeps_an_admin(world.accounts, &next)?;
    Ok(group)
}

/// Checks that a member may be added or removed.
pub fn set_member<'a>(
    world: &World<'a>,
    acting: &Acting<'_>,
    group: &str,
    login: &str,
    member: bool,
) -> Result<(&'a Group, &'a Account), AdminError> {
    acting.require(Permission::UpdateGroup)?;
    let group = find(world, group)?;
    require_editable(group)?;
    let user = users::find(world, login)?;
    let carried = carried(world.accounts, world.rules, world.accounts.line(group.ix), &[]);
    if member {
        acting.require_gift(&carried)?;
    } else {
        acting.require_cover(&carried)?;
        let mut next = world.accounts.clone();
        next.set_member(&group.record.id, &user.record.id, false);
        keeps_an_admin(world.accounts, &next)?;
    }
    Ok((group, user))
}

fn checked(world: &World<'_>, mut record: GroupRecord) -> Result<GroupRecord, AdminError> {
    record.name = names::group(&record.name)?;
    match world.accounts.group_by_name(&record.name) {
        Some(other) if other.record.id != record.id => {
            refuse(AdminErrorCode::NameTaken, format!("the group name {:?} is taken", record.name))
        }
        _ => Ok(record),
    }
}

fn require_editable(group: &Group) -> Result<(), AdminError> {
    if group.record.id == ALL_USERS {
        return refuse(
            AdminErrorCode::InvalidValue,
            "the group all-users is built in: every user is its member",
        );
    }
    Ok(())
}

fn require_depth(depth: usize) -> Result<(), AdminError> {
    if depth > MAX_DEPTH {
        return refuse(
            AdminErrorCode::InvalidValue,
            format!("groups can be nested at most {MAX_DEPTH} deep"),
        );
    }
    Ok(())
}

/// Levels of the tree below and with the group.
fn height(world: &World<'_>, id: &str) -> usize {
    let below = world.accounts.children(id).map(|child| height(world, &child.record.id));
    1 + below.max().unwrap_or(0)
}
