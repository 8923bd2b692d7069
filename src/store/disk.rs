//! File operations of the store that no test replaces by a disk that loses power.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::log::Failure;

/// Removes a file, if it exists.
pub(super) fn remove_file(path: &Path) -> Result<(), Failure> {
    unless_absent(path, fs::remove_file(path))
}

/// Removes a directory with everything in it, if it exists.
pub(super) fn remove_directory(path: &Path) -> Result<(), Failure> {
    unless_absent(path, fs::remove_dir_all(path))
}

fn unless_absent(path: &Path, removed: io::Result<()>) -> Result<(), Failure> {
    match removed {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Failure::new("remove", path, e)),
        _ => Ok(()),
    }
}

/// Returns once every change of names in the directory is durable.
pub(super) fn sync_directory(path: &Path) -> Result<(), Failure> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|e| Failure::new("sync the directory", path, e))
}

/// Replaces a file as a whole, or not at all. Durable on return.
pub(super) fn replace(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let new = directory.join(format!("{name}.new"));
    let mut options = File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, directory.join(name))?;
    File::open(directory)?.sync_all()
}
