//! Composition: binds sockets, connects the parts, reloads and drains.
//!
//! There is one thread per worker, one control thread for the admin listener, reloads and flushes, and the
//! store's writer. The store is opened before any address is bound. A worker that dies, or that does not
//! acknowledge a change, ends the process.

mod certificates;
mod control;
mod exchange;
mod listeners;
pub mod log_level;
mod own_address;
mod reload;
mod supervisor;
mod uses;
mod watch;
mod worker;

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
    thread::JoinHandle,
    time::SystemTime,
};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch as watch_channel};

use crate::{
    admin,
    assertion::{Keyring, KeyringError},
    authz::administration::has_administrator,
    config::{Config, Errors},
    fence::{self, Fence},
    metrics::Metrics,
    net::{self, Address, BindError, Budgets, InheritError, Listener, Machine, tls},
    proxy::{self, Issuers, LastUsedTables, Upstreams, access_log::AccessLog, refusals},
    state::State,
    store::{OpenError, Store},
};

use certificates::ActiveCertificates;
use control::{Control, ControlRuntime};
pub use listeners::LocalAddr;
pub use own_address::LoopError;
use own_address::OwnAddresses;
use reload::Reloader;
use supervisor::{Supervisor, Watchdog};
use uses::AdminUses;
use worker::WorkerParts;

/// A running gateway. Dropping it stops it like [`Running::stop`], but without the outcome.
pub struct Running {
    proxy: Vec<LocalAddr>,
    admin: Vec<LocalAddr>,
    administered: bool,
    stop: Arc<Notify>,
    control: Option<JoinHandle<Outcome>>,
}

/// How a gateway ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was asked to stop. Everything in progress has ended, or was cut at the drain's deadline.
    Drained,
    /// It is no longer sound: a supervisor has to start another process.
    Failed(String),
}

/// Whether a gateway handles the process's signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signals {
    /// SIGTERM, SIGINT and SIGQUIT drain, SIGHUP reloads, SIGUSR1 opens the access log again, SIGUSR2 does nothing.
    Handled,
    /// The program that embeds the gateway handles them.
    Ignored,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{0}")]
    Config(#[from] Errors),
    #[error("{0}")]
    Store(#[from] OpenError),
    #[cfg(feature = "etcd")]
    #[error("{0}")]
    Cluster(#[from] crate::store::cluster::JoinError),
    #[error("{0}")]
    Bind(#[from] BindError),
    #[error("{0}")]
    Inherit(#[from] InheritError),
    #[error(
        "other machines could reach the admin listener at {0}: add `allow_remote = true` to [admin] if that is meant"
    )]
    RemoteAdmin(Address),
    #[error("{0}")]
    OwnUpstream(#[from] LoopError),
    #[error("{0}")]
    Tls(#[from] tls::TlsError),
    #[error("{0}")]
    Keyring(#[from] KeyringError),
    #[error("failed to start a thread: {0}")]
    Thread(io::Error),
    #[error("failed to open a listening socket: {0}")]
    Listener(io::Error),
}

/// The store. `ended` reports why this node can no longer take part in its cluster.
struct OpenedStore {
    store: Store,
    state: Arc<State>,
    ended: Option<watch_channel::Receiver<Option<String>>>,
}

fn open_store(config: &Config, fence: Arc<Fence>) -> Result<OpenedStore, StartError> {
    #[cfg(feature = "etcd")]
    if let Some(cluster) = &config.cluster {
        let (store, state, ended) = Store::join(&config.store, cluster, config.configuration(), fence)?;
        return Ok(OpenedStore { store, state, ended: Some(ended) });
    }
    let (store, state) = Store::open(&config.store, config.configuration(), fence)?;
    Ok(OpenedStore { store, state, ended: None })
}

/// Starts a gateway, and returns when every listener accepts connections.
pub fn start(config: Config, signals: Signals) -> Result<Running, StartError> {
    for line in &config.environment {
        tracing::info!("{line}");
    }
    for warning in config.exposed_secrets.iter().chain(&config.warnings) {
        tracing::warn!("{warning}");
    }
    let unreadable = config.etcd_errors();
    if !unreadable.is_empty() {
        return Err(Errors(unreadable).into());
    }
    // Before the first thread, because this removes the environment variables that name the sockets.
    let mut inherited = listeners::inherited_sockets(&config, signals)?;
    let runtime = ControlRuntime::new(signals).map_err(StartError::Thread)?;
    let supervisor = Supervisor::of(signals);
    let mut watchdog = Watchdog::new(supervisor);
    let fence = Fence::new(fence::ACKNOWLEDGE_TIMEOUT);
    // The store's lock comes first, so that a second process fails before it binds an address.
    let OpenedStore { store, state, ended } = open_store(&config, fence.clone())?;
    let (exchanged, has_orphans) = exchange::revoke_orphans_at_start(&store, &state);
    let keyring = Arc::new(Keyring::default());
    if let Some(assertion) = &config.assertion {
        keyring.update_keys(assertion, SystemTime::now().into())?;
    }
    let administered = has_administrator(&store.accounts());
    warn_about_unknown_readers(&config, &store);
    let metrics = Metrics::new(store.metrics());
    metrics.set(config.metrics);
    metrics.name_services(&state.snapshot().rules);
    let log = AccessLog::start(config.log.access.clone(), metrics.clone())
        .map_err(|error| Errors(vec![config.access_log_problem(&error)]))?;
    let certificates = ActiveCertificates::load(&config, metrics.clone())?;
    let proxy = listeners::proxy(&config.server, &mut inherited)?;
    let admin_listeners = listeners::admin(&config.admin, &mut inherited)?;
    let metrics_listener = listeners::metrics(&config.admin)?;
    for name in inherited.untaken() {
        tracing::warn!("the socket passed as {name:?} is not used: no `listen` names systemd:{name}");
    }
    let (proxy_addresses, admin_addresses) =
        (listeners::local_addresses(&proxy)?, listeners::local_addresses(&admin_listeners)?);
    let metrics_addresses = listeners::local_addresses(metrics_listener.as_slice())?;
    let own =
        OwnAddresses::new([&proxy_addresses, &admin_addresses, &metrics_addresses].into_iter().flatten());
    own.check(config.proxy.upstreams.values())?;

    let (refusal_sender, refusals) = refusals::channel(metrics.clone());
    let uses = Arc::new(LastUsedTables::default());
    // Raises the limit on open files before anything opens more than the soft limit allows.
    let budget_limits = config.budget_limits(Machine::with_raised_file_limit());
    let budgets = Budgets::for_proxy(&budget_limits);
    let admin_budgets = Budgets::for_admin(&budget_limits);
    let upstreams = Upstreams::new(budgets.clone());
    let _ = metrics.upstream_readings.set(upstreams.clone());
    let (of_proxy, of_admin) = (budgets.clone(), admin_budgets.clone());
    let readings = move || [of_proxy.readings(), of_admin.admin_readings()].concat();
    let _ = metrics.budget_readings.set(Box::new(readings));
    let gateway = proxy::Parts {
        state: state.clone(),
        metrics: metrics.clone(),
        log: log.clone(),
        uses: uses.clone(),
        refusals: refusal_sender.clone(),
        bad_tokens: Arc::default(),
        records: Arc::new(store.clone()),
        issuers: Arc::new(Issuers::with_exchanged(exchanged)),
        keyring: keyring.clone(),
        counts: Arc::default(),
        upstreams: upstreams.clone(),
    };
    let (limits, watched_limits) = tokio::sync::watch::channel(config.server.limits.clone());
    let (drain, draining) = net::drain();
    let (exits, worker_exits) = mpsc::unbounded_channel();
    let count = config.workers();
    let mut workers = Vec::with_capacity(count);
    let (serving, served) = std::sync::mpsc::channel();
    for number in 0..count {
        let mut listeners = listeners::listening(&proxy, certificates.proxy.as_ref())?;
        if config.server.proxy_protocol {
            listeners = listeners.into_iter().map(Listener::with_proxy_protocol).collect();
        }
        let parts = WorkerParts {
            listeners,
            // Joins before the thread runs: from here on no change completes without this worker.
            participant: fence.join(),
            gateway: gateway.clone(),
            budgets: budgets.clone(),
            limits: watched_limits.clone(),
            draining: draining.clone(),
            heartbeat: watchdog.as_mut().map(Watchdog::heartbeat),
            serving: serving.clone(),
        };
        workers.push(worker::spawn(number, parts, exits.clone()).map_err(StartError::Thread)?);
    }
    // A worker that ended instead is handled by the control thread.
    drop(serving);
    served.iter().take(count).for_each(drop);

    let stop = Arc::new(Notify::new());
    let ready = Arc::new(AtomicBool::new(true));
    let of_admin = config.admin.clone();
    let listeners = listeners::listening(&admin_listeners, certificates.admin.as_ref())?;
    let reloader = Arc::new(Reloader {
        file: config.file.clone(),
        text: Mutex::new(config.annotated_text()),
        drain_delay: Mutex::new(config.server.drain_delay),
        drain_time: Mutex::new(config.server.drain),
        present: tokio::sync::Mutex::new(config),
        store: store.clone(),
        state: state.clone(),
        fence: fence.clone(),
        metrics: metrics.clone(),
        log,
        limits,
        certificates,
        supervisor,
        keyring,
        budgets: [budgets, admin_budgets.clone()],
        own,
        // Then the next reload looks for them again.
        has_orphans: AtomicBool::new(has_orphans),
        key_failures: net::LogThrottle::default(),
    });
    let context = admin::Context::new(admin::Parts {
        store,
        state: state.clone(),
        fence,
        metrics,
        uses: Arc::new(AdminUses {
            all: uses.clone(),
            own: uses.worker(),
            state: state.clone(),
            refusals: refusal_sender,
        }),
        configuration: reloader.clone(),
        ready: ready.clone(),
        hosts: of_admin.hosts,
        sign_in: of_admin.sign_in,
        budgets: admin_budgets.clone(),
        trusted_proxies: of_admin.trusted_proxies,
        metrics_access: of_admin.metrics,
        // Not the owner of /proc/self, which is root if core dumps are off.
        own_uid: rustix::process::geteuid().as_raw(),
    });
    let control = Control {
        listeners,
        metrics_listeners: listeners::listening(metrics_listener.as_slice(), None)?,
        context,
        status: format!(
            "serving {}; admin {}",
            join_addresses(&proxy_addresses),
            join_addresses(&admin_addresses)
        ),
        supervisor,
        watchdog,
        ready,
        reloader,
        budgets: admin_budgets,
        cluster_ended: ended,
        uses,
        upstreams,
        refusals,
        workers,
        worker_exits,
        drain,
        stop: stop.clone(),
    };
    let control = control::spawn(control, runtime).map_err(StartError::Thread)?;
    Ok(Running { proxy: proxy_addresses, admin: admin_addresses, administered, stop, control: Some(control) })
}

impl Running {
    /// Returns the proxy's addresses, in the order of the configuration.
    pub fn proxy(&self) -> &[LocalAddr] {
        &self.proxy
    }

    pub fn admin(&self) -> &[LocalAddr] {
        &self.admin
    }

    /// Whether an active account had the permission `admin-write` at the start.
    pub fn has_administrator(&self) -> bool {
        self.administered
    }

    /// Drains the gateway, and returns how it ended.
    pub fn stop(mut self) -> Outcome {
        self.stop.notify_one();
        self.join()
    }

    /// Waits until something else ends the gateway.
    pub fn wait(mut self) -> Outcome {
        self.join()
    }

    fn join(&mut self) -> Outcome {
        let Some(control) = self.control.take() else { return Outcome::Drained };
        control.join().unwrap_or_else(|_| Outcome::Failed("the control thread has died".to_owned()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.notify_one();
        self.join();
    }
}

fn warn_about_unknown_readers(config: &Config, store: &Store) {
    let accounts = store.accounts();
    for warning in config.unknown_readers(accounts.groups().map(|group| group.record.name.as_str())) {
        tracing::warn!("{warning}");
    }
}

fn join_addresses(places: &[LocalAddr]) -> String {
    places.iter().map(LocalAddr::to_string).collect::<Vec<_>>().join(", ")
}
