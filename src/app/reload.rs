//! The reload: the whole file or nothing, and the fence before the answer.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::{
    admin::{Configuration, ConfigurationError, ReloadError, Reloading},
    config::{self, Config, Errors, Problem},
    fence::Cut,
    metrics::Metrics,
    net::{Limits, tls::Certificates},
    proxy::access_log::AccessLog,
    state::State,
    store::{Actor, Store},
};

/// What a reload replaces, and what it is held against.
pub struct Reloader {
    file: PathBuf,
    /// What was read last and is in force; one reload at a time.
    present: AsyncMutex<Config>,
    text: Mutex<String>,
    store: Store,
    state: Arc<State>,
    metrics: Arc<Metrics>,
    log: Arc<AccessLog>,
    limits: watch::Sender<Limits>,
    certificates: Option<Certificates>,
}

impl Reloader {
    pub fn new(
        config: Config,
        store: Store,
        state: Arc<State>,
        metrics: Arc<Metrics>,
        log: Arc<AccessLog>,
        limits: watch::Sender<Limits>,
        certificates: Option<Certificates>,
    ) -> Arc<Self> {
        Arc::new(Self {
            file: config.file.clone(),
            text: Mutex::new(config.text.clone()),
            present: AsyncMutex::new(config),
            store,
            state,
            metrics,
            log,
            limits,
            certificates,
        })
    }

    /// Before the next line: the access log's file may have been moved away.
    pub fn reopen_logs(&self) {
        self.log.reopen();
    }

    /// Reads the file again and answers when every worker decides by it.
    pub async fn reload(&self, actor: Actor) -> Result<Cut, ReloadError> {
        let mut present = self.present.lock().await;
        let outcome = self.replace(&mut present, actor).await;
        match &outcome {
            Ok(_) => self.metrics.reloads.add(1),
            Err(_) => self.metrics.reloads_failed.add(1),
        }
        outcome
    }

    async fn replace(&self, present: &mut Config, actor: Actor) -> Result<Cut, ReloadError> {
        let next = Config::load(&self.file).map_err(|errors| ReloadError::Invalid(told(&errors)))?;
        if let Some(key) = present.unreloadable_change(&next) {
            return Err(self
                .refused(format!("{key} cannot be changed by a reload: stop permgate and start it again")));
        }
        if self.certificates.is_none() != next.server.tls.is_empty() {
            return Err(self.refused(
                "server.tls cannot be switched on or off by a reload: stop permgate and start it again"
                    .to_owned(),
            ));
        }
        if let Some(certificates) = &self.certificates {
            // Loaded once already by the validation; the last good ones stay on failure.
            certificates
                .replace(&next.server.tls)
                .map_err(|error| self.refused(format!("server.tls: {}", with_cause(&error))))?;
        }
        let configuration = next.configuration(next.attachment());
        let cut =
            self.store.replace_configuration(actor, configuration).await.map_err(ReloadError::Change)?;
        self.metrics.name_services(&self.state.snapshot().rules);
        for warning in &next.warnings {
            tracing::warn!("{warning}");
        }
        if next.log.access != present.log.access
            && let Err(error) = self.log.retarget(next.log.access.clone())
        {
            tracing::error!("the access log stays where it was: {error}");
        }
        // Workers that have ended meanwhile need none.
        let _ = self.limits.send(next.server.limits.clone());
        next.text.clone_into(&mut self.text.lock().unwrap_or_else(PoisonError::into_inner));
        *present = next;
        Ok(cut)
    }

    fn refused(&self, message: String) -> ReloadError {
        let file = self.file.display().to_string();
        ReloadError::Invalid(vec![ConfigurationError { file, line: None, column: None, message }])
    }
}

/// The admin listener's view of the one reloader.
#[derive(Clone)]
pub struct Shared(pub Arc<Reloader>);

impl Configuration for Shared {
    fn text(&self) -> String {
        self.0.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn check(&self, text: &str) -> Result<(), Vec<ConfigurationError>> {
        config::parse(text, &self.0.file).map(|_| ()).map_err(|errors| told(&errors))
    }

    fn reload(&self, actor: Actor) -> Reloading {
        let reloader = self.0.clone();
        Box::pin(async move { reloader.reload(actor).await })
    }
}

fn told(errors: &Errors) -> Vec<ConfigurationError> {
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

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", with_cause(source)),
        None => error.to_string(),
    }
}
