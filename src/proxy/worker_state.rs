//! A worker's copy of the published state: the snapshot and the upstreams that it names. It is behind an
//! `Rc`, so that a request changes no reference count that other workers share.

use std::{collections::HashMap, rc::Rc, sync::Arc};

use crate::{
    authz::{
        forwarding::IdentityCache,
        rules::{Rules, ServiceId},
        subject::{Directory, User, UserIx},
    },
    proxy::{
        LimitCounters,
        limits::ServiceLimits,
        upstream::{Upstream, shared::Upstreams},
    },
    state::{Snapshot, State},
};

pub struct WorkerState {
    version: u64,
    pub snapshot: Arc<Snapshot>,
    /// Those of the snapshot. A request keeps them to its end: only a reload replaces them.
    #[expect(clippy::redundant_allocation, reason = "workers would contend for the count of the inner one")]
    pub rules: Rc<Arc<Rules>>,
    pub identities: IdentityCache<Arc<Directory>>,
    upstreams: HashMap<Arc<str>, Rc<Upstream>>,
    /// By service id; ids are small and dense.
    services: Vec<Option<Rc<Upstream>>>,
    /// By service id; empty if there are no limits.
    limits: Vec<Option<Rc<ServiceLimits>>>,
}

impl WorkerState {
    /// Reads the published state. Upstreams whose settings have not changed keep their connections.
    pub fn read(
        state: &State,
        common: &Upstreams,
        counts: &LimitCounters,
        before: Option<&WorkerState>,
    ) -> Rc<Self> {
        // The version is read first, so that a change in between makes this state outdated, never current.
        let version = state.version();
        let snapshot = state.snapshot();
        let kept = |name: &str| before.and_then(|view| view.upstreams.get(name));
        let upstreams: HashMap<_, _> = snapshot
            .proxy
            .upstreams
            .iter()
            .map(|(name, wanted)| {
                let upstream = match kept(name) {
                    Some(upstream) if upstream.settings() == wanted => Rc::clone(upstream),
                    _ => Upstream::new(Arc::clone(wanted), common.of(wanted)),
                };
                (Arc::clone(name), upstream)
            })
            .collect();
        let mut services = Vec::new();
        for service in snapshot.rules.services() {
            let at = usize::from(service.id.0);
            services.resize(services.len().max(at + 1), None);
            services[at] = upstreams.get(&service.spec.upstream).cloned();
        }
        let rules = match before {
            Some(before) if Arc::ptr_eq(&before.rules, &snapshot.rules) => Rc::clone(&before.rules),
            _ => Rc::new(Arc::clone(&snapshot.rules)),
        };
        let identities = IdentityCache::new(Arc::clone(&snapshot.directory));
        let limits = counts.of(&snapshot.proxy.limits, &snapshot.rules);
        Rc::new(Self { version, snapshot, rules, identities, upstreams, services, limits })
    }

    pub fn is_current(&self, state: &State) -> bool {
        self.version == state.version()
    }

    pub fn upstream(&self, service: ServiceId) -> Option<&Rc<Upstream>> {
        self.services.get(usize::from(service.0))?.as_ref()
    }

    pub fn limits(&self, service: ServiceId) -> Option<&Rc<ServiceLimits>> {
        self.limits.get(usize::from(service.0))?.as_ref()
    }

    pub fn user(&self, user: Option<UserIx>) -> Option<&User> {
        self.snapshot.directory.user(user?).map(Arc::as_ref)
    }
}
