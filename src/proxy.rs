//! A worker's request path: `authorize` decides, `upstream` forwards, [`access_log`] logs. This module
//! connects them. It assigns request ids, renders rejections, and counts and logs every request. Connections
//! are `net`'s; the rules of the decision are `authz`'s.

pub mod access_log;
mod authorize;
mod bad_tokens;
mod body;
mod builtin;
mod challenge;
mod context;
mod facts;
mod forward;
mod grpc;
mod last_used;
mod limits;
mod permitted;
pub mod refusals;
mod rejection;
mod tunnel;
mod upgrade;
mod upstream;
mod worker_state;

use std::{cell::RefCell, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri, Version, header, request};
use http_body::Body as _;

use self::{
    access_log::{AccessLog, LogLine, LogWriter, millis},
    authorize::NotForwarded,
    facts::{ForwardedCache, HostCache, RequestFacts},
    permitted::{LogGuard, Permitted},
    refusals::RefusalSender,
    rejection::{ErrorFormat, Rejection},
    worker_state::WorkerState,
};
pub use self::{
    bad_tokens::BadTokens,
    body::ResponseBody,
    builtin::{Issuers, Issuing, TokenLookup},
    context::RequestContext,
    last_used::{LastUsedTable, LastUsedTables, Use},
    limits::{Exceeded, LimitCounters, Waiting},
    upstream::{
        Upstream,
        shared::{Resolver, Resolving, Upstreams},
    },
};
use crate::{
    assertion::Keyring,
    authz::{carriers::Carrier, reason::Reason, rules::BuiltinRoute, secret::TokenId},
    fence::Registry,
    metrics::{Metrics, WorkerEvent, WorkerMetrics},
    net::{CloseReason, Connection, ConnectionEvent, LogThrottle, RequestBody, RequestError, Service},
    proxy::facts::{RequestId, RequestIds},
    state::State,
};

/// What the [`Gateway`]s of all workers share.
#[derive(Clone)]
pub struct Parts {
    pub state: Arc<State>,
    pub metrics: Arc<Metrics>,
    pub log: Arc<AccessLog>,
    pub uses: Arc<LastUsedTables>,
    pub refusals: RefusalSender,
    pub bad_tokens: Arc<BadTokens>,
    pub records: Arc<dyn TokenLookup>,
    pub issuers: Arc<Issuers>,
    pub keyring: Arc<Keyring>,
    pub counts: Arc<LimitCounters>,
    pub upstreams: Arc<Upstreams>,
}

/// One per worker. No other thread writes its fields while a request is served.
pub struct Gateway {
    parts: Parts,
    /// This worker's live requests. The worker runs the fence on them.
    registry: Rc<Registry<RequestContext>>,
    metrics: WorkerMetrics,
    log: Rc<LogWriter>,
    uses: Arc<LastUsedTable>,
    worker_state: RefCell<Rc<WorkerState>>,
    ids: RequestIds,
    forwarded: ForwardedCache,
    missing_header_warnings: LogThrottle,
    loop_warnings: LogThrottle,
    issuer_warnings: LogThrottle,
    hosts: HostCache,
}

impl Gateway {
    pub fn new(parts: Parts, registry: Rc<Registry<RequestContext>>) -> Rc<Self> {
        Rejection::prepare();
        let state = WorkerState::read(&parts.state, &parts.upstreams, &parts.counts, None);
        Rc::new(Self {
            registry,
            metrics: parts.metrics.worker(),
            log: parts.log.writer(),
            uses: parts.uses.worker(),
            parts,
            worker_state: RefCell::new(state),
            ids: RequestIds::new(),
            forwarded: ForwardedCache::default(),
            missing_header_warnings: LogThrottle::default(),
            loop_warnings: LogThrottle::default(),
            issuer_warnings: LogThrottle::default(),
            hosts: HostCache::default(),
        })
    }

    /// Returns the current state, and reads it again if a new one has been published.
    fn worker_state(&self) -> Rc<WorkerState> {
        let Parts { state, upstreams, counts, .. } = &self.parts;
        let mut current = self.worker_state.borrow_mut();
        if !current.is_current(state) {
            *current = WorkerState::read(state, upstreams, counts, Some(&current));
        }
        Rc::clone(&current)
    }

    /// Reads the inputs of the decision from a request's head. An error means that the head is malformed or
    /// ambiguous, so the request cannot be decided.
    fn begin(
        self: &Rc<Self>,
        request: &Request<RequestBody>,
        connection: Rc<Connection>,
    ) -> (Rc<RequestContext>, Result<(), Reason>) {
        let state = self.worker_state();
        let sent = is_peer_trusted(&state, &connection)
            .then(|| RequestId::from_headers(request.headers()))
            .flatten();
        let request_id = sent.unwrap_or_else(|| self.ids.make());
        let host = self.hosts.of(request.headers());
        let facts =
            host.and_then(|host| RequestFacts::read(self, &state, &connection, request.headers(), host));
        let (facts, readable) = match facts {
            Ok(facts) => (facts, Ok(())),
            Err(reason) => (RequestFacts::unreadable(connection.address()), Err(reason)),
        };
        (RequestContext::new(self, state, connection, request, facts, request_id), readable)
    }

    /// Returns the response, or a rejection with the guard that logs it.
    async fn respond(
        self: &Rc<Self>,
        request: Box<Request<RequestBody>>,
        connection: Rc<Connection>,
    ) -> Result<Response<ResponseBody>, (Rejection, LogGuard)> {
        let (context, readable) = self.begin(&request, connection);
        if let Some(route) = BuiltinRoute::of(context.path()) {
            // Boxed because this rare case would enlarge every request's future.
            return Box::pin(self.respond_builtin(route, context, readable, *request)).await;
        }
        if let Err(reason) = readable {
            return Err((reason.into(), LogGuard::new(context)));
        }
        match self.authorize(&context, request, None) {
            Ok((upstream, permitted)) => self.forward(&upstream, permitted).await,
            Err(NotForwarded::Rejected(rejection)) => Err((rejection, LogGuard::new(context))),
            // Boxed because it is rare.
            Err(NotForwarded::Queued(queued)) => match Box::pin(self.wait(context, queued)).await {
                Ok((upstream, permitted)) => self.forward(&upstream, permitted).await,
                Err(rejected) => Err(rejected),
            },
        }
    }

    /// Waits for a slot under each exhausted concurrency limit, then decides again from the current state.
    async fn wait(
        self: &Rc<Self>,
        mut context: Rc<RequestContext>,
        mut queued: Box<(Box<Request<RequestBody>>, Waiting)>,
    ) -> Result<(Rc<Upstream>, Permitted), (Rejection, LogGuard)> {
        // One round per concurrency limit; each has its own deadline.
        for _ in 0..MAX_WAITS {
            let (request, waiting) = *queued;
            context.release_state(None);
            let leaver = LoggedIfDropped(Some(Rc::clone(&context)));
            let place = waiting.slot().await;
            leaver.stays();
            let Some(place) = place else { break };
            let (mut fresh, readable) = self.begin(&request, Rc::clone(&context.connection));
            if let Some(fresh) = Rc::get_mut(&mut fresh) {
                fresh.request_id = context.request_id.clone();
                fresh.began = context.began;
            }
            context = fresh;
            if let Err(reason) = readable {
                return Err((reason.into(), LogGuard::new(context)));
            }
            match self.authorize(&context, request, Some(place)) {
                Ok(permitted) => return Ok(permitted),
                Err(NotForwarded::Rejected(rejection)) => return Err((rejection, LogGuard::new(context))),
                Err(NotForwarded::Queued(again)) => queued = again,
            }
        }
        Err((Exceeded::no_slot().into(), LogGuard::new(context)))
    }

    /// Counts and logs a request that has ended, successfully or not.
    fn log(&self, context: &RequestContext) {
        let done = &context.outcome;
        let (reason, outcome) = match done.cut() {
            Some(reason) => (reason, "cut"),
            None if !done.complete.get() => match context.connection.close_reason() {
                Some(CloseReason::Drained) => (Reason::ShuttingDown, "cut"),
                Some(CloseReason::OverBudget) => (Reason::OverBudget, "cut"),
                Some(CloseReason::WriteTimeout) => (Reason::ClientTooSlow, Reason::ClientTooSlow.outcome()),
                _ => (Reason::ClientClosed, Reason::ClientClosed.outcome()),
            },
            None => (done.reason(), done.reason().outcome()),
        };
        // 499 is what other proxies log for a client that closed before the response.
        let status = if done.status.get() == 0 { 499 } else { done.status.get() };
        let duration = context.began.elapsed();
        let upstream_wait = done.upstream_responded.get().map(|at| at - context.began);
        let (bytes_in, bytes_out) = (done.bytes_in.get(), done.bytes_out.get());
        let service = done.service.get();
        self.metrics.record(service, reason, status, duration, upstream_wait, bytes_in, bytes_out);
        let carrier = context.carrier();
        if let Some(kind) = carrier.as_ref().and_then(Carrier::kind) {
            self.metrics.count_carrier(kind);
        }
        if !self.log.is_on() {
            return;
        }
        let (upstream, token) = (done.upstream.borrow(), done.token.get());
        let (carrier, login) = (carrier.map(|carrier| carrier.to_string()), context.login());
        self.log.write(&LogLine {
            at: context.at,
            request_id: context.request_id.as_str(),
            outcome,
            reason: reason.code(),
            status,
            method: context.method.as_str(),
            path: context.path(),
            service: context.service_key(),
            token_id: token.as_ref().map(TokenId::as_str),
            user: login.as_deref(),
            carrier: carrier.as_deref(),
            client: context.facts.client,
            upstream: upstream.as_deref(),
            bytes_in,
            bytes_out,
            duration_ms: millis(duration),
            upstream_ms: upstream_wait.map(millis),
        });
    }
}

/// Logs and counts a request whose client leaves while it waits for a slot.
struct LoggedIfDropped(Option<Rc<RequestContext>>);

impl LoggedIfDropped {
    fn stays(mut self) {
        self.0.take();
    }
}

impl Drop for LoggedIfDropped {
    fn drop(&mut self) {
        drop(self.0.take().map(LogGuard::new));
    }
}

/// The form of an error that suits the client, and the route that it asks.
fn error_format(version: Version, uri: &Uri, headers: &HeaderMap) -> ErrorFormat {
    let format = ErrorFormat::requested(version, headers);
    BuiltinRoute::of(uri.path()).map_or(format, |route| format.for_route(route))
}

impl Service for Gateway {
    type Body = ResponseBody;

    async fn call(
        self: Rc<Self>,
        request: Box<Request<RequestBody>>,
        connection: Rc<Connection>,
    ) -> Response<ResponseBody> {
        // Read now, because the header fields move to the upstream request.
        let format = error_format(request.version(), request.uri(), request.headers());
        let unread = !request.body().is_end_stream();
        match self.respond(request, connection).await {
            Ok(response) => response,
            Err((rejection, guard)) => {
                let context = guard.context();
                context.outcome.reason.set(Some(rejection.reason));
                context.outcome.status.set(rejection.status().as_u16());
                let format = if challenge::in_registry(context) { format.for_registry() } else { format };
                let mut response = rejection.into_response(format, &context.request_id);
                let status = response.status();
                challenge::set(response.headers_mut(), status, context);
                if unread {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                response.map(|text| ResponseBody::text(text, guard))
            }
        }
    }

    fn reject(
        &self,
        error: RequestError,
        head: Option<&request::Parts>,
        connection: &Connection,
    ) -> Response<Bytes> {
        let format =
            head.map_or(ErrorFormat::Json, |head| error_format(head.version, &head.uri, &head.headers));
        let rejection = Rejection::from(error);
        self.metrics.client_refused(rejection.reason);
        let request_id = self.ids.make();
        self.log.write(&LogLine {
            at: connection.clock().wall(),
            request_id: request_id.as_str(),
            outcome: rejection.reason.outcome(),
            reason: rejection.reason.code(),
            status: rejection.status().as_u16(),
            method: "",
            path: "",
            service: None,
            token_id: None,
            user: None,
            carrier: None,
            client: connection.address(),
            upstream: None,
            bytes_in: 0,
            bytes_out: 0,
            duration_ms: 0.0,
            upstream_ms: None,
        });
        rejection.into_response(format, &request_id)
    }

    fn observe(&self, event: ConnectionEvent<'_>, connection: &Connection) {
        let metrics = &self.metrics;
        match event {
            ConnectionEvent::Opened => metrics.count(WorkerEvent::ConnectionAccepted),
            ConnectionEvent::Closed => metrics.count(WorkerEvent::ConnectionClosed),
            ConnectionEvent::Handshake(outcome) => metrics.handshake(outcome),
            ConnectionEvent::MissingProxyHeader(why) => {
                metrics.count(WorkerEvent::MissingProxyHeader);
                // A misconfigured proxy omits the header on every connection.
                if self.missing_header_warnings.is_due(connection.clock().now()) {
                    tracing::warn!(proxy = %connection.address(), "closed a connection of a trusted proxy without a valid PROXY header: {why}");
                }
            }
        }
    }
}

/// The most limits that one request waits for.
const MAX_WAITS: usize = 4;

/// Whether the connection's peer is a trusted proxy.
fn is_peer_trusted(state: &WorkerState, connection: &Connection) -> bool {
    connection.peer.is_trusted(&state.snapshot.rules.settings.trusted_proxies)
}
