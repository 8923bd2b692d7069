//! The connections of a URL: those in use, each owned by one request until the last byte
//! of its response, and the pool of idle HTTP/1.1 connections.

use std::{
    cell::{Cell, RefCell},
    error::Error as _,
    future::poll_fn,
    ops::Deref,
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::body::Incoming;

use crate::{
    authz::reason::Reason,
    net::{Clock, Reservation},
    proxy::upstream::{
        admission::Permit,
        body::OutgoingBody,
        call::{Call, CancelHandle, Ended},
        endpoint::Endpoint,
        http1::Http1,
        http2::Http2Stream,
        upgraded::Upgraded,
    },
};

/// A connection in use. [`PooledConnection::give_back`] returns it to its pool; dropping
/// it aborts the request.
pub struct PooledConnection {
    endpoint: InUse,
    protocol: Option<Protocol>,
    call: Rc<Call>,
    reused: bool,
    /// The generation of the endpoint's addresses when the connection was taken.
    generation: u64,
    /// The request's permit under `max_in_flight`, if configured.
    pub permit: Option<Permit>,
    /// A share of the budget of tunnels, after an upgrade.
    tunnel: Option<Reservation>,
    cancel: Option<Rc<CancelHandle>>,
}

pub enum Protocol {
    Http1(Box<Http1>),
    Http2(Http2Stream),
}

/// A request without a response.
pub struct Failure {
    /// The request, if it is safe to send it again.
    pub again: Option<Box<Request<OutgoingBody>>>,
    pub reason: Reason,
    /// What the reason does not say.
    pub cause: Option<String>,
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self { again: None, reason, cause: None }
    }
}

impl Failure {
    pub fn new(again: Option<Box<Request<OutgoingBody>>>, reason: Reason, error: &hyper::Error) -> Self {
        let cause = || match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        // After a timeout the error is that of this process, which has given up.
        Self { again, reason, cause: (reason != Reason::UpstreamTimeout).then(cause) }
    }
}

impl PooledConnection {
    pub(super) fn new(endpoint: InUse, protocol: Protocol, reused: bool) -> Self {
        let call = Rc::clone(match &protocol {
            Protocol::Http1(http1) => &http1.call,
            Protocol::Http2(stream) => &stream.call,
        });
        let generation = endpoint.health.generation();
        Self {
            endpoint,
            protocol: Some(protocol),
            call,
            reused,
            generation,
            permit: None,
            tunnel: None,
            cancel: None,
        }
    }

    pub fn call(&self) -> &Rc<Call> {
        &self.call
    }

    pub fn endpoint(&self) -> &Rc<Endpoint> {
        &self.endpoint
    }

    pub fn is_http2(&self) -> bool {
        matches!(self.protocol, Some(Protocol::Http2(_)))
    }

    /// Attaches the connection or stream to the request's cancel handle, so that a cut ends it.
    pub fn attach(&mut self, cancel: &Rc<CancelHandle>) {
        cancel.attach(&self.call);
        self.cancel = Some(Rc::clone(cancel));
    }

    /// Sends a request and waits for the head of the response. `silence` is how long the upstream may be
    /// silent. `repeatable`: the request is idempotent and has no body.
    pub async fn send(
        &mut self,
        request: Box<Request<OutgoingBody>>,
        silence: Duration,
        repeatable: bool,
    ) -> Result<Response<Incoming>, Failure> {
        if self.call.ended().is_some() {
            return Err(Reason::UpstreamReset.into());
        }
        match self.protocol.as_mut().expect("a connection has its protocol until it is given back") {
            Protocol::Http1(http1) => http1.send(request, silence, self.reused, repeatable).await,
            Protocol::Http2(stream) => {
                // Boxed to keep the futures of HTTP/1.1 requests small.
                let outcome = Box::pin(stream.send(request, silence, repeatable)).await;
                if stream.http11_required {
                    self.endpoint.disable_http2();
                }
                outcome
            }
        }
    }

    /// Turns the connection or stream into a tunnel after a 101. `reservation`
    /// is its share of the tunnel budget.
    pub async fn upgrade(
        mut self,
        response: &mut Response<Incoming>,
        reservation: Option<Reservation>,
    ) -> Option<Upgraded> {
        self.tunnel = reservation;
        match self.protocol.take()? {
            Protocol::Http1(http1) => {
                let (io, early) = http1.into_upgraded().await?;
                Some(Upgraded::http1(io, early, self))
            }
            stream @ Protocol::Http2(_) => {
                self.protocol = Some(stream);
                let tunnel = hyper::upgrade::on(response).await.ok()?;
                Some(Upgraded::http2(tunnel, self))
            }
        }
    }

    /// Releases the connection after both sides have ended the tunnel. A shared connection stays open.
    pub(super) fn finish_tunnel(&mut self) {
        self.protocol.take();
    }

    /// Must be called after the last byte of a response. A connection that is not ready (its request is still
    /// under way, or the upstream closes it) is closed, and a stream whose request is still under way is
    /// reset.
    pub fn give_back(mut self) {
        self.call.disarm();
        match self.protocol.take() {
            Some(Protocol::Http1(http1)) if http1.is_ready() => {
                self.detach();
                self.endpoint.return_to_pool(http1, self.generation);
            }
            Some(Protocol::Http2(stream)) if self.call.is_done() => {
                self.detach();
                drop(stream);
                self.endpoint.notify_waiter();
            }
            unfinished => self.protocol = unfinished,
        }
    }

    fn detach(&mut self) {
        if let Some(cancel) = self.cancel.take() {
            cancel.detach();
        }
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let Some(protocol) = self.protocol.take() else { return };
        self.call.end(Ended::Dropped);
        if let Protocol::Http2(stream) = protocol {
            drop(stream);
            self.endpoint.notify_waiter();
        }
    }
}

/// Counts a request at its endpoint, from connecting to its end.
pub struct InUse(Rc<Endpoint>);

impl InUse {
    pub(super) fn enter(endpoint: &Rc<Endpoint>) -> Self {
        endpoint.in_use.set(endpoint.in_use.get() + 1);
        Self(Rc::clone(endpoint))
    }
}

impl Deref for InUse {
    type Target = Rc<Endpoint>;

    fn deref(&self) -> &Rc<Endpoint> {
        &self.0
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.in_use.set(self.0.in_use.get() - 1);
    }
}

/// The pool of idle HTTP/1.1 connections of a URL.
#[derive(Default)]
pub struct Pool {
    /// Last in, first out: recently used connections are reused, the others expire.
    idle: RefCell<Vec<Idle>>,
    sweep_scheduled: Cell<bool>,
}

struct Idle {
    connection: Box<Http1>,
    until: Instant,
}

/// How often connections that have expired or were closed by the upstream are removed.
const SWEEP: Duration = Duration::from_secs(1);

impl Pool {
    /// Takes the most recently used connection that is still open.
    pub fn take(&self) -> Option<Box<Http1>> {
        loop {
            let idle = self.idle.borrow_mut().pop()?;
            if idle.is_usable(idle.connection.clock.now()) {
                return Some(idle.connection);
            }
        }
    }

    /// Closes the least recently used connection. Returns whether there was one.
    pub fn close_one(&self) -> bool {
        let mut idle = self.idle.borrow_mut();
        !idle.is_empty() && {
            idle.remove(0);
            true
        }
    }

    pub fn clear(&self) {
        self.idle.borrow_mut().clear();
    }

    pub fn insert(self: &Rc<Self>, connection: Box<Http1>, keep_for: Duration) {
        let clock = connection.clock.clone();
        self.idle.borrow_mut().push(Idle { connection, until: clock.now() + keep_for });
        if !self.sweep_scheduled.replace(true) {
            tokio::task::spawn_local(sweep(Rc::downgrade(self), SWEEP.min(keep_for), clock));
        }
    }
}

impl Idle {
    fn is_usable(&self, now: Instant) -> bool {
        self.until > now && self.connection.is_ready()
    }
}

/// Removes unusable connections until the pool is empty.
async fn sweep(pool: Weak<Pool>, every: Duration, clock: Clock) {
    let deadline = clock.deadline();
    loop {
        deadline.arm(every);
        poll_fn(|cx| deadline.poll_expired(cx)).await;
        let Some(pool) = pool.upgrade() else { return };
        let now = clock.now();
        let idle = &mut *pool.idle.borrow_mut();
        idle.retain(|idle| idle.is_usable(now));
        if idle.is_empty() {
            pool.sweep_scheduled.set(false);
            return;
        }
    }
}
