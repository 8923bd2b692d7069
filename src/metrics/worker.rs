//! One worker's table and the handle that writes it.

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::cell::{Histogram, add_single_writer};
use crate::authz::{answer::Reason, carriers::CarrierKind, rules::ServiceId};

/// A worker's handle to its table. Neither `Clone` nor `Sync`: with a single writer, an addition is a load
/// and a store.
pub struct WorkerMetrics {
    table: Arc<Table>,
    alone: PhantomData<Cell<()>>,
}

/// What happens between a worker and its upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamEvent {
    Connect,
    ConnectFailed,
    /// A pooled connection carried another request.
    Reuse,
    Retry,
    /// An address was ejected from the rotation.
    Ejection,
}

/// How a client's TLS handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeOutcome {
    Full,
    Resumed,
    TimedOut,
    Closed,
    NotTls,
    NothingInCommon,
    ClientCertificate,
    Refused,
    Broken,
}

/// Service ids of a process are below 2^15; a table is created at the first request for its service.
const CHUNK: usize = 64;
const CHUNKS: usize = (1 << 15) / CHUNK;

pub(super) struct Table {
    /// Requests that no service owns.
    without_service: ServiceTable,
    services: Box<[OnceLock<Box<Chunk>>; CHUNKS]>,
    upstream: [AtomicU64; UpstreamEvent::ALL.len()],
    refusals: [AtomicU64; Reason::ALL.len()],
    missing_proxy_headers: AtomicU64,
    handshakes: [AtomicU64; HandshakeOutcome::ALL.len()],
    carriers: [AtomicU64; CarrierKind::ALL.len()],
    connections_accepted: AtomicU64,
    connections_closed: AtomicU64,
    entered: AtomicU64,
    left: AtomicU64,
    tunnels_opened: AtomicU64,
    tunnels_closed: AtomicU64,
}

type Chunk = [OnceLock<Box<ServiceTable>>; CHUNK];

#[derive(Default)]
pub(super) struct ServiceTable {
    requests: RequestCounts,
    pub(super) latency: Histogram,
    pub(super) upstream_latency: Histogram,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// By reason and by the class of the status.
struct RequestCounts([[AtomicU64; STATUS_CLASSES.len()]; Reason::ALL.len()]);

/// The label's values.
pub(super) const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl WorkerMetrics {
    pub(super) fn new(table: Arc<Table>) -> Self {
        Self { table, alone: PhantomData }
    }

    /// Counts a request that has ended, whatever its outcome. `upstream` is the time to the head of the
    /// upstream's response.
    #[expect(clippy::too_many_arguments, reason = "one call a request, every figure of it by name")]
    pub fn record(
        &self,
        service: Option<ServiceId>,
        reason: Reason,
        status: u16,
        duration: Duration,
        upstream: Option<Duration>,
        bytes_in: u64,
        bytes_out: u64,
    ) {
        let table = service.map_or(&self.table.without_service, |service| self.table.service_or_new(service));
        // No response has a status outside these classes.
        let class = usize::from(status / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        add_single_writer(&table.requests.0[reason as usize][class], 1);
        table.latency.observe_single_writer(duration);
        if let Some(upstream) = upstream {
            table.upstream_latency.observe_single_writer(upstream);
        }
        add_single_writer(&table.bytes_in, bytes_in);
        add_single_writer(&table.bytes_out, bytes_out);
    }

    pub fn upstream(&self, event: UpstreamEvent) {
        add_single_writer(&self.table.upstream[event as usize], 1);
    }

    /// Counts a client that was refused before a request was read: by the parser, a limit or a deadline.
    pub fn client_refused(&self, reason: Reason) {
        add_single_writer(&self.table.refusals[reason as usize], 1);
    }

    /// Counts a connection of a trusted proxy with a missing or invalid PROXY header.
    pub fn missing_proxy_header(&self) {
        add_single_writer(&self.table.missing_proxy_headers, 1);
    }

    pub fn handshake(&self, outcome: HandshakeOutcome) {
        add_single_writer(&self.table.handshakes[outcome as usize], 1);
    }

    /// Counts a request whose token stood in another carrier than `Authorization: Bearer`.
    pub fn carried(&self, kind: CarrierKind) {
        add_single_writer(&self.table.carriers[kind as usize], 1);
    }

    pub fn connection_accepted(&self) {
        add_single_writer(&self.table.connections_accepted, 1);
    }

    pub fn connection_closed(&self) {
        add_single_writer(&self.table.connections_closed, 1);
    }

    /// A permitted request entered the live registry.
    pub fn entered(&self) {
        add_single_writer(&self.table.entered, 1);
    }

    pub fn left(&self) {
        add_single_writer(&self.table.left, 1);
    }

    pub fn tunnel_opened(&self) {
        add_single_writer(&self.table.tunnels_opened, 1);
    }

    pub fn tunnel_closed(&self) {
        add_single_writer(&self.table.tunnels_closed, 1);
    }
}

impl UpstreamEvent {
    pub(super) const ALL: [Self; 5] =
        [Self::Connect, Self::ConnectFailed, Self::Reuse, Self::Retry, Self::Ejection];
}

impl HandshakeOutcome {
    pub(super) const ALL: [Self; 9] = [
        Self::Full,
        Self::Resumed,
        Self::TimedOut,
        Self::Closed,
        Self::NotTls,
        Self::NothingInCommon,
        Self::ClientCertificate,
        Self::Refused,
        Self::Broken,
    ];

    /// The label's value.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::TimedOut => "timed_out",
            Self::Closed => "closed",
            Self::NotTls => "not_tls",
            Self::NothingInCommon => "nothing_in_common",
            Self::ClientCertificate => "client_certificate",
            Self::Refused => "refused",
            Self::Broken => "broken",
        }
    }
}

impl Table {
    pub(super) fn without_service(&self) -> &ServiceTable {
        &self.without_service
    }

    /// Services that have had a request.
    pub(super) fn services(&self) -> impl Iterator<Item = (ServiceId, &ServiceTable)> {
        let chunks = self.services.iter().enumerate().filter_map(|(at, chunk)| Some((at, chunk.get()?)));
        chunks.flat_map(|(at, chunk)| {
            chunk.iter().enumerate().filter_map(move |(inner, table)| {
                let id = u16::try_from(at * CHUNK + inner).ok()?;
                Some((ServiceId(id), &**table.get()?))
            })
        })
    }

    pub(super) fn upstream(&self, event: UpstreamEvent) -> u64 {
        self.upstream[event as usize].load(Relaxed)
    }

    pub(super) fn refusals(&self, reason: Reason) -> u64 {
        self.refusals[reason as usize].load(Relaxed)
    }

    pub(super) fn missing_proxy_headers(&self) -> u64 {
        self.missing_proxy_headers.load(Relaxed)
    }

    pub(super) fn handshakes(&self, outcome: HandshakeOutcome) -> u64 {
        self.handshakes[outcome as usize].load(Relaxed)
    }

    pub(super) fn carriers(&self, kind: CarrierKind) -> u64 {
        self.carriers[kind as usize].load(Relaxed)
    }

    pub(super) fn connections(&self) -> (u64, u64) {
        open(&self.connections_accepted, &self.connections_closed)
    }

    pub(super) fn tunnels(&self) -> (u64, u64) {
        open(&self.tunnels_opened, &self.tunnels_closed)
    }

    pub(super) fn live(&self) -> u64 {
        open(&self.entered, &self.left).1
    }

    fn service_or_new(&self, ServiceId(id): ServiceId) -> &ServiceTable {
        let at = usize::from(id);
        let Some(chunk) = self.services.get(at / CHUNK) else { return &self.without_service };
        let chunk = chunk.get_or_init(|| Box::new([const { OnceLock::new() }; CHUNK]));
        chunk[at % CHUNK].get_or_init(Box::default)
    }
}

impl ServiceTable {
    /// `class` is an index of [`STATUS_CLASSES`].
    pub(super) fn requests(&self, reason: Reason, class: usize) -> u64 {
        self.requests.0[reason as usize][class].load(Relaxed)
    }

    /// Of every status class.
    pub(super) fn requests_of(&self, reason: Reason) -> u64 {
        self.requests.0[reason as usize].iter().map(|count| count.load(Relaxed)).sum()
    }

    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.bytes_in.load(Relaxed), self.bytes_out.load(Relaxed))
    }
}

/// The number opened so far, and the number open now. `ended` is read first: otherwise an end between the two
/// reads would make more ends than begins.
fn open(begun: &AtomicU64, ended: &AtomicU64) -> (u64, u64) {
    let ended = ended.load(Relaxed);
    let begun = begun.load(Relaxed);
    (begun, begun.saturating_sub(ended))
}

impl Default for Table {
    fn default() -> Self {
        Self {
            without_service: ServiceTable::default(),
            services: Box::new([const { OnceLock::new() }; CHUNKS]),
            upstream: Default::default(),
            refusals: [const { AtomicU64::new(0) }; Reason::ALL.len()],
            missing_proxy_headers: AtomicU64::default(),
            handshakes: Default::default(),
            carriers: Default::default(),
            connections_accepted: AtomicU64::default(),
            connections_closed: AtomicU64::default(),
            entered: AtomicU64::default(),
            left: AtomicU64::default(),
            tunnels_opened: AtomicU64::default(),
            tunnels_closed: AtomicU64::default(),
        }
    }
}

impl Default for RequestCounts {
    fn default() -> Self {
        Self([const { [const { AtomicU64::new(0) }; STATUS_CLASSES.len()] }; Reason::ALL.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_stands_at_its_own_place() {
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at, "{reason:?}");
        }
        for (at, outcome) in HandshakeOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, at, "{outcome:?}");
        }
        for (at, event) in UpstreamEvent::ALL.into_iter().enumerate() {
            assert_eq!(event as usize, at, "{event:?}");
        }
    }

    #[test]
    fn a_request_counts_for_its_service() {
        fn check(name: &str, service: Option<u16>) {
            let table = Arc::new(Table::default());
            let metrics = WorkerMetrics::new(Arc::clone(&table));
            let second = Duration::from_secs(1);
            metrics.record(service.map(ServiceId), Reason::ScopeDenied, 403, second, None, 7, 11);
            let owned: Vec<_> = table.services().map(|(id, _)| id.0).collect();
            assert_eq!(owned, service.into_iter().collect::<Vec<_>>(), "{name}");
            let counted = table.services().next().map_or(table.without_service(), |(_, table)| table);
            assert_eq!(counted.requests(Reason::ScopeDenied, 3), 1, "{name}");
            assert_eq!(counted.requests_of(Reason::ScopeDenied), 1, "{name}");
            assert_eq!(counted.requests_of(Reason::Ok), 0, "{name}");
            assert_eq!(counted.bytes(), (7, 11), "{name}");
        }
        check("no service", None);
        check("the first", Some(0));
        check("the last of a chunk", Some(63));
        check("the first of the next", Some(64));
        check("the last there can be", Some((1 << 15) - 1));
    }

    #[test]
    fn what_is_open_is_what_began_and_has_not_ended() {
        let table = Arc::new(Table::default());
        let metrics = WorkerMetrics::new(Arc::clone(&table));
        metrics.connection_accepted();
        metrics.connection_accepted();
        metrics.connection_closed();
        metrics.entered();
        assert_eq!(table.connections(), (2, 1));
        assert_eq!(table.live(), 1);
        metrics.left();
        assert_eq!(table.live(), 0);
    }
}
