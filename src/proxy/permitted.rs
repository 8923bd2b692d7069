//! [`Permitted`], the proof of a permit that sending a request requires, and the guard of a request, which
//! logs it when it ends.

use std::rc::Rc;

use http::Request;

use crate::{
    authz::decide::Permit,
    fence::Registration,
    metrics::WorkerEvent,
    proxy::{context::RequestContext, limits::LimitPermit, upstream::OutgoingBody},
};

/// A permitted request, which is in the live registry. It can only be created from a [`Permit`].
pub struct Permitted {
    guard: LogGuard,
    request: Box<Request<OutgoingBody>>,
}

/// Lives until the last byte of the response. Dropping it releases the request's limits, records metrics and
/// the log line, and then leaves the live registry.
pub struct LogGuard {
    context: Rc<RequestContext>,
    limits: Option<Box<LimitPermit>>,
    live: Option<Registration<RequestContext>>,
}

impl Permitted {
    /// Must be called in the same synchronous block as the decision.
    #[expect(clippy::needless_pass_by_value, reason = "consumed, so that a permit allows one request")]
    pub fn new(permit: Permit<'_>, guard: LogGuard, request: Box<Request<OutgoingBody>>) -> Self {
        let _ = permit;
        Self { guard, request }
    }

    pub fn guard(&self) -> &LogGuard {
        &self.guard
    }

    pub fn request_mut(&mut self) -> &mut Request<OutgoingBody> {
        &mut self.request
    }

    pub fn into_parts(self) -> (LogGuard, Box<Request<OutgoingBody>>) {
        (self.guard, self.request)
    }
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
        context.release_state(Some(permit.owner().service));
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

impl Drop for LogGuard {
    fn drop(&mut self) {
        if self.live.is_some() {
            self.context.metrics().count(WorkerEvent::Left);
        }
        drop(self.limits.take());
        self.context.gateway.log(&self.context);
    }
}
