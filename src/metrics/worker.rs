//! One worker's table, and the handle that writes it.

use std::{
    cell::Cell,
    collections::BTreeMap,
    marker::PhantomData,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::cell::{Histogram, add_single_writer};
use crate::{
    authz::{carriers::CarrierKind, reason::Reason, rules::ServiceId},
    net::tls::Handshake,
};

/// A worker's handle to its table. Neither `Clone` nor `Sync`: with a single writer, an addition is only a
/// load and a store.
pub struct WorkerMetrics {
    table: Arc<Table>,
    single_threaded: PhantomData<Cell<()>>,
}

/// An event in a worker that is only counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerEvent {
    ConnectionAccepted,
    ConnectionClosed,
    /// A connection of a trusted proxy had a missing or invalid PROXY header.
    MissingProxyHeader,
    /// A permitted request entered the live registry.
    Entered,
    Left,
    TunnelOpened,
    TunnelClosed,
    UpstreamConnect,
    UpstreamConnectFailed,
    /// A pooled connection carried another request.
    UpstreamReuse,
    UpstreamRetry,
    /// An address was ejected from the rotation.
    UpstreamEjection,
}

const EVENT_COUNT: usize = WorkerEvent::UpstreamEjection as usize + 1;

/// Service IDs of a process are below 2^15. A service's table is created at its first request.
const CHUNK_SIZE: usize = 64;
const MAX_CHUNKS: usize = (1 << 15) / CHUNK_SIZE;

pub(super) struct Table {
    /// Requests that no service owns.
    without_service: ServiceTable,
    services: Box<[OnceLock<Box<Chunk>>; MAX_CHUNKS]>,
    events: [AtomicU64; EVENT_COUNT],
    refusals: [AtomicU64; Reason::ALL.len()],
    handshakes: [AtomicU64; Handshake::ALL.len()],
    carriers: [AtomicU64; CarrierKind::ALL.len()],
}

type Chunk = [OnceLock<Box<ServiceTable>>; CHUNK_SIZE];

#[derive(Default)]
pub(super) struct ServiceTable {
    requests: RequestCounts,
    pub(super) latency: Histogram,
    pub(super) upstream_latency: Histogram,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// By reason and by status class.
struct RequestCounts([[AtomicU64; STATUS_CLASSES.len()]; Reason::ALL.len()]);

/// The values of the label `status_class`.
pub(super) const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl WorkerMetrics {
    pub(super) fn new(table: Arc<Table>) -> Self {
        Self { table, single_threaded: PhantomData }
    }

    /// Counts a request that has ended, whatever its outcome. `upstream`: the time to the head of the
    /// upstream's response.
    #[expect(clippy::too_many_arguments, reason = "one call per request, with every figure by name")]
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
        // No response has a status outside of these classes.
        let class = usize::from(status / 100).clamp(1, STATUS_CLASSES.len()) - 1;
        add_single_writer(&table.requests.0[reason as usize][class], 1);
        table.latency.observe_single_writer(duration);
        if let Some(upstream) = upstream {
            table.upstream_latency.observe_single_writer(upstream);
        }
        add_single_writer(&table.bytes_in, bytes_in);
        add_single_writer(&table.bytes_out, bytes_out);
    }

    pub fn count(&self, event: WorkerEvent) {
        add_single_writer(&self.table.events[event as usize], 1);
    }

    /// Counts a client that was refused before a request was read: by the parser, a limit or a deadline.
    pub fn client_refused(&self, reason: Reason) {
        add_single_writer(&self.table.refusals[reason as usize], 1);
    }

    pub fn handshake(&self, outcome: Handshake) {
        add_single_writer(&self.table.handshakes[outcome as usize], 1);
    }

    /// Counts a request whose token was in another carrier than `Authorization: Bearer`.
    pub fn count_carrier(&self, kind: CarrierKind) {
        add_single_writer(&self.table.carriers[kind as usize], 1);
    }
}

impl Table {
    /// Returns the services that have had a request.
    fn services(&self) -> impl Iterator<Item = (ServiceId, &ServiceTable)> {
        let chunks = self.services.iter().enumerate().filter_map(|(at, chunk)| Some((at, chunk.get()?)));
        chunks.flat_map(|(at, chunk)| {
            chunk.iter().enumerate().filter_map(move |(inner, table)| {
                let id = u16::try_from(at * CHUNK_SIZE + inner).ok()?;
                Some((ServiceId(id), &**table.get()?))
            })
        })
    }

    pub(super) fn count(&self, event: WorkerEvent) -> u64 {
        self.events[event as usize].load(Relaxed)
    }

    /// Returns how many of the `begun` events have not ended. Reads `ended` first: otherwise an end between
    /// the two reads would make more ends than beginnings.
    pub(super) fn open(&self, begun: WorkerEvent, ended: WorkerEvent) -> u64 {
        let ended = self.count(ended);
        self.count(begun).saturating_sub(ended)
    }

    pub(super) fn refusals(&self, reason: Reason) -> u64 {
        self.refusals[reason as usize].load(Relaxed)
    }

    pub(super) fn handshakes(&self, outcome: Handshake) -> u64 {
        self.handshakes[outcome as usize].load(Relaxed)
    }

    pub(super) fn carriers(&self, kind: CarrierKind) -> u64 {
        self.carriers[kind as usize].load(Relaxed)
    }

    fn service_or_new(&self, ServiceId(id): ServiceId) -> &ServiceTable {
        let at = usize::from(id);
        let Some(chunk) = self.services.get(at / CHUNK_SIZE) else { return &self.without_service };
        let chunk = chunk.get_or_init(|| Box::new([const { OnceLock::new() }; CHUNK_SIZE]));
        chunk[at % CHUNK_SIZE].get_or_init(Box::default)
    }
}

/// Returns the tables of all workers by service. Requests that no service owns have the empty name.
pub(super) fn by_service<'a>(
    workers: &'a [Arc<Table>],
    names: &'a BTreeMap<ServiceId, String>,
) -> BTreeMap<&'a str, Vec<&'a ServiceTable>> {
    let mut services = BTreeMap::<_, Vec<_>>::new();
    for worker in workers {
        services.entry("").or_default().push(&worker.without_service);
        for (id, table) in worker.services() {
            services.entry(names.get(&id).map_or("", String::as_str)).or_default().push(table);
        }
    }
    services
}

impl ServiceTable {
    /// `class` is an index of [`STATUS_CLASSES`].
    pub(super) fn requests(&self, reason: Reason, class: usize) -> u64 {
        self.requests.0[reason as usize][class].load(Relaxed)
    }

    /// Returns the requests of every status class.
    pub(super) fn requests_of(&self, reason: Reason) -> u64 {
        self.requests.0[reason as usize].iter().map(|count| count.load(Relaxed)).sum()
    }

    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.bytes_in.load(Relaxed), self.bytes_out.load(Relaxed))
    }
}

impl Default for Table {
    fn default() -> Self {
        Self {
            without_service: ServiceTable::default(),
            services: Box::new([const { OnceLock::new() }; MAX_CHUNKS]),
            events: Default::default(),
            refusals: [const { AtomicU64::new(0) }; Reason::ALL.len()],
            handshakes: [const { AtomicU64::new(0) }; Handshake::ALL.len()],
            carriers: Default::default(),
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
    fn each_reason_has_its_own_counter() {
        for (at, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, at, "{reason:?}");
        }
        for (at, outcome) in Handshake::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, at, "{outcome:?}");
        }
    }

    #[test]
    fn request_counts_for_its_service() {
        fn check(name: &str, service: Option<u16>) {
            let table = Arc::new(Table::default());
            let metrics = WorkerMetrics::new(Arc::clone(&table));
            let second = Duration::from_secs(1);
            metrics.record(service.map(ServiceId), Reason::ScopeDenied, 403, second, None, 7, 11);
            let owned: Vec<_> = table.services().map(|(id, _)| id.0).collect();
            assert_eq!(owned, service.into_iter().collect::<Vec<_>>(), "{name}");
            let counted = table.services().next().map_or(&table.without_service, |(_, table)| table);
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
    fn open_count_is_started_minus_ended() {
        let table = Arc::new(Table::default());
        let metrics = WorkerMetrics::new(Arc::clone(&table));
        metrics.count(WorkerEvent::ConnectionAccepted);
        metrics.count(WorkerEvent::ConnectionAccepted);
        metrics.count(WorkerEvent::ConnectionClosed);
        metrics.count(WorkerEvent::Entered);
        assert_eq!(table.count(WorkerEvent::ConnectionAccepted), 2);
        assert_eq!(table.open(WorkerEvent::ConnectionAccepted, WorkerEvent::ConnectionClosed), 1);
        assert_eq!(table.open(WorkerEvent::Entered, WorkerEvent::Left), 1);
        metrics.count(WorkerEvent::Left);
        assert_eq!(table.open(WorkerEvent::Entered, WorkerEvent::Left), 0);
    }
}
