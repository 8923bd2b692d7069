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

use super::cell::{Histogram, add_alone};
use crate::authz::{answer::Reason, rules::ServiceId};

/// One worker's handle. Neither `Clone` nor `Sync`: that the worker alone writes its table makes an
/// addition a load and a store.
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
    /// An address was taken out of the rotation.
    Ejection,
}

/// How a client's TLS handshake has ended.
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

/// Keys seen in a process stay below 2^15; tables are made when a service is first asked for.
const CHUNK: usize = 64;
const CHUNKS: usize = (1 << 15) / CHUNK;

pub(super) struct Table {
    /// Requests that no service owns.
    unowned: ServiceTable,
    services: Box<[OnceLock<Box<Chunk>>; CHUNKS]>,
    upstream: [AtomicU64; UpstreamEvent::ALL.len()],
    refusals: [AtomicU64; Reason::ALL.len()],
    unannounced: AtomicU64,
    handshakes: [AtomicU64; HandshakeOutcome::ALL.len()],
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
    requests: Reasons,
    /// Answers by the hundred of their status, 1xx to 5xx.
    classes: [AtomicU64; 5],
    pub(super) latency: Histogram,
    pub(super) upstream_latency: Histogram,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

struct Reasons([AtomicU64; Reason::ALL.len()]);

impl WorkerMetrics {
    pub(super) fn new(table: Arc<Table>) -> Self {
        Self { table, alone: PhantomData }
    }

    /// A request that has ended, however it did. `upstream` is the time to the head of the
    /// upstream's answer.
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
        let table = service.map_or(&self.table.unowned, |service| self.table.service_or_new(service));
        add_alone(&table.requests.0[reason as usize], 1);
        if let Some(class) = table.classes.get(usize::from(status / 100).wrapping_sub(1)) {
            add_alone(class, 1);
        }
        table.latency.observe_alone(duration);
        if let Some(upstream) = upstream {
            table.upstream_latency.observe_alone(upstream);
        }
        add_alone(&table.bytes_in, bytes_in);
        add_alone(&table.bytes_out, bytes_out);
    }

    pub fn upstream(&self, event: UpstreamEvent) {
        add_alone(&self.table.upstream[event as usize], 1);
    }

    /// A client refused before any request was seen: by hyper, by a limit or a deadline.
    pub fn client_refused(&self, reason: Reason) {
        add_alone(&self.table.refusals[reason as usize], 1);
    }

    /// A trusted proxy's connection without a sound PROXY header.
    pub fn unannounced(&self) {
        add_alone(&self.table.unannounced, 1);
    }

    pub fn handshake(&self, outcome: HandshakeOutcome) {
        add_alone(&self.table.handshakes[outcome as usize], 1);
    }

    pub fn connection_accepted(&self) {
        add_alone(&self.table.connections_accepted, 1);
    }

    pub fn connection_closed(&self) {
        add_alone(&self.table.connections_closed, 1);
    }

    /// A request has entered the live registry.
    pub fn entered(&self) {
        add_alone(&self.table.entered, 1);
    }

    pub fn left(&self) {
        add_alone(&self.table.left, 1);
    }

    pub fn tunnel_opened(&self) {
        add_alone(&self.table.tunnels_opened, 1);
    }

    pub fn tunnel_closed(&self) {
        add_alone(&self.table.tunnels_closed, 1);
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
    pub(super) fn unowned(&self) -> &ServiceTable {
        &self.unowned
    }

    /// Services that a request has come to.
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

    pub(super) fn unannounced(&self) -> u64 {
        self.unannounced.load(Relaxed)
    }

    pub(super) fn handshakes(&self, outcome: HandshakeOutcome) -> u64 {
        self.handshakes[outcome as usize].load(Relaxed)
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
        let Some(chunk) = self.services.get(at / CHUNK) else { return &self.unowned };
        let chunk = chunk.get_or_init(|| Box::new([const { OnceLock::new() }; CHUNK]));
        chunk[at % CHUNK].get_or_init(Box::default)
    }
}

impl ServiceTable {
    pub(super) fn requests(&self, reason: Reason) -> u64 {
        self.requests.0[reason as usize].load(Relaxed)
    }

    /// `hundred` is 1 to 5.
    pub(super) fn answers(&self, hundred: usize) -> u64 {
        self.classes[hundred - 1].load(Relaxed)
    }

    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.bytes_in.load(Relaxed), self.bytes_out.load(Relaxed))
    }
}

/// All there were, and those still there. The end is read first: a reader between the two would
/// otherwise count fewer than none.
fn open(begun: &AtomicU64, ended: &AtomicU64) -> (u64, u64) {
    let ended = ended.load(Relaxed);
    let begun = begun.load(Relaxed);
    (begun, begun.saturating_sub(ended))
}

impl Default for Table {
    fn default() -> Self {
        Self {
            unowned: ServiceTable::default(),
            services: Box::new([const { OnceLock::new() }; CHUNKS]),
            upstream: Default::default(),
            refusals: [const { AtomicU64::new(0) }; Reason::ALL.len()],
            unannounced: AtomicU64::default(),
            handshakes: Default::default(),
            connections_accepted: AtomicU64::default(),
            connections_closed: AtomicU64::default(),
            entered: AtomicU64::default(),
            left: AtomicU64::default(),
            tunnels_opened: AtomicU64::default(),
            tunnels_closed: AtomicU64::default(),
        }
    }
}

impl Default for Reasons {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Reason::ALL.len()])
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
            let counted = table.services().next().map_or(table.unowned(), |(_, table)| table);
            assert_eq!(counted.requests(Reason::ScopeDenied), 1, "{name}");
            assert_eq!(counted.requests(Reason::Ok), 0, "{name}");
            assert_eq!(counted.answers(4), 1, "{name}");
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
