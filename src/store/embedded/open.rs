//! Opening: the directory is ours, the disk has room, sled reads its file, and what it reads is what
//! was last written.

use std::{
    fs,
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Mutex, RwLock},
    thread,
    time::{Duration, Instant},
};

use super::{Damage, Directory, Embedded, Marker, OpenError, Writer, keys};
use crate::store::{
    durability::{Durability, ballast},
    record::{Meta, Record},
};

/// The index answers the hot path; sled keeps only what the admin listener has just read.
const CACHE: u64 = 16 << 20;

/// A sled node holds up to 20 records and moves to `blobs/` beyond a quarter of this.
const SEGMENT: usize = 2 << 20;

/// Our lock says that nobody else is there, so that sled's can only be one that is being dropped.
const SLED_LOCK_PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn open(path: &Path, ballast_size: u64) -> Result<Embedded, OpenError> {
    let (directory, marker) = Directory::open(path)?;
    let mut marker = match marker {
        Some(marker) => marker,
        None => begin(&directory)?,
    };
    if marker.ready {
        let size = fs::metadata(directory.data()).map_or(0, |found| found.len());
        if size == 0 {
            return Err(directory.damaged("its data file is missing or empty"));
        }
    } else {
        directory.create_sled()?;
    }
    let durability =
        Durability::open(&directory.data()).map_err(|e| directory.fail("open the data of", e))?;
    let (db, meta) = with_room(&directory, || load(&directory, &marker))?;
    let meta = match meta {
        Some(meta) => meta,
        None => initialise(&directory, &mut marker, &durability, &db)?,
    };
    directory.sync_all()?;
    if let Err(error) = ballast::hold(path, ballast_size) {
        tracing::warn!(%error, "no room for the ballast of the store: on a full disk it will not open");
    }
    Ok(Embedded {
        directory,
        durability,
        db: RwLock::new(Some(db)),
        locator: RwLock::default(),
        writer: Mutex::new(Writer { marker, revision: meta.revision }),
        copying: Mutex::new(None),
    })
}

/// The marker comes first, so that a creation that is cut off is known as ours.
fn begin(directory: &Directory) -> Result<Marker, OpenError> {
    let marker = Marker { store: uuid::Uuid::now_v7().to_string(), revision: 0, ready: false };
    directory.write_marker(&marker)?;
    Ok(marker)
}

/// The first commit, and only then the marker that promises it.
fn initialise(
    directory: &Directory,
    marker: &mut Marker,
    durability: &Durability,
    db: &sled::Db,
) -> Result<Meta, OpenError> {
    let meta = Meta { store: marker.store.clone(), revision: 0 };
    let mut batch = sled::Batch::default();
    batch.insert(keys::META, meta.encode().map_err(|e| directory.damaged(e.to_string()))?);
    durability.commit(db, batch).map_err(|e| directory.fail("write to", std::io::Error::other(e)))?;
    directory.sync_all()?;
    marker.ready = true;
    directory.write_marker(marker)?;
    Ok(meta)
}

/// Tries again without the ballast when the disk is full.
fn with_room<T>(directory: &Directory, open: impl Fn() -> Result<T, OpenError>) -> Result<T, OpenError> {
    let path = directory.path();
    let error = match open() {
        Err(error) if ballast::disk_is_full(path) => error,
        outcome => return outcome,
    };
    let released = ballast::release(path).map_err(|e| directory.fail("release the ballast of", e))?;
    if released > 0 {
        tracing::warn!(
            store = %path.display(),
            released,
            "the disk is full: the ballast was given back so that the store opens; free some space, the next start takes it again"
        );
        match open() {
            Err(_) if ballast::disk_is_full(path) => {}
            outcome => return outcome,
        }
    }
    Err(OpenError::DiskFull { path: path.to_owned(), why: error.to_string() })
}

/// sled, and what it knows of itself; `None` in a store that was never finished.
pub(super) fn load(directory: &Directory, marker: &Marker) -> Result<(sled::Db, Option<Meta>), OpenError> {
    directory.drop_unfinished_snapshots().map_err(|e| directory.fail("clear", e))?;
    let db = guard(directory, || open_sled(directory))?;
    let row = guard(directory, || Ok(db.get(keys::META).map_err(Damage::from)?))?;
    let meta = row.map(|row| Meta::decode(&row)).transpose();
    let meta = meta.map_err(|e| directory.damaged(e.to_string()))?;
    match &meta {
        Some(meta) if meta.store != marker.store => {
            let why = format!("its data is that of another store, {}", meta.store);
            Err(directory.damaged(why))
        }
        Some(meta) if meta.revision < marker.revision => {
            let Meta { revision, .. } = meta;
            let why = format!("{} changes were acknowledged, only {revision} are left", marker.revision);
            Err(directory.damaged(why))
        }
        None if marker.ready => Err(directory.damaged("its data file holds nothing of ours")),
        _ => Ok((db, meta)),
    }
}

/// sled makes histograms of 22 MiB that it then never fills. A configuration that is dropped makes
/// them, too: in a thread of its own, the memory is fresh from the kernel and zero as it is, so that
/// nobody writes to it and it takes no room.
fn make_histograms() {
    let made = thread::spawn(|| drop(sled::Config::new().print_profile_on_drop(true)));
    // Were it to fail, only memory would be lost.
    drop(made.join());
}

fn open_sled(directory: &Directory) -> Result<sled::Db, Failure> {
    make_histograms();
    let config = sled::Config::new()
        .path(directory.sled())
        .cache_capacity(CACHE)
        .segment_size(SEGMENT)
        .mode(sled::Mode::LowSpace);
    let patience = Instant::now() + SLED_LOCK_PATIENCE;
    loop {
        match config.open() {
            Err(sled::Error::Io(e))
                if e.to_string().contains("acquire lock") && Instant::now() < patience =>
            {
                thread::sleep(Duration::from_millis(20));
            }
            Err(sled::Error::Io(e)) if e.kind() != ErrorKind::UnexpectedEof => return Err(Failure::Io(e)),
            Err(e) => return Err(Failure::Damage(e.into())),
            Ok(db) => return Ok(db),
        }
    }
}

/// What sled says, or shouts.
pub(super) enum Failure {
    Damage(Damage),
    Io(std::io::Error),
}

/// sled panics on some damaged files instead of reporting them.
pub(super) fn guard<T>(
    directory: &Directory,
    work: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, OpenError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Failure::Io(e))) => Err(directory.fail("read the data of", e)),
        Ok(Err(Failure::Damage(e))) => Err(directory.damaged(e.to_string())),
        Err(panic) => {
            let said = panic.downcast_ref::<String>().map(String::as_str);
            let said = said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(directory.damaged(format!("the storage engine panicked: {said}")))
        }
    }
}

impl From<Damage> for Failure {
    fn from(damage: Damage) -> Self {
        Failure::Damage(damage)
    }
}
