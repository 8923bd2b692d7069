//! Reads, in pages where there may be many rows.

use std::{ops::Bound, panic::resume_unwind, sync::mpsc, thread};

use sled::IVec;

use super::{
    Counts, Replica, ReplicaError, Staged, Trees, keys,
    tables::{AUDIT_START, Sum, Table},
    token_lists::{TokenLists, TokenRef},
};
use crate::{
    authz::{
        accounts::fold,
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
        self.page(after, limit, TokenLists::page)
    }

    /// One owner's tokens in the order of ids, after `after`.
    pub(crate) fn tokens_of(
        &self,
        owner: &str,
        after: Option<TokenId>,
        limit: usize,
    ) -> Result<Vec<TokenRecord>, ReadError> {
        self.page(after, limit, |lists, after, limit| lists.page_of(owner, after, limit))
    }

    /// Up to `limit` of the tokens that `listed` lists. It is called again in place of tokens that were dropped
    /// meanwhile, so that a short page is the last one.
    fn page(
        &self,
        mut after: Option<TokenId>,
        limit: usize,
        listed: impl Fn(&TokenLists, Option<TokenId>, usize) -> Vec<TokenRef>,
    ) -> Result<Vec<TokenRecord>, ReadError> {
        let staged = Staged::default();
        self.read(|trees| {
            let mut tokens = Vec::new();
            while tokens.len() < limit {
                let listed = listed(&*self.lists(trees)?, after, limit - tokens.len());
                let Some((last, _)) = listed.last() else { break };
                after = Some(*last);
                for token_ref in listed {
                    tokens.extend(self.token_at(trees, &staged, token_ref)?);
                }
            }
            Ok(tokens)
        })
    }

    fn token_at(
        &self,
        trees: &Trees,
        staged: &Staged,
        token_ref: TokenRef,
    ) -> Result<Option<TokenRecord>, ReplicaError> {
        let found = self.find_token(trees, staged, token_ref)?;
        found.map(|(digest, row)| token(&digest, &row, trees, staged)).transpose()
    }

    /// How many tokens an owner has.
    pub(crate) fn counts(&self, owner: &str) -> Result<Counts, ReadError> {
        self.with_staged(&Staged::default()).counts(owner)
    }

    /// How many of an owner's tokens were replaced and still work.
    pub(crate) fn in_grace(&self, owner: &str, now: Timestamp) -> Result<usize, ReadError> {
        self.with_staged(&Staged::default()).in_grace(owner, now)
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

    /// Remembered answers after that of the key `after`, in the order of the keys' digests.
    pub(crate) fn idempotency_records(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<IdempotencyRecord>, ReadError> {
        self.read(|trees| {
            let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(keys::idempotency(key)));
            let rows = trees.tree(Table::Idempotency).range((start, Bound::Unbounded)).values();
            rows.take(limit).map(|row| Ok(IdempotencyRecord::decode(&row?)?)).collect()
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
    /// Visits every token once, in the order of digests. Fails if the rows do not have the sum `expected`.
    /// sled reads on a thread of its own, since that takes as long as what is done with the rows.
    pub(super) fn scan_tokens(
        &self,
        expected: Sum,
        visit: &mut dyn FnMut(Digest, TokenHead<'_>),
    ) -> Result<(), ReplicaError> {
        let sum = thread::scope(|scope| {
            let (read, rows) = mpsc::sync_channel(CHUNKS_AHEAD);
            let reader = thread::Builder::new().name("permgate-load".into());
            let reader = reader.spawn_scoped(scope, move || self.read_tokens(&read));
            let reader = reader.map_err(ReplicaError::Thread)?;
            for (key, row) in rows.into_iter().flatten() {
                visit(digest(&key)?, TokenHead::decode(&row)?);
            }
            reader.join().unwrap_or_else(|panic| resume_unwind(panic))
        })?;
        if sum == expected { Ok(()) } else { Err(ReplicaError::Sum(Table::Tokens.name())) }
    }

    /// Sends every token's row, and returns the sum of them. Stops once nobody receives any more.
    fn read_tokens(&self, rows: &mpsc::SyncSender<Vec<(IVec, IVec)>>) -> Result<Sum, ReplicaError> {
        let mut sum = Sum::default();
        let mut chunk = Vec::new();
        for row in self.tree(Table::Tokens) {
            let (key, row) = row?;
            sum.add(&key, &row);
            if sum.rows.is_multiple_of(EVICT_EVERY) {
                self.evict(Table::Tokens, &key)?;
            }
            chunk.push((key, row));
            if chunk.len() == CHUNK {
                if rows.send(chunk).is_err() {
                    return Ok(sum);
                }
                chunk = Vec::with_capacity(CHUNK);
            }
        }
        // Nobody receives any more: the visitor has failed.
        let _ = rows.send(chunk);
        Ok(sum)
    }

    /// Makes sled release nodes. It does so only at every 64th look-up in one of the 256 shards of its
    /// cache, so reading many rows once each would leave 64 nodes in each shard. These look-ups leave
    /// eight, a few megabytes.
    fn evict(&self, table: Table, key: &[u8]) -> Result<(), ReplicaError> {
        (0..EVICTION_READS).try_for_each(|_| self.get(table, key).map(drop))
    }
}

/// What is stored, overlaid with a batch that is not written yet.
pub(crate) struct StagedView<'a> {
    replica: &'a Replica,
    staged: &'a Staged,
}

impl StagedView<'_> {
    /// A token with its last use.
    pub(crate) fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, ReadError> {
        Ok(self.tokens(|lists| lists.token_ref(id, &self.staged.lists).into_iter().collect())?.pop())
    }

    pub(crate) fn token_by_digest(&self, digest: &Digest) -> Result<Option<TokenRecord>, ReadError> {
        self.replica.read(|trees| {
            let row = self.staged.get(trees, Table::Tokens, digest.as_bytes())?;
            row.map(|row| token(digest, &row, trees, self.staged)).transpose()
        })
    }

    /// All tokens of an owner, live or not.
    pub(crate) fn tokens_of(&self, owner: &str) -> Result<Vec<TokenRecord>, ReadError> {
        self.tokens(|lists| lists.refs_of(owner, &self.staged.lists))
    }

    /// The owner's live token with the folded name.
    pub(crate) fn live_token_named(
        &self,
        owner: &str,
        name: &str,
        now: Timestamp,
    ) -> Result<Option<TokenRecord>, ReadError> {
        let tokens = self.tokens(|lists| lists.refs_named(owner, name, now, &self.staged.lists))?;
        Ok(tokens.into_iter().find(|token| fold(&token.name) == name))
    }

    /// How many live tokens with a name an owner has, of those that are `counted`. Counts no further than
    /// `most`.
    pub(crate) fn count_live(
        &self,
        owner: &str,
        now: Timestamp,
        most: usize,
        counted: impl Fn(TokenId) -> bool,
    ) -> Result<usize, ReadError> {
        self.lists(|lists| {
            lists.live(owner, now, &self.staged.lists).filter(|id| counted(*id)).take(most).count()
        })
    }

    /// How many tokens an owner has.
    pub(crate) fn counts(&self, owner: &str) -> Result<Counts, ReadError> {
        self.lists(|lists| lists.counts(owner, &self.staged.lists))
    }

    /// How many of an owner's tokens have a name: those that are live or have only expired.
    pub(crate) fn named(&self, owner: &str) -> Result<usize, ReadError> {
        self.lists(|lists| lists.named(owner, &self.staged.lists))
    }

    /// How many of an owner's tokens were replaced and still work.
    pub(crate) fn in_grace(&self, owner: &str, now: Timestamp) -> Result<usize, ReadError> {
        self.lists(|lists| lists.in_grace(owner, now, &self.staged.lists))
    }

    /// The tokens that `listed` lists.
    fn tokens(
        &self,
        listed: impl FnOnce(&TokenLists) -> Vec<TokenRef>,
    ) -> Result<Vec<TokenRecord>, ReadError> {
        let refs = self.lists(listed)?;
        self.replica.read(|trees| {
            let token = |token_ref| self.replica.token_at(trees, self.staged, token_ref).transpose();
            refs.into_iter().filter_map(token).collect()
        })
    }

    fn lists<T>(&self, read: impl FnOnce(&TokenLists) -> T) -> Result<T, ReadError> {
        self.replica.read(|trees| Ok(read(&*self.replica.lists(trees)?)))
    }

    pub(crate) fn idempotency(&self, key: &str) -> Result<Option<IdempotencyRecord>, ReadError> {
        self.replica.read(|trees| {
            let row = self.staged.get(trees, Table::Idempotency, &keys::idempotency(key))?;
            row.map(|row| Ok(IdempotencyRecord::decode(&row)?)).transpose()
        })
    }
}

fn token(digest: &Digest, row: &[u8], trees: &Trees, staged: &Staged) -> Result<TokenRecord, ReplicaError> {
    let mut token = TokenRecord::decode(digest, row)?;
    let used = staged.get(trees, Table::Uses, token.id.as_bytes())?;
    token.last_used = used.map(|row| LastUsed::decode(&row)).transpose()?;
    Ok(token)
}

/// Tokens that a scan passes on at once.
const CHUNK: usize = 256;
/// Chunks that may wait for the visitor.
const CHUNKS_AHEAD: usize = 8;

/// Minimum rows of a node that is read in order.
const EVICT_EVERY: u64 = 10;
const EVICTION_READS: usize = 8;

pub(super) fn digest(key: &[u8]) -> Result<Digest, ReplicaError> {
    key.try_into().map(Digest::from_bytes).map_err(|_| ReplicaError::Key("tokens"))
}
