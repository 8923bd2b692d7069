//! Prometheus text 0.0.4, written by hand: the tables are added up while they are written.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Write as _},
    sync::{Arc, PoisonError},
};

use super::{
    Metrics, Readings,
    cell::{BOUNDS, Distribution, Histogram},
    worker::{HandshakeOutcome, ServiceTable, Table, UpstreamEvent},
};
use crate::authz::{answer::Reason, rules::ServiceId};

pub(super) fn render(
    metrics: &Metrics,
    workers: &[Arc<Table>],
    services: &BTreeMap<ServiceId, String>,
    readings: Readings,
) -> String {
    let mut page = Page(String::with_capacity(16 << 10));
    requests(&mut page, &by_service(workers, services));
    clients(&mut page, workers);
    tls(&mut page, metrics, workers);
    upstreams(&mut page, workers);
    let readings_of_upstreams = metrics.upstreams.get().map(|upstreams| upstreams.read());
    super::upstreams::render(&mut page, &readings_of_upstreams.unwrap_or_default());
    store(&mut page, metrics, readings);
    page.figure("permgate_log_lines_dropped", "Access log lines dropped.", metrics.log_lines_dropped.value());
    page.figure("permgate_refusals_dropped", "Audited refusals dropped.", metrics.refusals_dropped.value());
    page.figure("permgate_reloads", "Reloads that took effect.", metrics.reloads.value());
    page.figure("permgate_reloads_failed", "Reloads that were refused.", metrics.reloads_failed.value());
    page.gauge("permgate_ready", "1 while requests are taken.", u64::from(readings.ready));
    page.0
}

/// A service's tables of every worker. Requests that no service owns stand under the empty key,
/// which is to Prometheus as if there were no label.
type Services<'a> = BTreeMap<&'a str, Vec<&'a ServiceTable>>;

fn by_service<'a>(workers: &'a [Arc<Table>], names: &'a BTreeMap<ServiceId, String>) -> Services<'a> {
    let mut services = Services::new();
    for worker in workers {
        services.entry("").or_default().push(worker.unowned());
        for (id, table) in worker.services() {
            let name = names.get(&id).map_or("", String::as_str);
            services.entry(name).or_default().push(table);
        }
    }
    services
}

fn requests(page: &mut Page, services: &Services<'_>) {
    page.family("permgate_requests_total", "counter", "Requests by what became of them.");
    for (service, tables) in services {
        for reason in Reason::ALL {
            let count = tables.iter().map(|table| table.requests(reason)).sum::<u64>();
            if count > 0 {
                let (outcome, reason) = (outcome(reason), reason.code());
                let labels = [("service", *service), ("outcome", outcome), ("reason", reason)];
                page.sample("permgate_requests_total", &labels, count);
            }
        }
    }
    page.family("permgate_responses_total", "counter", "Answers by the class of their status.");
    for (service, tables) in services {
        for (hundred, class) in [(1, "1xx"), (2, "2xx"), (3, "3xx"), (4, "4xx"), (5, "5xx")] {
            let count = tables.iter().map(|table| table.answers(hundred)).sum::<u64>();
            if count > 0 {
                let labels = [("service", *service), ("outcome", class)];
                page.sample("permgate_responses_total", &labels, count);
            }
        }
    }
    let latency = "permgate_request_duration_seconds";
    page.family(latency, "histogram", "From the head of a request to the end of its answer.");
    for (service, tables) in services {
        page.histogram(latency, service, &sum(tables.iter().map(|table| &table.latency)));
    }
    let latency = "permgate_upstream_duration_seconds";
    page.family(latency, "histogram", "From sending a request to the head of the upstream's answer.");
    for (service, tables) in services {
        page.histogram(latency, service, &sum(tables.iter().map(|table| &table.upstream_latency)));
    }
    page.family("permgate_received_bytes_total", "counter", "Bytes of request bodies.");
    for (service, tables) in services {
        let bytes = tables.iter().map(|table| table.bytes().0).sum::<u64>();
        page.sample("permgate_received_bytes_total", &[("service", service)], bytes);
    }
    page.family("permgate_sent_bytes_total", "counter", "Bytes of answer bodies.");
    for (service, tables) in services {
        let bytes = tables.iter().map(|table| table.bytes().1).sum::<u64>();
        page.sample("permgate_sent_bytes_total", &[("service", service)], bytes);
    }
}

fn clients(page: &mut Page, workers: &[Arc<Table>]) {
    let (accepted, open) = workers
        .iter()
        .map(|worker| worker.connections())
        .fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
    page.figure("permgate_connections_accepted", "Client connections accepted.", accepted);
    page.gauge("permgate_connections_open", "Client connections now.", open);
    let unannounced = workers.iter().map(|worker| worker.unannounced()).sum();
    let help = "Connections of trusted proxies closed for want of a sound PROXY header.";
    page.figure("permgate_proxy_headers_refused", help, unannounced);
    let live = workers.iter().map(|worker| worker.live()).sum();
    page.gauge("permgate_live_requests", "Permitted requests, streams and tunnels in flight.", live);
    let (opened, open) = workers
        .iter()
        .map(|worker| worker.tunnels())
        .fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
    page.figure("permgate_tunnels_opened", "Connections that went on after a 101.", opened);
    page.gauge("permgate_tunnels_open", "Tunnels now.", open);
    page.family("permgate_client_refusals_total", "counter", "Clients refused before a request was seen.");
    for reason in Reason::ALL {
        let count = workers.iter().map(|worker| worker.refusals(reason)).sum::<u64>();
        if count > 0 {
            page.sample("permgate_client_refusals_total", &[("reason", reason.code())], count);
        }
    }
}

fn tls(page: &mut Page, metrics: &Metrics, workers: &[Arc<Table>]) {
    page.family("permgate_tls_handshakes_total", "counter", "TLS handshakes by how they ended.");
    for outcome in HandshakeOutcome::ALL {
        let count = workers.iter().map(|worker| worker.handshakes(outcome)).sum::<u64>();
        if count > 0 {
            page.sample("permgate_tls_handshakes_total", &[("outcome", outcome.code())], count);
        }
    }
    let ends = metrics.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if !ends.is_empty() {
        let name = "permgate_tls_certificate_not_after_seconds";
        page.family(name, "gauge", "When a certificate expires, in seconds since 1970.");
        for (file, at) in ends {
            // A path may hold anything.
            let file = file.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            page.sample(name, &[("certificate", &file)], at);
        }
    }
    let (reloads, failed) = (&metrics.certificate_reloads, &metrics.certificate_reloads_failed);
    page.figure("permgate_tls_reloads", "Certificates replaced while serving.", reloads.value());
    page.figure("permgate_tls_reloads_failed", "New certificates that could not be used.", failed.value());
}

fn upstreams(page: &mut Page, workers: &[Arc<Table>]) {
    for (event, name, help) in [
        (UpstreamEvent::Connect, "permgate_upstream_connects", "Connections opened to upstreams."),
        (UpstreamEvent::ConnectFailed, "permgate_upstream_connects_failed", "Connections that failed."),
        (UpstreamEvent::Reuse, "permgate_upstream_reuses", "Requests sent over a kept connection."),
        (UpstreamEvent::Retry, "permgate_upstream_retries", "Requests sent a second time."),
        (UpstreamEvent::Ejection, "permgate_upstream_ejections", "Addresses taken out of rotation."),
    ] {
        page.figure(name, help, workers.iter().map(|worker| worker.upstream(event)).sum());
    }
}

fn store(page: &mut Page, metrics: &Metrics, readings: Readings) {
    let store = &metrics.store;
    page.gauge("permgate_tokens", "Tokens in the index, revoked ones too.", readings.tokens);
    page.gauge("permgate_tokens_imported", "Tokens registered by digest.", readings.imported);
    page.gauge("permgate_store_writable", "1 while changes are taken.", u64::from(readings.writable));
    page.figure("permgate_store_commits", "Durable group commits.", store.commits.value());
    page.figure("permgate_store_changes", "Durable changes.", store.changes.value());
    page.figure("permgate_store_sync_failures", "Syncs that failed.", store.sync_failures.value());
    let commit = "permgate_store_commit_duration_seconds";
    page.family(commit, "histogram", "From a transaction to the end of its sync.");
    page.histogram(commit, "", &sum([&store.commit_duration]));
    page.figure("permgate_fences", "Fences raised.", store.fences_raised.value());
    page.figure(
        "permgate_fences_incomplete",
        "Fences that a participant missed.",
        store.fences_incomplete.value(),
    );
    page.figure("permgate_fence_cuts", "Requests, streams and tunnels that a change cut.", store.cut.value());
    let fence = "permgate_fence_duration_seconds";
    page.family(fence, "histogram", "From raising a fence to its last acknowledgement.");
    page.histogram(fence, "", &sum([&store.fence_duration]));
}

fn sum<'a>(histograms: impl IntoIterator<Item = &'a Histogram>) -> Distribution {
    let mut sum = Distribution::default();
    histograms.into_iter().for_each(|histogram| histogram.add_to(&mut sum));
    sum
}

/// Who is to look into it: nobody, the client, or the operator.
pub fn outcome(reason: Reason) -> &'static str {
    match reason {
        Reason::Ok | Reason::OkAnonymous | Reason::TunnelIdle => "forwarded",
        Reason::Answered => "answered",
        Reason::MissingCredentials
        | Reason::UnsupportedScheme
        | Reason::TokenInUrl
        | Reason::AmbiguousAuthorization
        | Reason::MalformedAuthorization
        | Reason::MalformedToken
        | Reason::ChecksumMismatch
        | Reason::UnknownToken
        | Reason::OwnerDeleted
        | Reason::TokenRevoked
        | Reason::TokenRotated
        | Reason::TokenExpired
        | Reason::TokenNotYetValid
        | Reason::OwnerBanned
        | Reason::IpNotAllowed
        | Reason::NoService
        | Reason::ReadServiceDenied
        | Reason::ScopeDenied
        | Reason::ReadOnlyScope
        | Reason::ProxyNotTrusted
        | Reason::TooManyBadTokens
        | Reason::RateLimited
        | Reason::ConcurrencyLimited
        | Reason::CutByAdmin => "denied",
        Reason::MethodNotSupported
        | Reason::BadPath
        | Reason::AmbiguousPath
        | Reason::BadDestination
        | Reason::OriginalUnclear
        | Reason::MethodNotAllowed
        | Reason::BadRequest
        | Reason::BadBody
        | Reason::RequestTimeout
        | Reason::BodyTooLarge
        | Reason::TargetTooLong
        | Reason::Misdirected
        | Reason::HeadTooLarge
        | Reason::ClientClosed => "rejected",
        Reason::IdentityTooLarge
        | Reason::UpstreamConnect
        | Reason::UpstreamReset
        | Reason::UpstreamInvalid
        | Reason::UpstreamTimeout
        | Reason::UpstreamUnavailable
        | Reason::UpstreamOverloaded
        | Reason::StoreUnavailable
        | Reason::AssertionFailed
        | Reason::ShuttingDown => "failed",
    }
}

pub(super) struct Page(String);

impl Page {
    pub(super) fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.line(format_args!("{name}{} {value}", Labels(labels)));
    }

    /// A counter without labels.
    fn figure(&mut self, name: &str, help: &str, value: u64) {
        self.line(format_args!("# HELP {name}_total {help}\n# TYPE {name}_total counter"));
        self.line(format_args!("{name}_total {value}"));
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn histogram(&mut self, name: &str, service: &str, sum: &Distribution) {
        let bounds = BOUNDS.iter().map(|(_, text)| *text).chain(["+Inf"]);
        let mut below = 0;
        for (bound, count) in bounds.zip(sum.buckets) {
            below += count;
            self.line(format_args!(
                "{name}_bucket{} {below}",
                Labels(&[("service", service), ("le", bound)])
            ));
        }
        let labels = [("service", service)];
        #[expect(clippy::cast_precision_loss, reason = "seconds, for people")]
        let seconds = sum.nanos as f64 / 1e9;
        self.line(format_args!("{name}_sum{} {seconds}", Labels(&labels)));
        self.line(format_args!("{name}_count{} {below}", Labels(&labels)));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a String takes what it is given");
    }
}

/// Empty values are left out. Ours are service keys, reason codes and numbers, which need no
/// escape; names and urls of upstreams may.
struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut open = "{";
        for (name, value) in self.0.iter().filter(|(_, value)| !value.is_empty()) {
            write!(f, "{open}{name}=\"")?;
            for c in value.chars() {
                match c {
                    '"' | '\\' => write!(f, "\\{c}")?,
                    '\n' => f.write_str("\\n")?,
                    _ => f.write_char(c)?,
                }
            }
            f.write_char('"')?;
            open = ",";
        }
        f.write_str(if open == "," { "}" } else { "" })
    }
}
