//! Opens sled, and compares what it reads with what was written.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::AtomicBool,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};

use super::{
    Replica, ReplicaError, Trees, keys,
    tables::{ReplicaState, Sum, Table},
};
use crate::store::{
    OpenError,
    log::{
        Failure, Head, StoreId,
        files::{Directory as _, OsDirectory},
    },
    model::AuditEvent,
    record::{DecodeError, Record},
};

/// Bytes of sled's cache as they are stored; in memory they take three times as many. Requests are answered from
/// the index, so this only holds what the admin listener has just read, and the nodes that a batch changes.
const CACHE: u64 = 4 << 20;

/// Bytes of a segment. A sled node has up to 20 records, and moves to `blobs/` beyond a quarter of this.
const SEGMENT: usize = 2 << 20;

/// How long to wait for sled's lock. The store's lock excludes other processes, so only a sled instance
/// that is being dropped can hold it.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

impl Replica {
    /// Opens a finished replica. Compares the tables that a start reads whole with their sums, but for the
    /// tokens. `None` if it was never finished, or was removed.
    pub(crate) fn open(path: &Path, store: StoreId) -> Result<Option<Self>, OpenError> {
        if !path.join("db").exists() {
            return Ok(None);
        }
        if let Ok(why) = fs::read_to_string(path.join(DAMAGE_MARK)) {
            return Err(OpenError::Replica(why));
        }
        guard(path, || {
            let trees = open_trees(path)?;
            let Some(state) = trees.state(store)? else { return Ok(None) };
            trees.verify_small(&state)?;
            trees.verify_audit_end(&state)?;
            Ok(Some(Replica::new(path, trees, state, true)))
        })
    }

    /// Creates an empty replica to fill. It can be opened only after [`Replica::finish`].
    pub(crate) fn create(path: &Path, store: StoreId) -> Result<Self, OpenError> {
        let failure = |action| move |e| Failure::new(action, path, e);
        DirBuilder::new().mode(0o700).create(path).map_err(failure("create the directory"))?;
        guard(path, || {
            let trees = open_trees(path)?;
            let state = ReplicaState { store, head: Head::EMPTY, audit: None, sums: Default::default() };
            Ok(Replica::new(path, trees, state, false))
        })
    }

    fn new(path: &Path, trees: Trees, state: ReplicaState, finished: bool) -> Self {
        Self {
            path: path.to_owned(),
            finished: finished.into(),
            trees: RwLock::new(Some(trees)),
            state: Mutex::new(state),
            lists: RwLock::default(),
            shared_prefixes: super::SharedPrefixes::default(),
            copying: Mutex::default(),
            marked_damaged: AtomicBool::default(),
        }
    }
}

/// A file in the replica's directory that says why the replica must be rebuilt.
const DAMAGE_MARK: &str = "condemned";

/// Keeps the replica from being opened until its directory is removed.
pub(super) fn mark_damaged(path: &Path, why: &str) -> Result<(), Failure> {
    OsDirectory::new(path).replace(DAMAGE_MARK, why)
}

/// Syncs the files that sled has written so far, and the directory.
pub(crate) fn sync(path: &Path) -> Result<(), Failure> {
    let all = || -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                File::open(entry.path())?.sync_all()?;
            }
        }
        File::open(path)?.sync_all()
    };
    all().map_err(|e| Failure::new("sync", path, e))
}

impl Trees {
    fn verify_small(&self, state: &ReplicaState) -> Result<(), ReplicaError> {
        let is_small = |table: &Table| (Table::Users..=Table::Invitations).contains(table);
        Table::ALL.into_iter().filter(is_small).try_for_each(|table| self.verify(table, state.sum(table)))
    }

    pub(super) fn verify(&self, table: Table, expected: Sum) -> Result<(), ReplicaError> {
        let mut sum = Sum::default();
        for row in self.tree(table) {
            let (key, row) = row?;
            sum.add(&key, &row);
        }
        if sum == expected { Ok(()) } else { Err(ReplicaError::Sum(table.name())) }
    }

    fn verify_audit_end(&self, state: &ReplicaState) -> Result<(), ReplicaError> {
        let last = match state.audit {
            Some((seq, hash)) => match self.get(Table::Audit, &keys::audit(seq))? {
                Some(row) if AuditEvent::decode(&row)?.hash == hash => Some(seq),
                // All events may have been trimmed.
                None if state.sum(Table::Audit).rows == 0 => None,
                _ => return Err(ReplicaError::AuditEnd),
            },
            None => None,
        };
        let found = self.tree(Table::Audit).last()?.map(|(key, _)| key);
        let expected = last.map(keys::audit);
        if found.as_deref() == expected.as_deref() { Ok(()) } else { Err(ReplicaError::AuditEnd) }
    }
}

/// Why sled cannot be opened.
#[derive(Debug, thiserror::Error)]
enum OpenFailure {
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn open_trees(path: &Path) -> Result<Trees, OpenFailure> {
    let db = open_sled(path)?;
    let trees = Table::ALL.map(|table| db.open_tree(table.name()));
    let trees = trees.into_iter().collect::<Result<_, _>>().map_err(ReplicaError::from)?;
    Ok(Trees { trees, db })
}

pub(crate) fn open_sled_at(path: &Path) -> Result<sled::Db, OpenError> {
    guard(path, || open_sled(path))
}

/// Removes sled's unfinished snapshots. sled renames a snapshot once it is complete, but still reads a torn
/// one, and then fails on everything. Without this, a full disk or a kill at the wrong moment would end the
/// replica. The data file has everything that such a snapshot has.
fn drop_unfinished_snapshots(path: &Path) -> io::Result<()> {
    let directory = OsDirectory::new(path);
    let mut names = directory.list()?;
    names.retain(|name| name.starts_with("snap.") && name.ends_with(".generating"));
    names.iter().try_for_each(|name| directory.remove(name))
}

/// Has sled's histograms, 22 MiB that are never filled, allocated in a thread of its own. Dropping a
/// configuration allocates them, too. In a new thread, the memory comes zeroed from the kernel, so nothing
/// writes to it and it takes no physical memory.
fn make_histograms() {
    let made = thread::spawn(|| drop(sled::Config::new().print_profile_on_drop(true)));
    // A failure would only cost memory.
    drop(made.join());
}

fn open_sled(path: &Path) -> Result<sled::Db, OpenFailure> {
    drop_unfinished_snapshots(path)?;
    make_histograms();
    let config =
        sled::Config::new().path(path).cache_capacity(CACHE).segment_size(SEGMENT).mode(sled::Mode::LowSpace);
    let patience = Instant::now() + LOCK_PATIENCE;
    loop {
        match config.open() {
            Err(sled::Error::Io(e))
                if e.to_string().contains("acquire lock") && Instant::now() < patience =>
            {
                thread::sleep(Duration::from_millis(20));
            }
            Err(sled::Error::Io(e)) if e.kind() != ErrorKind::UnexpectedEof => return Err(e.into()),
            Err(e) => return Err(ReplicaError::from(e).into()),
            Ok(db) => return Ok(db),
        }
    }
}

/// Runs code that reads sled; a panic of sled becomes an error.
pub(crate) fn guard_sled<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| "the storage engine panicked".to_owned())
}

/// Runs `work`; a panic of sled, which some damaged files cause, becomes an error.
fn guard<T>(path: &Path, work: impl FnOnce() -> Result<T, OpenFailure>) -> Result<T, OpenError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(OpenFailure::Io(e))) => Err(Failure::new("read the data in", path, e).into()),
        Ok(Err(OpenFailure::Replica(ReplicaError::Record(why @ DecodeError::Newer { .. })))) => {
            Err(OpenError::Newer { path: path.to_owned(), why: why.to_string() })
        }
        Ok(Err(OpenFailure::Replica(e))) => Err(e.into()),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(OpenError::Replica(format!("the storage engine panicked: {said}")))
        }
    }
}
