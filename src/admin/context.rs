//! The state that the admin handlers share, and the interfaces that `app` implements for them.

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
    session::{Attempts, Csrf, Failures, FormKey},
    sign_in::SignIn,
    wire::Time,
};
use crate::{
    authz::{forwarding::TrustedProxies, rules::Rules, secret::Digest},
    fence::{Cut, Fence},
    metrics::{ClusterReading, History, Metrics, Readings},
    net::{Budgets, LogThrottle},
    state::State,
    store::{
        Actor, ChangeError, Store, cluster,
        model::{AuditEvent, LastUsed, SignedInBy, UserId, UserRecord},
    },
};

/// The handlers' shared state; cheap to clone.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    parts: Parts,
    attempts: Attempts,
    failures: Failures,
    form_key: FormKey,
    history: Arc<History>,
    relying_party: Option<super::oidc::RelyingParty>,
    provider_warnings: LogThrottle,
}

pub struct Parts {
    pub store: Store,
    pub state: Arc<State>,
    pub fence: Arc<Fence>,
    pub metrics: Arc<Metrics>,
    pub uses: Arc<dyn UsageTracker>,
    pub configuration: Arc<dyn Configuration>,
    /// Whether requests are accepted: false before the first worker serves, and while draining.
    pub ready: Arc<AtomicBool>,
    /// Host names of the listener besides `localhost` and addresses. Others are refused, because they result
    /// from DNS rebinding.
    pub hosts: Vec<String>,
    pub sign_in: SignIn,
    /// Proxies that are trusted to report the client's address.
    pub trusted_proxies: TrustedProxies,
    /// Which clients may read `/metrics` without a token.
    pub metrics_access: MetricsAccess,
    /// The admin listener's.
    pub budgets: Arc<Budgets>,
    /// The process's own user. On the unix socket, this user and root are the operator.
    pub own_uid: u32,
}

/// Uses of tokens, including those that the store has yet to record.
pub trait UsageTracker: Send + Sync {
    fn last(&self, digest: &Digest) -> Option<LastUsed>;

    /// Records a use on the admin listener itself.
    fn note(&self, digest: &Digest, used: LastUsed);

    /// Records the refusal of a request on the admin listener for the audit log.
    fn refused(&self, refused: RefusedRequest<'_>);
}

/// A refused request, for the audit's bounded channel.
#[derive(Clone, Copy, Debug)]
pub struct RefusedRequest<'a> {
    pub token: Option<crate::authz::secret::TokenId>,
    pub client: IpAddr,
    pub reason: crate::authz::reason::Reason,
    pub request_id: &'a str,
}

/// The configuration in force, and the file that it is read from.
pub trait Configuration: Send + Sync {
    /// The text in force, with every secret replaced.
    fn text(&self) -> String;

    /// The file's current text, with every secret replaced: what a reload would apply. Fails with the reason
    /// why it cannot be applied. Must not run on the control thread.
    fn file(&self) -> Result<String, String> {
        Ok(self.text())
    }

    /// The start-up validation of another text; changes nothing. Without `references` it ignores the files
    /// and environment variables that the text names. May take long, so it must not run on the control thread.
    fn check(&self, text: &str, references: bool) -> Result<(), Vec<ConfigurationError>>;

    /// Reads the file again and replaces everything or nothing. Also counts the reload, because a signal
    /// triggers one too.
    fn reload(self: Arc<Self>, actor: Actor) -> Reloading;
}

pub type Reloading = Pin<Box<dyn Future<Output = Result<Cut, ReloadError>> + Send>>;

/// Why the configuration stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Invalid(Vec<ConfigurationError>),
    #[error("{0}")]
    Change(ChangeError),
}

/// An error in a configuration, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationError {
    pub file: String,
    pub line: Option<u32>,
    pub column: Option<u32>,
    pub message: String,
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.file.is_empty() {
            return f.write_str(&self.message);
        }
        f.write_str(&self.file)?;
        [self.line, self.column].into_iter().flatten().try_for_each(|number| write!(f, ":{number}"))?;
        write!(f, ": {}", self.message)
    }
}

impl Context {
    pub fn new(parts: Parts) -> Self {
        let shared = parts.sign_in.form_key.clone();
        let drawn = || FormKey::draw().expect("the system has random numbers, or nothing here is safe");
        let relying_party = parts.sign_in.provider.clone();
        Self(Arc::new(Inner {
            attempts: Attempts::default(),
            failures: Failures::default(),
            form_key: shared.unwrap_or_else(drawn),
            history: Arc::default(),
            provider_warnings: LogThrottle::default(),
            relying_party: relying_party
                .map(|provider| super::oidc::RelyingParty::new(provider, parts.sign_in.base())),
            parts,
        }))
    }

    pub(super) fn attempts(&self) -> &Attempts {
        &self.0.attempts
    }

    /// Notes a failed sign-in; `None`: no account has the login.
    pub(super) fn record_sign_in_failure(
        &self,
        user: Option<UserId>,
        method: SignedInBy,
        meta: &RequestMeta,
    ) {
        self.0.failures.note(user, method, meta.client, &meta.request_id, Time::now());
    }

    /// The audit events of failed sign-ins that are due.
    pub(super) fn due_failure_events(&self) -> Vec<AuditEvent> {
        let accounts = self.store.accounts();
        let login = |id: &str| accounts.user_by_id(id).map(|account| account.record.login.clone());
        self.0.failures.due(Time::now(), login)
    }

    pub(super) fn history(&self) -> &Arc<History> {
        &self.0.history
    }

    /// The OpenID Connect provider, if one is configured.
    pub(super) fn relying_party(&self) -> Option<&super::oidc::RelyingParty> {
        self.0.relying_party.as_ref()
    }

    /// For warnings about a provider that is down.
    pub(super) fn provider_warnings(&self) -> &LogThrottle {
        &self.0.provider_warnings
    }

    /// The CSRF token of a user whom a proxy names.
    pub(super) fn csrf_of(&self, user: &str) -> Csrf {
        self.0.form_key.csrf(user)
    }

    /// The proof that known browsers of the user keep: until a restart without `admin.user_header_key`.
    pub(super) fn browser_of(&self, user: &UserRecord) -> Option<Csrf> {
        Some(self.0.form_key.browser(&user.id, user.password.as_deref()?))
    }

    pub fn rules(&self) -> Arc<Rules> {
        self.state.snapshot().rules.clone()
    }

    /// Whether requests are accepted, or the reason why not.
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

/// Handlers take the context as an argument.
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
