//! Counters and histograms; Prometheus text on demand. Every worker writes a table of its own, so
//! that a request touches no shared line; a scrape adds the tables up.
//!
//! Labels are service, outcome and reason alone: never a token, a user or a path.

mod cell;
mod exposition;
mod history;
mod store;
mod upstreams;
mod worker;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

pub use cell::{Counter, Histogram};
pub use exposition::outcome;
pub use history::{Counted, History, STEP, Step};
pub use store::StoreMetrics;
pub use upstreams::{UpstreamReading, UpstreamReadings, UrlReading};
pub use worker::{HandshakeOutcome, UpstreamEvent, WorkerMetrics};

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
    upstreams: OnceLock<Arc<dyn UpstreamReadings>>,
    /// Certificates replaced while serving.
    pub certificate_reloads: Counter,
    pub certificate_reloads_failed: Counter,
    /// Until when each certificate is valid: its file, seconds since 1970.
    certificates: Mutex<Vec<(String, i64)>>,
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
            upstreams: OnceLock::new(),
            certificate_reloads: Counter::default(),
            certificate_reloads_failed: Counter::default(),
            certificates: Mutex::default(),
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

    /// From now on a scrape asks how the upstreams are.
    pub fn ask_upstreams(&self, upstreams: Arc<dyn UpstreamReadings>) {
        let _ = self.upstreams.set(upstreams);
    }

    pub fn set_certificates(&self, ends: Vec<(String, i64)>) {
        *self.certificates.lock().unwrap_or_else(PoisonError::into_inner) = ends;
    }

    /// Prometheus text, format 0.0.4.
    pub fn render(&self, readings: Readings) -> String {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner).clone();
        exposition::render(self, &workers, &services, readings)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::authz::answer::Reason;

    #[test]
    fn a_scrape_adds_the_workers_up() {
        let metrics = Metrics::new(Arc::default());
        let (one, other) = (metrics.worker(), metrics.worker());
        metrics.services.lock().unwrap().insert(ServiceId(3), "youtrack".into());
        let (short, long) = (Duration::from_millis(4), Duration::from_secs(2));
        one.record(Some(ServiceId(3)), Reason::Ok, 200, short, Some(short), 10, 100);
        other.record(Some(ServiceId(3)), Reason::Ok, 200, long, None, 1, 0);
        other.record(None, Reason::MissingCredentials, 401, short, None, 0, 0);
        one.upstream(UpstreamEvent::Retry);
        one.entered();
        one.client_refused(Reason::HeadTooLarge);
        metrics.store.commits.add(2);
        // What a dropped worker counted stays.
        drop(one);
        let text = metrics.render(Readings { tokens: 7, imported: 0, writable: true, ready: false });
        let check = |line: &str| assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        check(r#"permgate_requests_total{service="youtrack",outcome="forwarded",reason="ok"} 2"#);
        check(r#"permgate_requests_total{outcome="denied",reason="missing_credentials"} 1"#);
        check(r#"permgate_responses_total{service="youtrack",outcome="2xx"} 2"#);
        check(r#"permgate_request_duration_seconds_bucket{service="youtrack",le="0.0025"} 0"#);
        check(r#"permgate_request_duration_seconds_bucket{service="youtrack",le="0.005"} 1"#);
        check(r#"permgate_request_duration_seconds_bucket{service="youtrack",le="+Inf"} 2"#);
        check(r#"permgate_request_duration_seconds_sum{service="youtrack"} 2.004"#);
        check(r#"permgate_request_duration_seconds_count{service="youtrack"} 2"#);
        check(r#"permgate_upstream_duration_seconds_count{service="youtrack"} 1"#);
        check(r#"permgate_received_bytes_total{service="youtrack"} 11"#);
        check(r#"permgate_sent_bytes_total{service="youtrack"} 100"#);
        check("permgate_upstream_retries_total 1");
        check("permgate_live_requests 1");
        check(r#"permgate_client_refusals_total{reason="head_too_large"} 1"#);
        check("permgate_store_commits_total 2");
        check("permgate_tokens 7");
        check("permgate_store_writable 1");
        check("permgate_ready 0");
    }

    #[test]
    fn every_line_is_a_comment_or_a_sample_of_a_family_that_was_told() {
        let metrics = Metrics::new(Arc::default());
        let worker = metrics.worker();
        for reason in Reason::ALL {
            worker.record(Some(ServiceId(0)), reason, 200, Duration::ZERO, None, 0, 0);
            worker.client_refused(reason);
        }
        let text = metrics.render(Readings { tokens: 0, imported: 0, writable: false, ready: true });
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap().to_owned();
            }
            if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                assert!(name == family || base == Some(&family), "{line} under {family}");
                assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
            }
        }
    }
}
