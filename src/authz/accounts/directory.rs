//! Compiles accounts and rules into the directory that workers read, as a whole or for some users.

use std::{collections::HashMap, sync::Arc};

use super::{Account, Accounts, Group, power};
use crate::authz::{
    rules::{Rules, ServiceId},
    subject::{Directory, GroupIx, Permission, ServiceSet, User, UserIx},
};

/// Compiles all users.
pub fn compile(accounts: &Accounts, rules: &Rules) -> Directory {
    let readers = Readers::new(accounts, rules);
    let name = |row: &Option<Group>| Arc::from(row.as_ref().map_or("", |group| &group.record.name));
    Directory {
        users: accounts.users().map(|user| Arc::new(readers.user(accounts, user))).collect(),
        by_login: accounts.by_login.clone(),
        groups: Arc::new(accounts.groups.rows.iter().map(name).collect()),
    }
}

/// Returns the directory with the changed and the added users compiled anew. Groups, roles and rules must be
/// those from which it was compiled.
pub fn recompile(directory: &Directory, accounts: &Accounts, rules: &Rules, changed: &[UserIx]) -> Directory {
    let readers = Readers::new(accounts, rules);
    let mut next = directory.clone();
    next.by_login = accounts.by_login.clone();
    let first = next.users.len();
    let added = (first..accounts.users.len()).filter_map(|at| accounts.users.get(at));
    next.users.extend(added.map(|user| Arc::new(readers.user(accounts, user))));
    for ix in changed.iter().filter(|ix| (ix.0 as usize) < first) {
        if let Some(user) = accounts.user(*ix) {
            next.users[ix.0 as usize] = Arc::new(readers.user(accounts, user));
        }
    }
    next
}

/// The services that each group may read, with group names resolved once.
struct Readers {
    all: ServiceSet,
    by_group: HashMap<GroupIx, Vec<ServiceId>>,
}

impl Readers {
    fn new(accounts: &Accounts, rules: &Rules) -> Self {
        let mut by_group: HashMap<GroupIx, Vec<ServiceId>> = HashMap::new();
        for service in rules.services() {
            for reader in &service.spec.readers {
                if let Some(group) = accounts.group_by_name(reader) {
                    by_group.entry(group.ix).or_default().push(service.id);
                }
            }
        }
        Self { all: rules.services().iter().map(|service| service.id).collect(), by_group }
    }

    fn user(&self, accounts: &Accounts, account: &Account) -> User {
        let deleted = account.record.deleted_at.is_some();
        let groups = accounts.groups_of(account);
        let permissions = power::permissions(accounts, account, &groups);
        let readable = if permissions.contains(Permission::ReadService) {
            self.all.clone()
        } else {
            groups.iter().filter_map(|ix| self.by_group.get(ix)).flatten().copied().collect()
        };
        User {
            ix: account.ix,
            id: account.record.id.as_str().into(),
            login: account.record.login.as_str().into(),
            banned: account.record.banned.is_some(),
            deleted,
            groups: groups.into(),
            permissions,
            readable,
        }
    }
}
