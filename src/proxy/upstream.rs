//! The way to an upstream, and the only door: it opens to a [`Passage`], which only a permit makes.

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Method, Request, Response};
use http_body::Body as _;

use crate::{
    authz::answer::Reason,
    metrics::UpstreamEvent,
    proxy::{
        body::Upload,
        exchange::{Exchange, Passage},
    },
};

mod answer;
mod download;
mod endpoint;
mod h1;
pub mod lane;
mod lease;
mod plain;
mod pool;
pub mod settings;
mod transport;
pub mod url;
mod wire;

pub use download::Download;
use endpoint::Endpoint;
pub use lease::Lease;
use settings::UpstreamSettings;

/// The bound of an answer's head.
const HEAD_LIMIT: usize = 64 << 10;

/// One upstream in one worker.
pub struct Upstream {
    settings: Arc<UpstreamSettings>,
    endpoints: Vec<Rc<Endpoint>>,
    next: Cell<usize>,
}

impl Upstream {
    pub fn new(settings: Arc<UpstreamSettings>) -> Rc<Self> {
        let endpoints = settings.urls.iter().map(|url| Endpoint::new(url, &settings)).collect();
        Rc::new(Self { settings, endpoints, next: Cell::new(0) })
    }

    pub fn settings(&self) -> &Arc<UpstreamSettings> {
        &self.settings
    }

    /// Sends what was permitted and waits for the head of the answer. The connection is lent until
    /// the answer's last byte.
    pub async fn forward(
        &self,
        passage: &Passage,
        mut request: Request<Upload>,
    ) -> Result<(Response<Download>, Lease), Reason> {
        let exchange = passage.exchange();
        let repeatable = is_idempotent(request.method()) && request.body().is_end_stream();
        let silence = self.settings.first_byte_timeout;
        let mut first = true;
        loop {
            let mut lease = self.connection(exchange, first).await?;
            exchange.travel_on(&lease);
            let failure = match lease.send(request, silence, repeatable).await {
                Ok(response) if answer::acceptable(response.status(), response.headers()) => {
                    lease.endpoint().succeeded();
                    return Ok((response, lease));
                }
                Ok(_) => {
                    self.count_failure(lease.endpoint(), exchange);
                    return Err(Reason::UpstreamInvalid);
                }
                Err(failure) => failure,
            };
            if exchange.is_over() {
                return Err(Reason::ClientClosed);
            }
            // Once, and on a new connection.
            let Some(same) = failure.again.filter(|_| first) else {
                if exchange.fault().is_none() {
                    self.count_failure(lease.endpoint(), exchange);
                }
                return Err(exchange.fault().unwrap_or(failure.reason));
            };
            request = same;
            first = false;
            exchange.metrics().upstream(UpstreamEvent::Retry);
        }
    }

    async fn connection(&self, exchange: &Exchange, may_reuse: bool) -> Result<Lease, Reason> {
        if self.endpoints.is_empty() {
            return Err(Reason::UpstreamUnavailable);
        }
        let first = self.choose(exchange.clock().now());
        if may_reuse && let Some(lease) = first.reuse() {
            exchange.metrics().upstream(UpstreamEvent::Reuse);
            return Ok(lease);
        }
        // Nothing was sent yet, so another url may be asked, whatever the method.
        let mut tried = first;
        for _ in 0..self.endpoints.len().min(2) {
            exchange.metrics().upstream(UpstreamEvent::Connect);
            match tried.connect(self.settings.connect_timeout, exchange.clock()).await {
                Ok(lease) if !exchange.is_over() => return Ok(lease),
                Ok(_) => return Err(Reason::ClientClosed),
                Err(error) => {
                    tracing::debug!(upstream = %self.settings.name, url = %tried.label(), %error, "connect failed");
                    exchange.metrics().upstream(UpstreamEvent::ConnectFailed);
                    self.count_failure(&tried, exchange);
                }
            }
            tried = self.choose(exchange.clock().now());
        }
        Err(Reason::UpstreamConnect)
    }

    /// The next one in turn that is not left out; if all are, the next one in turn.
    fn choose(&self, now: Instant) -> Rc<Endpoint> {
        let count = self.endpoints.len();
        let start = self.next.get();
        self.next.set((start + 1) % count);
        let turn = (0..count).map(|step| &self.endpoints[(start + step) % count]);
        let chosen = turn.clone().find(|endpoint| !endpoint.ejected(now));
        Rc::clone(chosen.unwrap_or(&self.endpoints[start]))
    }

    fn count_failure(&self, endpoint: &Rc<Endpoint>, exchange: &Exchange) {
        let now = exchange.clock().now();
        let others = self.endpoints.iter().any(|other| !Rc::ptr_eq(other, endpoint) && !other.ejected(now));
        if endpoint.failed(&self.settings.ejection) && others {
            endpoint.eject(&self.settings.ejection, now);
            exchange.metrics().upstream(UpstreamEvent::Ejection);
            tracing::warn!(upstream = %self.settings.name, url = %endpoint.label(), "left out for a while");
        }
    }

    pub fn body_timeout(&self) -> Duration {
        self.settings.body_timeout
    }

    pub fn idle_timeout(&self) -> Duration {
        self.settings.idle_timeout
    }
}

fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}
