//! One worker's connections to one URL of an upstream: idle HTTP/1.1 connections, shared
//! HTTP/2 connections, and the number of requests under way.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};

use crate::{
    net::Clock,
    proxy::upstream::{
        admission::{Permit, SharedLimit, UpstreamSockets},
        connector::{ConnectError, Connector, Dialer, NewConnection},
        endpoint_health::EndpointHealth,
        http1::Http1,
        http2::Http2,
        io::ConnectionPermits,
        pool::{InUse, Pool, PooledConnection, Protocol},
    },
    settings::{HttpVersion, UpstreamSettings, UpstreamUrl},
};

pub struct Endpoint {
    url: UpstreamUrl,
    pub label: Rc<str>,
    pub health: Arc<EndpointHealth>,
    dialer: Dialer,
    connector: Connector,
    idle_timeout: Duration,
    pool: Rc<Pool>,
    shared: RefCell<Vec<Rc<Http2>>>,
    /// Protocol of the last connection. A pending connection is worth waiting for only if it can be shared.
    speaks: Cell<HttpVersion>,
    /// The upstream answered HTTP_1_1_REQUIRED, so new connections offer HTTP/1.1 only.
    http1_only: Cell<bool>,
    pending: RefCell<Option<PendingConnect>>,
    /// Outcomes of pending connections that not every request which waited has seen yet.
    unseen: Cell<usize>,
    /// The connect error that was logged last.
    logged: RefCell<Option<String>>,
    /// The generation of addresses that the idle connections belong to.
    generation: Cell<u64>,
    /// Requests under way here, including those that are connecting.
    pub in_use: Cell<usize>,
    /// The limit on connections, if configured.
    connections: Option<Arc<SharedLimit>>,
    /// The budget of sockets; `None` for health checks, which use few.
    sockets: Option<UpstreamSockets>,
    /// Requests that wait for a connection here, or for a permit to open one.
    waiting: Cell<usize>,
    /// Notified when a connection becomes idle, or has room for a stream.
    idle: Notify,
    /// How many connections in a row were kept for waiters here while requests waited elsewhere.
    kept: Cell<u32>,
}

/// What a connection is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Requests,
    /// Switching protocols, which only HTTP/1.1 can do. The connection serves no other request.
    Upgrade,
    /// Like [`Purpose::Upgrade`], or an HTTP/2 stream that becomes a tunnel (RFC 8441).
    WebSocket,
}

/// How often in a row a connection is kept for a waiter here while requests wait
/// elsewhere. Keeping it saves opening another one.
const MAX_KEPT_IN_A_ROW: u32 = 16;

/// The outcome of a pending connection, which several requests wait for.
type PendingConnect = watch::Receiver<Option<Result<(), ConnectError>>>;

impl Endpoint {
    /// `connections` is the limit on connections, if configured; `sockets` is their budget.
    pub fn new(
        url: &UpstreamUrl,
        settings: &UpstreamSettings,
        health: Arc<EndpointHealth>,
        connections: Option<Arc<SharedLimit>>,
        sockets: Option<UpstreamSockets>,
    ) -> Rc<Self> {
        let connector = Connector::new(url, settings);
        Rc::new(Self {
            label: url.to_string().into(),
            url: url.clone(),
            dialer: Dialer::new(health.clone()),
            generation: Cell::new(health.generation()),
            health,
            speaks: Cell::new(connector.version),
            http1_only: Cell::new(false),
            connector,
            idle_timeout: settings.idle_timeout,
            pool: Rc::default(),
            shared: RefCell::default(),
            pending: RefCell::default(),
            unseen: Cell::new(0),
            logged: RefCell::default(),
            in_use: Cell::new(0),
            connections,
            sockets,
            waiting: Cell::new(0),
            idle: Notify::new(),
            kept: Cell::new(0),
        })
    }

    /// Waits for an idle connection.
    pub async fn wait_for_idle(self: &Rc<Self>) -> PooledConnection {
        let _waiter = WaitingGuard::enter(self);
        loop {
            self.idle.notified().await;
            if let Some(connection) = self.reuse() {
                return connection;
            }
        }
    }

    /// Whether to keep a connection that has become idle: if a request waits here, which
    /// is woken, or if none waits elsewhere for its permit.
    fn should_keep_idle(&self) -> bool {
        let Some(limit) = &self.connections else { return true };
        let (here, everywhere) = (self.waiting.get(), limit.waiting());
        if here == 0 || everywhere > here && self.kept.get() >= MAX_KEPT_IN_A_ROW {
            self.kept.set(0);
            return everywhere == 0;
        }
        self.kept.set(if everywhere > here { self.kept.get() + 1 } else { 0 });
        self.idle.notify_one();
        true
    }

    /// Returns an idle connection that is still open, or a stream of a shared one.
    pub fn reuse(self: &Rc<Self>) -> Option<PooledConnection> {
        self.clear_if_addresses_changed();
        match self.pool.take() {
            Some(http1) => Some(PooledConnection::new(InUse::enter(self), Protocol::Http1(http1), true)),
            None => self.open_shared_stream(),
        }
    }

    fn open_shared_stream(self: &Rc<Self>) -> Option<PooledConnection> {
        if self.http1_only.get() {
            return None;
        }
        let secure = self.connector.is_secure;
        let stream = self.shared.borrow().iter().find_map(|http2| http2.open(secure))?;
        Some(PooledConnection::new(InUse::enter(self), Protocol::Http2(stream), true))
    }

    /// A stream of a shared connection that can become a tunnel (RFC 8441).
    pub fn tunnel_stream(self: &Rc<Self>) -> Option<PooledConnection> {
        let takes = self.shared.borrow().iter().any(|http2| http2.supports_extended_connect());
        if takes { self.open_shared_stream() } else { None }
    }

    /// The upstream requires HTTP/1.1 (HTTP_1_1_REQUIRED; RFC 9113, section 7).
    /// New connections offer nothing else, unless HTTP/2 is configured.
    pub(super) fn disable_http2(&self) {
        if self.connector.version == HttpVersion::Auto {
            self.http1_only.set(true);
            self.retire_shared();
        }
    }

    /// Whether a connection that can be shared is pending.
    pub fn is_connecting(&self) -> bool {
        self.pending.borrow().is_some()
    }

    /// Returns a connection to the pool. `generation` is that of the addresses when it was taken.
    pub(super) fn return_to_pool(&self, http1: Box<Http1>, generation: u64) {
        if generation == self.health.generation() && self.should_keep_idle() {
            self.insert_idle(http1);
        }
    }

    fn insert_idle(&self, http1: Box<Http1>) {
        let keep_for = http1.idle_limit(self.idle_timeout);
        self.pool.insert(http1, keep_for);
    }

    /// Closes the least recently used idle connection. Returns whether there was one.
    pub fn close_one(&self) -> bool {
        self.unseen.get() == 0 && self.pool.close_one() || self.retire_idle()
    }

    fn retire_idle(&self) -> bool {
        // A new connection is not idle, but about to be used by those who waited for it.
        if self.unseen.get() > 0 {
            return false;
        }
        let idle = self.shared.borrow().iter().position(|http2| http2.is_idle());
        idle.map(|at| self.shared.borrow_mut().swap_remove(at).retire()).is_some()
    }

    /// A shared connection has room for a stream: wakes a request that waits here. If none does and others
    /// wait elsewhere, an idle connection is closed to release its permit.
    pub(super) fn notify_waiter(&self) {
        if !self.should_keep_idle() {
            self.retire_idle();
        }
    }

    /// Opens a connection, or takes a stream of a shared one that is pending.
    /// `permit` is the connection's, if connections are limited.
    pub async fn connect(
        self: &Rc<Self>,
        within: Duration,
        clock: &Clock,
        mut permit: Option<Permit>,
        purpose: Purpose,
    ) -> Result<PooledConnection, ConnectError> {
        let in_use = InUse::enter(self);
        let upgrading = purpose != Purpose::Requests;
        let begun = Instant::now();
        while self.speaks.get() != HttpVersion::Http1 && !upgrading && !self.http1_only.get() {
            if let Some(connection) = self.open_shared_stream() {
                return Ok(connection);
            }
            self.wait_for_pending(within, clock, permit.take()).await?;
            if let Some(connection) = self.reuse() {
                return Ok(connection);
            }
            if begun.elapsed() > within || self.connections.is_some() {
                return Err(ConnectError::Full);
            }
        }
        let http1_only = self.http1_only.get();
        let connected = self.open(within, clock, permit, upgrading || http1_only).await;
        if http1_only && connected.is_err() {
            // HTTP/1.1 alone may be the cause, so the next connection offers both versions again.
            self.http1_only.set(false);
        }
        match connected? {
            NewConnection::Http1(http1) => Ok(PooledConnection::new(in_use, Protocol::Http1(http1), false)),
            NewConnection::Http2(http2) => {
                self.insert(http2);
                self.open_shared_stream().ok_or(ConnectError::Full)
            }
        }
    }

    /// Waits for the pending connection, or starts one. A separate task opens it, because the client that
    /// first needed it may disconnect while others still wait.
    async fn wait_for_pending(
        self: &Rc<Self>,
        within: Duration,
        clock: &Clock,
        permit: Option<Permit>,
    ) -> Result<(), ConnectError> {
        let under_way = self.pending.borrow().clone();
        let mut pending = under_way.unwrap_or_else(|| self.begin_connect(within, clock.clone(), permit));
        // Without an outcome the worker is stopping.
        let outcome = pending.wait_for(Option::is_some).await;
        outcome.ok().and_then(|outcome| outcome.clone()).unwrap_or(Err(ConnectError::Full))
    }

    fn begin_connect(
        self: &Rc<Self>,
        within: Duration,
        clock: Clock,
        permit: Option<Permit>,
    ) -> PendingConnect {
        let (sender, pending) = watch::channel(None);
        *self.pending.borrow_mut() = Some(pending.clone());
        let endpoint = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let generation = endpoint.health.generation();
            let connected = endpoint.open(within, &clock, permit, false).await;
            let outcome = connected.map(|connection| match connection {
                NewConnection::Http1(http1) if generation == endpoint.health.generation() => {
                    endpoint.insert_idle(http1);
                }
                NewConnection::Http1(_) => {}
                NewConnection::Http2(http2) => endpoint.insert(http2),
            });
            endpoint.pending.take();
            let _ = sender.send(Some(outcome));
            endpoint.unseen.set(endpoint.unseen.get() + 1);
            // Each request that waited drops its receiver in the step in which it takes the connection.
            sender.closed().await;
            endpoint.unseen.set(endpoint.unseen.get() - 1);
            endpoint.notify_yielders();
        });
        pending
    }

    async fn open(
        &self,
        within: Duration,
        clock: &Clock,
        permit: Option<Permit>,
        upgrading: bool,
    ) -> Result<NewConnection, ConnectError> {
        let reservation = self.sockets.as_ref().map(|sockets| sockets.take().ok_or(ConnectError::OverBudget));
        let held = ConnectionPermits { permit, socket: reservation.transpose()? };
        let opening = async {
            let socket = self.dialer.connect(&self.url, within, clock.now()).await?;
            self.connector.connect(socket, clock, held, upgrading).await
        };
        let outcome = tokio::time::timeout(within, opening).await;
        let connected = outcome.unwrap_or(Err(ConnectError::TooSlow(within)));
        self.log(connected.as_ref().err());
        let connected = connected?;
        if !upgrading {
            self.speaks.set(match connected {
                NewConnection::Http1(_) => HttpVersion::Http1,
                NewConnection::Http2(_) => HttpVersion::Http2,
            });
        }
        Ok(connected)
    }

    /// Logs a connect error once, not for every request.
    fn log(&self, error: Option<&ConnectError>) {
        let text = error.map(ConnectError::to_string);
        let mut logged = self.logged.borrow_mut();
        if let Some(text) = text.as_deref().filter(|text| logged.as_deref() != Some(text)) {
            tracing::warn!(url = %self.label, error = %text, "cannot connect to the upstream");
        }
        *logged = text;
    }

    fn insert(&self, http2: Rc<Http2>) {
        let mut shared = self.shared.borrow_mut();
        shared.retain(|http2| !http2.is_closed());
        shared.push(http2);
    }

    /// Closes idle connections if the name has resolved to other addresses.
    fn clear_if_addresses_changed(&self) {
        let generation = self.health.generation();
        if self.generation.replace(generation) != generation {
            self.pool.clear();
            self.retire_shared();
        }
    }

    /// Has idle connections closed whose permits requests wait for.
    fn notify_yielders(&self) {
        if let Some(limit) = self.connections.as_ref().filter(|limit| limit.waiting() > 0) {
            limit.yielders().notify_all();
        }
    }

    fn retire_shared(&self) {
        self.shared.borrow_mut().drain(..).for_each(|http2| http2.retire());
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.retire_shared();
    }
}

/// Counts a request that waits at an endpoint.
struct WaitingGuard<'e>(&'e Endpoint);

impl<'e> WaitingGuard<'e> {
    fn enter(endpoint: &'e Endpoint) -> Self {
        endpoint.waiting.set(endpoint.waiting.get() + 1);
        Self(endpoint)
    }
}

impl Drop for WaitingGuard<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
        // Others may use a connection that was kept for this waiter.
        self.0.notify_yielders();
    }
}
