//! The administration pages. Each needs the permission that the API needs, and shows a form only to readers
//! who may use it.

pub mod audit;
pub mod configuration;
pub mod explain;
pub mod gateway;
pub mod groups;
pub mod overview;
pub mod roles;
pub mod tokens;
pub mod users;

use super::{FormQuery, PageResult, Reader, Shell, address, link, render};
use crate::authz::{
    accounts::{ALL_USERS, Accounts, fold},
    subject::Permission,
};

/// What the reader may change.
struct Permissions {
    user: bool,
    delete_user: bool,
    delete_group: bool,
    group: bool,
    role: bool,
    explain: bool,
}

impl Permissions {
    fn from_reader(reader: &Reader) -> Self {
        let may = |permission| reader.caller.may(permission);
        Self {
            user: may(Permission::UpdateUser),
            delete_user: may(Permission::DeleteUser),
            delete_group: may(Permission::DeleteGroup),
            group: may(Permission::UpdateGroup),
            role: may(Permission::ManageRole),
            explain: may(Permission::AdminRead),
        }
    }
}

/// The names of the groups that a user can be added to.
fn joinable(accounts: &Accounts) -> Vec<String> {
    let groups = accounts.groups().filter(|group| group.record.id != ALL_USERS);
    let mut names: Vec<String> = groups.map(|group| group.record.name.clone()).collect();
    names.sort_by_cached_key(|name| fold(name));
    names
}

/// A name with the link to its page.
struct Named {
    name: String,
    link: String,
}

impl Named {
    fn new(section: &str, name: impl Into<String>) -> Self {
        let name = name.into();
        Self { link: link(section, &name), name }
    }
}
