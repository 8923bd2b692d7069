//! Counters and histograms; Prometheus text on demand. Every worker writes a table of its own, so
//! that a request touches no shared line; a scrape adds the tables up.
//!
//! Labels are service, outcome and reason alone: never a token, a user or a path.

mod cell;
mod exposition;
mod store;
mod worker;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

pub use cell::{Counter, Histogram};
pub use exposition::outcome;
pub use store::StoreMetrics;
pub use worker::{UpstreamEvent, WorkerMetrics};

use crate::authz::rules::{Rules, ServiceId};

/// What a scrape reads: the workers' tables, the store's figures, and what the control runtime counts.
pub struct Metrics {
    workers: Mutex<Vec<Arc<worker::Table>>>,
    /// Keys of every service seen, removed ones too: a counter keeps its name.
    services: Mutex<BTreeMap<ServiceId, String>>,
    pub store: Arc<StoreMetrics>,
    /// Lines of the access log that were dropped, since its writer fell behind.
    pub log_lines_dropped: Counter,
    /// Audited refusals that found their channel full.
    pub refusals_dropped: Counter,
    pub reloads: Counter,
    pub reloads_failed: Counter,
}

/// What is not counted but read at the moment of a scrape.
#[derive(Clone, Copy, Debug)]
pub struct Readings {
    pub tokens: u64,
    pub imported: u64,
    pub writable: bool,
    pub ready: bool,
}

impl Metrics {
    pub fn new(store: Arc<StoreMetrics>) -> Arc<Self> {
        Arc::new(Self {
            workers: Mutex::default(),
            services: Mutex::default(),
            store,
            log_lines_dropped: Counter::default(),
            refusals_dropped: Counter::default(),
            reloads: Counter::default(),
            reloads_failed: Counter::default(),
        })
    }

    /// A new worker's handle. Its table outlives it, so that no counter ever falls.
    pub fn worker(&self) -> WorkerMetrics {
        let table = Arc::new(worker::Table::default());
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&table));
        WorkerMetrics::new(table)
    }

    /// Remembers the services' keys. A scrape does it too; a reload that removes a service loses
    /// its name unless somebody did before.
    pub fn name_services(&self, rules: &Rules) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        for service in rules.services() {
            services.entry(service.id).or_insert_with(|| service.spec.key.as_str().to_owned());
        }
    }

    /// Prometheus text, format 0.0.4.
    pub fn render(&self, readings: Readings) -> String {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner).clone();
        exposition::render(self, &workers, &services, readings)
    }
}
