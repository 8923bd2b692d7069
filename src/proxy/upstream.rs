//! The way to an upstream, and the only door: it opens to a [`Permitted`], which only a permit makes.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method};
use http_body::Body as _;
use tokio::{
    sync::Notify,
    task::{AbortHandle, spawn_local},
};

use crate::{
    authz::answer::Reason,
    message::{Request, Response},
    metrics::UpstreamEvent,
    proxy::{body::Upload, context::RequestContext, permitted::Permitted},
};

mod admission;
mod answer;
pub mod choose;
pub mod common;
mod dial;
mod download;
mod endpoint;
mod h1;
mod health;
pub mod lane;
mod lease;
mod negotiate;
mod plain;
mod pool;
mod pump;
pub mod resolve;
pub mod settings;
mod share;
mod standing;
pub mod tls;
mod transport;
mod trunk;
pub mod url;
mod wire;

use admission::{Entry, Line, Place, Turn};
use choose::Chooser;
use common::Common;
pub use download::{Download, DownloadError};
use endpoint::Endpoint;
pub use lease::Lease;
use negotiate::ConnectError;
pub use plain::Switched;
use settings::UpstreamSettings;
pub use wire::Wire;

/// The bound of an answer's head.
const HEAD_LIMIT: usize = 64 << 10;
/// More interim answers than this before one answer: the upstream is not sane.
const MOST_INTERIM: u32 = 16;

/// One upstream in one worker.
pub struct Upstream {
    settings: Arc<UpstreamSettings>,
    endpoints: Vec<Rc<Endpoint>>,
    chooser: Chooser,
    requests: Arc<Line>,
    connections: Arc<Line>,
    /// Closes idle connections whose places are wanted elsewhere, where there are only so many.
    yielding: Option<AbortHandle>,
}

/// What is left to try for one request.
struct Attempts {
    retries: u32,
    /// The bit of each place that could not be connected to.
    tried: u64,
    may_reuse: bool,
    was_full: bool,
    /// How long it may still wait in line.
    patience: Duration,
}

impl Upstream {
    /// On the worker's local runtime.
    pub fn new(settings: Arc<UpstreamSettings>, common: Common) -> Rc<Self> {
        let line = settings.max_connections.map(|_| common.connections.clone());
        let urls = settings.urls.iter().zip(common.standings);
        let endpoints: Vec<_> =
            urls.map(|(one, standing)| Endpoint::new(&one.url, &settings, standing, line.clone())).collect();
        Rc::new(Self {
            chooser: Chooser::new(&settings),
            yielding: line.map(|line| yield_places(&line, endpoints.clone())),
            settings,
            endpoints,
            requests: common.requests,
            connections: common.connections,
        })
    }

    pub fn settings(&self) -> &Arc<UpstreamSettings> {
        &self.settings
    }

    /// Sends what was permitted and waits for the head of the answer. The connection is lent until
    /// the answer's last byte.
    pub async fn forward(
        &self,
        permitted: &Permitted,
        mut request: Request<Upload>,
    ) -> Result<(Response<Download>, Lease), Reason> {
        let context = permitted.context();
        let repeatable = is_idempotent(&request.method) && request.body.is_end_stream();
        let silence = self.settings.first_byte_timeout;
        // Only what was made anew after a permit stands there.
        let asked = context.facts.upgrade.then(|| request.fields.get("upgrade")).flatten();
        let asked = asked.and_then(|asked| HeaderValue::from_bytes(asked).ok());
        let mut attempts = Attempts {
            retries: self.settings.retries,
            tried: 0,
            // A tunnel keeps its connection for good; it takes none of those that wait for others.
            may_reuse: asked.is_none(),
            was_full: false,
            patience: self.settings.queue_timeout,
        };
        let mut place = match self.settings.max_in_flight {
            None => None,
            Some(limit) => Some(Box::pin(self.admit(limit.get(), context, &mut attempts)).await?),
        };
        loop {
            let mut lease = self.connection(context, &mut attempts).await?;
            context.attach_upstream(&lease);
            let failure = match lease.send(request, silence, repeatable).await {
                Ok(response) if answer::acceptable(response.status, &response.fields, asked.as_ref()) => {
                    lease.endpoint().standing().succeeded();
                    if let Some(place) = place.take() {
                        lease.hold(place);
                    }
                    return Ok((response, lease));
                }
                Ok(_) => {
                    self.count_failure(lease.endpoint(), context);
                    return Err(Reason::UpstreamInvalid);
                }
                Err(failure) => failure,
            };
            if context.is_over() {
                return Err(Reason::ClientClosed);
            }
            let Some(same) = failure.again.filter(|_| attempts.may_reuse && attempts.retries > 0) else {
                if context.outcome.client_error().is_none() {
                    self.count_failure(lease.endpoint(), context);
                }
                return Err(context.outcome.client_error().unwrap_or(failure.reason));
            };
            request = same;
            attempts.retries -= 1;
            // A new connection cannot have been given up just before.
            attempts.may_reuse = false;
            context.metrics().upstream(UpstreamEvent::Retry);
        }
    }

    /// A place among the requests under way, of which there are only so many.
    async fn admit(
        &self,
        limit: usize,
        context: &RequestContext,
        attempts: &mut Attempts,
    ) -> Result<Place, Reason> {
        let mut waiter = match self.requests.enter(limit, self.settings.queue, 0) {
            Ok(Entry::Place(place)) => return Ok(place),
            Ok(Entry::Wait(waiter)) => waiter,
            Err(admission::Full) => return Err(Reason::UpstreamOverloaded),
        };
        let turn = async {
            loop {
                match (&mut waiter).await {
                    Turn::Place(place) => return place,
                    // Nothing but places is given out here.
                    Turn::Idle => waiter = waiter.again(),
                }
            }
        };
        attempts.wait(context, turn).await
    }

    async fn connection(&self, context: &RequestContext, attempts: &mut Attempts) -> Result<Lease, Reason> {
        loop {
            let Some(place) = self.choose(context, attempts.tried) else {
                return Err(match attempts.tried {
                    0 => Reason::UpstreamUnavailable,
                    _ => Reason::UpstreamConnect,
                });
            };
            let endpoint = &self.endpoints[place];
            if attempts.may_reuse
                && let Some(lease) = endpoint.reuse()
            {
                context.metrics().upstream(UpstreamEvent::Reuse);
                return Ok(lease);
            }
            let held = match self.settings.max_connections {
                // Whoever makes a connection to be shared has its place.
                _ if endpoint.is_connecting() => None,
                None => None,
                Some(limit) => {
                    match Box::pin(self.place_or_idle(limit.get(), endpoint, context, attempts)).await? {
                        Ok(place) => Some(place),
                        Err(lease) => {
                            context.metrics().upstream(UpstreamEvent::Reuse);
                            return Ok(lease);
                        }
                    }
                }
            };
            context.metrics().upstream(UpstreamEvent::Connect);
            // In a box, as the waits: what is seldom needed is no part of every request's future.
            let (within, clock) = (self.settings.connect_timeout, context.clock());
            match Box::pin(endpoint.connect(within, clock, held, context.facts.upgrade)).await {
                Ok(lease) if !context.is_over() => return Ok(lease),
                Ok(_) => return Err(Reason::ClientClosed),
                // As many streams as it takes went to others meanwhile: once more in line.
                Err(ConnectError::Full) if !attempts.was_full => {
                    attempts.was_full = true;
                    continue;
                }
                Err(error) => {
                    let (upstream, url) = (&self.settings.name, endpoint.label());
                    tracing::debug!(%upstream, %url, %error, "connect failed");
                    context.metrics().upstream(UpstreamEvent::ConnectFailed);
                    self.count_failure(endpoint, context);
                }
            }
            // Nothing was sent yet, so another url may be asked, whatever the method.
            if attempts.retries == 0 {
                return Err(Reason::UpstreamConnect);
            }
            attempts.retries -= 1;
            attempts.tried |= 1 << place;
        }
    }

    /// A place for a new connection; or an idle one, when that comes first.
    async fn place_or_idle(
        &self,
        limit: usize,
        endpoint: &Rc<Endpoint>,
        context: &RequestContext,
        attempts: &mut Attempts,
    ) -> Result<Result<Place, Lease>, Reason> {
        let mut waiter = match self.connections.enter(limit, self.settings.queue, endpoint.kind()) {
            Ok(Entry::Place(place)) => return Ok(Ok(place)),
            Ok(Entry::Wait(waiter)) => waiter,
            Err(admission::Full) => return Err(Reason::UpstreamOverloaded),
        };
        let turn = async {
            loop {
                self.connections.ask_to_yield();
                match (&mut waiter).await {
                    Turn::Place(place) => return Ok(place),
                    Turn::Idle => match endpoint.reuse() {
                        Some(lease) => return Err(lease),
                        None => waiter = waiter.again(),
                    },
                }
            }
        };
        attempts.wait(context, turn).await
    }

    /// One that serves; if none does, one that its health checks do not speak against.
    fn choose(&self, context: &RequestContext, tried: u64) -> Option<usize> {
        if let [only] = &self.endpoints[..] {
            return (tried == 0 && only.standing().is_up()).then_some(0);
        }
        let now = context.clock().now();
        let is_up = |place: usize| tried & (1 << place) == 0 && self.endpoints[place].standing().is_up();
        let serves = |place: usize| is_up(place) && !self.endpoints[place].standing().is_ejected(now);
        let lent = |place: usize| self.endpoints[place].lent();
        let who = || context.hash();
        self.chooser.choose(serves, lent, who).or_else(|| self.chooser.choose(is_up, lent, who))
    }

    fn count_failure(&self, endpoint: &Rc<Endpoint>, context: &RequestContext) {
        let (now, ejection) = (context.clock().now(), self.settings.ejection);
        if endpoint.standing().failed(ejection, now) && self.others_serve(endpoint, now) {
            endpoint.standing().eject(ejection, now);
            context.metrics().upstream(UpstreamEvent::Ejection);
            tracing::warn!(upstream = %self.settings.name, url = %endpoint.label(), "left out for a while");
        }
    }

    fn others_serve(&self, endpoint: &Rc<Endpoint>, now: Instant) -> bool {
        let mut others = self.endpoints.iter().zip(&self.settings.urls);
        others.any(|(other, one)| {
            !Rc::ptr_eq(other, endpoint) && one.weight > 0 && other.standing().serves(now)
        })
    }

    pub fn body_timeout(&self) -> Duration {
        self.settings.body_timeout
    }

    pub fn idle_timeout(&self) -> Duration {
        self.settings.idle_timeout
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(yielding) = &self.yielding {
            yielding.abort();
        }
    }
}

impl Attempts {
    /// Waits in line, all in all no longer than the upstream's `queue_timeout`.
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

/// Whoever waits on another worker, or for another url, can do nothing with a connection that lies
/// idle here, but with its place.
fn yield_places(line: &Arc<Line>, endpoints: Vec<Rc<Endpoint>>) -> AbortHandle {
    let asked = Arc::new(Notify::new());
    line.add_yielder(&asked);
    let line = line.clone();
    let task = spawn_local(async move {
        loop {
            asked.notified().await;
            if line.waits() {
                let _ = endpoints.iter().any(|endpoint| endpoint.close_one());
            }
        }
    });
    task.abort_handle()
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}
