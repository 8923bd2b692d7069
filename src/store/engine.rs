//! What an engine keeps and how it changes: typed records and atomic batches, never bytes. One
//! writer calls [`Engine::commit`]; anybody reads. It checks no rule of the domain.

use crate::{
    authz::{
        secret::{Digest, TokenId},
        subject::Access,
        time::Timestamp,
    },
    store::{
        ReadError, Settings, embedded,
        model::{
            AuditEvent, GrantRecord, GroupRecord, IdentityRecord, InvitationRecord, LastUsed, RoleRecord,
            Rotation, SessionRecord, TokenRecord, UserId, UserRecord,
        },
    },
};

/// Where records lie.
pub(crate) enum Engine {
    Embedded(embedded::Embedded),
}

/// One change of one record. A batch is applied in order, all or nothing.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Inserts or replaces by id, and keeps the owner's list. `last_used` in it is ignored: only
    /// [`Op::PutLastUsed`] changes that. The owner of an id never changes.
    PutToken(TokenRecord),
    /// The row, its place in the owner's list and its last use; the name is [`Op::FreeName`]'s.
    DropToken {
        id: TokenId,
        owner: UserId,
    },
    /// An owner's live token has this name; `name` is folded by [`crate::store`], opaque here.
    TakeName {
        owner: UserId,
        name: String,
        token: TokenId,
    },
    FreeName {
        owner: UserId,
        name: String,
    },
    /// Ignored when the stored one is as late or later, or when there is no such token.
    PutLastUsed {
        token: TokenId,
        used: LastUsed,
    },
    PutUser(UserRecord),
    PutGroup(GroupRecord),
    /// The row alone: members and grants go by their own operations.
    DropGroup {
        id: String,
    },
    PutMember {
        group: String,
        user: UserId,
    },
    DropMember {
        group: String,
        user: UserId,
    },
    PutRole(RoleRecord),
    DropRole {
        key: String,
    },
    PutGrant(GrantRecord),
    DropGrant(GrantRecord),
    /// By `seq`, which goes up by one each time.
    AppendAudit(AuditEvent),
    /// The oldest events, up to and without this `seq`; the checkpoint replaces the one before.
    TrimAudit(Checkpoint),
    PutIdempotency(IdempotencyRecord),
    DropIdempotency {
        key: String,
    },
    PutSession(SessionRecord),
    DropSession(Digest),
    PutInvitation(InvitationRecord),
    DropInvitation(Digest),
    PutIdentity(IdentityRecord),
    /// By [`IdentityRecord::key`].
    DropIdentity(Digest),
}

/// Where the kept part of the audit chain begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// The first event that is kept.
    pub seq: u64,
    /// What its `prev` must be.
    pub prev: [u8; 32],
}

/// A request that was answered once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdempotencyRecord {
    pub key: String,
    pub request: [u8; 32],
    /// What it made.
    pub token: TokenId,
    pub at: Timestamp,
}

/// What the start-up scan needs of a token, borrowed from the stored row: a million go by.
#[derive(Clone, Debug)]
pub(crate) struct TokenRow<'a> {
    pub id: TokenId,
    pub digest: Digest,
    pub imported: bool,
    pub owner: &'a str,
    pub scope: Vec<(&'a str, Access)>,
    pub allow_ips: Vec<ipnet::IpNet>,
    pub not_before: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    pub rotation: Option<Rotation>,
}

/// Why a batch was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// Nothing changed, and the next batch may succeed.
    #[error("{0}")]
    Refused(String),
    /// Whether it lasts is unknown: no durable change until a restart. Every later commit
    /// answers the same.
    #[error("{0}")]
    Failed(String),
}

impl Engine {
    /// Takes the lock first.
    pub(crate) fn open(settings: &Settings) -> Result<Self, embedded::OpenError> {
        embedded::Embedded::open(settings).map(Engine::Embedded)
    }

    /// Without knowing where tokens lie: [`Engine::locate`] comes before anything about them. A start
    /// reads the users first, so that it need not read the tokens twice.
    pub(crate) fn open_unlocated(settings: &Settings) -> Result<Self, embedded::OpenError> {
        embedded::Embedded::open_unlocated(settings).map(Engine::Embedded)
    }

    /// Ends the opening, and has every token visited once, in any order.
    pub(crate) fn locate(&self, visit: &mut dyn FnMut(TokenRow<'_>)) -> Result<(), embedded::OpenError> {
        match self {
            Engine::Embedded(engine) => engine.locate(Some(visit)),
        }
    }

    /// Applies the batch and syncs it to the disk; answers only when it is durable.
    pub(crate) fn commit(&self, ops: &[Op]) -> Result<(), CommitError> {
        match self {
            Engine::Embedded(engine) => engine.commit(ops),
        }
    }

    /// About how many tokens there are.
    pub(crate) fn token_estimate(&self) -> usize {
        match self {
            Engine::Embedded(engine) => engine.token_estimate(),
        }
    }

    /// With its last use.
    pub(crate) fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.token(id),
        }
    }

    /// In the order of ids, those behind `after`.
    pub(crate) fn tokens(&self, after: Option<TokenId>, limit: usize) -> Result<Vec<TokenRecord>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.tokens(after, limit),
        }
    }

    /// One owner's, in the order of ids, those behind `after`.
    pub(crate) fn tokens_of(
        &self,
        owner: &str,
        after: Option<TokenId>,
        limit: usize,
    ) -> Result<Vec<TokenRecord>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.tokens_of(owner, after, limit),
        }
    }

    /// Who has taken the name.
    pub(crate) fn named(&self, owner: &str, name: &str) -> Result<Option<TokenId>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.named(owner, name),
        }
    }

    /// All names an owner's tokens have taken.
    pub(crate) fn names_of(&self, owner: &str) -> Result<Vec<(String, TokenId)>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.names_of(owner),
        }
    }

    /// How many they are.
    pub(crate) fn name_count(&self, owner: &str) -> usize {
        match self {
            Engine::Embedded(engine) => engine.name_count(owner),
        }
    }

    /// Every token once, in any order.
    pub(crate) fn scan_tokens(&self, visit: &mut dyn FnMut(TokenRow<'_>)) -> Result<(), ReadError> {
        match self {
            Engine::Embedded(engine) => engine.scan_tokens(visit),
        }
    }

    /// Tombstones too.
    pub(crate) fn users(&self) -> Result<Vec<UserRecord>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.users(),
        }
    }

    pub(crate) fn groups(&self) -> Result<Vec<GroupRecord>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.groups(),
        }
    }

    /// Group id and user id.
    pub(crate) fn members(&self) -> Result<Vec<(String, UserId)>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.members(),
        }
    }

    pub(crate) fn roles(&self) -> Result<Vec<RoleRecord>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.roles(),
        }
    }

    pub(crate) fn grants(&self) -> Result<Vec<GrantRecord>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.grants(),
        }
    }

    pub(crate) fn sessions(&self) -> Result<Vec<SessionRecord>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.sessions(),
        }
    }

    pub(crate) fn invitations(&self) -> Result<Vec<InvitationRecord>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.invitations(),
        }
    }

    pub(crate) fn identities(&self) -> Result<Vec<IdentityRecord>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.identities(),
        }
    }

    /// Newest first, those with a `seq` below `before`.
    pub(crate) fn audit_before(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<AuditEvent>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.audit_before(before, limit),
        }
    }

    /// Oldest first, from this `seq` on.
    pub(crate) fn audit_from(&self, seq: u64, limit: usize) -> Result<Vec<AuditEvent>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.audit_from(seq, limit),
        }
    }

    pub(crate) fn checkpoint(&self) -> Result<Option<Checkpoint>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.checkpoint(),
        }
    }

    pub(crate) fn idempotency(&self, key: &str) -> Result<Option<IdempotencyRecord>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.idempotency(key),
        }
    }

    /// Keys last answered before `at`.
    pub(crate) fn idempotency_before(&self, at: Timestamp, limit: usize) -> Result<Vec<String>, ReadError> {
        match self {
            Engine::Embedded(engine) => engine.idempotency_before(at, limit),
        }
    }

    /// Every row as it is now, while changes go on; see [`super::backup`].
    pub(crate) fn copy(
        &self,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> std::ops::ControlFlow<()>,
    ) -> Result<(), ReadError> {
        match self {
            Engine::Embedded(engine) => engine.copy(visit),
        }
    }

    /// Which store this is; a restored one keeps it.
    pub(crate) fn store_id(&self) -> String {
        match self {
            Engine::Embedded(engine) => engine.store_id(),
        }
    }

    /// How many batches it has taken.
    pub(crate) fn revision(&self) -> u64 {
        match self {
            Engine::Embedded(engine) => engine.revision(),
        }
    }

    /// Flushes and gives the lock back; later reads and commits fail.
    pub(crate) fn close(&self) {
        match self {
            Engine::Embedded(engine) => engine.close(),
        }
    }

    /// From here on every sync fails, as on a broken disk.
    #[cfg(test)]
    pub(crate) fn break_sync(&self) {
        match self {
            Engine::Embedded(engine) => engine.break_sync(),
        }
    }
}
