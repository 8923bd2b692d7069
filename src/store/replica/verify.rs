//! Reads every row, while changes continue, and checks it against its sum, its key and the rows that it
//! refers to. All rows are as of one moment; what looks wrong is checked again between two changes.

use std::{
    collections::{HashMap, HashSet},
    error::Error,
    fmt::Display,
    ops::ControlFlow,
};

use parking_lot::MappedRwLockReadGuard;

use super::{
    Counts, Replica, ReplicaError, ReplicaState, Trees, keys, stage,
    tables::{AUDIT_START, STATE, Sum, Table},
    token_lists::{TokenLists, TokenListsChange, of_owner},
};
use crate::{
    authz::{
        accounts::{Accounts, Grantee, fold},
        secret::TokenId,
    },
    store::{
        audit::Chain,
        model::{
            AuditEvent, AuditPosition, GrantRecord, GroupRecord, IdempotencyRecord, IdentityRecord,
            InvitationRecord, LastUsed, RoleRecord, SessionRecord, TokenRecord, UserRecord,
        },
        record::{Record, TokenHead},
    },
};

/// Called with what is wrong with a table.
pub(crate) type OnDamage<'f> = dyn FnMut(Table, String) + 'f;
/// Called with the number of rows of a table that were read, and how many it should have.
pub(crate) type OnRow<'t> = dyn FnMut(Table, u64, u64) -> ControlFlow<()> + 't;

/// The error says what is wrong with a row.
type Checked = Result<(), Box<dyn Error>>;

/// What is known besides the rows, as of the moment whose rows are read.
struct ExpectedState {
    state: ReplicaState,
    owners: HashMap<String, Counts>,
}

/// The results of the rows that were read so far.
struct Pass {
    sums: [Sum; Table::ALL.len()],
    /// `None` once the chain is broken, which is reported once.
    audit: Option<Chain>,
    owners: HashMap<String, Counts>,
    /// Folded logins of users that are not deleted, and folded names of groups.
    names: HashSet<(Table, String)>,
}

impl Replica {
    /// Reads everything; `on_progress` may stop it. [`Replica::load`] must have run before. Returns the
    /// state that the rows were checked against.
    pub(crate) fn verify(
        &self,
        on_progress: &mut OnRow<'_>,
        found: &mut OnDamage<'_>,
    ) -> ControlFlow<(), ReplicaState> {
        let (mut copy, expected) = self.copy_with(|| {
            let owners = self.lists.read().as_ref().map(TokenLists::all_counts);
            ExpectedState { state: self.state(), owners: owners.unwrap_or_default() }
        });
        let mut pass = Pass {
            sums: Default::default(),
            audit: Some(Chain::new(None)),
            owners: HashMap::new(),
            names: HashSet::new(),
        };
        let built_in = Accounts::new();
        let mut unread = HashSet::new();
        loop {
            let rows = match copy.rows() {
                Ok(rows) => rows,
                Err(error) => match copy.skip_table().filter(|table| unread.insert(*table)) {
                    Some(table) => {
                        found(table, format!("rows cannot be read: {error}"));
                        continue;
                    }
                    None => break,
                },
            };
            let Some((last, ..)) = rows.last() else { break };
            let last = *last;
            for (table, key, row) in rows {
                if let Err(what) = pass.add(table, &key, &row) {
                    found(table, what.to_string());
                } else if let Err(what) = self.verify_row(&built_in, table, &key, &row)
                    && let Some(what) = self.check_again(&built_in, table, &key).unwrap_or(Some(what))
                {
                    found(table, what.to_string());
                }
            }
            on_progress(last, pass.sums[last as usize].rows, expected.state.sum(last).rows)?;
        }
        pass.end(&expected, &unread, found);
        ControlFlow::Continue(expected.state)
    }

    /// Checks a row again, between two changes. `Some(None)`: nothing is wrong, since the row, or what it
    /// refers to, has just been changed. `None`: the row cannot be read.
    fn check_again(&self, built_in: &Accounts, table: Table, key: &[u8]) -> Option<Option<Box<dyn Error>>> {
        let row = self.read(|trees| {
            // No change is made while this lock is held.
            let _changes = self.copying.lock();
            let Some(row) = trees.get(table, key)? else { return Ok(None) };
            let rows = self.rows_to_check(trees, built_in)?;
            Ok(rows.check(table, key, &row).err())
        });
        row.ok()
    }

    fn verify_row(&self, built_in: &Accounts, table: Table, key: &[u8], row: &[u8]) -> Checked {
        self.guarded(|trees| self.rows_to_check(trees, built_in)?.check(table, key, row))?
    }

    fn rows_to_check<'a>(
        &'a self,
        trees: &'a Trees,
        built_in: &'a Accounts,
    ) -> Result<Rows<'a>, ReplicaError> {
        Ok(Rows { trees, lists: self.lists(trees)?, built_in })
    }
}

impl Pass {
    /// Checks a row on its own, and adds it to what is checked over all rows.
    fn add(&mut self, table: Table, key: &[u8], row: &[u8]) -> Checked {
        self.sums[table as usize].add(key, row);
        match table {
            Table::Meta if key == AUDIT_START => {
                let start = AuditPosition::decode(row)?;
                self.audit = Some(Chain::new(Some(start)));
            }
            Table::Tokens => {
                let token = TokenHead::decode(row)?;
                of_owner(&mut self.owners, token.owner, |counts: &mut Counts| {
                    counts.all += 1;
                    counts.ended += usize::from(token.is_ended());
                });
            }
            Table::Users => {
                let user = UserRecord::decode(row)?;
                if user.deleted_at.is_none() && !self.names.insert((table, user.login.to_ascii_lowercase())) {
                    return Err(format!("two users have the login {}", user.login).into());
                }
            }
            Table::Groups => {
                let group = GroupRecord::decode(row)?;
                if !self.names.insert((table, fold(&group.name))) {
                    return Err(format!("two groups have the name {}", group.name).into());
                }
            }
            Table::Audit => {
                let event = AuditEvent::decode(row)?;
                if let Some(chain) = &mut self.audit
                    && let Err(broken) = chain.follow(&event)
                {
                    self.audit = None;
                    return Err(broken.into());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks the results over all rows, except for tables that could not be read.
    fn end(self, expected: &ExpectedState, unread: &HashSet<Table>, found: &mut OnDamage<'_>) {
        let read = |table: Table| !unread.contains(&table);
        for table in Table::ALL.into_iter().filter(|table| *table != Table::Meta && read(*table)) {
            let (sum, expected) = (self.sums[table as usize], expected.state.sum(table));
            if sum != expected {
                let (rows, written) = (sum.rows, expected.rows);
                found(
                    table,
                    format!("its rows differ from what was written: {rows} rows, {written} were written"),
                );
            }
        }
        if let Some(chain) = self.audit.filter(|_| read(Table::Audit))
            && let Err(error) = chain.end(expected.state.audit)
        {
            found(Table::Audit, error.to_string());
        }
        let owners: HashSet<&String> = self.owners.keys().chain(expected.owners.keys()).collect();
        for owner in owners.into_iter().filter(|_| read(Table::Tokens)) {
            let [counted, listed] =
                [&self.owners, &expected.owners].map(|counts| counts.get(owner).copied().unwrap_or_default());
            if counted != listed {
                found(
                    Table::Tokens,
                    format!("the list of the user {owner} has {listed:?}, there are {counted:?}"),
                );
            }
        }
    }
}

const MALFORMED_KEY: &str = "a key is malformed";

/// Look-ups whose errors say what is wrong.
struct Rows<'a> {
    trees: &'a Trees,
    lists: MappedRwLockReadGuard<'a, TokenLists>,
    built_in: &'a Accounts,
}

impl Rows<'_> {
    /// Whether a row fits its key, and whether the rows that it refers to exist and refer back to it.
    fn check(&self, table: Table, key: &[u8], row: &[u8]) -> Checked {
        match table {
            Table::Meta if key == STATE => {
                ReplicaState::decode(row)?;
                Ok(())
            }
            Table::Meta => Ok(()),
            Table::Audit => require_key(key, &keys::audit(AuditEvent::decode(row)?.seq)),
            Table::Tokens => {
                let digest = super::read::digest(key)?;
                let token = TokenRecord::decode(&digest, row)?;
                self.user(&token.owner, format_args!("the token {}", token.id))?;
                self.lists.missing(&digest, &token.head()).map_or(Ok(()), |what| Err(what.into()))
            }
            Table::Uses => {
                LastUsed::decode(row)?;
                let token = key.try_into().ok().and_then(TokenId::from_bytes).ok_or(MALFORMED_KEY)?;
                let known = self.lists.token_ref(token, &TokenListsChange::default()).is_some();
                if known { Ok(()) } else { Err("a last use belongs to no token".into()) }
            }
            Table::Users => require_key(key, UserRecord::decode(row)?.id.as_bytes()),
            Table::Groups => {
                let GroupRecord { id, parent, .. } = GroupRecord::decode(row)?;
                require_key(key, id.as_bytes())?;
                parent.map_or(Ok(()), |parent| self.group(&parent, format_args!("the group {id}")))
            }
            Table::Members => {
                let (group, user) = keys::parts(key).ok_or(MALFORMED_KEY)?;
                self.group(&group, format_args!("a membership of {user}"))?;
                self.user(&user, format_args!("a membership in {group}"))
            }
            Table::Roles => require_key(key, RoleRecord::decode(row)?.key.as_bytes()),
            Table::Grants => {
                let grant = GrantRecord::decode(row)?;
                require_key(key, &stage::grant_key(&grant)?)?;
                let of = format_args!("a grant of {}", grant.role);
                if self.built_in.role(&grant.role).is_none() {
                    let what = format_args!("{of} names a role that does not exist");
                    self.require(Table::Roles, grant.role.as_bytes(), what)?;
                }
                match &grant.to {
                    Grantee::User(id) => self.user(id, of),
                    Grantee::Group(id) => self.group(id, of),
                }
            }
            Table::IdentityCache => {
                let IdentityRecord { issuer, subject, user } = IdentityRecord::decode(row)?;
                require_key(key, IdentityRecord::digest(&issuer, &subject).as_bytes())?;
                self.user(&user, format_args!("an identity at {issuer}"))
            }
            Table::Sessions => {
                let session = SessionRecord::decode(row)?;
                require_key(key, session.digest.as_bytes())?;
                self.user(&session.user, "a session")
            }
            Table::Invitations => {
                let invitation = InvitationRecord::decode(row)?;
                require_key(key, invitation.digest.as_bytes())?;
                self.user(&invitation.user, "an invitation")
            }
            Table::Idempotency => require_key(key, &keys::idempotency(&IdempotencyRecord::decode(row)?.key)),
        }
    }

    fn require(&self, table: Table, key: &[u8], what: impl Display) -> Checked {
        if self.trees.get(table, key)?.is_some() { Ok(()) } else { Err(what.to_string().into()) }
    }

    fn user(&self, id: &str, of: impl Display) -> Checked {
        let what = format_args!("{of} names the user {id}, who does not exist");
        self.require(Table::Users, id.as_bytes(), what)
    }

    fn group(&self, id: &str, of: impl Display) -> Checked {
        if self.built_in.group_by_id(id).is_some() {
            return Ok(());
        }
        let what = format_args!("{of} names the group {id}, which does not exist");
        self.require(Table::Groups, id.as_bytes(), what)
    }
}

fn require_key(key: &[u8], expected: &[u8]) -> Checked {
    if key == expected { Ok(()) } else { Err("a row has another row's key".into()) }
}

#[cfg(test)]
mod tests;
