//! Stages a batch: operations become rows over what is stored, in memory. Nothing is written before all of
//! them are staged.

use std::collections::{BTreeMap, btree_map::Entry};

use sled::IVec;

use super::{
    Replica, ReplicaError, Trees, keys,
    keys::Key,
    tables::{AUDIT_START, ReplicaState, Table},
    token_lists::{TokenListsChange, TokenRef},
};
use crate::{
    authz::secret::{Digest, TokenId},
    store::{
        cluster::MemberChange,
        model::{AuditEvent, AuditPosition, GrantRecord, Grantee, IdentityRecord, LastUsed, TokenRecord},
        op::{Op, OpError},
        record::{Record, TokenHead},
    },
};

/// Why an operation is invalid: nothing of the batch is written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StageError {
    #[error(transparent)]
    Op(#[from] OpError),
    #[error("stored data cannot be read: {0}")]
    Replica(#[from] ReplicaError),
    #[error("there is no token {0}")]
    NoToken(TokenId),
    #[error("token {0} belongs to another user")]
    Owner(TokenId),
    #[error("the id {0} is that of another token")]
    Id(TokenId),
}

/// Rows that change.
pub(super) type Rows = BTreeMap<Key, Row>;

/// `None` stands for no row.
pub(super) struct Row {
    /// As it is stored.
    pub before: Option<IVec>,
    pub after: Option<IVec>,
}

/// What a batch would change.
#[derive(Default)]
pub(crate) struct Staged {
    pub(super) rows: [Rows; Table::ALL.len()],
    pub(super) lists: TokenListsChange,
    /// Change of the number of imported tokens.
    imported: i64,
    audit: Option<(u64, [u8; 32])>,
    /// A digest that no token has, which the caller knows from the index: no row is looked for when the next
    /// operation puts a token with it.
    pub(crate) absent: Option<Digest>,
    /// Whether rows that cannot be read count as absent. Such a batch is never written, but what it takes
    /// away must take effect all the same.
    pub(crate) ignore_damage: bool,
}

/// A batch of more rows is written row by row; a kill soon afterwards costs the replica. In tests the
/// number is so small that the conformance suite covers both ways.
const LARGE: usize = if cfg!(test) { 1000 } else { 3000 };

/// Whether a batch is written row by row instead of at once.
pub(super) fn is_large(rows: &[Rows; Table::ALL.len()]) -> bool {
    rows.iter().map(BTreeMap::len).sum::<usize>() > LARGE
}

impl Replica {
    /// Stages one more operation; nothing is written before [`Replica::commit`]. After an error, the batch
    /// must be staged again without that operation.
    pub(crate) fn stage(&self, staged: &mut Staged, op: &Op) -> Result<(), StageError> {
        self.guarded(|trees| Stage { replica: self, trees, staged }.apply(op))
            .unwrap_or_else(|error| Err(ReplicaError::from(sled::Error::ReportableBug(error.0)).into()))
            .inspect_err(|error| {
                if let StageError::Replica(damage) = error {
                    self.mark_damaged_by(damage);
                }
            })
    }
}

impl Staged {
    /// A row as the batch leaves it.
    pub(super) fn get(&self, trees: &Trees, table: Table, key: &[u8]) -> Result<Option<IVec>, ReplicaError> {
        match self.rows[table as usize].get(key) {
            Some(row) => Ok(row.after.clone()),
            None => trees.get(table, key),
        }
    }

    /// The rows of a table that change, as the batch leaves them.
    pub(crate) fn changes(&self, table: Table) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.rows[table as usize].iter().map(|(key, row)| (key.as_slice(), row.after.as_deref()))
    }

    /// Change of the number of imported tokens.
    pub(crate) fn imported(&self) -> i64 {
        self.imported
    }

    /// How the batch changes a row, if it does.
    pub(crate) fn change(&self, table: Table, key: &[u8]) -> Option<Option<&[u8]>> {
        self.rows[table as usize].get(key).map(|row| row.after.as_deref())
    }

    /// Puts another batch's changes of a table in place of this one's.
    pub(crate) fn overlay(&mut self, other: &mut Staged, table: Table) {
        self.rows[table as usize].append(&mut other.rows[table as usize]);
    }

    /// Updates the sums and the end of the audit log.
    pub(super) fn add_to(&self, state: &mut ReplicaState) {
        for table in Table::ALL.into_iter().filter(|table| *table != Table::Meta) {
            let sum = &mut state.sums[table as usize];
            for (key, Row { before, after }) in &self.rows[table as usize] {
                if let Some(before) = before {
                    sum.remove(key, before);
                }
                if let Some(after) = after {
                    sum.add(key, after);
                }
            }
        }
        state.audit = self.audit.or(state.audit);
    }
}

/// A batch over what is stored.
struct Stage<'a> {
    replica: &'a Replica,
    trees: &'a Trees,
    staged: &'a mut Staged,
}

impl Stage<'_> {
    fn apply(&mut self, op: &Op) -> Result<(), StageError> {
        match op {
            Op::PutToken(token) => self.put_token(token),
            Op::DropToken { id, owner } => self.drop_token(*id, owner),
            Op::PutLastUsed { token, used } => self.put_last_used(*token, used),
            Op::PutUser(user) => self.put(Table::Users, keys::single(&user.id)?, user),
            Op::PutGroup(group) => self.put(Table::Groups, keys::single(&group.id)?, group),
            Op::DropGroup { id } => self.set(Table::Groups, keys::single(id)?, None),
            Op::PutMember { group, user } => {
                self.set(Table::Members, keys::pair(group, user)?, Some(Vec::new()))
            }
            Op::DropMember { group, user } => self.set(Table::Members, keys::pair(group, user)?, None),
            Op::PutRole(role) => self.put(Table::Roles, keys::single(&role.key)?, role),
            Op::DropRole { key } => self.set(Table::Roles, keys::single(key)?, None),
            Op::PutGrant(grant) => self.put(Table::Grants, grant_key(grant)?, grant),
            Op::DropGrant(grant) => self.set(Table::Grants, grant_key(grant)?, None),
            Op::AppendAudit(event) => self.append_audit(event),
            Op::TrimAudit(start) => self.trim_audit(start),
            Op::PutIdempotency(record) => {
                self.put(Table::Idempotency, keys::idempotency(&record.key), record)
            }
            Op::DropIdempotency { key } => self.set(Table::Idempotency, keys::idempotency(key), None),
            Op::PutSession(session) => self.put(Table::Sessions, key(&session.digest), session),
            Op::DropSession(digest) => self.set(Table::Sessions, key(digest), None),
            Op::PutInvitation(invitation) => {
                self.put(Table::Invitations, key(&invitation.digest), invitation)
            }
            Op::DropInvitation(digest) => self.set(Table::Invitations, key(digest), None),
            Op::PutIdentity(identity) => {
                let digest = IdentityRecord::digest(&identity.issuer, &identity.subject);
                self.put(Table::IdentityCache, key(&digest), identity)
            }
            Op::DropIdentity(digest) => self.set(Table::IdentityCache, key(digest), None),
            Op::Node(change) => self.change_members(change),
            Op::TakeName { .. } | Op::FreeName { .. } | Op::Affects(_) => Ok(()),
        }
    }

    fn put_token(&mut self, token: &TokenRecord) -> Result<(), StageError> {
        let absent = self.staged.absent.take();
        let row = token.encode().map_err(OpError::from)?;
        let before = match absent {
            Some(absent) if absent == token.digest => {
                let row = || self.get(Table::Tokens, token.digest.as_bytes());
                debug_assert!(row().ok().flatten().is_none(), "the index lacks a stored token");
                None
            }
            _ => self.get(Table::Tokens, token.digest.as_bytes())?,
        };
        let before = before.as_deref().map(TokenHead::decode).transpose().map_err(ReplicaError::from)?;
        match &before {
            Some(before) if before.id != token.id => return Err(StageError::Id(before.id)),
            Some(before) if before.owner != token.owner => return Err(StageError::Owner(token.id)),
            Some(_) => {}
            None if self.is_listed(token.id) => return Err(StageError::Id(token.id)),
            None => {
                keys::single(&token.owner)?;
                self.staged.imported += i64::from(token.imported);
            }
        }
        if before.is_none() {
            self.replica.shared_prefixes.add(token.id, &token.digest);
        }
        self.staged.lists.record(&token.digest, before.as_ref(), Some(&token.head()));
        match before {
            Some(_) => self.set(Table::Tokens, key(&token.digest), Some(row)),
            None => {
                self.set_new(Table::Tokens, key(&token.digest), row);
                Ok(())
            }
        }
    }

    fn drop_token(&mut self, id: TokenId, owner: &str) -> Result<(), StageError> {
        let Some(token_ref) = self.token_ref(id)? else { return Ok(()) };
        let found = match self.replica.find_token(self.trees, self.staged, token_ref) {
            Err(_) if self.staged.ignore_damage => None,
            found => found?,
        };
        let (digest, row) = found.ok_or(StageError::NoToken(id))?;
        let head = TokenHead::decode(&row).map_err(ReplicaError::from)?;
        if head.owner != owner {
            return Err(StageError::Owner(id));
        }
        self.staged.imported -= i64::from(head.imported);
        self.staged.lists.record(&digest, Some(&head), None);
        self.set(Table::Uses, id.as_bytes().to_vec(), None)?;
        self.set(Table::Tokens, key(&digest), None)
    }

    fn put_last_used(&mut self, token: TokenId, used: &LastUsed) -> Result<(), StageError> {
        match self.get(Table::Uses, token.as_bytes())? {
            Some(before) if LastUsed::decode(&before).map_err(ReplicaError::from)?.at >= used.at => {
                return Ok(());
            }
            None if self.token_ref(token)?.is_none() => return Ok(()),
            _ => {}
        }
        self.put(Table::Uses, token.as_bytes().to_vec(), used)
    }

    fn append_audit(&mut self, event: &AuditEvent) -> Result<(), StageError> {
        self.staged.audit = Some((event.seq, event.hash));
        self.put(Table::Audit, keys::audit(event.seq), event)
    }

    fn trim_audit(&mut self, start: &AuditPosition) -> Result<(), StageError> {
        let end = keys::audit(start.seq);
        for event in self.trees.tree(Table::Audit).range(..end.clone()).keys() {
            self.set(Table::Audit, event.map_err(ReplicaError::from)?.to_vec(), None)?;
        }
        self.staged.rows[Table::Audit as usize].range_mut(..end).for_each(|(_, row)| row.after = None);
        self.put(Table::Meta, AUDIT_START.to_vec(), start)
    }

    /// Follows the rule of [`Members::apply`](crate::store::cluster::Members::apply).
    fn change_members(&mut self, change: &MemberChange) -> Result<(), StageError> {
        match change {
            MemberChange::Put { node, incarnation, .. } => {
                let key = keys::member(node);
                if let Some(before) = self.member_run(&key)?.filter(|before| before != incarnation) {
                    let gone = MemberChange::Drop { node: node.clone(), incarnation: before, over: false };
                    self.put(Table::Meta, keys::departed(node, &before), &gone)?;
                }
                self.set(Table::Meta, keys::departed(node, incarnation), None)?;
                self.put(Table::Meta, key, change)
            }
            MemberChange::Drop { node, incarnation, over } => {
                let key = keys::member(node);
                if self.member_run(&key)? == Some(*incarnation) {
                    self.set(Table::Meta, key, None)?;
                }
                match over {
                    true => self.set(Table::Meta, keys::departed(node, incarnation), None),
                    false => self.put(Table::Meta, keys::departed(node, incarnation), change),
                }
            }
        }
    }

    /// The run of a node that is a member.
    fn member_run(&self, key: &[u8]) -> Result<Option<[u8; 16]>, ReplicaError> {
        match self.get(Table::Meta, key)?.map(|row| MemberChange::decode(&row)).transpose()? {
            Some(MemberChange::Put { incarnation, .. }) => Ok(Some(incarnation)),
            Some(MemberChange::Drop { .. }) | None => Ok(None),
        }
    }

    fn put(&mut self, table: Table, key: Key, record: &impl Record) -> Result<(), StageError> {
        let row = record.encode().map_err(OpError::from)?;
        self.set(table, key, Some(row))
    }

    fn set(&mut self, table: Table, key: Key, row: Option<Vec<u8>>) -> Result<(), StageError> {
        let row = row.map(IVec::from);
        match self.staged.rows[table as usize].entry(key) {
            Entry::Occupied(mut place) => place.get_mut().after = row,
            Entry::Vacant(place) => {
                let before = match self.trees.get(table, place.key()) {
                    Err(_) if self.staged.ignore_damage => None,
                    row => row?,
                };
                place.insert(Row { before, after: row });
            }
        }
        Ok(())
    }

    /// Sets a row that is known to be absent.
    fn set_new(&mut self, table: Table, key: Key, row: Vec<u8>) {
        let place = self.staged.rows[table as usize].entry(key);
        place.or_insert(Row { before: None, after: None }).after = Some(row.into());
    }

    fn token_ref(&self, id: TokenId) -> Result<Option<TokenRef>, ReplicaError> {
        Ok(self.replica.lists(self.trees)?.token_ref(id, &self.staged.lists))
    }

    /// Whether a token has the id. If the lists are not loaded yet, that is found once they are.
    fn is_listed(&self, id: TokenId) -> bool {
        let lists = self.replica.lists.read();
        lists.as_ref().is_some_and(|lists| lists.token_ref(id, &self.staged.lists).is_some())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<IVec>, ReplicaError> {
        match self.staged.get(self.trees, table, key) {
            Err(_) if self.staged.ignore_damage => Ok(None),
            row => row,
        }
    }
}

fn key(digest: &Digest) -> Key {
    digest.as_bytes().to_vec()
}

pub(super) fn grant_key(grant: &GrantRecord) -> Result<Key, OpError> {
    let (kind, id) = match &grant.to {
        Grantee::User(id) => ("user", id),
        Grantee::Group(id) => ("group", id),
    };
    Ok([keys::pair(&grant.role, kind)?.as_slice(), &[0], &keys::single(id)?].concat())
}
