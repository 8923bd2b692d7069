//! What lasts: users, groups, roles, grants, tokens, the audit log. Domain verbs over an engine;
//! one writer thread, which is also the only publisher.
//!
//! Every verb that changes something answers when the change is durable, published, and the fence
//! stands; an error says what was refused and that nothing changed, but for the two of
//! [`ChangeError`] that say otherwise.

use std::{any::Any, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;

use crate::{
    authz::{
        accounts::Accounts,
        rules::{PublicSpec, RuleError, ServiceSpec, Settings as RuleSettings},
        secret::{Digest, TokenId, TokenText},
        subject::{Access, Permission},
        time::Timestamp,
    },
    fence::{Cut, Fence},
    state::State,
};

#[cfg(test)]
pub(crate) mod conformance;
pub(crate) mod durability;
pub(crate) mod embedded;
pub(crate) mod engine;
pub mod model;
pub mod record;

pub use crate::authz::administration::{Refusal, RefusalCode};

use model::{
    AuditEvent, GrantRecord, GroupRecord, LastUsed, RevokeReason, RoleRecord, TokenRecord, UserId, UserKind,
    UserRecord,
};

/// Where and how. Built by `config`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub path: PathBuf,
    /// Bytes of the file that is given back when the disk is full.
    pub ballast: u64,
    /// The longest life a new token may have.
    pub max_lifetime: Option<Duration>,
    /// Live tokens per user.
    pub max_tokens: usize,
}

/// Everything a reload replaces at once.
pub struct Configuration {
    pub services: Vec<ServiceSpec>,
    pub public: Vec<PublicSpec>,
    pub rules: RuleSettings,
    /// Published with the snapshot, opaque here.
    pub attachment: Arc<dyn Any + Send + Sync>,
    pub max_lifetime: Option<Duration>,
    pub max_tokens: usize,
}

/// Who asks for a change, as the audit log will say it.
#[derive(Clone, Debug)]
pub struct Actor {
    pub who: Who,
    /// The token it was asked with: a token made through it is never wider, longer-lived or
    /// reachable from more addresses.
    pub parent: Option<TokenId>,
    pub request_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The peer of the unix socket, or the command line on a closed store: `admin-write`.
    Operator,
    User(UserId),
}

#[derive(Clone, Debug)]
pub struct NewToken {
    /// Login of the owner.
    pub owner: String,
    pub name: String,
    pub note: String,
    pub scope: Vec<(String, Access)>,
    pub not_before: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub allow_ips: Vec<IpNet>,
}

/// `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct TokenEdit {
    pub name: Option<String>,
    pub note: Option<String>,
    pub scope: Option<Vec<(String, Access)>>,
    pub expires_at: Option<Timestamp>,
    pub allow_ips: Option<Vec<IpNet>>,
}

#[derive(Clone, Debug)]
pub struct NewUser {
    pub login: String,
    pub name: String,
    pub email: Option<String>,
    pub kind: UserKind,
}

#[derive(Clone, Debug, Default)]
pub struct UserEdit {
    pub login: Option<String>,
    pub name: Option<String>,
    pub email: Option<Option<String>>,
}

#[derive(Clone, Debug, Default)]
pub struct GroupEdit {
    pub name: Option<String>,
    /// Name of the parent.
    pub parent: Option<Option<String>>,
}

/// A token registered by digest, its text unseen.
#[derive(Clone, Debug)]
pub struct ImportedToken {
    pub digest: Digest,
    pub owner: String,
    pub name: String,
    pub scope: Vec<(String, Access)>,
    pub expires_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Default)]
pub struct TokenFilter {
    /// Login.
    pub owner: Option<String>,
    pub service: Option<String>,
    /// Not used since.
    pub unused_since: Option<Timestamp>,
    pub expiring_before: Option<Timestamp>,
    pub state: Option<TokenState>,
}

/// The state as computed at a moment (domain.md, "Life of a token").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    Pending,
    Active,
    Expired,
    Rotating,
    Rotated,
    Revoked,
    Suspended,
}

/// One page; `next` is an opaque cursor.
#[derive(Clone, Debug)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<String>,
}

/// A caller's promise that a repeated request is the same request. A repetition gets the record of
/// the first one, never its text.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// Actor and `Idempotency-Key`, as one string.
    pub key: String,
    /// BLAKE3 of the request body.
    pub request: [u8; 32],
}

/// What making or rotating a token answers.
#[derive(Debug)]
pub struct Made {
    pub record: TokenRecord,
    /// Absent when an [`Idempotency`] key was repeated.
    pub text: Option<TokenText>,
    pub cut: Cut,
}

/// What any other change answers.
#[derive(Clone, Debug)]
pub struct Changed<T> {
    pub record: T,
    pub cut: Cut,
}

/// Refused, with the stable code of the API.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// domain.md, "Errors": 403, 404, 409 and 422 by [`Refusal::status`].
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// If-Match names another revision: 412.
    #[error("the record has changed since it was read")]
    Stale,
    /// The Idempotency-Key came with another request before: 422.
    #[error("this idempotency key came with another request")]
    KeyReused,
    /// Nothing changed: 503.
    #[error("the store takes no changes until permgate is restarted: {0}")]
    Closed(String),
    /// A change that only takes power away holds now, but may be lost by a restart: 503.
    #[error("in force, but not durable: {reason}")]
    NotDurable { reason: String, cut: Cut },
    /// Durable, but a worker does not decide by it yet: 503, and the process ends.
    #[error("durable, but not yet in force everywhere")]
    FenceIncomplete,
    #[error("the new configuration contradicts itself")]
    Rules(Vec<RuleError>),
}

/// A handle to the writer thread and to the engine's reads. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    engine: Arc<engine::Engine>,
}

/// Why a store does not open. Each message says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory: locked, foreign, damaged, full.
    #[error(transparent)]
    Engine(#[from] embedded::OpenError),
    #[error("the configuration contradicts itself")]
    Rules(Vec<RuleError>),
    /// A record that cannot be, or a thread that does not start.
    #[error("the store cannot be loaded: {0}")]
    Load(String),
}

#[allow(unused_variables, reason = "signatures first")]
impl Store {
    /// Opens or creates, scans into the index, publishes the first snapshot, starts the writer
    /// thread. Takes the lock first: a second process is refused with a clear error.
    pub fn open(
        settings: &Settings,
        configuration: Configuration,
        fence: Arc<Fence>,
    ) -> Result<(Store, Arc<State>), OpenError> {
        todo!()
    }

    pub async fn create_token(
        &self,
        actor: Actor,
        new: NewToken,
        once: Option<Idempotency>,
    ) -> Result<Made, ChangeError> {
        todo!()
    }
    pub async fn edit_token(
        &self,
        actor: Actor,
        id: TokenId,
        if_revision: Option<u64>,
        edit: TokenEdit,
    ) -> Result<Changed<TokenRecord>, ChangeError> {
        todo!()
    }
    pub async fn rotate_token(
        &self,
        actor: Actor,
        id: TokenId,
        grace: Option<Duration>,
        once: Option<Idempotency>,
    ) -> Result<Made, ChangeError> {
        todo!()
    }
    /// Idempotent: a revoked token stays as it was revoked, and the answer is the same.
    pub async fn revoke_token(
        &self,
        actor: Actor,
        id: TokenId,
        reason: RevokeReason,
    ) -> Result<Changed<TokenRecord>, ChangeError> {
        todo!()
    }
    /// Each line by itself: one refusal does not stop the others. Needs `admin-write`.
    pub async fn import_tokens(
        &self,
        actor: Actor,
        tokens: Vec<ImportedToken>,
        make_owners: bool,
    ) -> Result<Vec<Result<TokenId, Refusal>>, ChangeError> {
        todo!()
    }

    pub async fn create_user(&self, actor: Actor, new: NewUser) -> Result<Changed<UserRecord>, ChangeError> {
        todo!()
    }
    pub async fn edit_user(
        &self,
        actor: Actor,
        login: String,
        if_revision: Option<u64>,
        edit: UserEdit,
    ) -> Result<Changed<UserRecord>, ChangeError> {
        todo!()
    }
    /// `Some(reason)` bans, `None` lifts a ban. Idempotent.
    pub async fn ban_user(
        &self,
        actor: Actor,
        login: String,
        reason: Option<String>,
    ) -> Result<Changed<UserRecord>, ChangeError> {
        todo!()
    }
    /// Leaves a tombstone and revokes every token of the user.
    pub async fn delete_user(&self, actor: Actor, login: String) -> Result<Changed<UserRecord>, ChangeError> {
        todo!()
    }
    /// A PHC string that the caller has derived.
    pub async fn set_password(
        &self,
        actor: Actor,
        login: String,
        phc: Option<String>,
    ) -> Result<Changed<UserRecord>, ChangeError> {
        todo!()
    }

    pub async fn create_group(
        &self,
        actor: Actor,
        name: String,
        parent: Option<String>,
    ) -> Result<Changed<GroupRecord>, ChangeError> {
        todo!()
    }
    pub async fn edit_group(
        &self,
        actor: Actor,
        name: String,
        if_revision: Option<u64>,
        edit: GroupEdit,
    ) -> Result<Changed<GroupRecord>, ChangeError> {
        todo!()
    }
    pub async fn delete_group(
        &self,
        actor: Actor,
        name: String,
    ) -> Result<Changed<GroupRecord>, ChangeError> {
        todo!()
    }
    /// Idempotent both ways.
    pub async fn set_member(
        &self,
        actor: Actor,
        group: String,
        login: String,
        member: bool,
    ) -> Result<Changed<GroupRecord>, ChangeError> {
        todo!()
    }

    pub async fn create_role(
        &self,
        actor: Actor,
        key: String,
        name: String,
        permissions: Vec<Permission>,
    ) -> Result<Changed<RoleRecord>, ChangeError> {
        todo!()
    }
    pub async fn delete_role(&self, actor: Actor, key: String) -> Result<Changed<RoleRecord>, ChangeError> {
        todo!()
    }
    /// Role key to a user's login or a group's name; `granted = false` takes it away. Idempotent.
    pub async fn set_grant(
        &self,
        actor: Actor,
        role: String,
        to: GrantTarget,
        granted: bool,
    ) -> Result<Changed<GrantRecord>, ChangeError> {
        todo!()
    }

    /// The reload: compiles, publishes, fences. All or nothing.
    pub async fn replace_configuration(
        &self,
        actor: Actor,
        configuration: Configuration,
    ) -> Result<Cut, ChangeError> {
        todo!()
    }
    /// Merged forward only; not audited.
    pub async fn record_use(&self, uses: Vec<(Digest, LastUsed)>) -> Result<(), ChangeError> {
        todo!()
    }
    /// Audited refusals, already counted and bounded by the caller.
    pub async fn record_refusals(&self, refusals: Vec<model::AuditEvent>) -> Result<(), ChangeError> {
        todo!()
    }

    /// Users, groups, members, roles and grants as they are now.
    pub fn accounts(&self) -> Arc<Accounts> {
        todo!()
    }
    pub fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, ReadError> {
        todo!()
    }
    pub fn tokens(
        &self,
        filter: &TokenFilter,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<Page<TokenRecord>, ReadError> {
        todo!()
    }
    /// Events with `seq` below the cursor, newest first.
    pub fn audit(&self, cursor: Option<&str>, limit: usize) -> Result<Page<AuditEvent>, ReadError> {
        todo!()
    }
    /// Whether changes are taken; `Err` says why not.
    pub fn writable(&self) -> Result<(), String> {
        todo!()
    }
    /// Takes the queue's end: everything accepted so far is answered, last-used is flushed, the
    /// engine is closed.
    pub async fn close(&self) {
        todo!()
    }
}

/// Whom a role is granted to, by the names people use.
#[derive(Clone, Debug)]
pub enum GrantTarget {
    /// Login.
    User(String),
    /// Group name.
    Group(String),
}

/// A read that failed: the caller answers 503.
#[derive(Debug, thiserror::Error)]
#[error("the store cannot be read: {0}")]
pub struct ReadError(pub String);
