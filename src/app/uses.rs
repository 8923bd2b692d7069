//! Records uses and refusals of tokens on the admin listener in the same way as the workers do.

use std::{sync::Arc, time::SystemTime};

use crate::{
    admin,
    authz::secret::Digest,
    proxy::{
        LastUsedTable, LastUsedTables, Use,
        refusals::{AuditSample, RefusalSender, is_audited},
    },
    state::State,
    store::model::LastUsed,
};

/// Gives the admin listener access to the proxy's tables, because `admin` does not depend on `proxy`.
pub struct AdminUses {
    pub all: Arc<LastUsedTables>,
    pub own: Arc<LastUsedTable>,
    pub state: Arc<State>,
    pub refusals: RefusalSender,
}

impl admin::UsageTracker for AdminUses {
    fn last(&self, digest: &Digest) -> Option<LastUsed> {
        self.all.last(digest, &self.state.snapshot().rules)
    }

    fn note(&self, digest: &Digest, used: LastUsed) {
        let snapshot = self.state.snapshot();
        if let Some(service) = snapshot.rules.service_by_key(&used.service) {
            self.own.record(*digest, Use { at: used.at, from: used.from, service: service.id });
        }
    }

    fn refused(&self, refused: admin::RefusedRequest<'_>) {
        if !is_audited(refused.reason) {
            return;
        }
        self.refusals.send(AuditSample {
            at: SystemTime::now().into(),
            reason: refused.reason,
            token: refused.token,
            client: refused.client,
            service: None,
            request_id: refused.request_id.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::UsageTracker as _,
        authz::{
            reason::Reason,
            rules::{Rules, ServiceIds, Settings},
            subject::Directory,
        },
        metrics::Metrics,
        proxy::refusals,
        state::Snapshot,
    };

    #[test]
    fn unauthenticated_admin_request_writes_no_audit_event() {
        let settings = Settings { perm_alias: true, trusted_proxies: Default::default() };
        let rules = Rules::compile(Vec::new(), Vec::new(), settings, &mut ServiceIds::default()).unwrap();
        let state = State::new(Snapshot {
            rules: Arc::new(rules),
            directory: Arc::new(Directory::default()),
            proxy: Arc::default(),
        });
        let (sender, mut due) = refusals::channel(Metrics::new(Arc::default()));
        let all = Arc::new(LastUsedTables::default());
        let uses = AdminUses { own: all.worker(), all, state, refusals: sender };
        let mut check = |reason: Reason, events: usize| {
            let client = [192, 0, 2, 1].into();
            uses.refused(admin::RefusedRequest { token: None, client, reason, request_id: "r" });
            assert_eq!(due.due(SystemTime::now().into()).len(), events, "{}", reason.code());
        };
        check(Reason::MissingCredentials, 0);
        check(Reason::UnknownToken, 0);
        check(Reason::BadPath, 0);
        check(Reason::TokenInUrl, 1);
        check(Reason::TokenRevoked, 1);
    }
}
