//! The directory STORE: whose it is, who holds it, and what a person is told when it is not ours.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::OpenError;
use crate::store::{
    generation::{GenerationError, Generations},
    log::{Failure, files::OsDirectory},
    released,
};

/// A directory that is ours and that nobody else has open.
pub(crate) struct StoreDirectory {
    path: PathBuf,
    /// The lock is held as long as this is open.
    lock: Mutex<Option<File>>,
}

const LOCK: &str = "lock";

/// Names in STORE beside the generations.
const OWN: &[&str] = &[LOCK, "ballast", "probe", "cluster", "cluster.new"];

impl StoreDirectory {
    /// Creates it when it is absent. A directory that is somebody else's is left alone.
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => refuse_strangers(path)?,
            Ok(_) => return Err(OpenError::File { path: path.to_owned() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => create(path)?,
            Err(e) => return Err(Failure::new("look at", path, e).into()),
        }
        let lock = lock(path)?;
        if let Err(error) = fs::set_permissions(path, Permissions::from_mode(0o700)) {
            // A volume that belongs to root and is ours by its group: what is in it is 0600 and 0700.
            tracing::warn!(store = %path.display(), %error, "the store directory cannot be made private (0700)");
        }
        let directory = Self { path: path.to_owned(), lock: Mutex::new(Some(lock)) };
        // It may have become somebody's since.
        refuse_strangers(path)?;
        Ok(directory)
    }

    /// Fails when there is none.
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

    /// Somebody else may have the store now.
    pub(crate) fn unlock(&self) {
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn generations(path: &Path) -> Generations {
    let own = if released::is_at(path) { released::OWN } else { OWN };
    Generations::new(Box::new(OsDirectory::new(path)), own)
}

/// Whatever is not ours stays untouched, not even locked.
fn refuse_strangers(path: &Path) -> Result<(), OpenError> {
    match generations(path).read() {
        // What is missing or damaged is said when it is opened; a restore may put another in its place.
        Err(error @ GenerationError::NotAStore { .. }) => Err(error.into()),
        _ => Ok(()),
    }
}

fn create(path: &Path) -> Result<(), OpenError> {
    let failure = |action| move |e| Failure::new(action, path, e);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(failure("create the store directory"))?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(parent).and_then(|parent| parent.sync_all());
    Ok(synced.map_err(failure("sync the parent of"))?)
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
            // Who holds it is a courtesy: it may be writing its number right now.
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
    // The number is a courtesy as well, and on a full disk it is not worth an error.
    drop(note(&mut file));
    Ok(file)
}
