//! Sends requests to upstreams: chooses a URL, limits, connects, retries and waits for the response's head.
//! [`Upstream::send`] is the only entry; it takes a [`Permitted`] request, which only a permit can create.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Request, Response, StatusCode, header};
use http_body::Body as _;
use tokio::task::AbortHandle;

use crate::{
    authz::reason::Reason,
    metrics::WorkerEvent,
    net::LogThrottle,
    proxy::{
        context::RequestContext,
        permitted::{LogGuard, Permitted},
    },
    settings::UpstreamSettings,
};

mod admission;
mod body;
mod call;
mod connector;
mod endpoint;
mod endpoint_health;
mod http1;
mod http2;
mod io;
pub mod load_balancer;
mod pool;
mod response;
pub mod shared;
mod upgraded;

use admission::{Permit, SharedLimit, UpstreamSockets, yield_idle};
pub use body::{IncomingBody, IncomingError, OutgoingBody};
use call::silence_timeouts;
pub use call::{CancelHandle, is_stream};
use connector::ConnectError;
use endpoint::{Endpoint, Purpose};
use load_balancer::LoadBalancer;
use pool::PooledConnection;
use shared::SharedUpstream;
pub use upgraded::Upgraded;

/// How long to wait for an idle connection to close.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(5);

/// The largest response head in bytes.
const HEAD_LIMIT: usize = 64 << 10;

/// An upstream's response.
pub enum UpstreamResponse {
    Response(Response<Box<IncomingBody>>),
    /// The head of a 101, and the connection that has switched protocols.
    Upgraded(Response<()>, Box<Upgraded>),
}

/// One worker's connections to one upstream.
pub struct Upstream {
    settings: Arc<UpstreamSettings>,
    endpoints: Vec<Rc<Endpoint>>,
    balancer: LoadBalancer,
    requests: Arc<SharedLimit>,
    connections: Arc<SharedLimit>,
    sockets: UpstreamSockets,
    failures: LogThrottle,
    /// Aborts the task that closes idle connections whose permits or sockets are needed elsewhere.
    yielding: AbortHandle,
}

/// What may still be tried for one request.
struct Attempts {
    retries: u32,
    /// One bit per endpoint that failed to connect.
    tried: u64,
    may_reuse: bool,
    purpose: Purpose,
    was_over_budget: bool,
    /// How long the request may still wait for permits and streams.
    patience: Duration,
}

impl Upstream {
    /// Creates one worker's connections to the upstream. Spawns tasks, so it must run on
    /// that worker's runtime.
    pub fn new(settings: Arc<UpstreamSettings>, shared: SharedUpstream) -> Rc<Self> {
        let connections = settings.max_connections.map(|_| shared.connections.clone());
        let urls = settings.urls.iter().zip(shared.endpoints);
        let endpoints: Vec<_> = urls
            .map(|(one, health)| {
                let sockets = Some(shared.sockets.clone());
                Endpoint::new(&one.url, &settings, health, connections.clone(), sockets)
            })
            .collect();
        Rc::new(Self {
            balancer: LoadBalancer::new(&settings),
            yielding: yield_idle(connections, shared.sockets.clone(), endpoints.clone()),
            settings,
            endpoints,
            requests: shared.requests,
            connections: shared.connections,
            sockets: shared.sockets,
            failures: LogThrottle::default(),
        })
    }

    pub fn settings(&self) -> &Arc<UpstreamSettings> {
        &self.settings
    }

    /// Sends a permitted request and waits for the head of the response. The response's body owns the
    /// connection until its last byte.
    pub async fn send(&self, permitted: Permitted) -> (LogGuard, Result<UpstreamResponse, Reason>) {
        let (guard, request) = permitted.into_parts();
        let response = self.exchange(guard.context(), request).await;
        (guard, response)
    }

    async fn exchange(
        &self,
        context: &RequestContext,
        mut request: Box<Request<OutgoingBody>>,
    ) -> Result<UpstreamResponse, Reason> {
        let repeatable = request.method().is_idempotent()
            && request.body().is_end_stream()
            && !context.facts.method_override;
        let (silence, idle) = silence_timeouts(&self.settings, &request);
        if is_stream(request.headers()) {
            request.body().limit_pauses();
        }
        let streams = idle == self.settings.stream_idle_timeout;
        // An Upgrade field here was set after the permit, never copied from the client.
        let asked = request.headers().get(header::UPGRADE).cloned();
        let mut attempts = Attempts {
            retries: self.settings.retries,
            tried: 0,
            // A tunnel never returns its connection, so it takes none from the pool.
            may_reuse: asked.is_none(),
            purpose: match &asked {
                None => Purpose::Requests,
                Some(_) if http2::is_websocket(request.headers()) => Purpose::WebSocket,
                Some(_) => Purpose::Upgrade,
            },
            was_over_budget: false,
            patience: self.settings.queue_timeout,
        };
        let take_tunnel = |_| self.sockets.take_tunnel().ok_or(Reason::OverBudget);
        let mut tunnel = asked.as_ref().map(take_tunnel).transpose()?;
        let mut place = match self.settings.max_in_flight {
            None => None,
            Some(limit) => Some(Box::pin(self.admit(limit.get(), context, &mut attempts)).await?),
        };
        loop {
            let mut connection = self.connection(context, &mut attempts).await?;
            connection.attach(&context.outcome.cancel);
            *context.outcome.upstream.borrow_mut() = Some(Rc::clone(&connection.endpoint().label));
            let failure = match connection.send(request, silence, repeatable).await {
                Ok(mut response)
                    if response::is_acceptable(response.status(), response.headers(), asked.as_ref()) =>
                {
                    connection.endpoint().health.succeeded();
                    if let Some(place) = place.take() {
                        connection.permit = Some(place);
                    }
                    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                        let endpoint = Rc::clone(connection.endpoint());
                        let Some(upgraded) = connection.upgrade(&mut response, tunnel.take()).await else {
                            self.log_failure(&endpoint, "the connection ended at its switch of protocols");
                            return Err(Reason::UpstreamInvalid);
                        };
                        return Ok(UpstreamResponse::Upgraded(response.map(drop), Box::new(upgraded)));
                    }
                    let idle = if streams || is_stream(response.headers()) {
                        self.settings.stream_idle_timeout
                    } else {
                        idle
                    };
                    return Ok(UpstreamResponse::Response(
                        // Boxed, because a response is moved many times on its way to the client.
                        response.map(|incoming| Box::new(IncomingBody::new(incoming, connection, idle))),
                    ));
                }
                Ok(response) => {
                    self.count_failure(connection.endpoint(), context);
                    let cause = format!("unacceptable framing or upgrade in a {}", response.status());
                    self.log_failure(connection.endpoint(), &cause);
                    return Err(Reason::UpstreamInvalid);
                }
                Err(failure) => failure,
            };
            if context.outcome.cancel.is_cancelled() {
                return Err(Reason::ClientClosed);
            }
            let Some(same) = failure.again.filter(|_| attempts.may_reuse && attempts.retries > 0) else {
                if context.outcome.client_error.get().is_none() {
                    self.count_failure(connection.endpoint(), context);
                    failure.cause.iter().for_each(|cause| self.log_failure(connection.endpoint(), cause));
                }
                return Err(context.outcome.client_error.get().unwrap_or(failure.reason));
            };
            request = same;
            attempts.retries -= 1;
            // A new connection cannot have been closed as idle.
            attempts.may_reuse = false;
            context.metrics().count(WorkerEvent::UpstreamRetry);
        }
    }

    /// Takes a permit under `max_in_flight`, waiting in the queue if necessary.
    async fn admit(
        &self,
        limit: usize,
        context: &RequestContext,
        attempts: &mut Attempts,
    ) -> Result<Permit, Reason> {
        if let Some(place) = self.requests.try_acquire(limit) {
            return Ok(place);
        }
        let waiting = self.requests.wait(self.settings.queue).ok_or(Reason::UpstreamOverloaded)?;
        attempts.wait(context, waiting.permit()).await
    }

    async fn connection(
        &self,
        context: &RequestContext,
        attempts: &mut Attempts,
    ) -> Result<PooledConnection, Reason> {
        loop {
            let Some(place) = self.choose(context, attempts.tried) else {
                return Err(match attempts.tried {
                    0 => Reason::UpstreamUnavailable,
                    _ => Reason::UpstreamConnect,
                });
            };
            let endpoint = &self.endpoints[place];
            let reused = match attempts.purpose {
                Purpose::Requests if attempts.may_reuse => endpoint.reuse(),
                Purpose::WebSocket => endpoint.tunnel_stream(),
                Purpose::Requests | Purpose::Upgrade => None,
            };
            if let Some(connection) = reused {
                context.metrics().count(WorkerEvent::UpstreamReuse);
                return Ok(connection);
            }
            let mut held = None;
            // A pending shared connection already has its permit. It is of no use for an upgrade.
            let shares = attempts.purpose == Purpose::Requests && endpoint.is_connecting();
            if let Some(limit) = self.settings.max_connections.filter(|_| !shares) {
                match Box::pin(self.permit_or_idle(limit.get(), endpoint, context, attempts)).await? {
                    Ok(permit) => held = Some(permit),
                    Err(connection) => {
                        context.metrics().count(WorkerEvent::UpstreamReuse);
                        return Ok(connection);
                    }
                }
            }
            context.metrics().count(WorkerEvent::UpstreamConnect);
            // Boxed, like the waits, because most requests reuse a connection and their
            // futures should stay small.
            let (within, clock, since) = (self.settings.connect_timeout, context.clock(), Instant::now());
            match Box::pin(endpoint.connect(within, clock, held, attempts.purpose)).await {
                Ok(connection) if !context.outcome.cancel.is_cancelled() => return Ok(connection),
                Ok(_) => return Err(Reason::ClientClosed),
                // Other requests took all of its streams. That is not the upstream's fault, so wait on.
                Err(ConnectError::Full) => {
                    attempts.patience = attempts.patience.saturating_sub(since.elapsed());
                    if attempts.patience.is_zero() {
                        return Err(Reason::UpstreamOverloaded);
                    }
                    continue;
                }
                // Neither the upstream's fault nor a reason to try another URL.
                Err(ConnectError::OverBudget) if attempts.was_over_budget => return Err(Reason::OverBudget),
                Err(ConnectError::OverBudget) => {
                    attempts.was_over_budget = true;
                    self.make_room().await;
                    continue;
                }
                Err(error) => {
                    let (upstream, url) = (&self.settings.name, &endpoint.label);
                    tracing::debug!(%upstream, %url, %error, "connect failed");
                    context.metrics().count(WorkerEvent::UpstreamConnectFailed);
                    self.count_failure(endpoint, context);
                }
            }
            // Nothing has been sent yet, so any method may be retried with another URL.
            if attempts.retries == 0 {
                return Err(Reason::UpstreamConnect);
            }
            attempts.retries -= 1;
            attempts.tried |= 1 << place;
        }
    }

    /// Takes a permit for a new connection, or an idle connection if one is available first.
    async fn permit_or_idle(
        &self,
        limit: usize,
        endpoint: &Rc<Endpoint>,
        context: &RequestContext,
        attempts: &mut Attempts,
    ) -> Result<Result<Permit, PooledConnection>, Reason> {
        if let Some(place) = self.connections.try_acquire(limit) {
            return Ok(Ok(place));
        }
        let waiting = self.connections.wait(self.settings.queue).ok_or(Reason::UpstreamOverloaded)?;
        self.connections.yielders().notify_all();
        // A switch of protocols needs a new connection, which is made once an idle one has closed.
        let may_share = attempts.purpose == Purpose::Requests;
        let turn = async {
            tokio::select! {
                biased;
                connection = endpoint.wait_for_idle(), if may_share => Err(connection),
                place = waiting.permit() => Ok(place),
            }
        };
        attempts.wait(context, turn).await
    }

    /// Has an idle connection closed, and waits for that.
    async fn make_room(&self) {
        if !self.endpoints.iter().any(|endpoint| endpoint.close_one()) {
            self.sockets.yielders().notify_all();
        }
        tokio::time::sleep(CLOSE_TIMEOUT).await;
    }

    /// Chooses an endpoint that is up and not ejected, else one that is up.
    fn choose(&self, context: &RequestContext, tried: u64) -> Option<usize> {
        if let [only] = &self.endpoints[..] {
            return (tried == 0 && only.health.is_up()).then_some(0);
        }
        let now = context.clock().now();
        let is_up = |place: usize| tried & (1 << place) == 0 && self.endpoints[place].health.is_up();
        let serves = |place: usize| is_up(place) && !self.endpoints[place].health.is_ejected(now);
        let in_use = |place: usize| self.endpoints[place].in_use.get();
        let who = || context.hash();
        self.balancer.choose(serves, in_use, who).or_else(|| self.balancer.choose(is_up, in_use, who))
    }

    fn count_failure(&self, endpoint: &Rc<Endpoint>, context: &RequestContext) {
        let (now, ejection) = (context.clock().now(), self.settings.ejection);
        if endpoint.health.failed(ejection, now) && self.has_other_available(endpoint, now) {
            endpoint.health.eject(ejection, now);
            context.metrics().count(WorkerEvent::UpstreamEjection);
            tracing::warn!(upstream = %self.settings.name, url = %endpoint.label, "left out for a while");
        }
    }

    /// The client and the access log get the reason alone.
    fn log_failure(&self, endpoint: &Endpoint, cause: &str) {
        if self.failures.is_due(Instant::now()) {
            tracing::warn!(upstream = %self.settings.name, url = %endpoint.label, cause, "no valid response");
        }
    }

    fn has_other_available(&self, endpoint: &Rc<Endpoint>, now: Instant) -> bool {
        let mut others = self.endpoints.iter().zip(&self.settings.urls);
        others.any(|(other, one)| {
            !Rc::ptr_eq(other, endpoint) && one.weight > 0 && other.health.is_available(now)
        })
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.yielding.abort();
    }
}

impl Attempts {
    /// Waits for at most the rest of `queue_timeout`, which all waits of a request share.
    async fn wait<T>(
        &mut self,
        context: &RequestContext,
        turn: impl Future<Output = T>,
    ) -> Result<T, Reason> {
        let since = Instant::now();
        let outcome = context.clock().timeout(self.patience, turn).await;
        self.patience = self.patience.saturating_sub(since.elapsed());
        outcome.map_err(|_| Reason::UpstreamOverloaded)
    }
}
