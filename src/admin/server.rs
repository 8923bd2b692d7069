//! The admin listener's HTTP service: checks and authenticates each request, enters it in the live registry,
//! runs the router, and completes every response in the same way.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Poll, ready},
    time::Instant,
};

use axum::{Router, body::Body as RouterBody};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::{Body, Frame, SizeHint};
use tokio::{sync::Semaphore, task::JoinHandle};
use tower_service::Service as _;

use super::{
    ApiResult, Context, Problem,
    authenticate::{RequestCredentials, check_target},
    body::{self, BufferedBody, read_body},
    caller::{Caller, Identity, RequestMeta, Revalidation},
    client::ClientOrigin,
    context::RefusedRequest,
    error::{Rejected, rejected},
    guard,
    session::FAILURES_INTERVAL,
    shares::{RequestShare, Shares},
    wire::Time,
};
use crate::{
    admin::{live::LiveRequest, offload::Turns},
    authz::{forwarding, reason::Reason, rules::BUILT_IN_SERVICE, subject::Permission},
    fence::{Registration, Registry},
    metrics::{History, Metrics, STEP_LENGTH, WorkerMetrics},
    net::{BodyError, Connection, Peer, RequestBody, RequestError, Service},
};

/// Larger bodies, in bytes, take noticeable time to parse.
const LARGE_BODY: usize = 16 << 10;

/// Serves every admin listener of the control thread.
pub struct Server {
    context: Context,
    router: Router,
    registry: Rc<Registry<LiveRequest>>,
    metrics: WorkerMetrics,
    /// Whoever has the permit may read a large body.
    large: Arc<Semaphore>,
    turns: Rc<Turns>,
    shares: Shares,
    /// Answers `/metrics` only.
    metrics_only: bool,
}

/// A response's body; the request stays in the live registry while it is sent.
pub struct ResponseBody {
    inner: RouterBody,
    live: Option<Registration<LiveRequest>>,
}

/// The caller and the request's entry in the live registry; `None` for an anonymous request.
type AdmittedCaller = Option<(Caller, Registration<LiveRequest>)>;

/// A running handler. One that has begun a change runs to its end even if its client disconnects:
/// otherwise the rest of the change (a reload's second half, the audit event of a cut) would be lost.
struct RunningHandler {
    task: JoinHandle<Response<RouterBody>>,
    revalidation: Option<Arc<Revalidation>>,
}

impl Server {
    /// Joins the fence; must be called inside the thread's `LocalSet`.
    pub fn new(context: Context) -> Rc<Self> {
        let registry = Registry::new(context.fence.join());
        tokio::task::spawn_local(registry.clone().run());
        let metrics = context.metrics.worker();
        tokio::task::spawn_local(keep_history(context.history().clone(), context.metrics.clone()));
        tokio::task::spawn_local(record_failures(context.clone()));
        let router = super::router(context.clone());
        Rc::new(Self {
            router,
            registry,
            metrics,
            large: Arc::new(Semaphore::new(1)),
            turns: Rc::default(),
            shares: Shares::default(),
            context,
            metrics_only: false,
        })
    }

    /// For a listener that answers `/metrics` without authentication, and nothing else.
    pub fn for_metrics(&self) -> Rc<Self> {
        let (router, context) = (self.router.clone(), self.context.clone());
        let (registry, metrics) = (self.registry.clone(), context.metrics.worker());
        let (large, turns, shares) = (self.large.clone(), self.turns.clone(), self.shares.clone());
        Rc::new(Self { router, registry, metrics, large, turns, shares, context, metrics_only: true })
    }

    /// Sets `live` as soon as the request is in the live registry.
    async fn respond(
        &self,
        mut parts: Parts,
        body: RequestBody,
        connection: &Rc<Connection>,
        request_id: &Arc<str>,
        began: Instant,
        live: &mut Option<Registration<LiveRequest>>,
    ) -> Result<Response<RouterBody>, Rejected> {
        let origin =
            ClientOrigin::from_request(&parts.headers, connection, &self.context).map_err(rejected)?;
        let secure = connection.secure || self.context.sign_in.is_https();
        let meta = RequestMeta { client: origin.address, secure, request_id: request_id.clone() };
        let admitted = self.admit(&mut parts, origin, &meta, connection, began)?;
        let (caller, registration) = admitted.unzip();
        *live = registration;
        let limits = if caller.is_some() { body::AUTHENTICATED } else { body::ANONYMOUS };
        let is_operator = caller.as_ref().is_some_and(|caller| matches!(caller.identity, Identity::Operator));
        // Of the account, which may have many connections.
        let share = live.as_ref().and_then(|live| live.share.as_ref()).map(RequestShare::bodies);
        let holder = share.unwrap_or_else(|| connection.bodies());
        let budget = (!is_operator).then_some((&self.context.budgets.bodies, holder));
        let BufferedBody { bytes: body, reservation: _reservation } =
            read_body(&parts.headers, body, limits, budget).await.map_err(rejected)?;
        if let Some(csrf) = caller.as_ref().and_then(Caller::csrf) {
            guard::check_csrf(csrf, &parts, &body)?;
        }
        let account_turn = self.turns.take(caller.as_ref(), &parts).await;
        // Large bodies are read one at a time: many of them would delay revocations on this thread. Last,
        // since everybody waits for whoever has this turn.
        let is_large = body.len() > LARGE_BODY && !is_operator;
        let mut turn = if is_large { self.large.clone().acquire_owned().await.ok() } else { None };
        if let Some(live) = live.as_ref().filter(|_| !guard::is_reading(&parts.method)) {
            // The answer to a change may have the text of a new token.
            live.keep_when_full();
        }
        let revalidation = caller.as_ref().map(|caller| caller.revalidation.clone());
        parts.extensions.insert(meta);
        if let Some(caller) = caller {
            parts.extensions.insert(caller);
        }
        let request = Request::from_parts(parts, RouterBody::from(body));
        let mut router = self.router.clone();
        let task = tokio::task::spawn_local(async move {
            // A change goes on when its client is gone, and so does its derivation of a password.
            let _account_turn = account_turn;
            let mut call = pin!(router.call(request));
            let Ok(response) = poll_fn(|cx| {
                let polled = call.as_mut().poll(cx);
                // The body is parsed before the handler waits for anything.
                turn.take();
                polled
            })
            .await;
            response
        });
        let mut handling = RunningHandler { task, revalidation };
        (&mut handling.task).await.map_err(|error| {
            tracing::error!(%error, "a request failed without a response");
            (Reason::Ok, Problem::internal("The request could not be answered"))
        })
    }

    /// Authenticates and registers without a suspension point, so that no change slips in between.
    fn admit(
        &self,
        parts: &mut Parts,
        origin: ClientOrigin,
        meta: &RequestMeta,
        connection: &Rc<Connection>,
        began: Instant,
    ) -> Result<AdmittedCaller, Rejected> {
        let context = &self.context;
        let &RequestMeta { client, secure, ref request_id } = meta;
        let refuse = |reason: Reason, token| {
            context.uses.refused(RefusedRequest { token, client, reason, request_id });
            (reason, reason.details(Some(BUILT_IN_SERVICE)).into())
        };
        let path = parts.uri.path().to_owned();
        if self.metrics_only {
            let known = path == "/metrics";
            return if known { Ok(None) } else { Err((Reason::NoService, Problem::not_found("resource"))) };
        }
        let probe = matches!(path.as_str(), "/healthz" | "/readyz");
        let scrape = path == "/metrics" && !parts.headers.contains_key(header::AUTHORIZATION);
        if !probe && matches!(connection.peer, Peer::Inet(_)) {
            guard::check_host(&parts.headers, &context.hosts).map_err(|p| (Reason::Misdirected, p))?;
        }
        check_target(parts).map_err(|reason| refuse(reason, None))?;
        if probe || scrape && origin.reads_metrics(&parts.headers, connection, context) {
            return Ok(None);
        }
        guard::check_origin(&parts.method, &parts.headers).map_err(|p| (Reason::BadRequest, p))?;
        let credentials = RequestCredentials::from_request(parts, connection, origin, context, secure);
        if guard::is_sign_in(&parts.method, &path) {
            // The previous credential is about to end, which must not cut this response.
            return Ok(None);
        }
        let authenticated = match credentials.verify(context, &connection.peer) {
            Ok(authenticated) => authenticated,
            Err(_) if credentials.is_ambient() && guard::is_public(&path) => return Ok(None),
            Err(refused) => {
                let (reason, _) = refuse(refused.reason, refused.token);
                return Err((reason, credentials.refused(reason)));
            }
        };
        let caller = Caller {
            identity: authenticated.identity,
            state: context.state.clone(),
            client,
            request_id: request_id.clone(),
            revalidation: Arc::default(),
        };
        if path == "/metrics" {
            caller.require(Permission::AdminRead).map_err(|p| (Reason::ReadServiceDenied, p))?;
        }
        let max = context.budgets.max_connections();
        let share = caller.account().map(|user| self.shares.enter(&user.id, connection, max));
        caller.record_use(context, &parts.headers);
        let entry = LiveRequest {
            context: context.clone(),
            credentials,
            caller: caller.clone(),
            share,
            deadline: authenticated.deadline.into(),
            connection: connection.clone(),
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            began,
            bytes: (connection.bytes_in(), connection.bytes_out()),
        };
        Ok(Some((caller, self.registry.enter(Rc::new(entry)))))
    }
}

impl Service for Server {
    type Body = ResponseBody;

    async fn call(
        self: Rc<Self>,
        request: Box<Request<RequestBody>>,
        connection: Rc<Connection>,
    ) -> Response<ResponseBody> {
        let began = Instant::now();
        let request_id: Arc<str> = uuid::Uuid::now_v7().simple().to_string().into();
        let (parts, body) = request.into_parts();
        let accept: HeaderMap =
            parts.headers.get_all(header::ACCEPT).iter().map(|v| (header::ACCEPT, v.clone())).collect();
        let head = parts.method == Method::HEAD;
        let mut live = None;
        let responded = self.respond(parts, body, &connection, &request_id, began, &mut live).await;
        let reason = responded.as_ref().err().map_or(Reason::Ok, |(reason, _)| *reason);
        let response = finish(responded.map_err(|(_, problem)| problem), &accept, &request_id, head);
        let service = self.context.rules().service_by_key(BUILT_IN_SERVICE).map(|service| service.id);
        let status = response.status().as_u16();
        self.metrics.record(service, reason, status, began.elapsed(), None, 0, 0);
        response.map(|inner| ResponseBody { inner, live })
    }

    fn reject(&self, error: RequestError, _: Option<&Parts>, _: &Connection) -> Response<Bytes> {
        let reason = Reason::from(error);
        self.metrics.client_refused(reason);
        let request_id = uuid::Uuid::now_v7().simple().to_string();
        let problem = Problem::from(error.details());
        let (_, headers, body) = problem.render(&HeaderMap::new(), &request_id);
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = error.status();
        *response.headers_mut() = headers;
        set_headers(response.headers_mut(), &request_id);
        response
    }
}

impl Drop for RunningHandler {
    fn drop(&mut self) {
        if !self.revalidation.as_ref().is_some_and(|revalidation| revalidation.is_changing()) {
            self.task.abort();
        }
    }
}

/// Runs for as long as the thread lives.
async fn keep_history(history: Arc<History>, metrics: Arc<Metrics>) {
    let mut tick = tokio::time::interval(STEP_LENGTH);
    // After a delay take one long step, not many short ones.
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        history.step(&metrics, Time::now());
    }
}

/// Runs for as long as the thread lives.
async fn record_failures(context: Context) {
    let mut tick = tokio::time::interval(FAILURES_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let events = context.due_failure_events();
        if !events.is_empty()
            && let Err(error) = context.store.record_refusals(events).await
        {
            tracing::warn!(%error, "failed sign-ins are not audited");
        }
    }
}

/// Completes a response: a problem gets its body, every response its headers.
fn finish(
    result: ApiResult<Response<RouterBody>>,
    accept: &HeaderMap,
    request_id: &str,
    head: bool,
) -> Response<RouterBody> {
    let (mut response, problem) = match result {
        Ok(mut response) => {
            let problem = response.extensions_mut().remove::<Problem>();
            let problem = problem.or_else(|| router_problem(&response));
            (response, problem)
        }
        Err(problem) => (Response::default(), Some(problem)),
    };
    if let Some(problem) = problem {
        let (status, headers, body) = problem.render(accept, request_id);
        *response.status_mut() = status;
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().extend(headers);
        *response.body_mut() = if head { RouterBody::empty() } else { RouterBody::from(body) };
    }
    set_headers(response.headers_mut(), request_id);
    response
}

/// The problem for a refusal by the router itself.
fn router_problem(response: &Response<RouterBody>) -> Option<Problem> {
    let status = response.status();
    match status {
        // A page describes the error itself.
        _ if response.headers().contains_key(header::CONTENT_SECURITY_POLICY) => None,
        StatusCode::METHOD_NOT_ALLOWED => {
            let text = "The resource does not support this method";
            Some(Problem::new(status, "method_not_allowed", text))
        }
        StatusCode::NOT_FOUND => Some(Problem::not_found("resource")),
        StatusCode::BAD_REQUEST => Some(Problem::invalid("The request's path cannot be read")),
        _ => None,
    }
}

fn set_headers(headers: &mut HeaderMap, request_id: &str) {
    guard::set_security_headers(headers);
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(forwarding::REQUEST_ID, id);
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let severed = self.live.as_ref().is_some_and(|live| live.connection.aborted());
        if severed {
            return Poll::Ready(Some(Err(axum::Error::new(BodyError::Aborted))));
        }
        Poll::Ready(ready!(Pin::new(&mut self.inner).poll_frame(cx)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
