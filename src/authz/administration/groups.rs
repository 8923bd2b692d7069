//! Checks for creating, changing and filling groups. The subset rule applies to a group that carries power.

use super::{AdminError, AdminErrorCode, AdminFacts, invalid_value, names, not_found, refuse, users};
use crate::authz::{
    accounts::{ALL_USERS, Account, Accounts, Group, GroupRecord, MAX_DEPTH, of_membership},
    subject::{GroupIx, Permission},
};

pub fn find<'a>(accounts: &'a Accounts, name: &str) -> Result<&'a Group, AdminError> {
    accounts.group_by_name(name).map_or_else(|| not_found("group", name), Ok)
}

/// Checks a new group; `record.parent` is an id. Its members get what its ancestors carry, and what the
/// configuration already gives to its name.
pub fn create(facts: &AdminFacts<'_>, record: GroupRecord) -> Result<GroupRecord, AdminError> {
    facts.principal.require(Permission::CreateGroup)?;
    let record = validate(facts, None, record)?;
    let parent = record.parent.as_deref().and_then(|id| facts.accounts.group_by_id(id));
    let line: Vec<&Group> =
        parent.into_iter().flat_map(|parent| facts.accounts.with_ancestors(parent.ix)).collect();
    require_depth(line.len() + 1)?;
    facts.principal.require_can_give(&of_membership(
        facts.accounts,
        facts.rules,
        line.into_iter(),
        &[&record.name],
    ))?;
    Ok(record)
}

/// Checks the change of a group to `after`. The actor needs the power that the group had and gets.
pub fn edit(facts: &AdminFacts<'_>, before: &Group, after: GroupRecord) -> Result<GroupRecord, AdminError> {
    facts.principal.require(Permission::UpdateGroup)?;
    require_editable(before)?;
    let after = validate(facts, Some(&before.record.name), after)?;
    if let Some(parent) = after.parent.as_deref().and_then(|id| facts.accounts.group_by_id(id)) {
        if facts.accounts.with_ancestors(parent.ix).any(|group| group.ix == before.ix) {
            return invalid_value("a group cannot be below itself");
        }
        require_depth(facts.accounts.with_ancestors(parent.ix).count() + height(facts, before.ix))?;
    }
    let mut next = facts.accounts.clone();
    next.put_group(after.clone());
    let has = AdminFacts { accounts: &next, ..*facts }.power_of_group(before.ix);
    facts.principal.require_can_change(&facts.power_of_group(before.ix), &has)?;
    facts.require_remaining_admin(|accounts| *accounts = next)?;
    Ok(after)
}

pub fn delete<'a>(facts: &AdminFacts<'a>, name: &str) -> Result<&'a Group, AdminError> {
    facts.principal.require(Permission::DeleteGroup)?;
    let group = find(facts.accounts, name)?;
    require_editable(group)?;
    if let Some(child) = facts.accounts.children(&group.record.id).next() {
        let message =
            format!("the group {:?} is below it: move or delete that group first", child.record.name);
        return invalid_value(message);
    }
    facts.principal.require_covers(&facts.power_of_group(group.ix))?;
    facts.require_remaining_admin(|accounts| accounts.drop_group(&group.record.id))?;
    Ok(group)
}

/// Checks that a member may be added or removed.
pub fn set_member<'a>(
    facts: &AdminFacts<'a>,
    group: &str,
    login: &str,
    member: bool,
) -> Result<(&'a Group, &'a Account), AdminError> {
    facts.principal.require(Permission::UpdateGroup)?;
    let group = find(facts.accounts, group)?;
    require_editable(group)?;
    let user = users::find(facts.accounts, login)?;
    let power = facts.power_of_group(group.ix);
    if member {
        facts.principal.require_can_give(&power)?;
    } else {
        facts.principal.require_covers(&power)?;
        let (group, user) = (&group.record.id, &user.record.id);
        facts.require_remaining_admin(|accounts| accounts.set_member(group, user, false))?;
    }
    Ok((group, user))
}

fn validate(
    facts: &AdminFacts<'_>,
    before: Option<&str>,
    mut record: GroupRecord,
) -> Result<GroupRecord, AdminError> {
    record.name = names::edited(before, &record.name, names::group)?;
    match facts.accounts.group_by_name(&record.name) {
        Some(other) if other.record.id != record.id => {
            refuse(AdminErrorCode::NameTaken, format!("the group name {:?} is taken", record.name))
        }
        _ => Ok(record),
    }
}

fn require_editable(group: &Group) -> Result<(), AdminError> {
    if group.record.id == ALL_USERS {
        return invalid_value("the group all-users is built in: every user is its member");
    }
    Ok(())
}

fn require_depth(depth: usize) -> Result<(), AdminError> {
    if depth > MAX_DEPTH {
        return invalid_value(format!("groups can be nested at most {MAX_DEPTH} deep"));
    }
    Ok(())
}

/// Levels of the tree below and with the group. In one pass over all groups, since there may be many children
/// and this runs on the thread that makes every change.
fn height(facts: &AdminFacts<'_>, ix: GroupIx) -> usize {
    let above = |group: &Group| facts.accounts.with_ancestors(group.ix).position(|above| above.ix == ix);
    1 + facts.accounts.groups().filter_map(above).max().unwrap_or(0)
}
