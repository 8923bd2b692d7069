//! Reads, in pages where there may be many rows.

use std::{collections::BTreeMap, ops::Bound, sync::PoisonError};

use sled::IVec;

use super::{
    Counts, Replica, ReplicaError, Staged, Trees, keys, owner_tokens,
    tables::{AUDIT_START, Sum, Table},
};
use crate::{
    authz::{
        secret::{Digest, TokenId},
        time::Timestamp,
    },
    store::{
        ReadError,
        cluster::{MemberChange, Members},
        model::{
            AuditEvent, AuditPosition, GrantRecord, GroupRecord, IdempotencyRecord, IdentityRecord,
            InvitationRecord, LastUsed, RoleRecord, SessionRecord, TokenRecord, UserId, UserRecord,
        },
        record::{Record, TokenHead},
    },
};

impl Replica {
    /// The replica as it will be once a batch is written.
    pub(crate) fn with_staged<'a>(&'a self, staged: &'a Staged) -> StagedView<'a> {
        StagedView { replica: self, staged }
    }

    /// A token with its last use.
    pub(crate) fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, ReadError> {
        self.with_staged(&Staged::default()).token(id)
    }

    /// Tokens in the order of ids, after `after`.
    pub(crate) fn tokens(&self, after: Option<TokenId>, limit: usize) -> Result<Vec<TokenRecord>, ReadError> {
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_bytes().to_vec()));
        self.read(|trees| {
            let rows = trees.tree(Table::Ids).range((from, Bound::Unbounded));
            rows.map(|row| trees.listed(&row?.1)).filter_map(Result::transpose).take(limit).collect()
        })
    }

    /// One owner's tokens in the order of ids, after `after`.
    pub(crate) fn tokens_of(
        &self,
        owner: &str,
        after: Option<TokenId>,
        limit: usize,
    ) -> Result<Vec<TokenRecord>, ReadError> {
        let owners = self.owners.read().unwrap_or_else(PoisonError::into_inner);
        let ids = owners
            .get(owner)
            .map(|owner_tokens| owner_tokens.page(after, limit).to_vec())
            .unwrap_or_default();
        drop(owners);
        self.read(|trees| {
            let mut tokens = Vec::with_capacity(ids.len());
            for id in ids {
                // A token that was dropped meanwhile is left out.
                let Some(digest) = trees.get(Table::Ids, id.as_bytes())? else { continue };
                tokens.extend(token(&digest, &|table, key| trees.get(table, key))?);
            }
            Ok(tokens)
        })
    }

    /// How many tokens an owner has.
    pub(crate) fn counts(&self, owner: &str) -> Counts {
        self.with_staged(&Staged::default()).counts(owner)
    }

    /// The owner's token that has taken the name.
    pub(crate) fn token_named(&self, owner: &str, name: &str) -> Result<Option<TokenId>, ReadError> {
        self.with_staged(&Staged::default()).token_named(owner, name)
    }

    /// All users, including the tombstones of deleted ones.
    pub(crate) fn users(&self) -> Result<Vec<UserRecord>, ReadError> {
        self.rows(Table::Users)
    }

    pub(crate) fn groups(&self) -> Result<Vec<GroupRecord>, ReadError> {
        self.rows(Table::Groups)
    }

    /// Pairs of group id and user id.
    pub(crate) fn members(&self) -> Result<Vec<(String, UserId)>, ReadError> {
        self.read(|trees| {
            let rows = trees.tree(Table::Members).iter().keys();
            rows.map(|key| keys::parts(&key?).ok_or(ReplicaError::Key("members"))).collect()
        })
    }

    pub(crate) fn roles(&self) -> Result<Vec<RoleRecord>, ReadError> {
        self.rows(Table::Roles)
    }

    pub(crate) fn grants(&self) -> Result<Vec<GrantRecord>, ReadError> {
        self.rows(Table::Grants)
    }

    pub(crate) fn sessions(&self) -> Result<Vec<SessionRecord>, ReadError> {
        self.rows(Table::Sessions)
    }

    pub(crate) fn invitations(&self) -> Result<Vec<InvitationRecord>, ReadError> {
        self.rows(Table::Invitations)
    }

    pub(crate) fn identities(&self) -> Result<Vec<IdentityRecord>, ReadError> {
        self.rows(Table::IdentityCache)
    }

    /// Events with a `seq` below `before`, newest first.
    pub(crate) fn audit_before(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<AuditEvent>, ReadError> {
        self.read(|trees| {
            let end = before.map_or(Bound::Unbounded, |seq| Bound::Excluded(keys::audit(seq)));
            let rows = trees.tree(Table::Audit).range((Bound::Unbounded, end));
            rows.rev().take(limit).map(|row| Ok(AuditEvent::decode(&row?.1)?)).collect()
        })
    }

    /// Events from `seq` on, oldest first.
    pub(crate) fn audit_from(&self, seq: u64, limit: usize) -> Result<Vec<AuditEvent>, ReadError> {
        self.read(|trees| {
            let rows = trees.tree(Table::Audit).range(keys::audit(seq)..);
            rows.take(limit).map(|row| Ok(AuditEvent::decode(&row?.1)?)).collect()
        })
    }

    /// Where the kept part of the audit log begins; `None` if nothing was trimmed.
    pub(crate) fn audit_start(&self) -> Result<Option<AuditPosition>, ReadError> {
        self.read(|trees| {
            trees.get(Table::Meta, AUDIT_START)?.map(|row| Ok(AuditPosition::decode(&row)?)).transpose()
        })
    }

    /// The members of the cluster.
    pub(crate) fn members_of_cluster(&self) -> Result<Members, ReadError> {
        self.read(|trees| {
            let mut members = Members::default();
            for row in trees.tree(Table::Meta) {
                let (key, row) = row?;
                if keys::is_node(&key) {
                    members.apply(&MemberChange::decode(&row)?);
                }
            }
            Ok(members)
        })
    }

    /// Idempotency keys that were last answered before `at`.
    pub(crate) fn idempotency_before(&self, at: Timestamp, limit: usize) -> Result<Vec<String>, ReadError> {
        self.read(|trees| {
            let rows = trees.tree(Table::IdempotencyTimes).range(..keys::idempotency_before(at)).values();
            let key = |key: sled::IVec| std::str::from_utf8(&key).map(str::to_owned);
            rows.take(limit).map(|row| key(row?).map_err(|_| ReplicaError::Key("idempotency"))).collect()
        })
    }

    /// Every row of every tree.
    #[cfg(test)]
    pub(crate) fn all_rows(&self) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
        let rows = self.read(|trees| {
            let tables = Table::ALL
                .into_iter()
                .flat_map(|table| trees.tree(table).iter().map(move |row| (table, row)));
            tables
                .map(|(table, row)| {
                    row.map(|(key, row)| (table, key.to_vec(), row.to_vec())).map_err(ReplicaError::from)
                })
                .collect()
        });
        rows.unwrap()
    }

    fn rows<R: Record>(&self, table: Table) -> Result<Vec<R>, ReadError> {
        self.read(|trees| trees.tree(table).iter().values().map(|row| Ok(R::decode(&row?)?)).collect())
    }
}

impl Trees {
    /// Visits every token once. Fails if the rows do not have the sum `expected`.
    pub(super) fn scan_tokens(
        &self,
        expected: Sum,
        visit: &mut dyn FnMut(Digest, TokenHead<'_>),
    ) -> Result<(), ReplicaError> {
        let tokens = self.tree(Table::Tokens);
        let mut sum = Sum::default();
        for row in tokens {
            let (key, row) = row?;
            sum.add(&key, &row);
            visit(digest(&key)?, TokenHead::decode(&row)?);
            if sum.rows.is_multiple_of(EVICT_EVERY) {
                self.evict(Table::Tokens, &key)?;
            }
        }
        if sum == expected { Ok(()) } else { Err(ReplicaError::Sum(Table::Tokens.name())) }
    }

    /// Makes sled release nodes. It does so only at every 64th look-up in one of the 256 shards of its
    /// cache, so reading many rows once each would leave 64 nodes in each shard. These look-ups leave
    /// eight, a few megabytes.
    fn evict(&self, table: Table, key: &[u8]) -> Result<(), ReplicaError> {
        (0..EVICTION_READS).try_for_each(|_| self.get(table, key).map(drop))
    }

    /// The token that an entry of another table refers to; `None` if it was dropped since the entry was
    /// read.
    fn listed(&self, digest: &[u8]) -> Result<Option<TokenRecord>, ReplicaError> {
        token(digest, &|table, key| self.get(table, key))
    }
}

/// What is stored, overlaid with a batch that is not written yet.
pub(crate) struct StagedView<'a> {
    replica: &'a Replica,
    staged: &'a Staged,
}

/// Reads a row.
type Get<'a> = &'a dyn Fn(Table, &[u8]) -> Result<Option<IVec>, ReplicaError>;

impl StagedView<'_> {
    /// A token with its last use.
    pub(crate) fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, ReadError> {
        self.read(|get| match get(Table::Ids, id.as_bytes())? {
            Some(digest) => token(&digest, get),
            None => Ok(None),
        })
    }

    pub(crate) fn token_by_digest(&self, digest: &Digest) -> Result<Option<TokenRecord>, ReadError> {
        self.read(|get| token(digest.as_bytes(), get))
    }

    /// All tokens of an owner, live or not.
    pub(crate) fn tokens_of(&self, owner: &str) -> Result<Vec<TokenRecord>, ReadError> {
        let owners = self.replica.owners.read().unwrap_or_else(PoisonError::into_inner);
        let mut ids = owners.get(owner).map(|owner_tokens| owner_tokens.ids.clone()).unwrap_or_default();
        drop(owners);
        ids.extend(self.staged.owners.get(owner).iter().flat_map(|change| &change.added));
        ids.into_iter().filter_map(|id| self.token(id).transpose()).collect()
    }

    /// How many tokens an owner has.
    pub(crate) fn counts(&self, owner: &str) -> Counts {
        let owners = self.replica.owners.read().unwrap_or_else(PoisonError::into_inner);
        owner_tokens::counts(owners.get(owner), self.staged.owners.get(owner))
    }

    /// How many of an owner's tokens were replaced and still work.
    pub(crate) fn in_grace(&self, owner: &str, now: Timestamp) -> usize {
        let owners = self.replica.owners.read().unwrap_or_else(PoisonError::into_inner);
        owner_tokens::in_grace(owners.get(owner), self.staged.owners.get(owner), now)
    }

    /// The owner's token that has taken the name.
    pub(crate) fn token_named(&self, owner: &str, name: &str) -> Result<Option<TokenId>, ReadError> {
        let Ok(key) = keys::pair(owner, name) else { return Ok(None) };
        self.read(|get| get(Table::Names, &key)?.map(|id| token_id(&id)).transpose())
    }

    /// All names that an owner's tokens have taken.
    pub(crate) fn names_of(&self, owner: &str) -> Result<BTreeMap<String, TokenId>, ReadError> {
        let prefix = keys::of_owner(owner);
        self.replica.read(|trees| {
            let mut names = BTreeMap::new();
            for row in trees.tree(Table::Names).scan_prefix(&prefix) {
                let (key, id) = row?;
                names.insert(keys::parts(&key).ok_or(ReplicaError::Key("names"))?.1, token_id(&id)?);
            }
            let changed = self.staged.rows[Table::Names as usize].range(prefix.clone()..);
            for (key, row) in changed.take_while(|(key, _)| key.starts_with(&prefix)) {
                let (_, name) = keys::parts(key).ok_or(ReplicaError::Key("names"))?;
                match &row.after {
                    Some(id) => names.insert(name, token_id(id)?),
                    None => names.remove(&name),
                };
            }
            Ok(names)
        })
    }

    pub(crate) fn idempotency(&self, key: &str) -> Result<Option<IdempotencyRecord>, ReadError> {
        self.read(|get| {
            let row = get(Table::Idempotency, &keys::idempotency(key))?;
            row.map(|row| Ok(IdempotencyRecord::decode(&row)?)).transpose()
        })
    }

    fn read<T>(&self, read: impl FnOnce(Get<'_>) -> Result<T, ReplicaError>) -> Result<T, ReadError> {
        self.replica.read(|trees| read(&|table, key| self.staged.get(trees, table, key)))
    }
}

fn token(key: &[u8], get: Get<'_>) -> Result<Option<TokenRecord>, ReplicaError> {
    let Some(row) = get(Table::Tokens, key)? else { return Ok(None) };
    let mut token = TokenRecord::decode(&digest(key)?, &row)?;
    let used = get(Table::Uses, token.id.as_bytes())?;
    token.last_used = used.map(|row| LastUsed::decode(&row)).transpose()?;
    Ok(Some(token))
}

/// Minimum rows of a node that is read in order.
const EVICT_EVERY: u64 = 10;
const EVICTION_READS: usize = 8;

pub(super) fn digest(key: &[u8]) -> Result<Digest, ReplicaError> {
    key.try_into().map(Digest::from_bytes).map_err(|_| ReplicaError::Key("tokens"))
}

fn token_id(id: &[u8]) -> Result<TokenId, ReplicaError> {
    id.try_into().ok().and_then(TokenId::from_bytes).ok_or(ReplicaError::Key("names"))
}
