//! Several nodes over one ordered log: which nodes may forward, and when a change is in force on all of
//! them. [`Protocol`] and its parts do no I/O and read no clock: the caller passes in what was sent and
//! received, and when, so that the simulation and the network run the same code.
//!
//! A node may forward for a limited time after a *probe*, a read that the log's engine orders among the
//! commits. A change at position n completes when every member has acknowledged n, or when every permission
//! that rests on a probe from before n has expired.

use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

mod attempt;
mod completion;
#[cfg(feature = "etcd")]
mod driver;
mod follow;
#[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "used by the etcd feature only"))]
mod local;
mod membership;
#[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "used by the etcd feature only"))]
mod node;
#[cfg(feature = "etcd")]
mod open;
mod permission;
mod protocol;
#[cfg(test)]
mod simulation;
#[cfg(feature = "etcd")]
mod snapshots;

pub use crate::state::BootTime;
pub use attempt::{Answer, AttemptId, CommitAttempt, Step};
pub use completion::{Completed, Completions};
pub use follow::{Follower, Fork, SequenceCheck};
pub(crate) use local::is_copy;
pub use membership::{Member, MemberChange, Members, NodeRun};
pub(crate) use node::Applied;
pub use node::{Node, NodeStatus, Status};
#[cfg(feature = "etcd")]
pub use open::{Ended, JoinError, adopt, init, leave};
pub use permission::{Permission, Probe};
pub use protocol::{Acknowledgement, MAX_CUTS, MembershipState, NodeIdentity, Protocol};

/// One run of a node's process: 16 random bytes, chosen at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub [u8; 16]);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How long a permission lasts, and how long a change waits for it to expire. The gap between the two
/// covers clocks whose rates differ by 8 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Counted from the sending of a probe.
    pub permission: Duration,
    /// Counted from when a commit became known. After that, a node that has not acknowledged has no
    /// permission left.
    pub lapse: Duration,
}

impl Timing {
    pub fn from_lease(lease: Duration) -> Self {
        Self { permission: lease.mul_f64(0.9), lapse: lease + Duration::from_millis(100) }
    }
}

/// The settings of `[store.cluster]`: this node in its cluster. Built by `config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub node: String,
    /// How long a node that is cut off may go on serving, and about how long a change may wait for it.
    pub lease: Duration,
    pub etcd: Etcd,
}

/// How etcd is reached. The files are read at each connection, so that a renewed certificate is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// `http://` or `https://`, host, port.
    pub endpoints: Vec<String>,
    /// Prefix of every key.
    pub prefix: String,
    pub tls: Option<Tls>,
    pub user: Option<User>,
}

/// Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// CA certificates that verify etcd's certificate.
    pub ca: PathBuf,
    /// Client certificate and key of this node.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// This node's user in etcd, unless a certificate identifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub password_file: PathBuf,
}
