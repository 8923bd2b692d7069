//! Many nodes over one ordered log: who may forward, and when a change is in force everywhere. The
//! [`Protocol`] and what it is made of do no I/O and read no clock: what was sent and received, and when,
//! is told by the caller, so that a simulation and a network drive the same code.
//!
//! Each node may forward for a while after a *probe*, a question that the log's engine orders among
//! the commits. A change at position n answers when every member has acknowledged n, or when every
//! permission that can rest on a probe from before n has run out.

use std::{fmt, io, time::Duration};

mod attempt;
mod completion;
#[cfg(feature = "etcd")]
mod driver;
mod follow;
#[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "driven by what nodes share"))]
mod local;
mod membership;
#[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "driven by what nodes share"))]
mod node;
#[cfg(feature = "etcd")]
mod open;
mod permission;
mod protocol;
mod settings;
#[cfg(test)]
mod simulation;
#[cfg(feature = "etcd")]
mod snapshots;

pub use crate::state::BootTime;
use crate::store::log::random_id;
pub use attempt::{Answer, Attempt, AttemptId, Step};
pub use completion::{Completed, Completions};
pub use follow::{Followed, Follower, Fork};
pub(crate) use local::is_copy;
pub use membership::{Departed, Member, MemberChange, Members};
pub(crate) use node::Applied;
pub use node::{Node, NodeStatus, Status};
#[cfg(feature = "etcd")]
pub use open::{Ended, JoinError, adopt, init, leave};
pub use permission::{Permission, Probe};
pub use protocol::{Acknowledgement, CUTS, MembershipState, Protocol, Start};
pub use settings::{Etcd, Settings, Tls, User};

/// One run of a node's process: 16 random bytes, chosen at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub [u8; 16]);

impl Incarnation {
    /// A new one. Fails when the operating system has no randomness.
    pub fn random() -> io::Result<Self> {
        random_id().map(Self)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How long permission lasts and how long a change waits for it to end. The gap between the two covers
/// clocks whose rates differ by 8 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From the sending of a probe.
    pub permission: Duration,
    /// From the moment that a commit was known: by then, whoever has not acknowledged has no permission
    /// left.
    pub lapse: Duration,
}

/// What every node of a cluster uses unless `store.cluster.lease` says otherwise.
pub const LEASE: Duration = Duration::from_secs(10);

impl Timing {
    pub fn of_lease(lease: Duration) -> Self {
        Self { permission: lease.mul_f64(0.9), lapse: lease + Duration::from_millis(100) }
    }
}
