//! The reload: applies the whole file or nothing, and passes the fence before it answers.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, watch};

use super::{
    certificates::{ActiveCertificates, PendingCertificates, client_certificates, read_expiries},
    exchange,
    own_address::OwnAddresses,
    supervisor::Supervisor,
    watch::{LOOK_INTERVAL, Watch, versions},
};
use crate::{
    admin::{Configuration, ConfigurationError, ReloadError, Reloading},
    assertion::{self, Keyring, KeyringError},
    config::{self, Config, Errors, Problem, chain},
    fence::{Affected, Cut, Fence, FenceIncomplete},
    metrics::Metrics,
    net::{Budgets, Limits, LogThrottle, Machine, tls::Replacement},
    proxy::access_log::{AccessLog, OpenTarget},
    settings::UpstreamTls,
    state::State,
    store::{Actor, ActorKind, ChangeError, Store},
};

/// What a reload replaces, and what it is checked against.
pub struct Reloader {
    pub file: PathBuf,
    /// The configuration in force. Its lock admits one reload at a time.
    pub present: AsyncMutex<Config>,
    /// What `/v1/config` and the page show of it.
    pub text: Mutex<String>,
    pub store: Store,
    pub state: Arc<State>,
    pub fence: Arc<Fence>,
    pub metrics: Arc<Metrics>,
    pub log: Arc<AccessLog>,
    pub limits: watch::Sender<Limits>,
    /// `server.drain_delay`.
    pub drain_delay: Mutex<Duration>,
    /// `server.drain`.
    pub drain_time: Mutex<Duration>,
    pub certificates: ActiveCertificates,
    pub supervisor: Supervisor,
    pub keyring: Arc<Keyring>,
    /// The proxy's and the admin listener's.
    pub budgets: [Arc<Budgets>; 2],
    pub own: OwnAddresses,
    /// Whether the last reload left exchanged tokens of rules that are gone.
    pub has_orphans: AtomicBool,
    pub key_failures: LogThrottle,
}

impl Reloader {
    /// Reads the file again, and returns when every worker decides by it.
    pub async fn reload(&self, actor: Actor) -> Result<Cut, ReloadError> {
        let mut present = self.present.lock().await;
        self.supervisor.reloading();
        let outcome = self.replace(&mut present, actor).await;
        let (count, status) = match &outcome {
            Ok(Ok(cut)) => {
                tracing::info!(cut = cut.0, "configuration reloaded");
                (&self.metrics.reloads, "serving with the reloaded configuration".to_owned())
            }
            Ok(Err(error)) => {
                let what = "configuration reloaded, but not everything that it ends has ended";
                (&self.metrics.reloads, format!("{what}: {error}"))
            }
            Err(error) => {
                let what = "reload failed, the previous configuration stays in force";
                (&self.metrics.reloads_failed, format!("{what}: {error}"))
            }
        };
        count.add(1);
        if !matches!(outcome, Ok(Ok(_))) {
            tracing::error!("{status}");
        }
        self.supervisor.ready(&status);
        outcome?.map_err(ReloadError::Change)
    }

    /// `Ok(Err(_))`: the new configuration is in force, but something that it ends has not ended.
    async fn replace(
        &self,
        present: &mut Config,
        actor: Actor,
    ) -> Result<Result<Cut, ChangeError>, ReloadError> {
        let file = self.file.clone();
        let next = run_blocking(move || Config::load(&file)).await.map_err(|why| self.refused(why))?;
        let next = next.map_err(|errors| ReloadError::Invalid(configuration_errors(&errors)))?;
        if let Some(key) = present.unreloadable_change(&next) {
            return Err(refused_at(key, &next, format!("{key} cannot be changed by a reload")));
        }
        if let Some(key) = present.switched_tls(&next) {
            return Err(refused_at(key, &next, format!("{key} cannot be switched on or off by a reload")));
        }
        let (own, upstreams) = (self.own.clone(), next.proxy.upstreams.clone());
        if let Ok(Err(error)) = run_blocking(move || own.check(upstreams.values())).await {
            return Err(self.refused(error.to_string()));
        }
        // Read before anything changes, used only when the rules are accepted.
        let certificates = self
            .read_certificates(&next)
            .await
            .map_err(|(key, error)| self.refused(format!("{key}: {error}")))?;
        let log = self.open_log(present, &next).await?;
        // Keys are created before the rules that need them, and restored if the rules are not accepted.
        let keys = self.keyring.snapshot();
        if let Some(assertion) = next.assertion.clone() {
            self.update_keys(assertion).await.map_err(|error| self.refused(chain(&error)))?;
        }
        let configuration = next.configuration();
        let cut = match self.store.replace_configuration(actor, configuration).await {
            Ok(cut) => cut,
            // The process ends.
            Err(ChangeError::FenceIncomplete) => return Ok(Err(ChangeError::FenceIncomplete)),
            Err(error) => {
                self.keyring.restore(keys);
                return Err(ReloadError::Change(error));
            }
        };
        let ended = self.revoke_orphans(present, &next).await;
        let withdrawn = self.activate(&certificates).await;
        self.metrics.set(next.metrics);
        self.metrics.name_services(&self.state.snapshot().rules);
        for warning in next.exposed_secrets.iter().chain(&next.warnings) {
            tracing::warn!("{warning}");
        }
        super::warn_about_unknown_readers(&next, &self.store);
        if let Some(log) = log {
            self.log.retarget(log);
        }
        let [proxy, admin] = &self.budgets;
        let limits = next.budget_limits(Machine::with_raised_file_limit());
        proxy.set(&limits);
        admin.set(&limits.for_admin());
        // Workers that have ended need no limits.
        let _ = self.limits.send(next.server.limits.clone());
        *self.drain_delay.lock() = next.server.drain_delay;
        *self.drain_time.lock() = next.server.drain;
        super::log_level::set(&next.log.level);
        *self.text.lock() = next.annotated_text();
        *present = next;
        // The tokens of the old rules must have ended, too.
        let withdrawn = withdrawn.map_err(|_| ChangeError::FenceIncomplete);
        Ok(ended.and(withdrawn).map(|withdrawn| Cut(cut.0 + withdrawn.0)))
    }

    /// Ends exchanged tokens with their rules. Searches for them only if there may be some.
    async fn revoke_orphans(&self, present: &Config, next: &Config) -> Result<(), ChangeError> {
        let exchanges = [present, next].into_iter().any(|config| !config.proxy.exchange.is_empty());
        if !exchanges && !self.has_orphans.load(Relaxed) {
            return Ok(());
        }
        let ended = exchange::revoke_orphans(&self.store, &self.state).await;
        self.has_orphans.store(ended.is_err(), Relaxed);
        ended.map(drop)
    }

    /// Opens the access log if it is another one, on a blocking thread, because the disk may hang.
    async fn open_log(&self, present: &Config, next: &Config) -> Result<Option<OpenTarget>, ReloadError> {
        if next.log.access == present.log.access {
            return Ok(None);
        }
        let target = next.log.access.clone();
        let opened = run_blocking(move || target.open()).await.map_err(|why| self.refused(why))?;
        opened.map(Some).map_err(|error| {
            ReloadError::Invalid(configuration_errors(&Errors(vec![next.access_log_problem(&error)])))
        })
    }

    /// Uses the certificates from now on. If the requirements for client certificates have changed, cuts the
    /// requests on connections made under the old ones.
    async fn activate(&self, certificates: &PendingCertificates) -> Result<Cut, FenceIncomplete> {
        match self.certificates.activate(certificates) {
            Replacement::Nothing => Ok(Cut(0)),
            Replacement::Certificates => {
                tracing::info!("certificates replaced");
                Ok(Cut(0))
            }
            Replacement::Clients => {
                tracing::info!("certificates and the requirements for client certificates replaced");
                self.fence.raise(Affected::All).wait().await
            }
        }
    }

    /// Creates, publishes and retires assertion keys when they are due.
    pub async fn rotate_keys(self: Arc<Self>) {
        if !self.keyring.is_due(SystemTime::now().into()) {
            return;
        }
        // Under way already, or about to be done by a reload: the next call looks again.
        let Ok(present) = self.present.try_lock() else { return };
        let Some(assertion) = present.assertion.clone() else { return };
        if let Err(error) = self.update_keys(assertion).await
            && self.key_failures.is_due(Instant::now())
        {
            tracing::error!("cannot rotate the assertion keys: {}", chain(&error));
        }
    }

    /// Runs on a blocking thread, because the disk may hang.
    async fn update_keys(&self, assertion: assertion::Settings) -> Result<(), KeyringError> {
        let keyring = self.keyring.clone();
        let tended =
            tokio::task::spawn_blocking(move || keyring.update_keys(&assertion, SystemTime::now().into()));
        tended.await.unwrap_or(Err(KeyringError::Interrupted))
    }

    /// Reads the certificate files again, because they may have changed. On an error the present ones stay.
    async fn refresh_certificates(&self) {
        let mut present = self.present.lock().await;
        match self.read_certificates(&present).await {
            Ok(next) => {
                if let Err(error) = self.activate(&next).await {
                    tracing::error!("{error}");
                }
                self.refresh_upstreams(&mut present).await;
            }
            Err((key, error)) => {
                self.metrics.certificate_reloads_failed.add(1);
                tracing::error!(
                    "cannot use the new certificates, the previous ones stay in use: {key}: {error}"
                );
            }
        }
    }

    /// Reads the certificate files again whenever they have changed, for as long as the gateway runs.
    pub async fn watch_certificates(self: Arc<Self>) {
        let mut watch = Watch::default();
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let files: Vec<PathBuf> = certificate_files(&*self.present.lock().await).cloned().collect();
            if files.is_empty() {
                continue;
            }
            if run_blocking(|| versions(files)).await.is_ok_and(|found| watch.has_changed(found)) {
                self.refresh_certificates().await;
            }
        }
    }

    /// Reports certificates that expire soon.
    pub async fn report_expiry(self: Arc<Self>) {
        let clients = client_certificates(&*self.present.lock().await);
        if let Ok(expiries) = run_blocking(move || read_expiries(&clients)).await {
            self.certificates.report_expiry(expiries, SystemTime::now().into());
        }
    }

    /// Refreshes the client certificates and authorities for upstreams, and nothing else. Parses the text in
    /// force, so that only files and environment variables can differ. Those other than certificates wait for
    /// a reload.
    async fn refresh_upstreams(&self, present: &mut Config) {
        if upstream_files(present).next().is_none() {
            return;
        }
        let failed = |error: &dyn std::fmt::Display| {
            self.metrics.certificate_reloads_failed.add(1);
            tracing::error!(
                "cannot use the new certificates for upstreams, the previous ones stay in use: {error}"
            );
        };
        let (text, file) = (present.text.clone(), self.file.clone());
        let read = match run_blocking(move || config::parse(&text, &file)).await {
            Ok(Ok(read)) => read.proxy.upstreams,
            Ok(Err(errors)) => return failed(&errors),
            Err(why) => return failed(&why),
        };
        let mut next = present.clone();
        let mut changed = false;
        for (name, settings) in &mut next.proxy.upstreams {
            if let Some(read) = read.get(name).filter(|read| read.tls != settings.tls) {
                Arc::make_mut(settings).tls.clone_from(&read.tls);
                changed = true;
            }
        }
        if !changed {
            return;
        }
        let actor = Actor::new(ActorKind::Operator);
        let configuration = next.configuration();
        if let Err(error) = self.store.replace_configuration(actor, configuration).await {
            return failed(&error);
        }
        self.metrics.certificate_reloads.add(1);
        tracing::info!("certificates for upstreams replaced");
        *present = next;
    }

    /// Reads the certificates to use next. The error names the key at fault.
    async fn read_certificates(
        &self,
        config: &Config,
    ) -> Result<PendingCertificates, (&'static str, String)> {
        let (server, admin) = (config.server.tls.clone(), config.admin.tls.clone());
        let clients = client_certificates(config);
        let read = run_blocking(move || PendingCertificates::read(&server, &admin, &clients))
            .await
            .map_err(|why| ("tls", why))?;
        read.map_err(|(key, error)| (key, chain(&error)))
    }

    fn refused(&self, message: String) -> ReloadError {
        let file = self.file.display().to_string();
        ReloadError::Invalid(vec![ConfigurationError { file, line: None, column: None, message }])
    }
}

/// Returns the error for a setting that takes a restart, at its place in the file.
fn refused_at(key: &str, next: &Config, message: String) -> ReloadError {
    let problem = next.problem_at_key(key, message, "restart permgate");
    ReloadError::Invalid(configuration_errors(&Errors(vec![problem])))
}

/// Returns every file that is read again when it changes.
fn certificate_files(config: &Config) -> impl Iterator<Item = &PathBuf> {
    config.server.tls.files().chain(config.admin.tls.files()).chain(upstream_files(config))
}

fn upstream_files(config: &Config) -> impl Iterator<Item = &PathBuf> {
    let upstreams = config.proxy.upstreams.values();
    upstreams.filter_map(|upstream| upstream.tls.as_ref()).flat_map(UpstreamTls::files)
}

impl Configuration for Reloader {
    fn text(&self) -> String {
        self.text.lock().clone()
    }

    fn file(&self) -> Result<String, String> {
        Config::load(&self.file).map(|config| config.annotated_text()).map_err(|errors| errors.to_string())
    }

    fn check(&self, text: &str, references: bool) -> Result<(), Vec<ConfigurationError>> {
        let checked = match references {
            true => config::parse(text, &self.file).and_then(|config| match config.exposed_secrets {
                exposed_secrets if exposed_secrets.is_empty() => Ok(()),
                exposed_secrets => Err(Errors(exposed_secrets)),
            }),
            false => config::check_text(text, &self.file),
        };
        checked.map_err(|errors| configuration_errors(&errors))
    }

    fn reload(self: Arc<Self>, actor: Actor) -> Reloading {
        Box::pin(async move { Self::reload(&self, actor).await })
    }
}

/// Runs the work on a blocking thread, not on the one that revocations need: files may be large, and disks
/// slow.
pub(super) async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|_| "it was interrupted".to_owned())
}

fn configuration_errors(errors: &Errors) -> Vec<ConfigurationError> {
    let one = |problem: &Problem| ConfigurationError {
        file: problem.file.to_string(),
        line: (problem.line > 0).then_some(problem.line),
        column: (problem.line > 0).then_some(problem.column),
        message: match problem.advice.as_str() {
            "" => problem.message.clone(),
            advice => format!("{}; {advice}", problem.message),
        },
    };
    errors.0.iter().map(one).collect()
}

#[cfg(test)]
mod tests;
