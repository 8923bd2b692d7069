//! What the verbs take and answer.

use std::{num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;

use super::model::{TokenRecord, UserId, UserKind};
use crate::{
    authz::{
        administration::AdminError,
        rules::{Origin, PublicSpec, RuleError, ServiceSpec, Settings as RuleSettings},
        secret::{Digest, TokenId, TokenText},
        subject::{Access, Permission},
        time::Timestamp,
    },
    fence::Cut,
    settings::{ProxySettings, Rate},
};

/// Where and how. Built by `config`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub path: PathBuf,
    /// Bytes of the file that is given back when the disk is full.
    pub ballast: u64,
}

/// Everything a reload replaces at once.
pub struct Configuration {
    pub services: Vec<ServiceSpec>,
    pub public: Vec<PublicSpec>,
    pub rules: RuleSettings,
    /// Published with the rules.
    pub proxy: Arc<ProxySettings>,
    pub policy: Policy,
}

impl Configuration {
    /// Of the rules, wherever in which file they stand: nodes of a cluster compare it.
    pub(super) fn digest(&self) -> [u8; 32] {
        let nowhere = Origin { file: Arc::from(""), line: 0 };
        let services =
            self.services.iter().map(|spec| ServiceSpec { origin: nowhere.clone(), ..spec.clone() });
        let public = self.public.iter().map(|spec| PublicSpec { origin: nowhere.clone(), ..spec.clone() });
        let (services, public): (Vec<_>, Vec<_>) = (services.collect(), public.collect());
        *blake3::hash(format!("{services:?}{public:?}{:?}", self.rules).as_bytes()).as_bytes()
    }
}

/// What operators allow beyond the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The longest life a new token may have; `None`: any.
    pub max_lifetime: Option<Duration>,
    /// Live tokens per user, those in their grace included.
    pub max_tokens: usize,
    /// Rows of revoked and replaced tokens per user.
    pub max_ended_tokens: usize,
    /// Audit events older than this are dropped behind a checkpoint; `None`: never.
    pub audit_retention: Option<Duration>,
    /// Logins that upstreams trust, in lower case: taking one needs `admin-write`.
    pub reserved_logins: Arc<[String]>,
    /// Changes of one account; what only removes power, the operator and imports are not counted.
    pub write_rate: Rate,
}

impl Default for Policy {
    /// domain.md, "Defaults".
    fn default() -> Self {
        let reserved_logins = ["admin", "root", "administrator"].map(ToOwned::to_owned).into();
        Self {
            max_lifetime: None,
            max_tokens: 500,
            max_ended_tokens: 10_000,
            audit_retention: None,
            reserved_logins,
            write_rate: Rate {
                count: NonZeroU32::MIN.saturating_add(49),
                window: Duration::from_secs(1),
                burst: NonZeroU32::MIN.saturating_add(499),
            },
        }
    }
}

/// Who asks for a change, as the audit log will say it.
#[derive(Clone, Debug)]
pub struct Actor {
    pub who: Who,
    /// The token it was asked with: a token made through it is never wider, longer-lived or
    /// reachable from more addresses.
    pub parent: Option<TokenId>,
    /// The session it was asked with, which must not have ended meanwhile.
    pub session: Option<Digest>,
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

/// Somebody who has shown that they are this user.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub user: UserId,
    /// The PHC string that the password was verified against: it must still be the one.
    pub verified: String,
    pub digest: Digest,
    pub client: std::net::IpAddr,
    /// A session that this browser still had: it ends.
    pub replaces: Option<Digest>,
}

/// Somebody whom an OpenID Connect provider has named. Every text is the provider's own.
#[derive(Clone, Debug)]
pub struct ProvidedSession {
    pub issuer: String,
    pub subject: String,
    /// For an account that is made now.
    pub login: String,
    pub name: String,
    pub email: Option<String>,
    /// Take the account over that has the login already, instead of refusing.
    pub adopt: bool,
    /// The groups that the provider decides about, and whether the user is a member.
    pub groups: Vec<(String, bool)>,
    pub digest: Digest,
    pub client: std::net::IpAddr,
    /// A session that this browser still had: it ends.
    pub replaces: Option<Digest>,
    pub request_id: String,
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
    /// A PHC string.
    pub password: Option<String>,
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

#[derive(Clone, Debug, Default)]
pub struct RoleEdit {
    pub name: Option<String>,
    pub permissions: Option<Vec<Permission>>,
}

/// A token that somebody got for one of another issuer.
#[derive(Clone, Debug)]
pub struct Exchanged {
    /// [`crate::settings::ExchangeRule::author`].
    pub rule: String,
    /// Within the rule's.
    pub scope: Vec<(String, Access)>,
    /// Whom the other issuer names, for people.
    pub subject: String,
    pub request_id: String,
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

/// A line of an import that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Registered {
    pub id: TokenId,
    /// Since an earlier import; nothing was changed.
    pub known: bool,
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
pub struct CreatedToken {
    pub record: TokenRecord,
    /// Absent when an [`Idempotency`] key was repeated.
    pub text: Option<TokenText>,
    pub cut: Cut,
}

/// What any other change answers.
#[derive(Clone, Debug)]
pub struct Updated<T> {
    pub record: T,
    pub cut: Cut,
    /// `None`: this gateway is alone.
    pub nodes: Option<Nodes>,
}

/// On which nodes of a cluster a change is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    pub confirmed: usize,
    /// They have said nothing in time, and forward nothing by the state before.
    pub lapsed: Vec<String>,
}

/// Refused, with the stable code of the API.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// domain.md, "Errors": 403, 404, 409 and 422 by [`AdminError::status`].
    #[error("{0}")]
    Refused(#[from] AdminError),
    /// If-Match names another revision: 412.
    #[error("the record has changed since it was read")]
    Stale,
    /// The Idempotency-Key came with another request before: 422.
    #[error("this idempotency key came with another request")]
    KeyReused,
    /// [`Policy::write_rate`]: 429.
    #[error("the account makes changes too fast: try again in {0} seconds")]
    TooFast(u32),
    /// Nothing changed: 503.
    #[error("the store takes no changes until permgate is restarted: {0}")]
    Closed(String),
    /// The store failed while it wrote the change, which the next start may find: 503.
    #[error("whether the change was made is not known: {0}")]
    Unknown(String),
    /// A change that only takes power away holds now, but may be lost by a restart: 503.
    #[error("in force, but not durable: {reason}")]
    NotDurable { reason: String, cut: Cut },
    /// Durable, but a worker does not decide by it yet: 503, and the process ends.
    #[error("durable, but not yet in force everywhere")]
    FenceIncomplete,
    #[error("the new configuration contradicts itself")]
    Rules(Vec<RuleError>),
}

/// What was decided on could not be read: nothing changed.
impl From<ReadError> for ChangeError {
    fn from(error: ReadError) -> Self {
        Self::Closed(error.to_string())
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
