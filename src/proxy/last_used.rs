//! When and from where each token was last used: one table per worker, so that workers do not contend, read
//! by the flusher and the admin listener.

use std::{
    collections::HashMap,
    hash::BuildHasherDefault,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    authz::{
        rules::{Rules, ServiceId},
        secret::Digest,
        time::Timestamp,
    },
    state::DigestHasher,
    store::model::LastUsed,
};

/// One permitted use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    pub at: Timestamp,
    pub from: IpAddr,
    pub service: ServiceId,
}

/// The tables of all workers.
#[derive(Default)]
pub struct LastUsedTables {
    tables: Mutex<Vec<Arc<LastUsedTable>>>,
}

/// One worker's table. Its lock is contended only during a flush.
#[derive(Default)]
pub struct LastUsedTable(Mutex<Table>);

type Table = HashMap<Digest, Use, BuildHasherDefault<DigestHasher>>;

impl LastUsedTables {
    /// A new worker's table.
    pub fn worker(&self) -> Arc<LastUsedTable> {
        let table = Arc::new(LastUsedTable::default());
        lock(&self.tables).push(Arc::clone(&table));
        table
    }

    /// Removes and returns what was recorded since the last call: the latest use of each token.
    pub fn take(&self, rules: &Rules) -> Vec<(Digest, LastUsed)> {
        let mut all = Table::default();
        for table in lock(&self.tables).iter() {
            for (digest, one) in std::mem::take(&mut *lock(&table.0)) {
                let last = all.entry(digest).or_insert(one);
                if last.at < one.at {
                    *last = one;
                }
            }
        }
        all.into_iter().map(|(digest, one)| (digest, one.with_service_key(rules))).collect()
    }

    /// The latest use that was not taken yet.
    pub fn last(&self, digest: &Digest, rules: &Rules) -> Option<LastUsed> {
        let tables = lock(&self.tables);
        let uses = tables.iter().filter_map(|table| lock(&table.0).get(digest).copied());
        uses.max_by_key(|one| one.at).map(|one| one.with_service_key(rules))
    }
}

impl LastUsedTable {
    pub fn record(&self, digest: Digest, one: Use) {
        lock(&self.0).insert(digest, one);
    }
}

impl Use {
    /// A service that a reload has removed has no key: empty.
    fn with_service_key(self, rules: &Rules) -> LastUsed {
        let service = rules.service(self.service).map_or("", |service| service.spec.key.as_str());
        LastUsed { at: self.at, from: self.from, service: service.to_owned() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves the table valid.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
