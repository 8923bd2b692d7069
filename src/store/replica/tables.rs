//! The trees, and what is known of each as a whole.

use serde::{Deserialize, Serialize};

use crate::store::{
    log::{Head, StoreId},
    record::{record, wire},
};

macro_rules! tables {
    ($($(#[$about:meta])* $table:ident $name:literal,)*) => {
        /// A tree of sled's. The order is that of a backup.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Table {
            $($(#[$about])* $table,)*
        }

        impl Table {
            pub(crate) const ALL: [Table; [$($name),*].len()] = [$(Table::$table),*];

            /// On the disk, so it never changes.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Table::$table => $name,)*
                }
            }
        }
    };
}

tables! {
    /// What the replica says of itself: [`STATE`], [`AUDIT_START`].
    Meta "meta",
    /// Digest to record.
    Tokens "tokens",
    /// Token id to digest.
    Ids "ids",
    /// Owner and folded name to token id.
    Names "names",
    /// Token id to last use.
    Uses "uses",
    Users "users",
    Groups "groups",
    Members "members",
    Roles "roles",
    Grants "grants",
    Identities "identities",
    Sessions "sessions",
    Invitations "invitations",
    Idempotency "idempotency",
    /// Time and key to key.
    IdempotencyTimes "idempotency-times",
    Audit "audit",
}

/// Where the replica is in the log, and the sums. Other trees need another key: what has none of this name
/// is made again.
pub(super) const STATE: &[u8] = b"state 2";
/// The first audit event that is kept, when some were trimmed.
pub(super) const AUDIT_START: &[u8] = b"audit start";

impl Table {
    /// Follows from other tables, so that no backup has it.
    pub(super) const fn is_derived(self) -> bool {
        matches!(self, Table::Ids | Table::IdempotencyTimes)
    }
}

/// How many rows a table has, and a sum over their checksums: a row that is lost, changed or brought
/// back makes another one.
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

/// What the replica says of itself. A replica without it was never finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplicaState {
    #[serde(with = "wire")]
    pub store: StoreId,
    /// Everything up to here has been applied.
    #[serde(with = "wire")]
    pub head: Head,
    /// `seq` and hash of the newest audit event.
    pub audit: Option<(u64, [u8; 32])>,
    /// In the order of [`Table::ALL`]; of [`Table::Meta`] there is none.
    pub sums: [Sum; Table::ALL.len()],
}

record!(ReplicaState, "state", ReplicaState);

impl ReplicaState {
    pub(super) fn new(store: StoreId, head: Head) -> Self {
        Self { store, head, audit: None, sums: Default::default() }
    }

    pub(crate) fn sum(&self, table: Table) -> Sum {
        self.sums[table as usize]
    }
}
