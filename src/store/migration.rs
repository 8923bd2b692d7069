//! The layout of the first release (`format 1`): sled in `data`, one tree, tokens in blocks by owner. It is
//! read here and never written. A store of this layout is migrated when it is first opened, and the old
//! store is kept whole in `released` beside the new generation:
//!
//! 1. the rows become a checkpoint in a new generation;
//! 2. `released/format` gets the content of `format`;
//! 3. `format` gets version 2, which the first release refuses;
//! 4. `CURRENT` names the new generation;
//! 5. `data` moves to `released/data`, and `format` is removed.
//!
//! If this is interrupted anywhere, either the old rows are all there and the next start begins again, or
//! the new generation is the store.

use std::{
    fs::{self, DirBuilder},
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt as _,
    path::Path,
};

use super::{
    OpenError, Settings,
    backup::{Header, Writer},
    engine::{Generation, StoreDirectory, checkpoint},
    generation::{Generations, parse_id},
    load::wall_clock,
    log::{
        EntryHash, Failure, Head, StoreId,
        files::{OsDirectory, remove_directory, remove_file, sync_directory},
    },
    op::Op,
    replica,
};

mod manifest;
mod rows;

pub(crate) use rows::{decode_any, operations};

use manifest::Manifest;

/// The names of the released layout, and of a migration.
const KNOWN_NAMES: &[&str] = &["lock", "ballast", "probe", "format", "format.new", "data", "released"];

const DATA: &str = "data";
const KEPT_DIRECTORY: &str = "released";

/// Whether the path has a store of the released layout, or one that is being migrated.
pub(super) fn exists(path: &Path) -> bool {
    path.join(manifest::FILE).exists()
}

/// Which names may be in STORE if it has this layout. The first release did not look at the others: it keeps
/// its assertion keys there, and opened a store beside any other file. A directory with a `format` of
/// something else is not touched.
pub(super) fn own_names(path: &Path) -> Option<fn(&str) -> bool> {
    let is_store =
        fs::read(path.join(manifest::FILE)).is_ok_and(|bytes| !matches!(Manifest::parse(&bytes), Err(None)));
    if is_store {
        Some(|_| true)
    } else if exists(path) {
        Some(|name| KNOWN_NAMES.contains(&name))
    } else {
        None
    }
}

/// Migrates the store in STORE to a new generation. The caller holds the lock. Returns `false` if there was only
/// the beginning of a store, which is removed. After an error, the store is unchanged.
pub(super) fn migrate(directory: &StoreDirectory, settings: &Settings) -> Result<bool, OpenError> {
    let path = directory.path();
    let manifest = original_manifest(path)?;
    if !manifest.ready {
        // Its creation was interrupted: nothing in it was ever acknowledged.
        remove_directory(&path.join(DATA))?;
        remove_file(&path.join(manifest::FILE))?;
        sync_directory(path)?;
        return Ok(false);
    }
    let store = parse_id(&manifest.store)
        .ok_or_else(|| damaged(path, "its `format` file does not name a store".to_owned()))?;
    let data = path.join(DATA);
    let size = fs::metadata(data.join("db")).map_or(0, |found| found.len());
    if size == 0 {
        return Err(damaged(path, "its data file is missing or empty".to_owned()));
    }
    let generations = Generations::new(Box::new(OsDirectory::new(path)), |_| true);
    let new = generations.begin(Some(store))?;
    let fill = || {
        let head = copy(path, &manifest, store, new.directory.path())?;
        Generation::begin(&new, head, settings)?;
        preserve_manifest(path, &manifest)
    };
    if let Err(error) = fill() {
        // What cannot be removed now is removed when the next generation is begun.
        let _ = generations.abandon(&new);
        return Err(error);
    }
    generations.switch(&new)?;
    tracing::info!(store = %path.display(), "migrated the store to the current layout; the old one is kept in `released`");
    Ok(true)
}

/// Moves the files of the released layout aside, once a generation is the store.
pub(super) fn finish(path: &Path) -> Result<(), Failure> {
    let (data, kept) = (path.join(DATA), path.join(KEPT_DIRECTORY));
    let format = path.join(manifest::FILE);
    if !exists(path) {
        return Ok(());
    }
    create_kept_directory(&kept)?;
    let aside = |from: &Path, to: &str| {
        fs::rename(from, kept.join(to)).map_err(|e| Failure::new("move aside", from, e))
    };
    if data.exists() {
        aside(&data, DATA)?;
    }
    if kept.join(manifest::FILE).exists() {
        sync_directory(&kept)?;
        remove_file(&format)?;
    } else {
        aside(&format, manifest::FILE)?;
        sync_directory(&kept)?;
    }
    sync_directory(path)
}

/// The manifest as it was before the migration began.
fn original_manifest(path: &Path) -> Result<Manifest, OpenError> {
    for directory in [path, &path.join(KEPT_DIRECTORY)] {
        let file = directory.join(manifest::FILE);
        let bytes = match fs::read(&file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => continue,
            Err(e) => return Err(Failure::new("read", file, e).into()),
        };
        match Manifest::parse(&bytes) {
            Ok(Some(manifest)) => return Ok(manifest),
            Ok(None) => {}
            Err(None) => return Err(damaged(path, "its `format` file is malformed".to_owned())),
            Err(Some(found)) => {
                let why = format!("it has format {found}, this permgate reads up to 1");
                return Err(OpenError::Newer { path: path.to_owned(), why });
            }
        }
    }
    Err(damaged(path, "its `format` file was lost in a migration".to_owned()))
}

fn damaged(path: &Path, why: String) -> OpenError {
    OpenError::Damaged { path: path.to_owned(), why }
}

/// Keeps a copy of the manifest, and makes the first release refuse the store from now on.
fn preserve_manifest(path: &Path, manifest: &Manifest) -> Result<(), OpenError> {
    let kept = path.join(KEPT_DIRECTORY);
    create_kept_directory(&kept)?;
    manifest.write(&kept)?;
    sync_directory(&kept)?;
    sync_directory(path)?;
    Ok(Manifest::write_migrating(path)?)
}

fn create_kept_directory(kept: &Path) -> Result<(), Failure> {
    match DirBuilder::new().mode(0o700).create(kept) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(Failure::new("create", kept, e)),
        _ => Ok(()),
    }
}

/// Writes the rows into a generation as a checkpoint, whose position is the old store's revision.
fn copy(path: &Path, manifest: &Manifest, store: StoreId, generation: &Path) -> Result<Head, OpenError> {
    let damaged = |why: String| damaged(path, why);
    // sled cuts its file off at the first damage when it opens it, so it gets a copy.
    let data = generation.join(DATA);
    copy_directory(&path.join(DATA), &data)?;
    let db = replica::open_sled_at(&data).map_err(|error| match error {
        OpenError::Replica(why) => damaged(why),
        error => error,
    })?;
    let mut head = Head { position: 0, hash: EntryHash::NONE };
    checkpoint::write(generation, |out| -> Result<u64, OpenError> {
        let write = |e: io::Error| Failure::new("write a checkpoint in", generation, e);
        let header = Header { taken_at: wall_clock(), store: store.to_string() };
        let mut stream = Writer::begin(out, &header).map_err(write)?;
        let (mut ops, mut owner) = (Vec::new(), None);
        replica::guard_sled(|| {
            for row in db.iter() {
                let (key, row) = row.map_err(|e| damaged(e.to_string()))?;
                let about = operations(&key, &row, &mut ops).map_err(&damaged)?;
                owner = about.or(owner.take());
                ops.drain(..).try_for_each(|op| stream.write_op(&op)).map_err(write)?;
            }
            Ok::<(), OpenError>(())
        })
        .map_err(&damaged)??;
        match &owner {
            Some((of, _)) if *of != manifest.store => {
                return Err(damaged(format!("its data belongs to another store, {of}")));
            }
            Some((_, revision)) if *revision < manifest.revision => {
                let acknowledged = manifest.revision;
                let why = format!("{acknowledged} changes were acknowledged, only {revision} are left");
                return Err(damaged(why));
            }
            Some((_, revision)) => head.position = first_position(*revision),
            None => return Err(damaged("its data file has no permgate data".to_owned())),
        }
        stream.finish(head).map_err(write)?;
        Ok(head.position)
    })?;
    drop(db);
    remove_directory(&data)?;
    Ok(head)
}

fn copy_directory(from: &Path, to: &Path) -> Result<(), Failure> {
    let failure = |e: io::Error| Failure::new("copy", from, e);
    DirBuilder::new().mode(0o700).create(to).map_err(failure)?;
    for entry in fs::read_dir(from).map_err(failure)? {
        let entry = entry.map_err(failure)?;
        let to = to.join(entry.file_name());
        if entry.file_type().map_err(failure)?.is_dir() {
            copy_directory(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to).map_err(failure)?;
        }
    }
    Ok(())
}

/// The position after which a journal begins if its first rows come from elsewhere. It is never 0, where an
/// empty store begins.
pub(super) fn first_position(revision: u64) -> u64 {
    revision.max(1)
}

#[cfg(test)]
mod tests;
