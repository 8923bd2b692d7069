//! Has the eldest node write snapshots of the store to etcd, and trim the log before them.

use std::{
    collections::VecDeque,
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{driver::Driver, open::upload};
use crate::store::{
    Store,
    log::{
        Log as _,
        etcd::{Connection, EtcdLog},
    },
};

/// A snapshot is due when the log has grown by this many bytes since the last one, and by at least its
/// size.
const DUE_BYTES: u64 = 64 << 20;
/// Or by this many entries: this node may not have been running to count their bytes.
const ENTRIES: u64 = 200_000;
/// How long the newest entries are kept, for nodes that are away for a moment.
const ENTRIES_KEPT: Duration = Duration::from_secs(600);
/// How long a replaced snapshot is kept for nodes that may be reading it.
const REPLACED_KEPT: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Snapshots {
    /// Positions of the log at some times within the last [`ENTRIES_KEPT`].
    positions: VecDeque<(Instant, u64)>,
    running: Option<thread::JoinHandle<()>>,
}

impl Snapshots {
    /// Begins a snapshot if one is due and this node is the eldest.
    pub(super) fn start_if_due(&mut self, driver: &Driver) {
        let (now, position) = (Instant::now(), driver.store.engine().head().position);
        // Far more often than a snapshot is due.
        if self.positions.back().is_some_and(|(at, _)| now - *at < ENTRIES_KEPT / 20) {
            return;
        }
        self.positions.push_back((now, position));
        while self.positions.get(1).is_some_and(|(at, _)| now - *at >= ENTRIES_KEPT) {
            self.positions.pop_front();
        }
        let running = self.running.as_ref().is_some_and(|thread| !thread.is_finished());
        let Some((at, kept)) = self.positions.front().copied() else { return };
        if running || now - at < ENTRIES_KEPT || !driver.node.is_eldest() {
            return;
        }
        let (store, connection) = (driver.store.clone(), driver.connection.clone());
        let job = SnapshotTask { store, connection, kept, position, grown: driver.grown.clone() };
        let run = move || {
            if let Err(error) = job.write_and_trim() {
                tracing::warn!(
                    error,
                    "a snapshot of the store could not be written to etcd: the log is not trimmed"
                );
            }
        };
        let spawned = thread::Builder::new().name("permgate-snapshot".into()).spawn(run);
        match spawned {
            Ok(thread) => self.running = Some(thread),
            Err(error) => tracing::warn!(%error, "the thread that writes a snapshot cannot be started"),
        }
    }
}

struct SnapshotTask {
    store: Store,
    connection: Arc<Connection>,
    /// Entries before this position are older than [`ENTRIES_KEPT`].
    kept: u64,
    position: u64,
    grown: Arc<AtomicU64>,
}

impl SnapshotTask {
    fn write_and_trim(&self) -> Result<(), Box<dyn Error>> {
        let grown = self.grown.load(Ordering::Relaxed);
        let before = self.connection.snapshot()?;
        let (since, size) = before.map_or((0, 0), |snapshot| (snapshot.position, snapshot.bytes));
        if grown < DUE_BYTES.max(size) && self.position.saturating_sub(since) < ENTRIES {
            return Ok(());
        }
        let snapshot = upload(&self.connection, self.store.engine().replica())?;
        self.connection.publish(&snapshot)?;
        let position = snapshot.position();
        self.grown.fetch_sub(grown, Ordering::Relaxed);
        tracing::info!(position, "wrote a snapshot of the store to etcd");
        let mut log = EtcdLog::open(self.connection.clone())?;
        log.trim(self.kept.min(position) + 1)?;
        thread::sleep(REPLACED_KEPT);
        Ok(self.connection.remove_older_snapshots(&snapshot)?)
    }
}
