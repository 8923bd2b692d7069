//! What the handlers work with, made by the composition.

use std::{
    convert::Infallible,
    fmt,
    net::IpAddr,
    ops::Deref,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::extract::FromRequestParts;
use http::request;
use serde::{Deserialize, Serialize};

use super::{
    caller::RequestMeta,
    client::MetricsAccess,
    session::{Attempts, Csrf, Failures, FormKey, LoginMethod},
    sign_in::SignIn,
    wire::Time,
};
use crate::{
    authz::{forwarding::TrustedProxies, rules::Rules, secret::Digest},
    fence::{Cut, Fence},
    metrics::{ClusterReading, History, Metrics, Readings},
    net::Budget,
    state::State,
    store::{
        Actor, ChangeError, Store, cluster,
        model::{AuditEvent, LastUsed, UserId, UserRecord},
    },
};

/// Cheap to clone.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    parts: Parts,
    attempts: Attempts,
    failures: Failures,
    form_key: FormKey,
    history: Arc<History>,
    relying: Option<super::oidc::RelyingParty>,
}

pub struct Parts {
    pub store: Store,
    pub state: Arc<State>,
    pub fence: Arc<Fence>,
    pub metrics: Arc<Metrics>,
    pub uses: Arc<dyn UsageTracker>,
    pub configuration: Arc<dyn Configuration>,
    /// Whether requests are taken: false before the first worker serves and while draining.
    pub ready: Arc<AtomicBool>,
    /// Names under which the listener may be asked, beside `localhost` and addresses: a browser that
    /// was lured to another name is refused.
    pub hosts: Vec<String>,
    pub sign_in: SignIn,
    /// Whose word for the client's address is taken.
    pub trusted_proxies: TrustedProxies,
    /// Who gets `/metrics` without a token.
    pub metrics_access: MetricsAccess,
    /// Request bodies in memory, all together.
    pub bodies: Arc<Budget>,
    /// The process's own user: with root the operator on the unix socket.
    pub own_uid: u32,
}

/// What the workers know of uses that the store does not yet.
pub trait UsageTracker: Send + Sync {
    fn last(&self, digest: &Digest) -> Option<LastUsed>;

    /// A use on the admin listener itself.
    fn note(&self, digest: &Digest, used: LastUsed);

    /// A refusal that is to be audited, of a request on the admin listener.
    fn refused(&self, refused: RefusedRequest<'_>);
}

/// Who was refused, for the audit's bounded channel.
#[derive(Clone, Copy, Debug)]
pub struct RefusedRequest<'a> {
    pub token: Option<crate::authz::secret::TokenId>,
    pub client: IpAddr,
    pub reason: crate::authz::answer::Reason,
    pub request_id: &'a str,
}

/// `gateway.toml` as it is in force.
pub trait Configuration: Send + Sync {
    /// The text with every secret replaced.
    fn text(&self) -> String;

    /// The text of the file as it is now, with every secret replaced: what a reload would take over. The
    /// error says why it cannot be. Never on the control thread.
    fn file(&self) -> Result<String, String> {
        Ok(self.text())
    }

    /// The start-up validation of another text; nothing changes. Without `outside` the files and environment
    /// variables that it names are not looked at. Takes as long as they are large: never on the control thread.
    fn check(&self, text: &str, outside: bool) -> Result<(), Vec<ConfigurationError>>;

    /// Reads the file again and replaces everything, or nothing; counts it too, since a signal asks
    /// for the same.
    fn reload(&self, actor: Actor) -> Reloading;
}

pub type Reloading = Pin<Box<dyn Future<Output = Result<Cut, ReloadError>> + Send>>;

/// Why everything stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<ConfigurationError>),
    #[error("{0}")]
    Change(ChangeError),
}

/// What is wrong in a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationError {
    pub file: String,
    pub line: Option<u32>,
    pub column: Option<u32>,
    pub message: String,
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl Context {
    pub fn new(parts: Parts) -> Self {
        let shared = parts.sign_in.header.as_ref().and_then(|header| header.key.clone());
        let drawn = || FormKey::draw().expect("the system has random numbers, or nothing here is safe");
        let relying = parts.sign_in.provider.clone();
        Self(Arc::new(Inner {
            attempts: Attempts::default(),
            failures: Failures::default(),
            form_key: shared.unwrap_or_else(drawn),
            history: Arc::default(),
            relying: relying.map(|provider| super::oidc::RelyingParty::new(provider, parts.sign_in.base())),
            parts,
        }))
    }

    pub(super) fn attempts(&self) -> &Attempts {
        &self.0.attempts
    }

    /// Somebody did not come in; `None`: whom they mean is nobody.
    pub(super) fn note_failure(&self, user: Option<UserId>, way: LoginMethod, visit: &RequestMeta) {
        self.0.failures.note(user, way, visit.client, &visit.request_id, Time::now());
    }

    /// Of sign-ins that failed, for the log.
    pub(super) fn failures_due(&self) -> Vec<AuditEvent> {
        let accounts = self.store.accounts();
        let login = |id: &str| accounts.user_by_id(id).map(|account| account.record.login.clone());
        self.0.failures.due(Time::now(), login)
    }

    pub(super) fn history(&self) -> &Arc<History> {
        &self.0.history
    }

    /// The provider that people may sign in by.
    pub(super) fn relying(&self) -> Option<&super::oidc::RelyingParty> {
        self.0.relying.as_ref()
    }

    /// For a user whom a proxy vouches for.
    pub(super) fn csrf_of(&self, user: &str) -> Csrf {
        self.0.form_key.csrf(user)
    }

    /// What browsers have that a user has signed in with. Without `admin.user_header_key`, until a restart.
    pub(super) fn browser_of(&self, user: &UserRecord) -> Option<Csrf> {
        Some(self.0.form_key.browser(&user.id, user.password.as_deref()?))
    }

    pub fn rules(&self) -> Arc<Rules> {
        self.state.snapshot().rules.clone()
    }

    /// Whether requests are taken, and why not.
    pub fn ready(&self) -> Result<(), &'static str> {
        if self.fence.is_broken() {
            return Err("a worker has not applied a change");
        }
        if !self.state.permission().is_valid() {
            return Err("cut off from the cluster");
        }
        if self.ready.load(Ordering::Acquire) { Ok(()) } else { Err("not serving") }
    }

    pub fn readings(&self) -> Readings {
        let index = self.state.index();
        Readings {
            tokens: u64::try_from(index.len()).unwrap_or(u64::MAX),
            imported: index.imported(),
            writable: self.store.writable().is_ok(),
            ready: self.ready().is_ok(),
            cluster: self.store.node().map(|node| reading(&node.status(), self.store.unwritten())),
        }
    }
}

fn reading(status: &cluster::Status, unwritten: u64) -> ClusterReading {
    let same = status.members.iter().filter(|member| member.same_rules).count() as u64;
    ClusterReading {
        permitted: status.permitted_for.map_or(0, |left| left.as_secs()),
        position: status.in_force,
        same_rules: same,
        other_rules: status.members.len() as u64 - same,
        waiting: status.waiting as u64,
        unwritten,
    }
}

/// Handlers take it as it is.
impl FromRequestParts<Self> for Context {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut request::Parts, context: &Self) -> Result<Self, Infallible> {
        Ok(context.clone())
    }
}

impl Deref for Context {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}
