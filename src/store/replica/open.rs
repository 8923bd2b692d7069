//! Opening sled, and holding what it reads against what was written.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, RwLock, atomic::AtomicBool},
    thread,
    time::{Duration, Instant},
};

use super::{
    Replica, ReplicaError, Trees, exists, keys,
    tables::{ReplicaState, Sum, Table},
};
use crate::store::{
    log::{Failure, Head, StoreId},
    model::AuditEvent,
    record::{DecodeError, Record},
};

/// Why a replica does not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// It can be made again.
    #[error("the replica in {path} is damaged: {why}")]
    Damaged { path: PathBuf, why: String },
    /// It was never finished, or taken away.
    #[error("there is no replica in {path}")]
    Absent { path: PathBuf },
    #[error("the replica in {path} cannot be read: {why}; run the newer permgate that wrote it")]
    Newer { path: PathBuf, why: DecodeError },
    #[error(transparent)]
    Io(#[from] Failure),
}

/// The index answers requests; sled keeps only what the admin listener has just read.
const CACHE: u64 = 16 << 20;

/// A sled node holds up to 20 records and moves to `blobs/` beyond a quarter of this.
const SEGMENT: usize = 2 << 20;

/// The lock of the store says that nobody else is there, so that sled's can only be one that is being
/// dropped.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

impl Replica {
    /// Opens what [`Replica::create`] or this left at the path. What is read in whole at a start
    /// anyway, but for the tokens, is held against its sum.
    pub(crate) fn open(path: &Path, store: StoreId) -> Result<Self, OpenError> {
        let absent = || OpenError::Absent { path: path.to_owned() };
        if !exists(path) {
            return Err(absent());
        }
        if let Ok(why) = fs::read_to_string(path.join(CONDEMNED)) {
            return Err(OpenError::Damaged { path: path.to_owned(), why });
        }
        guard(path, || {
            let trees = open_trees(path)?;
            let Some(state) = trees.state(store)? else { return Ok(None) };
            trees.verify_small(&state)?;
            trees.verify_audit_end(&state)?;
            Ok(Some(Replica::new(path, trees, state, true)))
        })?
        .ok_or_else(absent)
    }

    /// An empty one, to be filled. Only after [`Replica::finish`] will it open.
    pub(crate) fn create(path: &Path, store: StoreId) -> Result<Self, OpenError> {
        let failure = |action| move |e| Failure::new(action, path, e);
        DirBuilder::new().mode(0o700).create(path).map_err(failure("create the directory"))?;
        guard(path, || {
            let trees = open_trees(path)?;
            Ok(Replica::new(path, trees, ReplicaState::new(store, Head::EMPTY), false))
        })
    }

    fn new(path: &Path, trees: Trees, state: ReplicaState, finished: bool) -> Self {
        Self {
            path: path.to_owned(),
            finished: finished.into(),
            trees: RwLock::new(Some(trees)),
            state: Mutex::new(state),
            owners: RwLock::default(),
            copying: Mutex::default(),
            condemned: AtomicBool::default(),
        }
    }
}

/// In the replica's directory, once damage was found in it: why it is to be made again.
const CONDEMNED: &str = "condemned";

/// Until [`remove`], it does not open any more.
pub(super) fn condemn(path: &Path, why: &str) -> io::Result<()> {
    let file = path.join(CONDEMNED);
    fs::write(&file, why)?;
    File::open(file)?.sync_all()?;
    File::open(path)?.sync_all()
}

/// Takes a replica away that is made again.
pub(crate) fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Failure::new("remove", path, e)),
        _ => Ok(()),
    }
}

/// What sled has written so far reaches the disk under its names.
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
        const SMALL: [Table; 8] = [
            Table::Users,
            Table::Groups,
            Table::Members,
            Table::Roles,
            Table::Grants,
            Table::Identities,
            Table::Sessions,
            Table::Invitations,
        ];
        SMALL.into_iter().try_for_each(|table| self.verify(table, state.sum(table)))
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
                // All of them may have been trimmed.
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

/// What sled says, or shouts.
enum OpenFailure {
    Replica(ReplicaError),
    Io(io::Error),
}

fn open_trees(path: &Path) -> Result<Trees, OpenFailure> {
    drop_unfinished_snapshots(path).map_err(OpenFailure::Io)?;
    let db = open_sled(path)?;
    let trees = Table::ALL.map(|table| db.open_tree(table.name()));
    let trees = trees.into_iter().collect::<Result<_, _>>().map_err(ReplicaError::from)?;
    Ok(Trees { trees, db })
}

pub(crate) fn open_sled_at(path: &Path) -> Result<sled::Db, OpenError> {
    guard(path, || {
        drop_unfinished_snapshots(path).map_err(OpenFailure::Io)?;
        open_sled(path)
    })
}

/// Drops snapshots of sled's that were never finished. It renames one when it is whole, yet reads a torn
/// one as if it were, and then refuses everything: a full disk or a kill at the wrong moment would be the
/// end of it. What such a snapshot says is in the data file too.
fn drop_unfinished_snapshots(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// sled makes histograms of 22 MiB that it then never fills. A configuration that is dropped makes
/// them, too: in a thread of its own, the memory is fresh from the kernel and zero as it is, so that
/// nobody writes to it and it takes no room.
fn make_histograms() {
    let made = thread::spawn(|| drop(sled::Config::new().print_profile_on_drop(true)));
    // Were it to fail, only memory would be lost.
    drop(made.join());
}

fn open_sled(path: &Path) -> Result<sled::Db, OpenFailure> {
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
            Err(sled::Error::Io(e)) if e.kind() != ErrorKind::UnexpectedEof => {
                return Err(OpenFailure::Io(e));
            }
            Err(e) => return Err(OpenFailure::Replica(e.into())),
            Ok(db) => return Ok(db),
        }
    }
}

/// Runs what reads sled; a panic of its own is an error.
pub(crate) fn guard_sled<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| "the storage engine panicked".to_owned())
}

/// sled panics on some damaged files instead of reporting them.
fn guard<T>(path: &Path, work: impl FnOnce() -> Result<T, OpenFailure>) -> Result<T, OpenError> {
    let damaged = |why: String| OpenError::Damaged { path: path.to_owned(), why };
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(OpenFailure::Io(e))) => Err(Failure::new("read the data in", path, e).into()),
        Ok(Err(OpenFailure::Replica(ReplicaError::Record(why @ DecodeError::Newer { .. })))) => {
            Err(OpenError::Newer { path: path.to_owned(), why })
        }
        Ok(Err(OpenFailure::Replica(e))) => Err(damaged(e.to_string())),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(damaged(format!("the storage engine panicked: {said}")))
        }
    }
}

impl From<ReplicaError> for OpenFailure {
    fn from(damage: ReplicaError) -> Self {
        Self::Replica(damage)
    }
}
