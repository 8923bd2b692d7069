//! When and from where each token was last used. Each worker has its own table, so that workers do not
//! contend; the flusher and the admin listener read all of them.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use crate::{
    authz::{
        rules::{Rules, ServiceId},
        secret::Digest,
        time::Timestamp,
    },
    store::model::LastUsed,
};

/// One permitted use of a token.
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

type Table = HashMap<Digest, Use>;

impl LastUsedTables {
    /// Returns a new worker's table.
    pub fn worker(&self) -> Arc<LastUsedTable> {
        let table = Arc::new(LastUsedTable::default());
        self.tables.lock().push(Arc::clone(&table));
        table
    }

    /// Removes and returns the latest use of each token since the previous call.
    pub fn take(&self, rules: &Rules) -> Vec<(Digest, LastUsed)> {
        let mut all = Table::default();
        for table in self.tables.lock().iter() {
            for (digest, one) in std::mem::take(&mut *table.0.lock()) {
                let last = all.entry(digest).or_insert(one);
                if last.at < one.at {
                    *last = one;
                }
            }
        }
        all.into_iter().map(|(digest, one)| (digest, one.with_service_key(rules))).collect()
    }

    /// The latest use that [`Self::take`] has not removed yet.
    pub fn last(&self, digest: &Digest, rules: &Rules) -> Option<LastUsed> {
        let tables = self.tables.lock();
        let uses = tables.iter().filter_map(|table| table.0.lock().get(digest).copied());
        uses.max_by_key(|one| one.at).map(|one| one.with_service_key(rules))
    }
}

impl LastUsedTable {
    pub fn record(&self, digest: Digest, one: Use) {
        self.0.lock().insert(digest, one);
    }
}

impl Use {
    /// Resolves the service's key, which is empty if a reload has removed the service.
    fn with_service_key(self, rules: &Rules) -> LastUsed {
        let service = rules.service(self.service).map_or("", |service| service.spec.key.as_str());
        LastUsed { at: self.at, from: self.from, service: service.to_owned() }
    }
}
