//! Parameters and results of the methods of the store that change something.

use std::{net::IpAddr, num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;
use strum::{EnumString, IntoStaticStr, VariantNames};

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

/// Where the store is, and its size settings. Built by `config`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub path: PathBuf,
    /// Bytes of the file that is deleted when the disk is full.
    pub ballast: u64,
}

/// Everything that a reload of the configuration replaces at once.
pub struct Configuration {
    pub services: Vec<ServiceSpec>,
    pub public: Vec<PublicSpec>,
    pub rules: RuleSettings,
    /// Published with the rules.
    pub proxy: Arc<ProxySettings>,
    pub policy: Policy,
}

impl Configuration {
    /// Digest of the rules, independent of file and line; nodes of a cluster compare it.
    pub(super) fn digest(&self) -> [u8; 32] {
        let nowhere = Origin { file: Arc::from(""), line: 0 };
        let services =
            self.services.iter().map(|spec| ServiceSpec { origin: nowhere.clone(), ..spec.clone() });
        let public = self.public.iter().map(|spec| PublicSpec { origin: nowhere.clone(), ..spec.clone() });
        let (services, public): (Vec<_>, Vec<_>) = (services.collect(), public.collect());
        *blake3::hash(format!("{services:?}{public:?}{:?}", self.rules).as_bytes()).as_bytes()
    }
}

/// Limits that operators set beyond the rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Maximum lifetime of a new token; `None`: unlimited.
    pub max_lifetime: Option<Duration>,
    /// Live tokens per user, including those in their grace period.
    pub max_tokens: usize,
    /// Revoked and replaced tokens that are kept per user.
    pub max_ended_tokens: usize,
    /// Expired tokens that are kept per user, without exchanged ones.
    pub max_expired_tokens: usize,
    /// Audit events older than this are trimmed; `None`: never.
    pub audit_retention: Option<Duration>,
    /// Logins that upstreams trust, in lower case. Using one for an account requires `admin-write`.
    pub reserved_logins: Arc<[String]>,
    /// Rate limit for the changes of one account. Changes that only remove power, the operator's and
    /// imports are not counted.
    pub write_rate: Rate,
}

impl Default for Policy {
    /// The defaults of docs/domain.md, "Numbers".
    fn default() -> Self {
        let reserved_logins = ["admin", "root", "administrator"].map(ToOwned::to_owned).into();
        Self {
            max_lifetime: None,
            max_tokens: 500,
            max_ended_tokens: 10_000,
            max_expired_tokens: 50_000,
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

/// Who makes a change, as recorded in the audit log.
#[derive(Clone, Debug)]
pub struct Actor {
    pub kind: ActorKind,
    /// The token that authenticated the request. A token created through it never has a wider scope, a
    /// longer life or more addresses.
    pub parent: Option<TokenId>,
    /// The session that authenticated the request. The change fails if it has ended meanwhile.
    pub session: Option<Digest>,
    /// The address that the request came from. `None` for the operator.
    pub client: Option<IpAddr>,
    pub request_id: Option<String>,
}

impl Actor {
    /// No token, session, address or request is known.
    pub fn new(kind: ActorKind) -> Self {
        Self { kind, parent: None, session: None, client: None, request_id: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActorKind {
    /// The peer of the unix socket, or the command line on a closed store. Has `admin-write`.
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

/// A sign-in whose password has been verified.
#[derive(Clone, Debug)]
pub struct NewSession {
    pub user: UserId,
    /// The PHC string that the password was verified against; it must still be the user's.
    pub verified: String,
    pub digest: Digest,
    pub client: std::net::IpAddr,
    /// The browser's previous session, which ends.
    pub replaces: Option<Digest>,
}

/// A sign-in through an OpenID Connect provider. Every text comes from the provider.
#[derive(Clone, Debug)]
pub struct FederatedSession {
    pub issuer: String,
    pub subject: String,
    /// Used if the account is created now, like `name` and `email`.
    pub login: String,
    pub name: String,
    pub email: Option<String>,
    /// Whether to link the existing account that has the login, instead of refusing.
    pub adopt: bool,
    /// The groups that the provider controls, and whether the user is a member of each.
    pub groups: Vec<(String, bool)>,
    pub digest: Digest,
    pub client: std::net::IpAddr,
    /// The browser's previous session, which ends.
    pub replaces: Option<Digest>,
    pub request_id: String,
}

/// A change of a token; `None` leaves a field as it is.
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

/// A token to issue in exchange for a credential of another issuer.
#[derive(Clone, Debug)]
pub struct ExchangedToken {
    /// [`crate::settings::ExchangeRule::author`].
    pub rule: String,
    /// Within the rule's scope.
    pub scope: Vec<(String, Access)>,
    /// The subject that the other issuer names, for display.
    pub subject: String,
    pub client: IpAddr,
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

/// An accepted line of an import.
#[derive(Clone, Copy, Debug)]
pub struct AcceptedImport {
    pub id: TokenId,
    /// Whether an earlier import has registered the token, so that nothing was changed.
    pub known: bool,
}

#[derive(Clone, Debug, Default)]
pub struct TokenFilter {
    /// Login.
    pub owner: Option<String>,
    pub service: Option<String>,
    /// Not used since this time.
    pub unused_since: Option<Timestamp>,
    pub expiring_before: Option<Timestamp>,
    pub state: Option<TokenState>,
}

/// The state of a token at a given time (docs/domain.md, "The life of a token").
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "lowercase", const_into_str)]
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

/// A client's promise that requests with the same key are the same request. A repetition gets the first
/// request's record, but never the token's text.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// Actor and `Idempotency-Key`, as one string.
    pub key: String,
    /// BLAKE3 of the request body.
    pub request: [u8; 32],
}

/// The result of creating or rotating a token.
#[derive(Debug)]
pub struct CreatedToken {
    pub record: TokenRecord,
    /// Absent when an [`Idempotency`] key was repeated.
    pub text: Option<TokenText>,
    pub cut: Cut,
}

/// The result of any other change.
#[derive(Clone, Debug)]
pub struct Updated<T> {
    pub record: T,
    pub cut: Cut,
    /// `None` for a gateway that runs alone.
    pub nodes: Option<Nodes>,
}

/// The nodes of a cluster on which a change is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nodes {
    pub confirmed: usize,
    /// Nodes that did not acknowledge in time. They forward nothing by the previous state.
    pub lapsed: Vec<String>,
}

/// Why a change failed. Each variant names the API's HTTP status.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// 403, 404, 409 or 422 by [`AdminError::status`] (docs/api.md, "Error codes").
    #[error("{0}")]
    Refused(#[from] AdminError),
    /// If-Match names another revision: 412.
    #[error("the record has changed since it was read")]
    Stale,
    /// The Idempotency-Key was used with another request before: 422.
    #[error("this idempotency key was used with another request")]
    IdempotencyKeyReused,
    /// The account exceeds [`Policy::write_rate`]: 429.
    #[error("the account makes changes too quickly: try again in {0} seconds")]
    RateLimited(u32),
    /// Nothing changed: 503.
    #[error("the store accepts no changes until permgate is restarted: {0}")]
    Closed(String),
    /// The store failed while writing the change; the next start may find it: 503.
    #[error("it is unknown whether the change was made: {0}")]
    Unknown(String),
    /// A change that only removes power is in force, but a restart may lose it: 503.
    #[error("in force, but not durable: {reason}")]
    NotDurable { reason: String, cut: Cut },
    /// Durable, but a worker has not applied it yet: 503, and the process ends.
    #[error("durable, but not yet in force everywhere")]
    FenceIncomplete,
    #[error("the rules of the new configuration conflict")]
    Rules(Vec<RuleError>),
}

/// What the decision depends on could not be read: nothing changed.
impl From<ReadError> for ChangeError {
    fn from(error: ReadError) -> Self {
        Self::Closed(error.to_string())
    }
}

/// The grantee of a role, by name.
#[derive(Clone, Debug)]
pub enum GrantTarget {
    /// Login.
    User(String),
    /// Group name.
    Group(String),
}

/// A failed read, which the API answers with 503.
#[derive(Debug, thiserror::Error)]
#[error("the store cannot be read: {0}")]
pub struct ReadError(pub String);
