//! Uses and refusals of tokens on the admin listener, told in the same way as the workers' own.

use std::{sync::Arc, time::SystemTime};

use crate::{
    admin,
    authz::secret::Digest,
    proxy::{
        Use, UseTable, Uses,
        refusals::{RefusalSender, Refused},
    },
    state::State,
    store::model::LastUsed,
};

/// Lends the proxy's tables to the admin listener, which does not know the proxy.
pub struct AdminUses {
    pub all: Arc<Uses>,
    pub own: Arc<UseTable>,
    pub state: Arc<State>,
    pub refusals: RefusalSender,
}

impl admin::Uses for AdminUses {
    fn last(&self, digest: &Digest) -> Option<LastUsed> {
        self.all.last(digest, &self.state.snapshot().rules)
    }

    fn note(&self, digest: &Digest, used: LastUsed) {
        let snapshot = self.state.snapshot();
        if let Some(service) = snapshot.rules.service_by_key(&used.service) {
            self.own.record(*digest, Use { at: used.at, from: used.from, service: service.id });
        }
    }

    fn refused(&self, refused: admin::Refused<'_>) {
        self.refusals.send(Refused {
            at: SystemTime::now().into(),
            reason: refused.reason,
            token: refused.token,
            client: refused.client,
            service: None,
            request_id: refused.request_id.to_owned(),
        });
    }
}
