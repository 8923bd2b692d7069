//! The tables of a replica, and the sum over each.

use serde::{Deserialize, Serialize};

use crate::store::{
    log::{Head, StoreId},
    record::record,
};

macro_rules! tables {
    ($($(#[$about:meta])* $table:ident $name:literal,)*) => {
        /// A tree in sled. A backup has the tables in this order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Table {
            $($(#[$about])* $table,)*
        }

        impl Table {
            pub(crate) const ALL: [Table; [$($name),*].len()] = [$(Table::$table),*];

            /// Stored on disk, so it never changes.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Table::$table => $name,)*
                }
            }
        }
    };
}

tables! {
    /// The replica's own rows: [`STATE`], [`AUDIT_START`] and the cluster's members.
    Meta "meta",
    /// Digest to record.
    Tokens "tokens",
    /// Token id to last use.
    Uses "uses",
    /// From here to [`Table::Invitations`], the tables that a start reads whole.
    Users "users",
    Groups "groups",
    Members "members",
    Roles "roles",
    Grants "grants",
    IdentityCache "identities",
    Sessions "sessions",
    Invitations "invitations",
    Idempotency "idempotency",
    Audit "audit",
}

/// The key of the record of the replica's position and checksums. If the trees change, so must this key: a
/// replica without it is rebuilt.
pub(super) const STATE: &[u8] = b"state 4";
/// The first audit event that is kept, when some were trimmed.
pub(super) const AUDIT_START: &[u8] = b"audit start";

/// The number of rows of a table, and a sum over their checksums: a row that is lost, changed or brought
/// back changes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sum {
    pub rows: u64,
    checksums: u64,
}

impl Sum {
    pub(crate) fn add(&mut self, key: &[u8], row: &[u8]) {
        self.rows = self.rows.wrapping_add(1);
        self.checksums = self.checksums.wrapping_add(checksum(key, row));
    }

    pub(super) fn remove(&mut self, key: &[u8], row: &[u8]) {
        self.rows = self.rows.wrapping_sub(1);
        self.checksums = self.checksums.wrapping_sub(checksum(key, row));
    }
}

fn checksum(key: &[u8], row: &[u8]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(row);
    hasher.finalize().into()
}

/// The state of a replica as a whole. A replica without it was never finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplicaState {
    pub store: StoreId,
    /// Everything up to here has been applied.
    pub head: Head,
    /// `seq` and hash of the newest audit event.
    pub audit: Option<(u64, [u8; 32])>,
    /// In the order of [`Table::ALL`]; unused for [`Table::Meta`].
    pub sums: [Sum; Table::ALL.len()],
}

record!(ReplicaState, "state", ReplicaState);

impl ReplicaState {
    pub(crate) fn sum(&self, table: Table) -> Sum {
        self.sums[table as usize]
    }
}
