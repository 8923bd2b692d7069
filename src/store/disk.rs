//! File operations of the store that no test replaces by a disk that loses power.

use std::{
    fs,
    io::{self, ErrorKind},
    path::Path,
};

use super::log::{
    Failure,
    files::{Directory as _, OsDirectory},
};

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
    OsDirectory::new(path).sync_names()
}
