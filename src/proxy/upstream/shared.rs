//! The state of upstreams that all workers share, and the tasks that maintain it. Requests do not write to
//! it, except for permits under configured limits.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    metrics::{UpstreamReading, UpstreamReadings, UrlReading},
    net::{Budgets, Clock},
    proxy::upstream::{
        admission::SharedLimit,
        endpoint_health::EndpointHealth,
        health,
        resolve::{self, Resolver, SystemResolver},
        sockets::{Sockets, UpstreamSockets},
    },
    settings::{ProxySettings, UpstreamSettings, WeightedUrl},
    state::State,
};

/// One per process. The state of an upstream or URL outlives reloads that keep it.
pub struct Upstreams {
    resolver: Box<dyn Resolver>,
    sockets: Arc<Sockets>,
    known: Mutex<HashMap<Arc<str>, UpstreamState>>,
    /// Notified when a worker has read settings that no task runs with yet.
    new_settings: Notify,
}

/// The state of one upstream that the workers share.
pub struct SharedUpstream {
    /// In the order of the URLs.
    pub endpoints: Vec<Arc<EndpointHealth>>,
    pub requests: Arc<SharedLimit>,
    pub connections: Arc<SharedLimit>,
    pub sockets: UpstreamSockets,
}

/// How often to look for a reload that no worker has reported.
const RELOAD_POLL_INTERVAL: Duration = Duration::from_secs(1);

struct UpstreamState {
    sockets: UpstreamSockets,
    /// The settings that the tasks run with.
    settings: Option<Arc<UpstreamSettings>>,
    endpoints: HashMap<String, Arc<EndpointHealth>>,
    requests: Arc<SharedLimit>,
    connections: Arc<SharedLimit>,
}

impl Upstreams {
    pub fn new(budgets: Arc<Budgets>) -> Arc<Self> {
        Self::with_resolver(budgets, SystemResolver)
    }

    pub fn with_resolver(budgets: Arc<Budgets>, resolver: impl Resolver + 'static) -> Arc<Self> {
        let (sockets, resolver) = (Sockets::new(budgets), Box::new(resolver));
        Arc::new(Self { resolver, sockets, known: Mutex::default(), new_settings: Notify::new() })
    }

    /// Resolves names and checks health until dropped. Run it once per process.
    pub async fn maintain(self: Arc<Self>, state: Arc<State>, clock: Clock) {
        let mut cared: HashMap<Arc<str>, (Arc<UpstreamSettings>, JoinSet<()>)> = HashMap::new();
        let mut followed: Option<Arc<ProxySettings>> = None;
        loop {
            let settings = state.snapshot().proxy.clone();
            if !followed.as_ref().is_some_and(|known| Arc::ptr_eq(known, &settings)) {
                self.retain_configured(&settings);
                cared.retain(|name, (known, _)| settings.upstreams.get(name) == Some(known));
                for (name, wanted) in &settings.upstreams {
                    let cared = cared.entry(name.clone());
                    cared.or_insert_with(|| (wanted.clone(), self.spawn_tasks(wanted, &clock)));
                }
                followed = Some(settings);
            }
            // A worker that reads a reload notifies this task. Otherwise the timeout finds it.
            let _ = tokio::time::timeout(RELOAD_POLL_INTERVAL, self.new_settings.notified()).await;
        }
    }

    /// Keeps the state of the configured upstreams and drops that of others.
    fn retain_configured(&self, settings: &ProxySettings) {
        let mut known = self.known.lock();
        known.retain(|name, _| settings.upstreams.contains_key(name));
        self.sockets.set_upstreams(settings.upstreams.len());
        for upstream in settings.upstreams.values() {
            let urls: Vec<String> = upstream.urls.iter().map(|one| one.url.to_string()).collect();
            let known = known.entry(upstream.name.clone()).or_insert_with(|| self.state());
            known.endpoints.retain(|url, _| urls.contains(url));
            known.settings = Some(upstream.clone());
            if upstream.health.is_none() {
                // Without a health check, nothing else would set it up again.
                known.endpoints.values().for_each(|health| health.set_up(true));
            }
        }
    }

    fn spawn_tasks(self: &Arc<Self>, settings: &Arc<UpstreamSettings>, clock: &Clock) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for (place, health) in self.of(settings).endpoints.into_iter().enumerate() {
            if let Some((name, port)) = settings.urls[place].url.name() {
                let (everything, settings, health) = (self.clone(), settings.clone(), health.clone());
                tasks.spawn_local(async move {
                    resolve::resolve_until_dropped(&*everything.resolver, &name, port, &settings, &health)
                        .await;
                });
            }
            if let Some(check) = settings.health.clone() {
                tasks.spawn_local(health::check_until_dropped(
                    check,
                    settings.clone(),
                    place,
                    health,
                    clock.clone(),
                ));
            }
        }
        tasks
    }

    /// Returns the shared state for a worker that has read these settings.
    pub fn of(&self, settings: &Arc<UpstreamSettings>) -> SharedUpstream {
        let mut all = self.known.lock();
        let count = all.len();
        let known = all.entry(settings.name.clone()).or_insert_with(|| self.state());
        if known.settings.as_ref() != Some(settings) {
            self.new_settings.notify_one();
        }
        let shared = known.shared(settings);
        // Counts a new upstream now, because `follow` may run only after the first requests. Otherwise one
        // upstream could take the whole budget until then.
        if all.len() > count {
            self.sockets.set_upstreams(all.len());
        }
        shared
    }

    fn state(&self) -> UpstreamState {
        UpstreamState {
            sockets: self.sockets.of_upstream(),
            settings: None,
            endpoints: HashMap::new(),
            requests: Arc::default(),
            connections: Arc::default(),
        }
    }
}

impl UpstreamState {
    fn shared(&mut self, settings: &UpstreamSettings) -> SharedUpstream {
        let health = |one: &WeightedUrl| self.endpoints.entry(one.url.to_string()).or_default().clone();
        SharedUpstream {
            endpoints: settings.urls.iter().map(health).collect(),
            requests: self.requests.clone(),
            connections: self.connections.clone(),
            sockets: self.sockets.clone(),
        }
    }
}

impl UpstreamReadings for Upstreams {
    fn read(&self) -> Vec<UpstreamReading> {
        let now = Instant::now();
        let mut known = self.known.lock();
        let reading = |known: &mut UpstreamState| {
            let settings = known.settings.clone()?;
            let SharedUpstream { endpoints, requests, connections, .. } = known.shared(&settings);
            let figures = |limit: &SharedLimit, set: Option<NonZeroUsize>| set.map(|_| limit.usage());
            let url = |(one, health): (&WeightedUrl, Arc<EndpointHealth>)| UrlReading {
                url: one.url.to_string(),
                up: health.is_up(),
                ejected: health.is_ejected(now),
            };
            Some(UpstreamReading {
                name: settings.name.to_string(),
                urls: settings.urls.iter().zip(endpoints).map(url).collect(),
                is_checked: settings.health.is_some(),
                requests: figures(&requests, settings.max_in_flight),
                connections: figures(&connections, settings.max_connections),
            })
        };
        let mut readings: Vec<_> = known.values_mut().filter_map(reading).collect();
        readings.sort_by(|a, b| a.name.cmp(&b.name));
        readings
    }
}
