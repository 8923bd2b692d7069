//! Counters of the store, written by its writer thread.

use super::cell::{Counter, Histogram};

/// Owned by the store, read by scrapes.
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
