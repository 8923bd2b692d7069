//! Counts of the requests at an endpoint, which end with the requests.

use std::{ops::Deref, rc::Rc};

use super::Endpoint;

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

/// Counts a request that waits at an endpoint.
pub(super) struct WaitingGuard<'e>(&'e Endpoint);

impl<'e> WaitingGuard<'e> {
    pub(super) fn enter(endpoint: &'e Endpoint) -> Self {
        endpoint.waiting.set(endpoint.waiting.get() + 1);
        Self(endpoint)
    }
}

impl Drop for WaitingGuard<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
        // Others may use a connection that was kept for this waiter.
        self.0.notify_yielders();
    }
}
