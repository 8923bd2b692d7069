//! Counters and histograms, and their text for Prometheus. Every worker writes its own table, so that no
//! request writes shared memory. A scrape adds up the tables.
//!
//! No label ever contains a token, a user or a path.

mod cell;
mod collectors;
mod exposition;
mod history;
mod process;
mod worker;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;

pub use cell::{Counter, Histogram};
pub use exposition::Format;
pub use history::{History, RequestStats, STEP_LENGTH, Step};
pub use worker::{WorkerEvent, WorkerMetrics};

use crate::{
    authz::rules::{Rules, ServiceId},
    net::Reading,
};

/// What a scrape reads: the workers' tables, the store's counters and those of the control runtime.
#[derive(Default)]
pub struct Metrics {
    workers: Mutex<Vec<Arc<worker::Table>>>,
    /// Keys of all services so far, including removed ones, because a counter keeps its labels.
    services: Mutex<BTreeMap<ServiceId, String>>,
    pub store: Arc<StoreMetrics>,
    /// Lines of the access log that were dropped because its writer fell behind.
    pub log_lines_dropped: Counter,
    /// Refusals that were not audited because the channel was full.
    pub refusals_dropped: Counter,
    pub reloads: Counter,
    pub reloads_failed: Counter,
    /// From where scrapes read the state of the upstreams, and the budgets.
    pub upstream_readings: OnceLock<Arc<dyn UpstreamReadings>>,
    pub budget_readings: OnceLock<BudgetReadings>,
    /// Certificates replaced while serving.
    pub certificate_reloads: Counter,
    pub certificate_reloads_failed: Counter,
    /// When each certificate expires: its file, and seconds since 1970.
    pub certificates: Mutex<Vec<(String, i64)>>,
    old_names: AtomicBool,
}

/// `[metrics]` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Also report metrics under the names of the previous release.
    pub old_names: bool,
}

/// Values that are not counted but read at each scrape.
#[derive(Clone, Copy, Debug)]
pub struct Readings {
    pub tokens: u64,
    pub imported: u64,
    pub writable: bool,
    pub ready: bool,
    pub cluster: Option<ClusterReading>,
}

/// The state of this node in its cluster.
#[derive(Clone, Copy, Debug)]
pub struct ClusterReading {
    /// Seconds for which the node may still forward.
    pub permitted: u64,
    pub position: u64,
    /// Members with the same rules as this node, and members with other rules.
    pub same_rules: u64,
    pub other_rules: u64,
    /// Changes that other nodes have yet to acknowledge.
    pub waiting: u64,
    /// Removals that are in force on this node only, because etcd cannot be written.
    pub unwritten: u64,
}

/// Reads the budgets of the process at each scrape.
pub type BudgetReadings = Box<dyn Fn() -> Vec<Reading> + Send + Sync>;

/// Counters of the store, written by its writer thread.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Durable group commits.
    pub commits: Counter,
    /// Changes in those commits.
    pub changes: Counter,
    /// From a transaction to the end of its sync.
    pub commit_duration: Histogram,
    pub sync_failures: Counter,
    pub fences_raised: Counter,
    /// Fences that a participant did not acknowledge in time.
    pub fences_incomplete: Counter,
    /// From waking the participants to the last acknowledgement.
    pub fence_duration: Histogram,
    /// Requests, streams and tunnels cut by a change.
    pub cut: Counter,
    /// Nodes of the cluster that a change waited for in vain.
    pub lapsed: Counter,
    /// Probes that etcd did not answer, and probes that it refused.
    pub probes_unanswered: Counter,
    pub probes_refused: Counter,
    /// Removals that were in force on this node only and were refused when they could be written.
    pub reverted: Counter,
}

/// The state of the upstreams, read at each scrape. Implemented by the connection pools.
pub trait UpstreamReadings: Send + Sync {
    fn read(&self) -> Vec<UpstreamReading>;
}

#[derive(Clone, Debug)]
pub struct UpstreamReading {
    pub name: String,
    pub urls: Vec<UrlReading>,
    /// Whether it has health checks. Without them, a url is only known to be down once requests have failed.
    pub is_checked: bool,
    /// In flight and queued; `None` without a limit, because nothing is counted then.
    pub requests: Option<(usize, usize)>,
    /// Open, and queued for one; `None` without a limit.
    pub connections: Option<(usize, usize)>,
}

#[derive(Clone, Debug)]
pub struct UrlReading {
    pub url: String,
    pub up: bool,
    pub ejected: bool,
}

impl Metrics {
    pub fn new(store: Arc<StoreMetrics>) -> Arc<Self> {
        Arc::new(Self { store, ..Self::default() })
    }

    /// Returns a new worker's handle. Its table outlives it, so that no counter ever decreases.
    pub fn worker(&self) -> WorkerMetrics {
        let table = Arc::new(worker::Table::default());
        self.workers.lock().push(Arc::clone(&table));
        WorkerMetrics::new(table)
    }

    /// Stores the keys of the services, so that a service that a reload removes keeps its label. Called at
    /// every scrape and every reload.
    pub fn name_services(&self, rules: &Rules) {
        let mut services = self.services.lock();
        for service in rules.services() {
            services.entry(service.id).or_insert_with(|| service.spec.key.as_str().to_owned());
        }
    }

    /// Returns the current state of the upstreams.
    pub fn upstreams(&self) -> Vec<UpstreamReading> {
        self.upstream_readings.get().map(|upstreams| upstreams.read()).unwrap_or_default()
    }

    pub fn set(&self, settings: Settings) {
        self.old_names.store(settings.old_names, Relaxed);
    }

    /// Returns the text for a scraper. It reads files of `/proc`, and its size grows with the number of
    /// services, so call it on the blocking pool. The encoder's error does not occur with these metrics.
    pub fn encode(self: &Arc<Self>, readings: Readings, format: Format) -> Result<String, fmt::Error> {
        let scrape = Arc::new(collectors::Scrape {
            metrics: self.clone(),
            workers: self.workers.lock().clone(),
            services: self.services.lock().clone(),
            upstreams: self.upstreams(),
            budgets: self.budget_readings.get().map(|budgets| budgets()).unwrap_or_default(),
            readings,
        });
        let mut collectors: Vec<Box<dyn Collector>> = vec![Box::new(scrape.clone())];
        if self.old_names.load(Relaxed) {
            collectors.push(Box::new(exposition::OldNames(scrape)));
        }
        exposition::encode(collectors, Box::new(process::Process), format)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::*;
    use crate::authz::reason::Reason;

    #[test]
    fn scrape_sums_all_workers() {
        let metrics = Metrics::new(Arc::default());
        let (one, other) = (metrics.worker(), metrics.worker());
        metrics.services.lock().insert(ServiceId(3), "youtrack".into());
        let (short, long) = (Duration::from_millis(4), Duration::from_secs(2));
        one.record(Some(ServiceId(3)), Reason::Ok, 200, short, Some(short), 10, 100);
        other.record(Some(ServiceId(3)), Reason::Ok, 200, long, None, 1, 0);
        other.record(None, Reason::MissingCredentials, 401, short, None, 0, 0);
        one.count(WorkerEvent::UpstreamRetry);
        one.count(WorkerEvent::Entered);
        one.client_refused(Reason::HeadTooLarge);
        metrics.store.commits.add(2);
        // The counts of a dropped worker stay.
        drop(one);
        let readings = Readings { tokens: 7, imported: 0, writable: true, ready: false, cluster: None };
        let text = metrics.encode(readings, Format::Prometheus).unwrap();
        let check = |line: &str| assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        check(
            r#"permgate_requests_total{service="youtrack",outcome="forwarded",reason="ok",status_class="2xx"} 2"#,
        );
        check(
            r#"permgate_requests_total{outcome="denied",reason="missing_credentials",status_class="4xx"} 1"#,
        );
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
    fn every_sample_follows_its_metric_family() {
        let metrics = Metrics::new(Arc::default());
        metrics.set(Settings { old_names: true });
        *metrics.certificates.lock() = vec![("a \"b\"\n\\c".into(), 1)];
        let worker = metrics.worker();
        for &reason in Reason::ALL {
            worker.record(Some(ServiceId(0)), reason, 200, Duration::ZERO, None, 0, 0);
            worker.client_refused(reason);
        }
        let readings = Readings { tokens: 0, imported: 0, writable: false, ready: true, cluster: None };
        for format in [Format::Prometheus, Format::OpenMetrics] {
            let text = metrics.encode(readings, format).unwrap();
            let (mut family, mut families) = (String::new(), BTreeSet::new());
            for line in text.lines() {
                if let Some(rest) = line.strip_prefix("# TYPE ") {
                    family = rest.split(' ').next().unwrap().to_owned();
                    assert!(families.insert(family.clone()), "{family} twice in {format:?}");
                }
                if !line.starts_with('#') {
                    let name = line.split(['{', ' ']).next().unwrap();
                    let ends = ["", "_bucket", "_sum", "_count", "_total", "_info"];
                    let known = ends.iter().any(|end| name.strip_suffix(end) == Some(&family));
                    assert!(known, "{line} under {family} in {format:?}");
                    assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
                }
            }
            assert_eq!(text.ends_with("# EOF\n"), format == Format::OpenMetrics);
        }
    }

    #[test]
    fn old_names_are_reported_on_demand_and_say_what_replaces_them() {
        let metrics = Metrics::new(Arc::default());
        *metrics.certificates.lock() = vec![("tls.crt".into(), 7)];
        metrics.worker().record(None, Reason::Ok, 204, Duration::ZERO, None, 0, 0);
        let readings = Readings { tokens: 0, imported: 0, writable: true, ready: true, cluster: None };
        let encode = || metrics.encode(readings, Format::Prometheus).unwrap();
        let old = [
            "permgate_responses_total{outcome=\"2xx\"} 1",
            "permgate_tls_certificate_not_after_seconds{certificate=\"tls.crt\"} 7",
        ];
        let new = encode();
        assert!(
            new.contains("permgate_tls_certificate_not_after_timestamp_seconds{certificate=\"tls.crt\"} 7"),
            "{new}"
        );
        assert!(!new.contains("Deprecated") && old.iter().all(|line| !new.contains(line)), "{new}");
        metrics.set(Settings { old_names: true });
        let both = encode();
        let permgate = |text: &str| text.split("# HELP process_").next().unwrap().to_owned();
        assert!(permgate(&both).starts_with(&permgate(&new)), "{both}");
        assert!(old.iter().all(|line| both.contains(line)), "{both}");
        let replacements = both.lines().filter_map(|line| line.split("Deprecated: use ").nth(1));
        for name in replacements.map(|advice| advice.split([' ', '.']).next().unwrap()) {
            assert!(new.contains(&format!("# TYPE {name} ")), "{name} is not in {new}");
        }
    }
}
