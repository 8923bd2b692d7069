//! A permit that has taken effect: what the door to an upstream asks for.

use std::rc::Rc;

use super::CancelHandle;
use crate::{
    authz::{answer::Reason, decide::Permit},
    metrics::WorkerMetrics,
    net::Clock,
};

/// What a permit allows, with the guard under which it is sent. Made from a [`Permit`] alone.
pub struct Permitted<G, T> {
    pub(super) guard: G,
    pub(super) request: T,
}

/// What sending a request takes beside the request itself.
pub trait SendContext {
    fn clock(&self) -> &Clock;
    fn metrics(&self) -> &WorkerMetrics;
    /// With this the fence cuts the request.
    fn cancel(&self) -> &Rc<CancelHandle>;
    /// A number for the caller: a url is chosen by it where that is configured.
    fn hash(&self) -> u64;
    /// What is wrong with the client's body, if anything: it explains why the request failed.
    fn client_error(&self) -> Option<Reason>;
    /// The request is sent to this url now.
    fn set_url(&self, url: &Rc<str>);
}

impl<G, T> Permitted<G, T> {
    /// Call it in the same synchronous block as the decision.
    #[expect(clippy::needless_pass_by_value, reason = "a permit is good for one request")]
    pub fn new(permit: Permit<'_>, guard: G, request: T) -> Self {
        let _ = permit;
        Self { guard, request }
    }

    pub fn into_guard(self) -> G {
        self.guard
    }

    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Permitted<G, U> {
        Permitted { guard: self.guard, request: change(self.request) }
    }
}
