//! Users, groups, roles and grants as administered. A clone is cheap: it shares all that has not changed.
//! Whether a change is permitted is decided in `administration`, not here.

use std::{collections::BTreeMap, collections::HashMap, sync::Arc};

use unicode_normalization::UnicodeNormalization;

use crate::authz::subject::{GroupIx, Permission, Permissions, UserIx};

mod chunks;
mod directory;
mod power;
mod record;

use chunks::Chunks;
pub use directory::{compile, recompile};
pub use power::{Power, of_membership};
pub use record::{GrantRecord, Grantee, GroupRecord, RoleRecord, UserId, UserKind, UserRecord};

/// Id and name of the built-in group, which has every user that is not deleted.
pub const ALL_USERS: &str = "all-users";
const ALL_USERS_IX: GroupIx = GroupIx(0);

/// The most levels of nested groups, the group itself included.
pub const MAX_DEPTH: usize = 8;

/// The administered accounts.
#[derive(Clone, Debug)]
pub struct Accounts {
    users: Chunks<Arc<Account>>,
    by_id: Arc<HashMap<Box<str>, UserIx>>,
    /// Folded logins of the users that are not deleted; shared with the directory.
    by_login: Arc<HashMap<Box<str>, UserIx>>,
    groups: Arc<Groups>,
    roles: Arc<BTreeMap<String, RoleRecord>>,
}

/// A user with its direct groups and roles, without those inherited from groups.
#[derive(Clone, Debug)]
pub struct Account {
    pub ix: UserIx,
    pub record: UserRecord,
    /// Direct memberships, sorted, without `all-users`.
    pub groups: Vec<GroupIx>,
    /// Keys of the roles granted directly, sorted.
    pub roles: Vec<String>,
}

/// A group with its direct roles, without those of its ancestors.
#[derive(Clone, Debug)]
pub struct Group {
    pub ix: GroupIx,
    pub record: GroupRecord,
    /// Keys of the roles granted directly, sorted.
    pub roles: Vec<String>,
}

#[derive(Clone, Debug)]
struct Groups {
    /// By [`GroupIx`]; `None` where a group was deleted.
    rows: Vec<Option<Group>>,
    by_id: HashMap<String, GroupIx>,
    /// By folded name.
    by_name: HashMap<String, GroupIx>,
}

/// Folds a name for comparison: NFC, lower case, without zero-width joiners.
pub fn fold(name: &str) -> String {
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    // Joiners go first: a mark after one may compose with the letter before it.
    name.chars().filter(|c| !is_joiner(*c)).nfc().collect::<String>().to_lowercase()
}

/// Whether this is U+200C or U+200D, which change how letters are drawn but do not make a name unique.
pub(super) const fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

impl Accounts {
    /// The built-in group and roles, without users and grants.
    #[allow(clippy::new_without_default, reason = "a type that grants access has no default")]
    pub fn new() -> Self {
        let all_users =
            GroupRecord { id: ALL_USERS.into(), name: ALL_USERS.into(), parent: None, revision: 0 };
        let mut groups = Groups { rows: Vec::new(), by_id: HashMap::new(), by_name: HashMap::new() };
        groups.put(all_users);
        let roles = built_in_roles().into_iter().map(|role| (role.key.clone(), role)).collect();
        Self {
            users: Chunks::new(),
            by_id: Arc::default(),
            by_login: Arc::default(),
            groups: Arc::new(groups),
            roles: Arc::new(roles),
        }
    }

    pub fn user(&self, ix: UserIx) -> Option<&Account> {
        self.users.get(ix.0 as usize).map(Arc::as_ref)
    }

    /// Finds deleted users too.
    pub fn user_by_id(&self, id: &str) -> Option<&Account> {
        self.user(*self.by_id.get(id)?)
    }

    /// Finds a user that is not deleted.
    pub fn user_by_login(&self, login: &str) -> Option<&Account> {
        self.user(*self.by_login.get(login.to_ascii_lowercase().as_str())?)
    }

    /// All users in the order of creation, deleted ones included.
    pub fn users(&self) -> impl Iterator<Item = &Account> {
        self.users.iter().map(Arc::as_ref)
    }

    /// The users that are not deleted, in the order of creation.
    pub fn present_users(&self) -> impl Iterator<Item = &Account> {
        self.members(ALL_USERS_IX)
    }

    pub fn group(&self, ix: GroupIx) -> Option<&Group> {
        self.groups.rows.get(ix.0 as usize)?.as_ref()
    }

    pub fn group_by_id(&self, id: &str) -> Option<&Group> {
        self.group(*self.groups.by_id.get(id)?)
    }

    pub fn group_by_name(&self, name: &str) -> Option<&Group> {
        self.group(*self.groups.by_name.get(&fold(name))?)
    }

    /// All groups, the built-in one first.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.rows.iter().flatten()
    }

    /// The group, then its ancestors.
    pub fn with_ancestors(&self, ix: GroupIx) -> impl Iterator<Item = &Group> {
        std::iter::successors(self.group(ix), |group| self.group_by_id(group.record.parent.as_deref()?))
            .take(MAX_DEPTH)
    }

    pub fn children<'a>(&'a self, id: &'a str) -> impl Iterator<Item = &'a Group> {
        self.groups().filter(move |group| group.record.parent.as_deref() == Some(id))
    }

    /// Direct members; for `all-users`, every user that is not deleted.
    pub fn members(&self, ix: GroupIx) -> impl Iterator<Item = &Account> {
        self.users().filter(move |user| match ix {
            ALL_USERS_IX => user.record.deleted_at.is_none(),
            _ => user.groups.binary_search(&ix).is_ok(),
        })
    }

    /// Every group of a user: direct ones, their ancestors and `all-users`; sorted. None for a deleted user.
    pub fn groups_of(&self, user: &Account) -> Vec<GroupIx> {
        if user.record.deleted_at.is_some() {
            return Vec::new();
        }
        let mut all = vec![ALL_USERS_IX];
        for own in &user.groups {
            all.extend(self.with_ancestors(*own).map(|group| group.ix));
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    pub fn permissions_of(&self, user: &Account) -> Permissions {
        power::permissions(self, user, &self.groups_of(user))
    }

    pub fn role(&self, key: &str) -> Option<&RoleRecord> {
        self.roles.get(key)
    }

    /// All roles in the order of their keys, built-in ones included.
    pub fn roles(&self) -> impl Iterator<Item = &RoleRecord> {
        self.roles.values()
    }

    pub fn grants(&self) -> impl Iterator<Item = GrantRecord> {
        let users = self.users().flat_map(|user| {
            let to = Grantee::User(user.record.id.clone());
            user.roles.iter().map(move |role| GrantRecord { role: role.clone(), to: to.clone() })
        });
        let groups = self.groups().flat_map(|group| {
            let to = Grantee::Group(group.record.id.clone());
            group.roles.iter().map(move |role| GrantRecord { role: role.clone(), to: to.clone() })
        });
        users.chain(groups)
    }

    /// Inserts or replaces by id. A deleted user loses its groups, roles and login.
    pub fn put_user(&mut self, record: UserRecord) -> UserIx {
        let known = self.by_id.get(record.id.as_str()).copied();
        let ix = known.unwrap_or_else(|| {
            UserIx(u32::try_from(self.users.len()).expect("fewer users than 2^32 fit into memory"))
        });
        let live = record.deleted_at.is_none();
        let login = record.login.to_ascii_lowercase();
        let before = known.and_then(|ix| self.user(ix)).map(|old| old.record.login.to_ascii_lowercase());
        if let Some(before) = before.filter(|before| *before != login || !live)
            && self.by_login.get(before.as_str()) == Some(&ix)
        {
            Arc::make_mut(&mut self.by_login).remove(before.as_str());
        }
        if live && self.by_login.get(login.as_str()) != Some(&ix) {
            Arc::make_mut(&mut self.by_login).insert(login.into(), ix);
        }
        match self.users.get_mut(ix.0 as usize) {
            Some(slot) => {
                let account = Arc::make_mut(slot);
                account.record = record;
                if !live {
                    account.groups.clear();
                    account.roles.clear();
                }
            }
            None => {
                Arc::make_mut(&mut self.by_id).insert(record.id.as_str().into(), ix);
                self.users.push(Arc::new(Account { ix, record, groups: Vec::new(), roles: Vec::new() }));
            }
        }
        ix
    }

    /// Inserts or replaces by id.
    pub fn put_group(&mut self, record: GroupRecord) -> GroupIx {
        Arc::make_mut(&mut self.groups).put(record)
    }

    /// Removes the group from its members, and as the parent of its children.
    pub fn drop_group(&mut self, id: &str) {
        let groups = Arc::make_mut(&mut self.groups);
        let Some(ix) = groups.by_id.remove(id) else { return };
        if let Some(group) = groups.rows[ix.0 as usize].take() {
            groups.by_name.remove(&fold(&group.record.name));
        }
        for child in groups.rows.iter_mut().flatten().filter(|g| g.record.parent.as_deref() == Some(id)) {
            child.record.parent = None;
        }
        let members: Vec<UserIx> = self.members(ix).map(|user| user.ix).collect();
        for user in members {
            self.change_user(user, |account| account.groups.retain(|group| *group != ix));
        }
    }

    /// Ignored if the group or the user is unknown.
    pub fn set_member(&mut self, group: &str, user: &str, member: bool) {
        let (Some(group), Some(user)) = (self.group_by_id(group), self.user_by_id(user)) else { return };
        let (group, user) = (group.ix, user.ix);
        self.change_user(user, |account| set(&mut account.groups, group, member));
    }

    pub fn put_role(&mut self, record: RoleRecord) {
        Arc::make_mut(&mut self.roles).insert(record.key.clone(), record);
    }

    /// Removes a role together with its grants.
    pub fn drop_role(&mut self, key: &str) {
        let grants: Vec<GrantRecord> = self.grants().filter(|grant| grant.role == key).collect();
        for grant in grants {
            self.set_grant(&grant, false);
        }
        Arc::make_mut(&mut self.roles).remove(key);
    }

    /// Ignored if the user or the group is unknown.
    pub fn set_grant(&mut self, grant: &GrantRecord, granted: bool) {
        match &grant.to {
            Grantee::User(id) => {
                if let Some(user) = self.user_by_id(id).map(|user| user.ix) {
                    self.change_user(user, |account| set(&mut account.roles, grant.role.clone(), granted));
                }
            }
            Grantee::Group(id) => {
                if let Some(ix) = self.group_by_id(id).map(|group| group.ix)
                    && let Some(group) = &mut Arc::make_mut(&mut self.groups).rows[ix.0 as usize]
                {
                    set(&mut group.roles, grant.role.clone(), granted);
                }
            }
        }
    }

    fn change_user(&mut self, ix: UserIx, change: impl FnOnce(&mut Account)) {
        if let Some(slot) = self.users.get_mut(ix.0 as usize) {
            change(Arc::make_mut(slot));
        }
    }
}

impl Groups {
    fn put(&mut self, record: GroupRecord) -> GroupIx {
        let name = fold(&record.name);
        let ix = match self.by_id.get(&record.id) {
            Some(ix) => *ix,
            None => GroupIx(u32::try_from(self.rows.len()).expect("fewer groups than 2^32 fit into memory")),
        };
        match self.rows.get_mut(ix.0 as usize).and_then(Option::as_mut) {
            Some(group) => {
                self.by_name.remove(&fold(&group.record.name));
                group.record = record;
            }
            None => {
                self.by_id.insert(record.id.clone(), ix);
                self.rows.push(Some(Group { ix, record, roles: Vec::new() }));
            }
        }
        self.by_name.insert(name, ix);
        ix
    }
}

/// The roles that every store has and that cannot be changed.
pub fn built_in_roles() -> [RoleRecord; 3] {
    let role = |key: &str, name: &str, permissions| RoleRecord {
        key: key.into(),
        name: name.into(),
        permissions,
        revision: 0,
    };
    [
        role("system-admin", "System administrator", vec![Permission::AdminWrite]),
        role("contributor", "Contributor", vec![Permission::UpdateSelf]),
        role("observer", "Observer", vec![]),
    ]
}

/// The only grant of a new store: every user may create tokens.
pub fn initial_grant() -> GrantRecord {
    GrantRecord { role: "contributor".into(), to: Grantee::Group(ALL_USERS.into()) }
}

fn set<T: Ord>(sorted: &mut Vec<T>, value: T, present: bool) {
    match (sorted.binary_search(&value), present) {
        (Err(at), true) => sorted.insert(at, value),
        (Ok(at), false) => drop(sorted.remove(at)),
        _ => {}
    }
}
