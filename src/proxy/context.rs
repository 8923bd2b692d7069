//! The context of one request from its head to the last byte of its response: what the client sent, and the
//! outcome. The fence decides live requests again from the same inputs.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use http::{Method, Request, Uri};

use crate::{
    authz::{
        carriers::Carrier,
        decide::{Permit, Query},
        destination::Destination,
        forwarding::{self, ReportedIdentity},
        path::RequestPath,
        reason::Reason,
        rules::{Rules, Service, ServiceId},
        secret::{self, TokenId},
        subject::{Subject, UserIx},
        time::Timestamp,
    },
    fence::{Affected, LiveRow, Revocable},
    metrics::WorkerMetrics,
    net::{Clock, Connection},
    proxy::{
        Gateway,
        facts::{RequestFacts, RequestId},
        is_peer_trusted,
        upstream::{CancelHandle, load_balancer::fingerprint},
        worker_state::WorkerState,
    },
};

/// Created for every request, including denied ones. Only the outcome changes.
pub struct RequestContext {
    pub gateway: Rc<Gateway>,
    /// The rules by which the request was read.
    pub rules: Rc<Arc<Rules>>,
    /// The state by which it is decided; `None` from then on, so that long requests do not keep it.
    state: RefCell<Option<Rc<WorkerState>>>,
    /// The user, if there is no state any more, and what the service's upstream was told of it, if anything.
    reported: RefCell<Option<Rc<ReportedIdentity>>>,
    pub connection: Rc<Connection>,
    pub method: Method,
    uri: Uri,
    pub facts: RequestFacts,
    pub request_id: RequestId,
    pub began: Instant,
    pub at: Timestamp,
    pub outcome: Outcome,
}

/// The outcome of a request so far. Metrics and log read it at the end.
#[derive(Default)]
pub struct Outcome {
    pub service: Cell<Option<ServiceId>>,
    pub token: Cell<Option<TokenId>>,
    pub user: Cell<Option<UserIx>>,
    carrier: Cell<CarrierUsed>,
    /// Whether the upstream received the user's identity.
    identified: Cell<bool>,
    /// When the permit expires.
    deadline: Cell<Option<Timestamp>>,
    /// When the token expires, if the response announces it.
    pub sunset: Cell<Option<Timestamp>>,
    /// `None`: not decided yet.
    pub reason: Cell<Option<Reason>>,
    /// 0: no response has started.
    pub status: Cell<u16>,
    /// Whether the last byte of the response was handed to the client's connection.
    pub complete: Cell<bool>,
    cut: Cell<Option<Reason>>,
    /// The error of the client's body, which explains why the request failed.
    pub client_error: Cell<Option<Reason>>,
    pub cancel: Rc<CancelHandle>,
    /// The URL that the request was last sent to.
    pub upstream: RefCell<Option<Rc<str>>>,
    pub upstream_responded: Cell<Option<Instant>>,
    pub bytes_in: Cell<u64>,
    pub bytes_out: Cell<u64>,
}

/// Where the credential was found that the decision used.
#[derive(Clone, Copy, Default)]
enum CarrierUsed {
    /// No credential, or every service accepts only the default carrier.
    #[default]
    None,
    Bearer,
    /// The position in [`RequestFacts::carried`].
    Carried(usize),
}

impl RequestContext {
    pub fn new<B>(
        gateway: &Rc<Gateway>,
        state: Rc<WorkerState>,
        connection: Rc<Connection>,
        request: &Request<B>,
        mut facts: RequestFacts,
        request_id: RequestId,
    ) -> Rc<Self> {
        facts.method_override |= request.uri().query().is_some_and(forwarding::has_method_parameter);
        let (began, at) = (connection.clock().now(), connection.clock().wall());
        Rc::new(Self {
            gateway: Rc::clone(gateway),
            rules: Rc::clone(&state.rules),
            state: RefCell::new(Some(state)),
            reported: RefCell::default(),
            connection,
            method: request.method().clone(),
            uri: request.uri().clone(),
            facts,
            request_id,
            began,
            at,
            outcome: Outcome::default(),
        })
    }

    /// The state by which the request is decided.
    pub fn state(&self) -> Rc<WorkerState> {
        self.state.borrow().clone().unwrap_or_else(|| self.gateway.worker_state())
    }

    /// Ends the use of the state, after the decision. `service`: to whose upstream the request is forwarded.
    pub fn release_state(&self, service: Option<&Service>) {
        let Some(state) = self.state.take() else { return };
        let reported = state.user(self.outcome.user.get()).map(|user| match service {
            Some(service) => state.identities.reported(user, service),
            None => Rc::new(ReportedIdentity::new(user, None, &state.snapshot.directory)),
        });
        self.reported.replace(reported);
    }

    /// The login of the user, if a token was recognised.
    pub fn login(&self) -> Option<Rc<str>> {
        self.release_state(None);
        self.reported.borrow().as_ref().map(|user| Rc::clone(&user.login))
    }

    pub fn service_key(&self) -> Option<&str> {
        Some(self.rules.service(self.outcome.service.get()?)?.spec.key.as_str())
    }

    /// Returns the inputs of the decision. Of several credentials, `rules` choose one.
    pub fn query(&self, rules: &Rules) -> Query<'_> {
        let query = self.default_query();
        if rules.carriers().is_none() {
            return query;
        }
        let RequestFacts { credential, carried, .. } = &self.facts;
        let path = query.path.as_ref().ok();
        let (credential, at) = rules.credential(path, query.host, query.method, *credential, carried);
        self.outcome.carrier.set(match at {
            Some(at) => CarrierUsed::Carried(at),
            None if credential.is_absent() => CarrierUsed::None,
            None => CarrierUsed::Bearer,
        });
        Query { credential, ..query }
    }

    /// The carrier of the credential, if some service accepts more than the default carrier.
    pub fn carrier(&self) -> Option<Carrier> {
        match self.outcome.carrier.get() {
            CarrierUsed::None => None,
            CarrierUsed::Bearer => Some(Carrier::Bearer),
            CarrierUsed::Carried(at) => Some(self.facts.carried.get(at)?.carrier.clone()),
        }
    }

    /// The inputs of the decision if every service has the default carrier.
    fn default_query(&self) -> Query<'_> {
        let in_destination = self.facts.destination.as_ref().is_some_and(Destination::has_token);
        Query {
            method: &self.method,
            host: self.facts.host_name(),
            path: RequestPath::parse(self.path()),
            token_in_url: in_destination || secret::contains_token(self.target()),
            credential: self.facts.credential,
            client: self.facts.client,
            upgrade: self.facts.upgrade,
            method_override: self.facts.method_override,
            destination: self.facts.destination.as_ref(),
            stated_hosts: &self.facts.stated_hosts,
        }
    }

    /// Checks that the current settings would read the head the same way, as far as the permit depends on it.
    fn check_facts(&self, permit: &Permit<'_>, current: &WorkerState) -> Result<(), Reason> {
        let (read, now) = (&self.rules.settings, &current.snapshot.rules.settings);
        let Some(subject) = permit.subject() else { return Ok(()) };
        // With other trusted proxies, another hop of the request counts as the client.
        let is_bound =
            !subject.token.restrictions.allow_ips.is_empty() && is_peer_trusted(current, &self.connection);
        if is_bound && read.trusted_proxies != now.trusted_proxies {
            return Err(Reason::IpNotAllowed);
        }
        if self.facts.by_alias && !now.perm_alias {
            return Err(Reason::UnknownToken);
        }
        Ok(())
    }

    /// Whether the identity that the upstream received is still correct.
    fn is_identity_current(&self, permit: &Permit<'_>, current: &WorkerState) -> bool {
        let Some(Subject { user, .. }) = permit.subject() else { return false };
        let (service, directory) = (permit.owner().service, &current.snapshot.directory);
        self.reported.borrow().as_ref().is_none_or(|before| before.is_current(user, service, directory))
    }

    fn target(&self) -> &str {
        self.uri.path_and_query().map_or("", |target| target.as_str())
    }

    pub fn path(&self) -> &str {
        self.uri.path()
    }

    pub fn clock(&self) -> &Clock {
        self.connection.clock()
    }

    pub fn metrics(&self) -> &WorkerMetrics {
        &self.gateway.metrics
    }

    /// Whether the fence, an administrator or the client has ended the request, so that nothing may be sent.
    pub fn is_over(&self) -> bool {
        self.outcome.cut.get().is_some() || self.connection.aborted()
    }

    /// Whether no more bytes may pass between client and upstream.
    pub fn is_relay_stopped(&self) -> bool {
        self.is_over() || !self.may_forward()
    }

    /// Whether this node may forward. A node that was suspended notices here, before the next sweep.
    fn may_forward(&self) -> bool {
        let valid = self.gateway.parts.state.permission().is_valid();
        if !valid && self.outcome.cut.get().is_none() {
            // Does not cancel the upstream side, which may be a caller of this function and ends by itself.
            self.outcome.cut.set(Some(Reason::StoreUnavailable));
            self.connection.abort();
        }
        valid
    }

    /// Hash of the user, or of the client's address without a user, for `balance = "hash"`.
    pub fn hash(&self) -> u64 {
        match self.reported.borrow().as_ref().filter(|_| self.outcome.identified.get()) {
            Some(user) => fingerprint(user.user_id.as_bytes()),
            None => match self.facts.client {
                IpAddr::V4(address) => fingerprint(&address.octets()),
                IpAddr::V6(address) => fingerprint(&address.octets()),
            },
        }
    }
}

impl Outcome {
    /// The reason to log and count. Defaults to `ClientClosed`.
    pub fn reason(&self) -> Reason {
        self.reason.get().unwrap_or(Reason::ClientClosed)
    }

    pub fn set_permit(&self, permit: &Permit<'_>) {
        self.service.set(Some(permit.owner().service.id));
        self.identified.set(permit.subject().is_some());
        self.deadline.set(permit.deadline());
        self.reason.set(Some(permit.reason()));
    }

    /// Why the fence or an administrator has ended the request.
    pub fn cut(&self) -> Option<Reason> {
        self.cut.get()
    }
}

impl Revocable for RequestContext {
    fn affected_by(&self, affected: &Affected) -> bool {
        match affected {
            Affected::Token(digest) => {
                let carried = self.facts.carried.iter().map(|carried| &carried.credential);
                carried.chain([&self.facts.credential]).any(|one| one.digest() == Some(digest))
            }
            Affected::User(user) => self.outcome.user.get() == Some(*user),
            Affected::All => true,
        }
    }

    fn reauthorize(&self) -> Result<(), Reason> {
        let (now, current) = (self.clock().wall(), self.gateway.worker_state());
        let trusted = &current.snapshot.rules.settings.trusted_proxies;
        if self.connection.is_withdrawn() || !self.connection.has_trusted_address(trusted) {
            return Err(Reason::Misdirected);
        }
        let query = self.query(&current.snapshot.rules);
        // What a proxy reported counts only while it is trusted.
        let trusted = is_peer_trusted(&current, &self.connection);
        let client = if trusted { self.facts.client } else { self.connection.address() };
        let query = Query { client, ..query };
        self.gateway.decide(&query, &current, self, now, |decided| {
            let permit = decided.map_err(|denial| denial.reason)?;
            let Service { id, .. } = permit.owner().service;
            // A permit does not count if another service owns the path now, or if the
            // identity that the upstream received is no longer correct.
            if self.outcome.service.get() != Some(*id) {
                return Err(Reason::NoService);
            }
            if self.outcome.identified.get() && !self.is_identity_current(&permit, &current) {
                return Err(Reason::IdentityChanged);
            }
            self.check_facts(&permit, &current)?;
            self.outcome.deadline.set(permit.deadline());
            Ok(())
        })
    }

    fn cut(&self, reason: Reason) {
        self.outcome.cut.set(Some(reason));
        self.connection.abort();
        self.outcome.cancel.cancel();
    }

    fn row(&self) -> LiveRow {
        LiveRow {
            id: String::new(),
            request_id: self.request_id.as_str().to_owned(),
            token: self.outcome.token.get(),
            user: self.outcome.user.get(),
            service: self.service_key().unwrap_or_default().to_owned(),
            method: self.method.as_str().to_owned(),
            path: secret::redact(self.path()).into_owned(),
            client: self.facts.client,
            age: self.began.elapsed(),
            bytes_in: self.outcome.bytes_in.get(),
            bytes_out: self.outcome.bytes_out.get(),
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.outcome.deadline.get().into_iter().chain(self.connection.client_expires_at()).min()
    }
}
