//! Tokens and users as the decision reads them: compiled, immutable, compact. `accounts` has the records that
//! users are compiled from.

use std::{
    collections::HashMap,
    ops::{Deref, DerefMut},
    sync::Arc,
};

use ipnet::IpNet;
use strum::{IntoStaticStr, VariantArray};

use crate::authz::{
    accounts::fold,
    rules::ServiceId,
    secret::{Digest, TokenId},
    time::Timestamp,
};

/// A user's position in the [`Directory`]; not reused during the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserIx(pub u32);

/// A group's position in the [`Directory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIx(pub u32);

/// A global permission (docs/domain.md, "Entities").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case", const_into_str)]
#[repr(u8)]
pub enum Permission {
    UpdateSelf,
    ReadService,
    ReadUser,
    CreateUser,
    UpdateUser,
    DeleteUser,
    ReadGroup,
    CreateGroup,
    UpdateGroup,
    DeleteGroup,
    ReadRole,
    ManageRole,
    ReadAudit,
    Introspect,
    AdminRead,
    AdminWrite,
}

/// A set of permissions, closed under implication: `admin-write` implies all, `update-x` implies `read-x`,
/// and `admin-read` implies `read-service` and every `read-*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u32);

/// The access that a scope entry gives to its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, IntoStaticStr)]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum Access {
    Read,
    Full,
}

/// A token's scope: 1 to 50 services, each once, sorted. Compact, because a million are kept in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(Entries);

/// Up to [`INLINE_ENTRIES`] entries are stored inline, which saves a look-up its second cache miss.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entries {
    Inline { count: u8, entries: [u16; INLINE_ENTRIES] },
    Boxed(Box<Box<[u16]>>),
}

/// A token in the index: only the fields that `decide` needs.
#[derive(Clone, Debug)]
pub struct Token {
    pub id: TokenId,
    pub owner: UserIx,
    pub scope: Scope,
    /// Exclusive: the token is no longer valid at this instant.
    pub expires_at: Option<Timestamp>,
    pub restrictions: Restrictions,
}

/// Boxed, since few tokens have any: eight bytes instead of forty.
#[derive(Clone, Debug)]
pub struct Restrictions(Option<Box<TokenRestrictions>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRestrictions {
    pub not_before: Option<Timestamp>,
    pub end: TokenEnd,
    /// Empty: any address.
    pub allow_ips: Vec<IpNet>,
}

/// How someone ended a token. Expiry and bans are computed, not stored here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenEnd {
    None,
    /// Replaced by a newer token; valid until `grace_until`, exclusive.
    Rotated {
        grace_until: Timestamp,
    },
    Revoked,
}

/// A user with everything derived from groups, roles, grants and rules.
#[derive(Clone, Debug)]
pub struct User {
    pub ix: UserIx,
    /// UUIDv7 text.
    pub id: Arc<str>,
    pub login: Arc<str>,
    pub banned: bool,
    pub deleted: bool,
    /// The user's groups, their ancestors, and `all-users`; sorted. Empty if deleted.
    pub groups: Box<[GroupIx]>,
    pub permissions: Permissions,
    /// The services that the user may read.
    pub readable: ServiceSet,
}

/// A set of services by [`ServiceId`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSet(Box<[u64]>);

/// All users and groups, compiled together with one set of rules.
///
/// The parts are shared, so that a change to one user copies no names.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    pub users: Vec<Arc<User>>,
    /// By lower-case login; without deleted users.
    pub by_login: Arc<HashMap<Box<str>, UserIx>>,
    /// Group names by [`GroupIx`]; the name of a deleted group is empty.
    pub groups: Arc<Vec<Arc<str>>>,
}

/// A token with its owner.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    pub digest: Digest,
    pub token: &'a Token,
    pub user: &'a User,
}

const READ_BIT: u16 = 1 << 15;

/// The most entries of a scope (docs/domain.md, "Entities").
pub(in crate::authz) const MAX_ENTRIES: usize = 50;

/// As many entries as fit into the 16 bytes of a boxed slice.
const INLINE_ENTRIES: usize = 7;

impl Access {
    pub const fn word(self) -> &'static str {
        self.into_str()
    }
}

/// A scope as text, such as `youtrack hub:read`.
pub fn scope_text<'s>(scope: impl IntoIterator<Item = &'s (String, Access)>) -> String {
    let entries = scope.into_iter().map(|(key, access)| match access {
        Access::Full => key.clone(),
        Access::Read => format!("{key}:read"),
    });
    entries.collect::<Vec<_>>().join(" ")
}

/// Parses an entry of such a text. The error is the word that is not an access.
pub fn parse_scope_entry(entry: &str) -> Result<(&str, Access), &str> {
    match entry.split_once(':') {
        None => Ok((entry, Access::Full)),
        Some((key, "read")) => Ok((key, Access::Read)),
        Some((key, "full")) => Ok((key, Access::Full)),
        Some((_, other)) => Err(other),
    }
}

impl Restrictions {
    pub const NONE: Self = Self(None);
}

impl TokenRestrictions {
    const NONE: Self = Self { not_before: None, end: TokenEnd::None, allow_ips: Vec::new() };
}

impl From<TokenRestrictions> for Restrictions {
    fn from(restrictions: TokenRestrictions) -> Self {
        Self((restrictions != TokenRestrictions::NONE).then(|| Box::new(restrictions)))
    }
}

impl Deref for Restrictions {
    type Target = TokenRestrictions;

    fn deref(&self) -> &TokenRestrictions {
        static NONE: TokenRestrictions = TokenRestrictions::NONE;
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for Restrictions {
    fn deref_mut(&mut self) -> &mut TokenRestrictions {
        self.0.get_or_insert_with(|| Box::new(TokenRestrictions::NONE))
    }
}

impl TokenEnd {
    /// When the grace period of a replaced token ends.
    pub fn grace_until(self) -> Option<Timestamp> {
        match self {
            TokenEnd::Rotated { grace_until } => Some(grace_until),
            TokenEnd::None | TokenEnd::Revoked => None,
        }
    }
}

impl Permission {
    pub const ALL: &'static [Permission] = Permission::VARIANTS;

    /// The name in the API and in stored roles, such as `update-self`.
    pub const fn word(self) -> &'static str {
        self.into_str()
    }

    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|p| p.word() == word)
    }

    /// The bits of the permission and of all that it implies.
    const fn closure(self) -> u32 {
        const fn bit(p: Permission) -> u32 {
            1 << p as u8
        }
        let reads = bit(Permission::ReadService)
            | bit(Permission::ReadUser)
            | bit(Permission::ReadGroup)
            | bit(Permission::ReadRole)
            | bit(Permission::ReadAudit);
        bit(self)
            | match self {
                Permission::UpdateUser => bit(Permission::ReadUser),
                Permission::UpdateGroup => bit(Permission::ReadGroup),
                Permission::AdminRead => reads,
                Permission::AdminWrite => (1 << 16) - 1,
                _ => 0,
            }
    }
}

impl Permissions {
    pub const NONE: Self = Self(0);

    pub fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u8) != 0
    }

    pub fn is_subset_of(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.iter().copied().filter(move |p| self.contains(*p))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(iter: I) -> Self {
        Self(iter.into_iter().fold(0, |set, p| set | p.closure()))
    }
}

impl Scope {
    /// `None` if there are no entries, more than 50, or two for one service.
    pub fn new(entries: impl IntoIterator<Item = (ServiceId, Access)>) -> Option<Self> {
        let mut packed = [0; MAX_ENTRIES];
        let mut count = 0;
        for (service, access) in entries {
            *packed.get_mut(count)? = service.0 | if access == Access::Read { READ_BIT } else { 0 };
            count += 1;
        }
        let packed = &mut packed[..count];
        packed.sort_unstable_by_key(|e| e & !READ_BIT);
        let unique = packed.windows(2).all(|w| (w[0] ^ w[1]) & !READ_BIT != 0);
        (unique && count > 0).then(|| Self(Entries::from(&*packed)))
    }

    pub fn access(&self, service: ServiceId) -> Option<Access> {
        self.iter().find(|(s, _)| *s == service).map(|(_, access)| access)
    }

    pub fn iter(&self) -> impl Iterator<Item = (ServiceId, Access)> + '_ {
        self.0.as_slice().iter().map(|e| {
            let access = if e & READ_BIT == 0 { Access::Full } else { Access::Read };
            (ServiceId(e & !READ_BIT), access)
        })
    }

    /// Whether `other` has every entry of this scope with at least the same access.
    pub fn is_within(&self, other: &Scope) -> bool {
        self.iter().all(|(service, access)| other.access(service).is_some_and(|a| a >= access))
    }
}

impl Entries {
    fn as_slice(&self) -> &[u16] {
        match self {
            Entries::Inline { count, entries } => entries.get(..usize::from(*count)).unwrap_or_default(),
            Entries::Boxed(entries) => entries,
        }
    }
}

impl From<&[u16]> for Entries {
    fn from(packed: &[u16]) -> Self {
        let mut entries = [0; INLINE_ENTRIES];
        match (entries.get_mut(..packed.len()), u8::try_from(packed.len())) {
            (Some(few), Ok(count)) => {
                few.copy_from_slice(packed);
                Entries::Inline { count, entries }
            }
            _ => Entries::Boxed(Box::new(packed.into())),
        }
    }
}

impl ServiceSet {
    pub fn contains(&self, service: ServiceId) -> bool {
        let at = usize::from(service.0);
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.iter().all(|service| other.contains(service))
    }

    pub fn iter(&self) -> impl Iterator<Item = ServiceId> + '_ {
        let numbers = 0..u16::try_from(self.0.len() * 64).unwrap_or(u16::MAX);
        numbers.map(ServiceId).filter(|s| self.contains(*s))
    }
}

impl FromIterator<ServiceId> for ServiceSet {
    fn from_iter<I: IntoIterator<Item = ServiceId>>(iter: I) -> Self {
        let mut words = Vec::new();
        for ServiceId(number) in iter {
            let at = usize::from(number);
            if words.len() <= at / 64 {
                words.resize(at / 64 + 1, 0u64);
            }
            words[at / 64] |= 1 << (at % 64);
        }
        Self(words.into())
    }
}

impl User {
    /// Whether the user is a member of the group of this name, directly or through a child group. Ignores
    /// case.
    pub fn is_in(&self, group: &str, directory: &Directory) -> bool {
        let named =
            |ix: &GroupIx| directory.groups.get(ix.0 as usize).is_some_and(|name| same_name(name, group));
        self.groups.iter().any(named)
    }
}

fn same_name(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    if one.is_ascii() && other.is_ascii() {
        return one.eq_ignore_ascii_case(other);
    }
    fold(one) == fold(other)
}

impl Directory {
    pub fn user(&self, ix: UserIx) -> Option<&Arc<User>> {
        self.users.get(ix.0 as usize)
    }

    /// Finds a user that is not deleted by login, ignoring case.
    pub fn user_by_login(&self, login: &str) -> Option<&Arc<User>> {
        self.user(*self.by_login.get(login.to_ascii_lowercase().as_str())?)
    }
}
