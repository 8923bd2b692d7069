//! The directory STORE: whether it is a store, and its lock.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;

use super::OpenError;
use crate::store::{
    generation::{GenerationError, Generations},
    log::{
        Failure,
        files::{self, OsDirectory},
    },
    migration,
};

/// A directory that is a store or empty, and that no other process has open.
pub(crate) struct StoreDirectory {
    path: PathBuf,
    /// The lock is held while this file is open.
    lock: Mutex<Option<File>>,
}

const LOCK: &str = "lock";

/// Names in STORE beside the generations.
const KNOWN_NAMES: &[&str] = &[LOCK, "ballast", "probe", "cluster", "cluster.new"];

impl StoreDirectory {
    /// Opens the directory, and creates it if absent. A directory with foreign files is left untouched.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        match look(path)? {
            Found::Directory => reject_foreign_files(path)?,
            Found::Nothing => create(path)?,
        }
        let lock = lock(path)?;
        if let Err(error) = fs::set_permissions(path, Permissions::from_mode(0o700)) {
            // The volume may belong to root, with access by its group. The files in it are 0600 and 0700.
            tracing::warn!(store = %path.display(), %error, "the store directory cannot be made private (0700)");
        }
        let directory = Self { path: path.to_owned(), lock: Mutex::new(Some(lock)) };
        // Foreign files may have appeared before the lock was taken.
        reject_foreign_files(path)?;
        Ok(directory)
    }

    /// Fails as opening would, as far as that is known without the lock and the journal. Changes nothing.
    pub(crate) fn check(path: &Path) -> Result<(), OpenError> {
        let read = look(path).and_then(|found| match found {
            Found::Directory => Ok(generations(path).read().map(drop)?),
            Found::Nothing => Ok(()),
        });
        match read {
            // The gateway's user may see more than this one.
            Err(OpenError::Io(failure) | OpenError::Generation(GenerationError::Io(failure)))
                if failure.reason.kind() == io::ErrorKind::PermissionDenied =>
            {
                Ok(())
            }
            read => read,
        }
    }

    /// Opens an existing directory; fails if there is none.
    pub(crate) fn open_present(path: &Path) -> Result<Self, OpenError> {
        match path.try_exists() {
            Ok(true) => Self::open(path),
            Ok(false) => Err(OpenError::Absent { path: path.to_owned() }),
            Err(e) => Err(Failure::new("look at", path, e).into()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn generations(&self) -> Generations {
        generations(&self.path)
    }

    /// Releases the lock: another process may open the store from now on.
    pub(crate) fn unlock(&self) {
        drop(self.lock.lock().take());
    }
}

/// What is at the path of a store.
enum Found {
    Directory,
    Nothing,
}

fn look(path: &Path) -> Result<Found, OpenError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(Found::Directory),
        Ok(_) => Err(OpenError::File { path: path.to_owned() }),
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.is_symlink() => {
            Err(Failure::new("follow the symlink", path, e).into())
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(e) => Err(Failure::new("look at", path, e).into()),
    }
}

fn generations(path: &Path) -> Generations {
    let is_own = migration::own_names(path).unwrap_or(|name| KNOWN_NAMES.contains(&name));
    Generations::new(Box::new(OsDirectory::new(path)), is_own)
}

/// Fails for a directory with foreign files, before anything in it is touched or locked.
fn reject_foreign_files(path: &Path) -> Result<(), OpenError> {
    match generations(path).read() {
        // Opening reports what is missing or damaged; a restore may replace it.
        Err(error @ GenerationError::NotAStore { .. }) => Err(error.into()),
        _ => Ok(()),
    }
}

fn create(path: &Path) -> Result<(), OpenError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|e| Failure::new("create the store directory", path, e))?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(files::sync_directory(parent)?)
}

fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK);
    let failure = |action, e| Failure::new(action, &path, e);
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(|e| match directory.metadata() {
        Ok(metadata) if e.kind() == io::ErrorKind::PermissionDenied => {
            OpenError::Denied { path: directory.to_owned(), uid: metadata.uid() }
        }
        _ => failure("open", e).into(),
    })?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The process number is informational: the holder may be writing it right now.
            let read = (&mut file).take(64).read_to_string(&mut holder).is_ok();
            let pid = holder.trim().parse::<u32>().ok().filter(|_| read);
            let holder = pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
            return Err(OpenError::Locked { path: directory.to_owned(), holder });
        }
        Err(TryLockError::Error(e)) => return Err(failure("lock", e).into()),
    }
    let note = |file: &mut File| -> io::Result<()> {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    // The process number is informational; a full disk is no reason to fail here.
    drop(note(&mut file));
    Ok(file)
}
