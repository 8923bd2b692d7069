//! What an account can do: its permissions and the services it can read.

use super::{Account, Accounts, Group, fold};
use crate::authz::{
    rules::{Rules, Service},
    subject::{GroupIx, Permission, Permissions, ServiceSet},
};

/// Permissions and readable services; the measure of the subset rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Power {
    pub permissions: Permissions,
    pub readable: ServiceSet,
}

impl Power {
    /// Of a user, by all groups; nothing once deleted. A ban takes nothing from it.
    pub fn of(accounts: &Accounts, rules: &Rules, user: &Account) -> Self {
        let groups = accounts.groups_of(user);
        let permissions = permissions(accounts, user, &groups);
        let readable = if user.record.deleted_at.is_some() {
            ServiceSet::default()
        } else {
            readable(rules, permissions, |reader| {
                accounts.group_by_name(reader).is_some_and(|group| groups.binary_search(&group.ix).is_ok())
            })
        };
        Self { permissions, readable }
    }

    /// Of who holds `admin-write` and is nobody: the peer of the unix socket.
    pub fn operator(rules: &Rules) -> Self {
        let permissions = [Permission::AdminWrite].into_iter().collect();
        Self { permissions, readable: readable(rules, permissions, |_| false) }
    }

    pub fn covers(&self, other: &Power) -> bool {
        other.permissions.is_subset_of(self.permissions) && other.readable.is_subset_of(&self.readable)
    }

    #[must_use]
    pub fn union(&self, other: &Power) -> Self {
        Self {
            permissions: self.permissions.union(other.permissions),
            readable: self.readable.iter().chain(other.readable.iter()).collect(),
        }
    }
}

/// What membership in a group brings: the roles of its line, and the services whose readers name
/// one of the line. `names` may hold a name that the accounts lack: `readers` may list it already.
pub fn carried<'a>(
    accounts: &Accounts,
    rules: &Rules,
    line: impl Iterator<Item = &'a Group>,
    names: &[&str],
) -> Power {
    let mut permissions = Permissions::NONE;
    let mut folded: Vec<String> = names.iter().map(|name| fold(name)).collect();
    for group in line {
        permissions = permissions.union(of_roles(accounts, &group.roles));
        folded.push(fold(&group.record.name));
    }
    let readable = readable(rules, permissions, |reader| folded.contains(&fold(reader)));
    Power { permissions, readable }
}

pub(super) fn permissions(accounts: &Accounts, user: &Account, groups: &[GroupIx]) -> Permissions {
    let direct = of_roles(accounts, &user.roles);
    let held = groups.iter().filter_map(|ix| accounts.group(*ix));
    held.fold(direct, |all, group| all.union(of_roles(accounts, &group.roles)))
}

pub(super) fn of_roles(accounts: &Accounts, keys: &[String]) -> Permissions {
    let roles = keys.iter().filter_map(|key| accounts.role(key));
    roles.fold(Permissions::NONE, |all, role| all.union(role.permissions.iter().copied().collect()))
}

/// The two ways to read a service: its readers name a group, or the global permission.
fn readable(rules: &Rules, permissions: Permissions, mut in_group: impl FnMut(&str) -> bool) -> ServiceSet {
    let all = permissions.contains(Permission::ReadService);
    let may = |service: &&Service| all || service.spec.readers.iter().any(|reader| in_group(reader));
    rules.services().iter().filter(may).map(|service| service.id).collect()
}
