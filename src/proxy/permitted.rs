//! A permit that has taken effect: what the door to an upstream asks for.

use std::rc::Rc;

use crate::{
    authz::decide::Permit,
    fence::Live,
    proxy::{context::RequestContext, limits::LimitPermit, upstream::Upstream},
};

/// A permitted request that the fence can reach. Made from a [`Permit`] alone.
pub struct Permitted {
    guard: LogGuard,
    upstream: Rc<Upstream>,
    /// The most bytes of body that the client may send.
    pub body_limit: Option<u64>,
}

/// Lives until the response's last byte. When dropped it gives back the request's place under the
/// limits, writes metrics and the log line, and then leaves the live registry.
pub struct LogGuard {
    context: Rc<RequestContext>,
    limits: Option<Box<LimitPermit>>,
    live: Option<Live<RequestContext>>,
}

impl Permitted {
    /// Enters the live registry. Call it in the same synchronous block as the decision.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is good for one request")]
    pub fn enter(
        permit: Permit<'_>,
        context: &Rc<RequestContext>,
        upstream: &Rc<Upstream>,
        limits: Option<Box<LimitPermit>>,
        body_limit: Option<u64>,
    ) -> Self {
        context.outcome.set_permit(&permit);
        let live = Some(context.gateway().registry().enter(Rc::clone(context)));
        context.metrics().entered();
        let guard = LogGuard { context: Rc::clone(context), limits, live };
        Self { guard, upstream: Rc::clone(upstream), body_limit }
    }

    pub fn context(&self) -> &Rc<RequestContext> {
        &self.guard.context
    }

    pub fn upstream(&self) -> &Rc<Upstream> {
        &self.upstream
    }

    pub fn guard(&self) -> &LogGuard {
        &self.guard
    }

    pub fn into_guard(self) -> LogGuard {
        self.guard
    }

    pub fn into_parts(self) -> (Rc<Upstream>, LogGuard) {
        (self.upstream, self.guard)
    }
}

impl LogGuard {
    /// For a request that is not forwarded.
    pub fn new(context: Rc<RequestContext>) -> Self {
        Self { context, limits: None, live: None }
    }

    pub fn context(&self) -> &Rc<RequestContext> {
        &self.context
    }

    /// The request's place under the configured limits.
    pub fn limits(&self) -> Option<&LimitPermit> {
        self.limits.as_deref()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        if self.live.is_some() {
            self.context.metrics().left();
        }
        drop(self.limits.take());
        self.context.gateway().log(&self.context);
    }
}
