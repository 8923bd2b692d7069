//! One request from its head to the last byte of its answer: what the decision was told, what
//! came of it, and the entry by which the fence judges it again.

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::IpAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use http::Method;

use crate::{
    authz::{
        answer::Reason,
        decide::{Credential, Permit, Query},
        destination::Destination,
        path::RequestPath,
        rules::{BUILT_IN_SERVICE, Service, ServiceId},
        secret::{self, TokenId},
        subject::UserIx,
        time::Timestamp,
    },
    fence::{Affected, Entry, Live, LiveRow},
    message::{Request, Target},
    metrics::WorkerMetrics,
    net::{Clock, Connection},
    proxy::{
        Gateway,
        framing::HostName,
        limits::Taken,
        request_id::RequestId,
        upstream::{
            Lease, Upstream, choose,
            lane::{End, Lane},
        },
        view::View,
    },
};

/// Made for every request, the refused ones too.
pub struct Exchange {
    gateway: Rc<Gateway>,
    pub view: Rc<View>,
    pub connection: Rc<Connection>,
    pub method: Method,
    target: Target,
    pub host: OnceCell<Rc<HostName>>,
    pub credential: Cell<Credential>,
    pub client: Cell<IpAddr>,
    pub upgrade: Cell<bool>,
    pub method_override: Cell<bool>,
    /// The second target of the request, if it names one.
    pub destination: OnceCell<Destination>,
    /// Hosts that a trusted proxy names beside the request's own.
    pub stated_hosts: OnceCell<Vec<String>>,
    pub request_id: RequestId,
    pub began: Instant,
    pub at: Timestamp,

    pub service: Cell<Option<ServiceId>>,
    pub token: Cell<Option<TokenId>>,
    pub user: Cell<Option<UserIx>>,
    identified: Cell<bool>,
    deadline: Cell<Option<Timestamp>>,

    pub reason: Cell<Reason>,
    pub status: Cell<u16>,
    pub complete: Cell<bool>,
    cut: Cell<Option<Reason>>,
    fault: Cell<Option<Reason>>,
    lane: RefCell<Option<Rc<Lane>>>,
    pub upstream: RefCell<Option<Rc<str>>>,
    pub upstream_answered: Cell<Option<Instant>>,
    pub upload_limit: Cell<Option<u64>>,
    /// Places under limits, until the last byte.
    pub taken: RefCell<Option<Box<Taken>>>,
    pub bytes_in: Cell<u64>,
    pub bytes_out: Cell<u64>,
}

/// A permitted exchange that the fence can reach: what the door to an upstream asks for. Made from
/// a permit alone, and it lives until the answer's last byte.
pub struct Passage {
    finish: Finish,
    upstream: Rc<Upstream>,
}

/// Writes the exchange's line when dropped, and leaves the live registry after that.
pub struct Finish {
    exchange: Rc<Exchange>,
    live: Option<Live<Exchange>>,
}

impl Exchange {
    pub fn begin<B>(
        gateway: &Rc<Gateway>,
        view: Rc<View>,
        request: &Request<B>,
        connection: Rc<Connection>,
        request_id: RequestId,
    ) -> Rc<Self> {
        let clock = connection.clock();
        Rc::new(Self {
            view,
            gateway: Rc::clone(gateway),
            method: request.method.clone(),
            target: request.target.clone(),
            host: OnceCell::new(),
            credential: Cell::new(Credential::Missing),
            client: Cell::new(connection.address()),
            upgrade: Cell::new(false),
            method_override: Cell::new(false),
            destination: OnceCell::new(),
            stated_hosts: OnceCell::new(),
            request_id,
            began: clock.now(),
            at: clock.wall(),
            service: Cell::new(None),
            token: Cell::new(None),
            user: Cell::new(None),
            identified: Cell::new(false),
            deadline: Cell::new(None),
            reason: Cell::new(Reason::ClientClosed),
            status: Cell::new(0),
            complete: Cell::new(false),
            cut: Cell::new(None),
            fault: Cell::new(None),
            lane: RefCell::new(None),
            upstream: RefCell::new(None),
            upstream_answered: Cell::new(None),
            upload_limit: Cell::new(None),
            taken: RefCell::new(None),
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            connection,
        })
    }

    /// Every input that the client controls, the same at every judgement.
    pub fn query(&self) -> Query<'_> {
        let (target, destination) = (self.target(), self.destination.get());
        Query {
            method: &self.method,
            host: self.host.get().and_then(|host| host.as_str()),
            path: RequestPath::parse(self.path()),
            token_in_url: secret::contains_token(target) || destination.is_some_and(Destination::has_token),
            credential: self.credential.get(),
            client: self.client.get(),
            upgrade: self.upgrade.get(),
            method_override: self.method_override.get(),
            destination,
            stated_hosts: self.stated_hosts.get().map(Vec::as_slice).unwrap_or_default(),
        }
    }

    /// Told of under the built-in service: no other has to do with it.
    pub fn tell_as_own(&self) {
        let service = self.view.snapshot.rules.service_by_key(BUILT_IN_SERVICE);
        self.service.set(service.map(|service| service.id));
    }

    pub fn target(&self) -> &str {
        self.target.as_str()
    }

    pub fn path(&self) -> &str {
        self.target.path()
    }

    pub fn clock(&self) -> &Clock {
        self.connection.clock()
    }

    pub fn gateway(&self) -> &Rc<Gateway> {
        &self.gateway
    }

    pub fn metrics(&self) -> &WorkerMetrics {
        self.gateway.metrics()
    }

    /// The fence, an administrator or the client has ended it: nothing may be sent any more.
    pub fn is_over(&self) -> bool {
        self.cut.get().is_some() || self.connection.severed()
    }

    pub fn was_cut(&self) -> Option<Reason> {
        self.cut.get()
    }

    /// What was wrong with the client's body, if anything: it then explains the failed exchange.
    pub fn fault(&self) -> Option<Reason> {
        self.fault.get()
    }

    pub fn blame_client(&self, reason: Reason) {
        self.fault.set(Some(reason));
    }

    /// From now on a cut ends this connection too.
    pub fn travel_on(&self, lease: &Lease) {
        *self.lane.borrow_mut() = Some(Rc::clone(lease.lane()));
        *self.upstream.borrow_mut() = Some(Rc::clone(lease.endpoint().label()));
    }

    pub fn leave_lane(&self) {
        *self.lane.borrow_mut() = None;
    }

    /// Gives the upstream more time: the request's body moves.
    pub fn moved(&self, silence: Duration) {
        if let Some(lane) = &*self.lane.borrow() {
            lane.extend(silence);
        }
    }

    /// Who asks, as a number: the user, else the address. For the choice of a url by hash.
    pub fn fingerprint(&self) -> u64 {
        let user = self.user.get().filter(|_| self.identified.get());
        match user.and_then(|user| self.view.snapshot.directory.user(user)) {
            Some(user) => choose::fingerprint(user.id.as_bytes()),
            None => match self.client.get() {
                IpAddr::V4(address) => choose::fingerprint(&address.octets()),
                IpAddr::V6(address) => choose::fingerprint(&address.octets()),
            },
        }
    }

    fn accept(&self, permit: &Permit<'_>) {
        self.service.set(Some(permit.owner().service.id));
        self.identified.set(permit.subject().is_some());
        self.deadline.set(permit.deadline());
        self.reason.set(permit.reason());
    }
}

impl Passage {
    /// Enters the live registry; in the same synchronous block as the decision.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is good for one passage")]
    pub fn enter(permit: Permit<'_>, exchange: Rc<Exchange>, upstream: Rc<Upstream>) -> Self {
        exchange.accept(&permit);
        let live = exchange.gateway.registry().enter(Rc::clone(&exchange));
        exchange.metrics().entered();
        Self { finish: Finish { exchange, live: Some(live) }, upstream }
    }

    pub fn exchange(&self) -> &Rc<Exchange> {
        &self.finish.exchange
    }

    pub fn upstream(&self) -> &Rc<Upstream> {
        &self.upstream
    }

    pub fn into_finish(self) -> Finish {
        self.finish
    }

    pub fn into_parts(self) -> (Rc<Upstream>, Finish) {
        (self.upstream, self.finish)
    }
}

impl Finish {
    /// Of an exchange that nothing was permitted to.
    pub fn of(exchange: Rc<Exchange>) -> Self {
        Self { exchange, live: None }
    }

    pub fn exchange(&self) -> &Rc<Exchange> {
        &self.exchange
    }
}

impl Drop for Finish {
    fn drop(&mut self) {
        if self.live.is_some() {
            self.exchange.metrics().left();
        }
        drop(self.exchange.taken.take());
        self.exchange.gateway.finish(&self.exchange);
    }
}

impl Entry for Exchange {
    fn concerned(&self, affected: &Affected) -> bool {
        match affected {
            Affected::Token(digest) => self.credential.get().digest() == Some(digest),
            Affected::User(user) => self.user.get() == Some(*user),
            Affected::Everybody => true,
        }
    }

    fn judge(&self) -> Result<(), Reason> {
        let now = self.clock().wall();
        self.gateway.decide(&self.gateway.view(), self, now, |decided| {
            let permit = decided.map_err(|denial| denial.reason)?;
            let Service { id, .. } = permit.owner().service;
            // A permit for something else is none for this: another service owns the path now, or
            // the identity that was told to the upstream no longer holds.
            if self.service.get() != Some(*id) {
                return Err(Reason::NoService);
            }
            if self.identified.get() && permit.subject().is_none() {
                return Err(Reason::ScopeDenied);
            }
            self.deadline.set(permit.deadline());
            Ok(())
        })
    }

    fn cut(&self, reason: Reason) {
        self.cut.set(Some(reason));
        self.connection.sever();
        if let Some(lane) = &*self.lane.borrow() {
            lane.finish(End::Cut);
        }
    }

    fn row(&self) -> LiveRow {
        LiveRow {
            id: String::new(),
            request_id: self.request_id.as_str().to_owned(),
            token: self.token.get(),
            user: self.user.get(),
            service: self.view.service_key(self.service.get()).unwrap_or_default().to_owned(),
            method: self.method.as_str().to_owned(),
            path: secret::redact(self.path()).into_owned(),
            client: self.client.get(),
            age: self.began.elapsed(),
            bytes_in: self.bytes_in.get(),
            bytes_out: self.bytes_out.get(),
        }
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.deadline.get()
    }
}
