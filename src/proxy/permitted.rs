//! The guard of a request, which logs it when it ends, and the type of a permitted request.

use std::rc::Rc;

use http::Request;

use crate::{
    authz::{decide::Permit, reason::Reason},
    fence::Registration,
    metrics::{WorkerEvent, WorkerMetrics},
    net::Clock,
    proxy::{
        context::RequestContext,
        limits::LimitPermit,
        upstream::{self, CancelHandle, OutgoingBody, SendContext},
    },
};

/// A permitted request, which is in the live registry.
pub type Permitted = upstream::Permitted<LogGuard, Box<Request<OutgoingBody>>>;

/// Lives until the last byte of the response. Dropping it releases the request's limits, records metrics and
/// the log line, and then leaves the live registry.
pub struct LogGuard {
    context: Rc<RequestContext>,
    limits: Option<Box<LimitPermit>>,
    live: Option<Registration<RequestContext>>,
}

impl LogGuard {
    /// Guards a request that is not forwarded.
    pub fn new(context: Rc<RequestContext>) -> Self {
        Self { context, limits: None, live: None }
    }

    /// Guards a permitted request and enters it into the live registry.
    pub fn enter(
        permit: &Permit<'_>,
        context: &Rc<RequestContext>,
        limits: Option<Box<LimitPermit>>,
    ) -> Self {
        context.outcome.set_permit(permit);
        let live = context.gateway.registry.enter(Rc::clone(context));
        context.metrics().count(WorkerEvent::Entered);
        Self { context: Rc::clone(context), limits, live: Some(live) }
    }

    pub fn context(&self) -> &Rc<RequestContext> {
        &self.context
    }

    /// What the request has taken from the configured limits.
    pub fn limits(&self) -> Option<&LimitPermit> {
        self.limits.as_deref()
    }
}

impl SendContext for LogGuard {
    fn clock(&self) -> &Clock {
        self.context.clock()
    }

    fn metrics(&self) -> &WorkerMetrics {
        self.context.metrics()
    }

    fn cancel(&self) -> &Rc<CancelHandle> {
        &self.context.outcome.cancel
    }

    fn hash(&self) -> u64 {
        self.context.hash()
    }

    fn overrides_method(&self) -> bool {
        self.context.facts.method_override
    }

    fn client_error(&self) -> Option<Reason> {
        self.context.outcome.client_error()
    }

    fn set_url(&self, url: &Rc<str>) {
        *self.context.outcome.upstream.borrow_mut() = Some(Rc::clone(url));
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        if self.live.is_some() {
            self.context.metrics().count(WorkerEvent::Left);
        }
        drop(self.limits.take());
        self.context.gateway.log(&self.context);
    }
}
