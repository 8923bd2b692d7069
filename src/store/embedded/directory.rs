//! The directory around sled: whose it is, who holds it, and what a person is told when it cannot be
//! opened. Everything here happens before sled touches a byte.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::marker::{FORMAT, Marker, ReadMarkerError};

/// Why a store directory does not open. Each message says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the store {path} is in use by {holder}; stop it first, or talk to its admin listener instead of using --offline"
    )]
    Locked { path: PathBuf, holder: String },
    #[error(
        "{path} is not a permgate store ({why}); name an empty or absent directory as [store] path to make a new one"
    )]
    Foreign { path: PathBuf, why: String },
    #[error(
        "the store {path} has format {found}, this permgate reads up to {FORMAT}; run the newer permgate that wrote it, or restore a backup made by this one"
    )]
    Newer { path: PathBuf, found: u32 },
    #[error(
        "the store {path} is damaged ({why}); move it aside and restore a backup with `permgate store restore`{}",
        newest_backup(path)
    )]
    Damaged { path: PathBuf, why: String },
    #[error(
        "the disk that holds the store {path} is full and there is no ballast left to give back ({why}); free some space and start again"
    )]
    DiskFull { path: PathBuf, why: String },
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A directory that is ours and that nobody else has open.
pub(super) struct Directory {
    path: PathBuf,
    /// The lock is held as long as this is open.
    lock: Mutex<Option<File>>,
}

const LOCK: &str = "lock";
const SLED: &str = "data";

/// What a creation that was cut off may have left behind.
const UNFINISHED: [&str; 4] = [LOCK, "format", "format.new", "ballast"];

impl Directory {
    /// Creates it when it is absent or empty.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<Marker>), OpenError> {
        let fail = |action, source| OpenError::Io { action, path: path.to_owned(), source };
        let foreign = |why: &str| OpenError::Foreign { path: path.to_owned(), why: why.to_owned() };
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => refuse_strangers(path)?,
            Ok(_) => return Err(foreign("it is a file")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(path)
                    .map_err(|e| fail("create the store directory", e))?;
                let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
                sync(parent).map_err(|e| fail("sync the parent of", e))?;
            }
            Err(e) => return Err(fail("look at", e)),
        }
        let lock = lock(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|e| fail("protect", e))?;
        let directory = Self { path: path.to_owned(), lock: Mutex::new(Some(lock)) };
        match Marker::read(path) {
            Ok(marker) => Ok((directory, Some(marker))),
            Err(ReadMarkerError::Absent) => Ok((directory, None)),
            Err(ReadMarkerError::Newer(found)) => Err(OpenError::Newer { path: path.to_owned(), found }),
            Err(ReadMarkerError::Malformed) => Err(directory.damaged("its `format` file is malformed")),
            Err(ReadMarkerError::Io(e)) => Err(fail("read the `format` file of", e)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where sled keeps its files.
    pub(super) fn sled(&self) -> PathBuf {
        self.path.join(SLED)
    }

    /// The one file that holds what matters.
    pub(super) fn data(&self) -> PathBuf {
        self.sled().join("db")
    }

    pub(super) fn create_sled(&self) -> Result<(), OpenError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.sled())
            .map_err(|e| self.fail("create the data directory of", e))
    }

    /// Drops snapshots of sled's that were never finished. It renames one when it is whole, yet reads
    /// a torn one as if it were, and then refuses the store: a full disk or a kill at the wrong moment
    /// would be the end of it. What such a snapshot says is in the data file too.
    pub(super) fn drop_unfinished_snapshots(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.sled())? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("snap.") && name.ends_with(".generating") {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    pub(super) fn write_marker(&self, marker: &Marker) -> Result<(), OpenError> {
        marker.write(&self.path).map_err(|e| self.fail("write the `format` file of", e))
    }

    /// The names of the files that sled has just made, and their content so far, reach the disk.
    pub(super) fn sync_all(&self) -> Result<(), OpenError> {
        let all = || -> io::Result<()> {
            for entry in fs::read_dir(self.sled())? {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    let file = File::open(entry.path())?;
                    file.set_permissions(Permissions::from_mode(0o600))?;
                    file.sync_all()?;
                }
            }
            sync(&self.sled())?;
            sync(&self.path)
        };
        all().map_err(|e| self.fail("sync", e))
    }

    /// Somebody else may have the store now.
    pub(super) fn unlock(&self) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    pub(super) fn fail(&self, action: &'static str, source: io::Error) -> OpenError {
        OpenError::Io { action, path: self.path.clone(), source }
    }

    pub(super) fn damaged(&self, why: impl Into<String>) -> OpenError {
        OpenError::Damaged { path: self.path.clone(), why: why.into() }
    }
}

pub(super) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Whatever is not ours stays untouched, not even locked.
fn refuse_strangers(path: &Path) -> Result<(), OpenError> {
    let fail = |source| OpenError::Io { action: "list", path: path.to_owned(), source };
    if path.join("format").exists() {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(fail)? {
        let name = entry.map_err(fail)?.file_name();
        if !UNFINISHED.iter().any(|known| name == *known) {
            let why = format!("it holds `{}` and no `format` file", name.to_string_lossy());
            return Err(OpenError::Foreign { path: path.to_owned(), why });
        }
    }
    Ok(())
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK);
    let fail = |action, source| OpenError::Io { action, path: path.clone(), source };
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(|e| fail("open", e))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Who holds it is a courtesy: it may be writing its number right now.
            let read = (&mut file).take(64).read_to_string(&mut holder).is_ok();
            let pid = holder.trim().parse::<u32>().ok().filter(|_| read);
            let holder = pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
            return Err(OpenError::Locked { path: directory.to_owned(), holder });
        }
        Err(TryLockError::Error(e)) => return Err(fail("lock", e)),
    }
    let note = |file: &mut File| -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    // The number is a courtesy as well, and on a full disk it is not worth an error.
    drop(note(&mut file));
    Ok(file)
}

/// `: the newest is ...`, or nothing: looked for beside the store.
fn newest_backup(store: &Path) -> String {
    let beside = store.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let places = [beside.to_owned(), beside.join("backups")];
    let files = places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    let newest = files
        .filter(|file| file.path().extension().is_some_and(|e| e == "backup"))
        .filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path())))
        .max();
    newest.map_or(String::new(), |(_, path)| format!("; the newest beside it is {}", path.display()))
}
