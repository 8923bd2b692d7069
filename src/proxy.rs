//! A request's way through a worker: judged in `authorize`, sent by `upstream`, told by
//! [`access_log`]. The outer half is here: request id, log line, and the one map from a rejection
//! to an answer.

pub mod access_log;
mod authorize;
mod bad_tokens;
mod body;
mod exchange;
mod forward;
mod framing;
mod grpc;
pub mod limits;
mod own;
mod peers;
pub mod refusals;
mod rejection;
mod request_id;
mod settings;
mod tunnel;
mod upgrade;
mod upstream;
mod uses;
mod via;
mod view;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderValue;
use http_body::Body as _;

use self::{
    access_log::{Line, LogWriter},
    exchange::Finish,
    framing::KnownHost,
    limits::Counts,
    own::Own,
    peers::Peers,
    refusals::RefusalSender,
    rejection::{Form, Rejection},
    request_id::{RequestId, RequestIds},
    view::View,
};
pub use self::{
    bad_tokens::BadTokens,
    body::Body,
    exchange::Exchange,
    own::{FrontProxy, Records},
    settings::{BadTokenLimit, Settings},
    upstream::{
        resolve::{Resolver, Resolving},
        settings::{Balance, Ejection, Health, HttpVersion, UpstreamSettings, WeightedUrl},
        shared::Upstreams,
        tls::{MADE_AS_AUTHORITY, NoSystemRoots, SystemRoots, TlsParts, Trust, UpstreamTls, parse_name},
        url::{Host, Scheme, UpstreamUrl, UrlError},
    },
    uses::{Use, UseTable, Uses},
};
use crate::{
    assertion::Keyring,
    authz::answer::Reason,
    fence::Registry,
    message::{Request, Response},
    metrics::{HandshakeOutcome, WorkerMetrics, outcome},
    net::{Connection, Handler, Refusal, RequestBody, Upgraded, tls::Handshake},
    state::State,
};

/// What a worker's gateway is made of.
pub struct Parts {
    pub state: Arc<State>,
    /// The worker's own; the composition runs it.
    pub registry: Rc<Registry<Exchange>>,
    pub metrics: WorkerMetrics,
    pub log: Rc<LogWriter>,
    pub uses: Arc<UseTable>,
    pub refusals: RefusalSender,
    pub bad_tokens: Arc<BadTokens>,
    pub records: Arc<dyn Records>,
    pub keyring: Arc<Keyring>,
    pub counts: Arc<Counts>,
    pub upstreams: Arc<Upstreams>,
}

/// One for each worker; nothing in it is written by another thread for a request.
pub struct Gateway {
    parts: Parts,
    view: RefCell<Rc<View>>,
    ids: RequestIds,
    peers: Peers,
    unannounced_told: Cell<Option<Instant>>,
    host: KnownHost,
}

impl Gateway {
    pub fn new(parts: Parts) -> Rc<Self> {
        Rejection::prepare();
        let view = RefCell::new(View::read(&parts.state, &parts.upstreams, &parts.counts, None));
        Rc::new(Self {
            parts,
            view,
            ids: RequestIds::new(),
            peers: Peers::default(),
            unannounced_told: Cell::default(),
            host: KnownHost::default(),
        })
    }

    /// What is published now.
    fn view(&self) -> Rc<View> {
        let mut view = self.view.borrow_mut();
        if !view.is_current(&self.parts.state) {
            *view = View::read(&self.parts.state, &self.parts.upstreams, &self.parts.counts, Some(&view));
        }
        Rc::clone(&view)
    }

    fn state(&self) -> &State {
        &self.parts.state
    }
    fn registry(&self) -> &Rc<Registry<Exchange>> {
        &self.parts.registry
    }
    fn metrics(&self) -> &WorkerMetrics {
        &self.parts.metrics
    }
    fn uses(&self) -> &UseTable {
        &self.parts.uses
    }
    fn refusals(&self) -> &RefusalSender {
        &self.parts.refusals
    }
    fn bad_tokens(&self) -> &BadTokens {
        &self.parts.bad_tokens
    }
    fn keyring(&self) -> &Keyring {
        &self.parts.keyring
    }
    fn peers(&self) -> &Peers {
        &self.peers
    }

    fn request_id<B>(&self, view: &View, request: &Request<B>, connection: &Connection) -> RequestId {
        let told = trusts(view, connection).then(|| RequestIds::told(&request.fields)).flatten();
        told.unwrap_or_else(|| self.ids.make())
    }

    /// Tells of an exchange that has ended, however it did.
    fn finish(&self, exchange: &Exchange) {
        let (reason, outcome) = match exchange.was_cut() {
            Some(reason) => (reason, "cut"),
            None if !exchange.complete.get() && exchange.connection.drained() => {
                (Reason::ShuttingDown, "cut")
            }
            None if !exchange.complete.get() => (Reason::ClientClosed, outcome(Reason::ClientClosed)),
            None => (exchange.reason.get(), outcome(exchange.reason.get())),
        };
        // 499: what other proxies write for a client that did not wait.
        let status = if exchange.status.get() == 0 { 499 } else { exchange.status.get() };
        let duration = exchange.began.elapsed();
        let upstream_wait = exchange.upstream_answered.get().map(|at| at - exchange.began);
        let (bytes_in, bytes_out) = (exchange.bytes_in.get(), exchange.bytes_out.get());
        let service = exchange.service.get();
        self.metrics().record(service, reason, status, duration, upstream_wait, bytes_in, bytes_out);
        if !self.parts.log.is_on() {
            return;
        }
        let upstream = exchange.upstream.borrow();
        self.parts.log.write(&Line {
            at: exchange.at,
            request_id: exchange.request_id.as_bytes(),
            outcome,
            reason,
            status,
            method: exchange.method.as_str(),
            path: exchange.path(),
            service: exchange.view.service_key(service),
            token_id: exchange.token.get(),
            user: exchange.view.login(exchange.user.get()),
            client: exchange.client.get(),
            upstream: upstream.as_deref(),
            bytes_in,
            bytes_out,
            duration,
            upstream_wait,
        });
    }
}

impl Handler for Gateway {
    type Body = Body;

    async fn handle(
        self: Rc<Self>,
        mut request: Request<RequestBody>,
        connection: Rc<Connection>,
    ) -> Response<Body> {
        let view = self.view();
        let request_id = self.request_id(&view, &request, &connection);
        let exchange = Exchange::begin(&self, view, &request, connection, request_id);
        // The fields go upstream; of the client's wishes only the form of an error is needed later.
        let form = Form::asked_for(&request);
        let unread = !request.body.is_end_stream();
        let (reason, status, mut response, finish) = match Own::of(exchange.path()) {
            None => {
                let outcome = match self.authorize(&exchange, &mut request) {
                    Ok(passage) => self.forward(passage, request).await,
                    Err(rejection) => Err((rejection, Finish::of(exchange))),
                };
                match outcome {
                    Ok(response) => return response,
                    Err((rejection, finish)) => {
                        let request_id = &finish.exchange().request_id;
                        let (reason, status) = (rejection.reason, rejection.status());
                        (reason, status, rejection.into_response(form, request_id), finish)
                    }
                }
            }
            Some(own) => {
                // Boxed: hardly any request is for the gateway itself, and all would be as large.
                let (exchange, answer) = Box::pin(self.answer(own, exchange, &request)).await;
                let (reason, status, response) = match answer {
                    Ok((reason, response)) => (reason, response.status, response),
                    Err(rejection) => {
                        let (reason, status) = (rejection.reason, rejection.status());
                        (reason, status, rejection.into_response(form.of_own(own), &exchange.request_id))
                    }
                };
                (reason, status, response, Finish::of(exchange))
            }
        };
        finish.exchange().reason.set(reason);
        finish.exchange().status.set(status.as_u16());
        if unread {
            response.fields.set("connection", &HeaderValue::from_static("close"));
        }
        response.map(|text| Body::text(text, finish))
    }

    async fn tunnel(self: Rc<Self>, answered: Body, client: Upgraded) {
        if let Some((tunnel, finish)) = answered.into_tunnel() {
            tunnel.relay(client, finish).await;
        }
    }

    fn refuse(&self, refusal: Refusal, connection: &Connection) -> Response<Bytes> {
        let rejection = Rejection::from(match refusal {
            Refusal::BadRequest(_) => Reason::BadRequest,
            Refusal::HeadTimeout => Reason::RequestTimeout,
            Refusal::TargetTooLong => Reason::TargetTooLong,
            Refusal::Misdirected => Reason::Misdirected,
            Refusal::HeadTooLarge => Reason::HeadTooLarge,
        });
        self.metrics().client_refused(rejection.reason);
        let request_id = self.ids.make();
        self.parts.log.write(&Line {
            at: connection.clock().wall(),
            request_id: request_id.as_bytes(),
            outcome: outcome(rejection.reason),
            reason: rejection.reason,
            status: rejection.status().as_u16(),
            method: "",
            path: "",
            service: None,
            token_id: None,
            user: None,
            client: connection.address(),
            upstream: None,
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            upstream_wait: None,
        });
        rejection.into_response(Form::Json, &request_id)
    }

    fn opened(&self) {
        self.metrics().connection_accepted();
    }

    fn closed(&self) {
        self.metrics().connection_closed();
    }

    fn shaken(&self, outcome: Handshake, _: &Connection) {
        self.metrics().handshake(match outcome {
            Handshake::Full => HandshakeOutcome::Full,
            Handshake::Resumed => HandshakeOutcome::Resumed,
            Handshake::TimedOut => HandshakeOutcome::TimedOut,
            Handshake::Closed => HandshakeOutcome::Closed,
            Handshake::NotTls => HandshakeOutcome::NotTls,
            Handshake::NothingInCommon => HandshakeOutcome::NothingInCommon,
            Handshake::ClientCertificate => HandshakeOutcome::ClientCertificate,
            Handshake::Refused => HandshakeOutcome::Refused,
            Handshake::Broken => HandshakeOutcome::Broken,
        });
    }

    fn unannounced(&self, connection: &Connection, why: &str) {
        self.metrics().unannounced();
        // A proxy set up wrongly does it with every connection: told once a minute.
        let (now, told) = (connection.clock().now(), &self.unannounced_told);
        if told.get().is_none_or(|told| now.saturating_duration_since(told) >= UNANNOUNCED_TOLD) {
            told.set(Some(now));
            tracing::warn!(proxy = %connection.address(), "a connection of a trusted proxy is closed: {why}");
        }
    }
}

const UNANNOUNCED_TOLD: Duration = Duration::from_secs(60);

/// Whether what the peer says of its clients is believed.
fn trusts(view: &View, connection: &Connection) -> bool {
    connection.peer.is_trusted(&view.snapshot.rules.settings.trusted_proxies)
}
