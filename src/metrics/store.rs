//! What the store's writer thread counts; the only writer of changes is the only one to see them.

use super::cell::{Counter, Histogram};

/// Owned by the store, read by scrapes.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Group commits that are durable.
    pub commits: Counter,
    /// Changes in them.
    pub changes: Counter,
    /// From the transaction to the end of the sync.
    pub commit_duration: Histogram,
    pub sync_failures: Counter,
    pub fences_raised: Counter,
    /// Fences that a participant has not acknowledged in time.
    pub fences_incomplete: Counter,
    /// From the wake to the last acknowledgement.
    pub fence_duration: Histogram,
    /// Requests, streams and tunnels that a change cut.
    pub cut: Counter,
}
