//! The power of an account: its permissions, the services that it can read, and the groups that upstreams are
//! told about. The subset rule compares powers (docs/domain.md, "Administration").

use std::collections::BTreeSet;

use super::{Account, Accounts, Group, fold};
use crate::authz::{
    rules::{Identity, Rules, Service},
    subject::{GroupIx, Permission, Permissions, ServiceSet},
};

/// What the subset rule compares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Power {
    pub permissions: Permissions,
    pub readable: ServiceSet,
    /// Folded names of groups that some upstream is told about. Such a group counts as power, because only
    /// the upstream knows what it grants.
    pub identity_groups: BTreeSet<String>,
}

impl Power {
    /// The power of a user through all groups; none once deleted. A ban does not reduce it.
    pub fn of_user(accounts: &Accounts, rules: &Rules, user: &Account) -> Self {
        let groups = accounts.groups_of(user);
        let permissions = permissions(accounts, user, &groups);
        if user.record.deleted_at.is_some() {
            return Self { permissions, ..Self::default() };
        }
        let names = groups.iter().filter_map(|ix| accounts.group(*ix)).map(|group| fold(&group.record.name));
        Self::of_groups(rules, permissions, &names.collect())
    }

    /// The power of the operator, who has `admin-write` and no account.
    pub fn operator(rules: &Rules) -> Self {
        Self::of_groups(rules, [Permission::AdminWrite].into_iter().collect(), &BTreeSet::new())
    }

    /// Whether this includes `other`. `admin-write` covers everything, since its holder can grant itself the
    /// rest.
    pub fn covers(&self, other: &Power) -> bool {
        self.permissions.contains(Permission::AdminWrite)
            || other.permissions.is_subset_of(self.permissions)
                && other.readable.is_subset_of(&self.readable)
                && other.identity_groups.is_subset(&self.identity_groups)
    }

    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    #[must_use]
    pub fn union(&self, other: &Power) -> Self {
        Self {
            permissions: self.permissions.union(other.permissions),
            readable: self.readable.iter().chain(other.readable.iter()).collect(),
            identity_groups: &self.identity_groups | &other.identity_groups,
        }
    }

    /// `names` must be folded.
    fn of_groups(rules: &Rules, permissions: Permissions, names: &BTreeSet<String>) -> Self {
        let lists = |groups: &[String]| groups.iter().any(|group| names.contains(&fold(group)));
        let reads_all = permissions.contains(Permission::ReadService);
        let readable = |service: &&Service| reads_all || lists(&service.spec.readers);
        let sent = rules.services().iter().flat_map(identity_groups).map(|group| fold(group));
        Self {
            permissions,
            readable: rules.services().iter().filter(readable).map(|service| service.id).collect(),
            identity_groups: sent.filter(|name| names.contains(name)).collect(),
        }
    }
}

/// The power that membership in a group gives: the roles of the group and its ancestors (`ancestry`), the
/// services whose readers name one of them, and the names that upstreams are told. `names` are further group
/// names, which may be unknown to the accounts: the configuration may already list them.
pub fn of_membership<'a>(
    accounts: &Accounts,
    rules: &Rules,
    ancestry: impl Iterator<Item = &'a Group>,
    names: &[&str],
) -> Power {
    let mut permissions = Permissions::NONE;
    let mut folded: BTreeSet<String> = names.iter().map(|name| fold(name)).collect();
    for group in ancestry {
        permissions = permissions.union(of_roles(accounts, &group.roles));
        folded.insert(fold(&group.record.name));
    }
    Power::of_groups(rules, permissions, &folded)
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

/// The groups that a service's upstream may be told about: `identity_groups` if set, even while `identity` is
/// none, since the next reload may change that; otherwise the readers, unless `identity` is none.
fn identity_groups(service: &Service) -> &[String] {
    match (service.spec.identity, &service.spec.identity_groups) {
        (Identity::None, None) => &[],
        _ => service.identity_groups(),
    }
}
