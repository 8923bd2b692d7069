//! The control thread: admin listener, signals, periodic work, and shutdown.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc, watch},
    task::LocalSet,
};

use super::{
    Outcome, Signals,
    reload::Reloader,
    supervisor::{Supervisor, Watchdog},
    worker::Exit,
};
use crate::{
    admin,
    authz::rules::Rules,
    net::{self, Budgets, Drain, Limits, Listener, Worker},
    proxy::{
        LastUsedTables, Upstreams,
        refusals::{AuditSample, RefusalEvent, Refusals},
    },
    store::{Actor, ActorKind, model::AuditEvent},
};

/// How often last uses are written to the store.
const FLUSH_USES: Duration = Duration::from_secs(30);

/// How often audited refusals are written to the store.
const RECORD_REFUSALS: Duration = Duration::from_secs(5);

/// How often to check whether assertion keys must be created or retired.
const ROTATE_KEYS: Duration = Duration::from_secs(1);

/// How often to check whether a certificate is about to expire.
const CHECK_CERTIFICATES: Duration = Duration::from_secs(3600);

/// How long a node that stops tries to notify the other nodes.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the admin listener may still respond when everything else has ended.
const ADMIN_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The nice value of threads for lists, hashing and files. They still get a tenth of a busy processor.
const WORKER_POOL_NICE: i32 = 10;

/// Everything that the control thread needs.
pub struct Control {
    pub listeners: Vec<Listener>,
    /// The status for the supervisor when every listener accepts.
    pub status: String,
    pub supervisor: Supervisor,
    pub watchdog: Option<Watchdog>,
    pub ready: Arc<AtomicBool>,
    pub context: admin::Context,
    /// Listeners that serve only `/metrics`.
    pub metrics_listeners: Vec<Listener>,
    /// Reports why this node can no longer take part in its cluster.
    pub cluster_ended: Option<watch::Receiver<Option<String>>>,
    pub uses: Arc<LastUsedTables>,
    pub upstreams: Arc<Upstreams>,
    pub refusals: Refusals,
    pub reloader: Arc<Reloader>,
    /// The admin listener's budgets.
    pub budgets: Arc<Budgets>,
    pub workers: Vec<JoinHandle<()>>,
    pub worker_exits: mpsc::UnboundedReceiver<Exit>,
    pub drain: Drain,
    /// Notified when the gateway is to stop.
    pub stop: Arc<Notify>,
}

/// The control thread's runtime. From its creation on, SIGHUP, SIGUSR1 and SIGUSR2, which would end the
/// process, wait until the thread runs.
pub struct ControlRuntime {
    runtime: tokio::runtime::Runtime,
    /// `None`: signals are ignored.
    waiting: Option<[Signal; 3]>,
}

/// SIGTERM, SIGINT and SIGQUIT, then SIGHUP, SIGUSR1 and SIGUSR2. `None`: signals are ignored.
struct SignalStreams(Option<([Signal; 3], [Signal; 3])>);

enum SignalCommand {
    Stop,
    Reload,
    ReopenLogs,
    /// SIGUSR2, which would end the process by default. It is caught and does nothing.
    Nothing,
}

impl ControlRuntime {
    pub fn new(signals: Signals) -> io::Result<Self> {
        // Work whose size callers determine runs on threads that tokio spawns. Their lower priority leaves
        // the processor to requests and to changes.
        let step_back = || {
            let _ = rustix::process::setpriority_process(None, WORKER_POOL_NICE);
        };
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().on_thread_start(step_back).build()?;
        let waiting = match signals {
            Signals::Ignored => None,
            Signals::Handled => {
                let _entered = runtime.enter();
                let (hup, usr1) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined1())?);
                Some([hup, usr1, signal(SignalKind::user_defined2())?])
            }
        };
        Ok(Self { runtime, waiting })
    }
}

pub fn spawn(
    control: Control,
    ControlRuntime { runtime, waiting }: ControlRuntime,
) -> io::Result<JoinHandle<Outcome>> {
    // Before the gateway reports that it is ready: from then on it drains instead of ending at once.
    let signals = {
        let _entered = runtime.enter();
        SignalStreams::listen(waiting)?
    };
    std::thread::Builder::new().name("control".to_owned()).spawn(move || {
        let outcome = LocalSet::new().block_on(&runtime, control.run(signals));
        // A name lookup or another blocking call may still hang. Nothing waits for it.
        runtime.shutdown_background();
        outcome
    })
}

impl Control {
    async fn run(mut self, mut signals: SignalStreams) -> Outcome {
        let (admin_drain, admin_draining) = net::drain();
        let server = admin::Server::new(self.context.clone());
        // The budgets limit the connections: by `admin.connections`.
        let limits = Limits { connections: usize::MAX, ..Limits::default() };
        let worker = Worker::new(limits, self.budgets.clone());
        for listener in std::mem::take(&mut self.listeners) {
            let served = net::serve(worker.clone(), listener, server.clone(), admin_draining.clone());
            tokio::task::spawn_local(served);
        }
        for listener in std::mem::take(&mut self.metrics_listeners) {
            let scraped = server.for_metrics();
            let served = net::serve(worker.clone(), listener, scraped, admin_draining.clone());
            tokio::task::spawn_local(served);
        }
        let care = self.upstreams.clone().maintain(self.reloader.state.clone(), worker.clock().clone());
        tokio::task::spawn_local(care);
        let [proxy_budgets, admin_budgets] = self.reloader.budgets.clone();
        tokio::task::spawn_local(net::log_refusals(proxy_budgets, admin_budgets));
        tokio::task::spawn_local(self.reloader.clone().watch_certificates());
        self.supervisor.ready(&self.status);
        let outcome = self.run_until_stopped(&mut signals).await;
        if outcome == Outcome::Drained {
            self.drain_workers(&mut signals).await;
        }
        admin_drain.begin(Instant::now() + ADMIN_DRAIN_TIMEOUT);
        while worker.connections() > 0 && outcome == Outcome::Drained {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.flush_uses().await;
        self.record_refusals().await;
        if self.reloader.store.node().is_some()
            && !matches!(tokio::time::timeout(LEAVE_TIMEOUT, self.reloader.store.leave()).await, Ok(Ok(())))
        {
            tracing::warn!(
                "cannot leave the cluster: the next change will wait for this node's lease to end"
            );
        }
        self.reloader.store.close().await;
        outcome
    }

    /// Runs until the gateway is asked to stop or cannot go on.
    async fn run_until_stopped(&mut self, signals: &mut SignalStreams) -> Outcome {
        let mut flush = tokio::time::interval(FLUSH_USES);
        let mut record = tokio::time::interval(RECORD_REFUSALS);
        let mut rotate = tokio::time::interval(ROTATE_KEYS);
        let mut look = tokio::time::interval(CHECK_CERTIFICATES);
        let fence = self.reloader.fence.clone();
        let broken = fence.wait_until_broken();
        tokio::pin!(broken);
        let store = self.reloader.store.clone();
        let writer_ended = store.ended();
        tokio::pin!(writer_ended);
        let mut drain_at = None;
        self.watchdog.iter_mut().for_each(Watchdog::start);
        loop {
            tokio::select! {
                biased;
                () = &mut broken => {
                    let outcome = self.fail("a worker does not apply changes".to_owned());
                    // The caller's 503 goes out first.
                    tokio::time::sleep(ADMIN_DRAIN_TIMEOUT).await;
                    return outcome;
                }
                // No test can provoke this without a hook in the writer, because its engine's panics become
                // errors.
                () = &mut writer_ended => {
                    let outcome = self.fail("the store's writer thread has died".to_owned());
                    // The 503s of waiting callers go out first.
                    tokio::time::sleep(ADMIN_DRAIN_TIMEOUT).await;
                    return outcome;
                }
                why = cluster_failure(&mut self.cluster_ended) => return self.fail(why),
                exit = self.worker_exits.recv() => {
                    let why = exit.and_then(Result::err).unwrap_or_else(|| "a worker has ended".to_owned());
                    return self.fail(why);
                }
                asked = signals.next() => match asked {
                    SignalCommand::Stop if drain_at.is_some() => return Outcome::Drained,
                    SignalCommand::Stop => match self.announce_drain() {
                        None => return Outcome::Drained,
                        at => drain_at = at,
                    },
                    SignalCommand::Reload => self.reload(),
                    SignalCommand::ReopenLogs => self.reloader.log.reopen(),
                    SignalCommand::Nothing => {}
                },
                () = self.stop.notified() => return Outcome::Drained,
                () = wait_until(drain_at) => return Outcome::Drained,
                // Work on the store is spawned, so that a disk that hangs does not keep this loop from
                // signals and workers. The watchdog is notified in this loop, so that it also shows that the
                // loop is alive.
                () = wait_until(self.watchdog.as_ref().map(Watchdog::due)) => {
                    if let Some(watchdog) = &mut self.watchdog {
                        watchdog.beat();
                    }
                }
                _ = flush.tick() => { tokio::task::spawn_local(self.flush_uses()); }
                _ = rotate.tick() => { tokio::task::spawn_local(self.reloader.clone().rotate_keys()); }
                _ = look.tick() => { tokio::task::spawn_local(self.reloader.clone().report_expiry()); }
                _ = record.tick() => { tokio::task::spawn_local(self.record_refusals()); }
            }
        }
    }

    /// Makes the gateway not ready, so that load balancers send no more requests. Returns when to drain;
    /// `None`: now.
    fn announce_drain(&self) -> Option<Instant> {
        self.ready.store(false, Ordering::Release);
        let delay = *self.reloader.drain_delay.lock();
        if delay.is_zero() {
            return None;
        }
        tracing::info!(seconds = delay.as_secs(), "not ready, accepting connections until the drain");
        let status = format!("accepting connections for {} s before the drain", delay.as_secs());
        self.supervisor.draining(&status, delay + *self.reloader.drain_time.lock());
        Some(Instant::now() + delay)
    }

    fn fail(&self, why: String) -> Outcome {
        self.ready.store(false, Ordering::Release);
        tracing::error!("{why}: exiting, so that the supervisor restarts permgate");
        self.supervisor.stopping(&why);
        Outcome::Failed(why)
    }

    /// Handles SIGHUP. The outcome is logged.
    fn reload(&self) {
        let reloader = self.reloader.clone();
        // Its file may have been moved away.
        reloader.log.reopen();
        tokio::task::spawn_local(async move {
            // It logs the outcome.
            let _ = reloader.reload(Actor::new(ActorKind::Operator)).await;
        });
    }

    /// Drains the workers: not ready, no new connections, then the end of requests in progress. A second
    /// signal ends the drain at once.
    async fn drain_workers(&mut self, signals: &mut SignalStreams) {
        self.ready.store(false, Ordering::Release);
        let drain_time = *self.reloader.drain_time.lock();
        tracing::info!(seconds = drain_time.as_secs(), "draining");
        let status = format!("draining for at most {} s", drain_time.as_secs());
        self.supervisor.draining(&status, drain_time);
        self.drain.begin(Instant::now() + drain_time);
        let mut left = self.workers.len();
        while left > 0 {
            tokio::select! {
                exit = self.worker_exits.recv() => {
                    if let Some(Err(why)) = exit {
                        tracing::warn!("{why}");
                    }
                    left -= 1;
                }
                asked = signals.next() => if matches!(asked, SignalCommand::Stop) {
                    self.drain.begin(Instant::now());
                },
            }
        }
        for worker in self.workers.drain(..) {
            // The worker's end was already reported, even if it was a panic.
            let _ = worker.join();
        }
    }

    fn flush_uses(&self) -> impl Future<Output = ()> + use<> {
        let store = self.reloader.store.clone();
        // If the store takes no changes, the uses stay in memory, where the admin listener finds them.
        let writable = store.writable().is_ok();
        let uses = if writable { self.uses.take(&self.reloader.state.snapshot().rules) } else { Vec::new() };
        async move {
            if !uses.is_empty()
                && let Err(error) = store.record_use(uses).await
            {
                tracing::warn!("failed to record when tokens were last used: {error}");
            }
        }
    }

    fn record_refusals(&mut self) -> impl Future<Output = ()> + use<> {
        let rules = self.reloader.state.snapshot().rules.clone();
        let due = self.refusals.due(SystemTime::now().into());
        let events: Vec<_> = due.iter().map(|event| to_audit_event(event, &rules)).collect();
        let store = self.reloader.store.clone();
        async move {
            if !events.is_empty()
                && let Err(error) = store.record_refusals(events).await
            {
                tracing::warn!("failed to audit refusals: {error}");
            }
        }
    }
}

impl SignalStreams {
    fn listen(waiting: Option<[Signal; 3]>) -> io::Result<Self> {
        let Some(others) = waiting else { return Ok(Self(None)) };
        let stop = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()];
        let [term, int, quit] = stop.map(signal);
        Ok(Self(Some(([term?, int?, quit?], others))))
    }

    async fn next(&mut self) -> SignalCommand {
        let Some(([term, int, quit], [hup, usr1, usr2])) = &mut self.0 else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = term.recv() => SignalCommand::Stop,
            _ = int.recv() => SignalCommand::Stop,
            _ = quit.recv() => SignalCommand::Stop,
            _ = hup.recv() => SignalCommand::Reload,
            _ = usr1.recv() => SignalCommand::ReopenLogs,
            _ = usr2.recv() => SignalCommand::Nothing,
        }
    }
}

/// Returns why this node can no longer take part in its cluster. Never returns without a cluster.
async fn cluster_failure(cluster: &mut Option<watch::Receiver<Option<String>>>) -> String {
    if let Some(cluster) = cluster
        && let Ok(why) = cluster.wait_for(Option::is_some).await
        && let Some(why) = why.clone()
    {
        return why;
    }
    std::future::pending().await
}

/// Never returns without an instant.
async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Returns the audit event for refusals that are recorded together.
fn to_audit_event(event: &RefusalEvent, rules: &Rules) -> AuditEvent {
    let AuditSample { at, reason, token, client, service, request_id } = &event.sample;
    let service =
        service.and_then(|id| rules.service(id)).map(|service| service.spec.key.as_str().to_owned());
    let target = token.map_or_else(|| "bearer".to_owned(), |id| format!("token:{id}"));
    let refused =
        AuditEvent::refused("refusal", *at, *client, target, request_id, reason.code(), event.count);
    AuditEvent { service, ..refused }
}
