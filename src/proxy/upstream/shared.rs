//! The state of upstreams that all workers share, and the tasks that maintain it: one resolves each name, so
//! that no worker waits for a name server again, and one checks the health of each URL. Requests do not write
//! to the state, except for permits under configured limits.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    num::NonZeroUsize,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinSet};

use crate::{
    authz::reason::Reason,
    metrics::{UpstreamReading, UpstreamReadings, UrlReading},
    net::{Budgets, Clock},
    proxy::upstream::{
        admission::{SharedLimit, Sockets, UpstreamSockets},
        body::{IncomingBody, OutgoingBody},
        connector::ConnectError,
        endpoint::{Endpoint, Purpose},
        endpoint_health::EndpointHealth,
    },
    settings::{Health, ProxySettings, UpstreamSettings, WeightedUrl},
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
                    resolve_until_dropped(&*everything.resolver, &name, port, &settings, &health).await;
                });
            }
            if let Some(check) = settings.health.clone() {
                tasks.spawn_local(check_until_dropped(check, settings.clone(), place, health, clock.clone()));
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
        // Counts a new upstream now, because `maintain` may run only after the first requests. Otherwise one
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

/// Resolves a name to addresses.
pub trait Resolver: Send + Sync {
    fn resolve<'a>(&'a self, name: &'a str, port: u16) -> Resolving<'a>;
}

pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// The system's resolver (`getaddrinfo`), on a thread that may block.
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str, port: u16) -> Resolving<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.collect()) })
    }
}

/// Pause after the first failure. It doubles with each consecutive failure up to the configured interval.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Resolves one name periodically until dropped.
async fn resolve_until_dropped(
    resolver: &dyn Resolver,
    name: &str,
    port: u16,
    settings: &UpstreamSettings,
    health: &EndpointHealth,
) {
    let upstream = &settings.name;
    let mut failures = 0;
    loop {
        // Needs no timeout, because the known addresses stay in use meanwhile.
        let found = resolver.resolve(name, port).await;
        let pause = match found {
            Ok(addresses) if !addresses.is_empty() => {
                if health.set_addresses(addresses) {
                    tracing::debug!(%upstream, name, "the name resolves to other addresses");
                }
                failures = 0;
                settings.resolve
            }
            other => {
                health.set_addresses(Vec::new());
                let error = other.err().unwrap_or_else(|| io::ErrorKind::NotFound.into());
                if failures == 0 {
                    tracing::warn!(%upstream, name, %error, "the name cannot be resolved; addresses found before, if any, stay in use");
                }
                failures += 1;
                MIN_RETRY_DELAY.saturating_mul(1 << (failures - 1).min(16)).min(settings.resolve)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// How much of a check's response body is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Checks one URL until dropped.
async fn check_until_dropped(
    check: Health,
    settings: Arc<UpstreamSettings>,
    place: usize,
    health: Arc<EndpointHealth>,
    clock: Clock,
) {
    let url = &settings.urls[place].url;
    let endpoint = Endpoint::new(url, &settings, health.clone(), None, None);
    let host = settings.host.clone().unwrap_or_else(|| url.authority());
    let mut against = 0;
    loop {
        let checked = check_once(&endpoint, &host, &check, &clock);
        let outcome = tokio::time::timeout(check.timeout, checked).await;
        let outcome = outcome.unwrap_or(Err(Unhealthy::Silent(check.timeout)));
        // Only consecutive outcomes that contradict the current state count.
        against = if outcome.is_ok() == health.is_up() { 0 } else { against + 1 };
        match outcome {
            Ok(()) if against >= check.rise => {
                health.set_up(true);
                health.succeeded();
                tracing::info!(upstream = %settings.name, %url, "up: its health checks pass");
                against = 0;
            }
            Err(why) if against >= check.fall => {
                health.set_up(false);
                tracing::warn!(upstream = %settings.name, %url, %why, "down: its health checks fail");
                against = 0;
            }
            _ => {}
        }
        tokio::time::sleep(check.interval).await;
    }
}

async fn check_once(
    endpoint: &Rc<Endpoint>,
    host: &HeaderValue,
    check: &Health,
    clock: &Clock,
) -> Result<(), Unhealthy> {
    let mut request = Box::new(Request::new(OutgoingBody::empty()));
    *request.uri_mut() = check.path.clone().into();
    request.headers_mut().insert(header::HOST, host.clone());
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("permgate-health"));
    let mut connection =
        endpoint.connect(check.timeout, clock, None, Purpose::Requests).await.map_err(Unhealthy::Connect)?;
    let response = connection.send(request, check.timeout, false).await;
    let response = response.map_err(|failure| Unhealthy::NoResponse(failure.reason))?;
    let status = response.status();
    let body = IncomingBody::new(response.into_body(), connection, check.timeout);
    // Reads the body, so that the upstream does not log an aborted response. An endless one is aborted.
    let _ = Limited::new(body, MAX_ANSWER).collect().await;
    // The next check opens a new connection.
    while endpoint.close_one() {}
    let sound = match check.status {
        Some(expected) => status == expected,
        None => status.is_success() || status.is_redirection(),
    };
    if sound { Ok(()) } else { Err(Unhealthy::Status(status)) }
}

#[derive(Debug, thiserror::Error)]
enum Unhealthy {
    #[error("cannot connect: {0}")]
    Connect(#[source] ConnectError),
    #[error("{}", .0.code())]
    NoResponse(Reason),
    #[error("responded {0}")]
    Status(StatusCode),
    #[error("no response within {0:?}")]
    Silent(Duration),
}
