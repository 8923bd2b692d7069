//! The metrics of the gateway in a scrape. The workers' tables are added up while they are encoded.

use std::{collections::BTreeMap, fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::DescriptorEncoder,
    metrics::{counter::ConstCounter, gauge::ConstGauge, info::Info},
};

use super::{
    Metrics, Readings, UpstreamReading, UrlReading,
    cell::{Counter, Distribution, Histogram},
    exposition::{Labels, NO_LABELS, family},
    worker::{STATUS_CLASSES, ServiceTable, Table, WorkerEvent as E, by_service},
};
use crate::{
    authz::{carriers::CarrierKind, reason::Reason, rules::ServiceId},
    net::{Reading, tls::Handshake},
};

/// Everything that one scrape reads.
pub(super) struct Scrape {
    pub(super) metrics: Arc<Metrics>,
    pub(super) workers: Vec<Arc<Table>>,
    pub(super) services: BTreeMap<ServiceId, String>,
    pub(super) upstreams: Vec<UpstreamReading>,
    pub(super) budgets: Vec<Reading>,
    pub(super) readings: Readings,
}

/// Name and help of each event that is counted. The encoder adds the prefix `permgate_`, and `_total` to
/// counters.
const EVENTS: [(&str, &str, E); 8] = [
    ("connections_accepted", "Client connections accepted.", E::ConnectionAccepted),
    (
        "proxy_headers_refused",
        "Connections of trusted proxies without a valid PROXY header.",
        E::MissingProxyHeader,
    ),
    ("tunnels_opened", "Connections upgraded by a 101.", E::TunnelOpened),
    ("upstream_connects", "Connections opened to upstreams.", E::UpstreamConnect),
    ("upstream_connects_failed", "Connections to upstreams that failed.", E::UpstreamConnectFailed),
    ("upstream_reuses", "Requests sent over a pooled connection.", E::UpstreamReuse),
    ("upstream_retries", "Requests sent a second time.", E::UpstreamRetry),
    ("upstream_ejections", "Addresses taken out of the rotation.", E::UpstreamEjection),
];

const COUNTERS: [(&str, &str, fn(&Metrics) -> &Counter); 16] = [
    ("tls_reloads", "Certificates replaced while serving.", |m| &m.certificate_reloads),
    ("tls_reloads_failed", "New certificates that could not be used.", |m| &m.certificate_reloads_failed),
    ("store_commits", "Durable group commits.", |m| &m.store.commits),
    ("store_changes", "Durable changes.", |m| &m.store.changes),
    ("store_sync_failures", "Syncs that failed.", |m| &m.store.sync_failures),
    ("fences", "Fences raised.", |m| &m.store.fences_raised),
    ("fences_incomplete", "Fences that a participant did not acknowledge in time.", |m| {
        &m.store.fences_incomplete
    }),
    ("fence_cuts", "Requests, streams and tunnels cut by a change.", |m| &m.store.cut),
    ("cluster_lapsed", "Cluster nodes that did not acknowledge a change in time.", |m| &m.store.lapsed),
    ("cluster_probes_unanswered", "Probes that etcd did not answer.", |m| &m.store.probes_unanswered),
    ("cluster_probes_refused", "Probes that etcd refused: a sign-in or a permission is missing.", |m| {
        &m.store.probes_refused
    }),
    ("cluster_reverted", "Removals that were in force only on this node and were undone later.", |m| {
        &m.store.reverted
    }),
    ("log_lines_dropped", "Access log lines lost: the target was too slow or could not be written.", |m| {
        &m.log_lines_dropped
    }),
    ("refusals_dropped", "Audited refusals dropped.", |m| &m.refusals_dropped),
    ("reloads", "Reloads that took effect.", |m| &m.reloads),
    ("reloads_failed", "Reloads that were refused.", |m| &m.reloads_failed),
];

const GAUGES: [(&str, &str, fn(&Scrape) -> u64); 7] = [
    ("connections_open", "Client connections now open.", |s| {
        s.open(E::ConnectionAccepted, E::ConnectionClosed)
    }),
    ("live_requests", "Permitted requests, streams and tunnels in flight.", |s| s.open(E::Entered, E::Left)),
    ("tunnels_open", "Tunnels now open.", |s| s.open(E::TunnelOpened, E::TunnelClosed)),
    ("tokens", "Tokens in the index, revoked ones included.", |s| s.readings.tokens),
    ("tokens_imported", "Tokens registered by digest.", |s| s.readings.imported),
    ("store_writable", "1 while changes are accepted.", |s| u64::from(s.readings.writable)),
    ("ready", "1 while requests are served.", |s| u64::from(s.readings.ready)),
];

/// Reads a value of an upstream; `None` without a limit, because nothing is counted then.
pub(super) type UpstreamGauge = fn(&UpstreamReading) -> Option<usize>;

const HISTOGRAMS: [(&str, &str, fn(&ServiceTable) -> &Histogram); 2] = [
    ("request_duration_seconds", "From the head of a request to the end of its response.", |table| {
        &table.latency
    }),
    (
        "upstream_duration_seconds",
        "From the head of a request to the head of the upstream's response.",
        |table| &table.upstream_latency,
    ),
];

const BYTES: [(&str, &str, fn(&ServiceTable) -> u64); 2] = [
    ("received_bytes", "Bytes of request bodies.", |table| table.bytes().0),
    ("sent_bytes", "Bytes of response bodies.", |table| table.bytes().1),
];

const URLS: [(&str, &str, fn(&UrlReading) -> bool); 2] = [
    ("upstream_up", "0 while health checks fail.", |url| url.up),
    ("upstream_ejected", "1 while not used after failures.", |url| url.ejected),
];

const UPSTREAMS: [(&str, &str, UpstreamGauge); 3] = [
    ("upstream_requests_in_flight", "Requests in flight, of upstreams with max_in_flight.", in_flight),
    ("upstream_connections", "Open connections, of upstreams with max_connections.", |upstream| {
        upstream.connections.map(|(open, _)| open)
    }),
    ("upstream_requests_queued", "Requests that wait for a limit of their upstream.", queued),
];

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let build = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("os", std::env::consts::OS),
            ("arch", std::env::consts::ARCH),
        ];
        family(encoder, "build", "What is running; always 1.", [(NO_LABELS, Info::new(build))])?;
        for (name, help, event) in EVENTS {
            family(encoder, name, help, [(NO_LABELS, ConstCounter::new(self.count(event)))])?;
        }
        for (name, help, of) in COUNTERS {
            family(encoder, name, help, [(NO_LABELS, ConstCounter::new(of(&self.metrics).value()))])?;
        }
        for (name, help, read) in GAUGES {
            family(encoder, name, help, [(NO_LABELS, ConstGauge::new(read(self)))])?;
        }
        self.cluster(encoder)?;
        self.requests(encoder)?;
        let refusals = Reason::ALL.iter().filter_map(|&reason| {
            counted([("reason", reason.code())], self.workers.iter().map(|worker| worker.refusals(reason)))
        });
        family(encoder, "client_refusals", "Clients refused before a request was read.", refusals)?;
        let carriers = CarrierKind::ALL.iter().filter_map(|&kind| {
            counted([("carrier", kind.code())], self.workers.iter().map(|worker| worker.carriers(kind)))
        });
        let about = "Requests whose token was not in Authorization: Bearer.";
        family(encoder, "other_carriers", about, carriers)?;
        let handshakes = Handshake::ALL.iter().filter_map(|&outcome| {
            let counts = self.workers.iter().map(|worker| worker.handshakes(outcome));
            counted([("outcome", outcome.code())], counts)
        });
        family(encoder, "tls_handshakes", "TLS handshakes by how they ended.", handshakes)?;
        let help = "When a certificate expires, in seconds since 1970.";
        self.certificates(encoder, "tls_certificate_not_after_timestamp_seconds", help)?;
        self.upstreams(encoder)?;
        self.budgets(encoder)?;
        let store = &self.metrics.store;
        let commits = [(NO_LABELS, sum([&store.commit_duration]))];
        let help = "From a transaction to the end of its sync.";
        family(encoder, "store_commit_duration_seconds", help, commits)?;
        let fences = [(NO_LABELS, sum([&store.fence_duration]))];
        family(encoder, "fence_duration_seconds", "From raising a fence to its last acknowledgement.", fences)
    }
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").field("readings", &self.readings).finish_non_exhaustive()
    }
}

impl Scrape {
    fn count(&self, event: E) -> u64 {
        self.workers.iter().map(|worker| worker.count(event)).sum()
    }

    fn open(&self, begun: E, ended: E) -> u64 {
        self.workers.iter().map(|worker| worker.open(begun, ended)).sum()
    }

    pub(super) fn by_service(&self) -> BTreeMap<&str, Vec<&ServiceTable>> {
        by_service(&self.workers, &self.services)
    }

    /// Encodes the state of the cluster; nothing without a cluster.
    fn cluster(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(cluster) = self.readings.cluster else { return Ok(()) };
        for (name, help, value) in [
            (
                "cluster_permitted_seconds",
                "How long this node may still forward requests.",
                cluster.permitted,
            ),
            ("cluster_position", "The position in the log that is in force on this node.", cluster.position),
            ("cluster_waiting", "Changes that other nodes have yet to acknowledge.", cluster.waiting),
            ("cluster_unwritten", "Removals that are in force only on this node.", cluster.unwritten),
        ] {
            family(encoder, name, help, [(NO_LABELS, ConstGauge::new(value))])?;
        }
        let members = [("same", cluster.same_rules), ("other", cluster.other_rules)];
        let members = members.map(|(rules, count)| ([("rules", rules)], ConstGauge::new(count)));
        family(
            encoder,
            "cluster_members",
            "Nodes by whether their rules are the same as this node's.",
            members,
        )
    }

    fn requests(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let services = self.by_service();
        let mut requests = Vec::new();
        for (service, tables) in &services {
            for &reason in Reason::ALL {
                let (outcome, code) = (reason.outcome(), reason.code());
                requests.extend(STATUS_CLASSES.into_iter().enumerate().filter_map(|(class, name)| {
                    let labels = [
                        ("service", *service),
                        ("outcome", outcome),
                        ("reason", code),
                        ("status_class", name),
                    ];
                    counted(labels, tables.iter().map(|table| table.requests(reason, class)))
                }));
            }
        }
        family(encoder, "requests", "Requests that have ended.", requests)?;
        for (name, help, read) in HISTOGRAMS {
            let samples = services.iter().map(|(service, tables)| {
                (Labels([("service", *service)]), sum(tables.iter().map(|table| read(table))))
            });
            family(encoder, name, help, samples)?;
        }
        for (name, help, read) in BYTES {
            let samples = services.iter().map(|(service, tables)| {
                let bytes: u64 = tables.iter().map(|table| read(table)).sum();
                (Labels([("service", *service)]), ConstCounter::new(bytes))
            });
            family(encoder, name, help, samples)?;
        }
        Ok(())
    }

    pub(super) fn certificates(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
    ) -> fmt::Result {
        let certificates = self.metrics.certificates.lock().clone();
        let samples = certificates
            .iter()
            .map(|(file, at)| (Labels([("certificate", file.as_str())]), ConstGauge::new(*at)));
        family(encoder, name, help, samples)
    }

    fn budgets(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let label = |one: &Reading| Labels([("budget", one.name)]);
        let gauge = |value: usize| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let help = "The size of a budget: connections, streams, tunnels, or bytes.";
        family(encoder, "budget_limit", help, self.budgets.iter().map(|one| (label(one), gauge(one.limit))))?;
        let help = "How much of a budget is in use.";
        family(encoder, "budget_used", help, self.budgets.iter().map(|one| (label(one), gauge(one.used))))?;
        let refusals = self.budgets.iter().map(|one| (label(one), ConstCounter::new(one.refused)));
        family(
            encoder,
            "budget_refusals",
            "What was refused or closed because a budget was used up.",
            refusals,
        )
    }

    fn upstreams(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, read) in URLS {
            let urls = self.upstreams.iter().flat_map(|upstream| {
                upstream.urls.iter().map(|url| {
                    let labels = [("upstream", upstream.name.as_str()), ("url", url.url.as_str())];
                    (Labels(labels), ConstGauge::new(u32::from(read(url))))
                })
            });
            family(encoder, name, help, urls)?;
        }
        for (name, help, read) in UPSTREAMS {
            self.encode_upstream_gauge(encoder, name, help, read)?;
        }
        Ok(())
    }

    pub(super) fn encode_upstream_gauge(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        read: UpstreamGauge,
    ) -> fmt::Result {
        let samples = self.upstreams.iter().filter_map(|upstream| {
            Some((Labels([("upstream", upstream.name.as_str())]), ConstGauge::new(read(upstream)?)))
        });
        family(encoder, name, help, samples)
    }
}

pub(super) fn in_flight(upstream: &UpstreamReading) -> Option<usize> {
    upstream.requests.map(|(in_flight, _)| in_flight)
}

pub(super) fn queued(upstream: &UpstreamReading) -> Option<usize> {
    let limits = [upstream.requests, upstream.connections];
    limits.iter().any(Option::is_some).then(|| limits.iter().flatten().map(|(_, queued)| queued).sum())
}

/// Returns a sample, unless the count is 0.
pub(super) fn counted<'a, const N: usize>(
    labels: [(&'static str, &'a str); N],
    counts: impl Iterator<Item = u64>,
) -> Option<(Labels<'a, N>, ConstCounter)> {
    let count = counts.sum();
    (count > 0).then(|| (Labels(labels), ConstCounter::new(count)))
}

fn sum<'a>(histograms: impl IntoIterator<Item = &'a Histogram>) -> Distribution {
    let mut sum = Distribution::default();
    histograms.into_iter().for_each(|histogram| histogram.add_to(&mut sum));
    sum
}
