//! A file that reserves disk space and is deleted when the disk is full: sled cannot even open without
//! space to write.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

const FILE: &str = "ballast";

/// More than opening a store ever writes. A larger ballast is probably a mistake, which must not fill the disk.
pub(crate) const LARGE: u64 = 1 << 30;

/// Creates the file, or replaces one of another size. It is written, not sparse, and its bytes do not
/// compress, so that the space is really allocated.
pub(crate) fn ensure(directory: &Path, size: u64) -> io::Result<()> {
    let path = directory.join(FILE);
    let replaced = match fs::metadata(&path) {
        Ok(found) if found.len() == size => return Ok(()),
        Ok(found) => found.len(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
        Err(e) => return Err(e),
    };
    if size == 0 {
        return release(directory).map(drop);
    }
    if size > LARGE && size > free(directory)?.saturating_add(replaced) / 2 {
        let text = format!("{} MiB would take more than half of the free space", size >> 20);
        return Err(io::Error::other(text));
    }
    let written = write(&path, size);
    if written.is_err() {
        // A partial ballast would take the last free space.
        release(directory)?;
    }
    written
}

/// Deletes the file; returns the bytes that this frees.
pub(crate) fn release(directory: &Path) -> io::Result<u64> {
    let path = directory.join(FILE);
    let size = match fs::metadata(&path) {
        Ok(found) => found.len(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(e),
    };
    fs::remove_file(path)?;
    Ok(size)
}

/// How many bytes an unprivileged process can still write there.
fn free(directory: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(directory)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether not even 1 MiB can be written.
pub(crate) fn disk_is_full(directory: &Path) -> bool {
    let path = directory.join("probe");
    let error = write(&path, 1 << 20).err().map(|e| e.kind());
    let full = matches!(error, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded));
    // A leftover probe file is harmless, and nothing can be done about it here.
    drop(fs::remove_file(path));
    full
}

fn write(path: &Path, size: u64) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let mut noise = blake3::Hasher::new().finalize_xof();
    let mut block = vec![0; 1 << 16];
    let mut left = size;
    while left > 0 {
        noise.fill(&mut block);
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        file.write_all(&block[..part])?;
        left -= part as u64;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_ballast_holds_real_room_and_gives_it_back() {
        let directory = tempfile::tempdir().unwrap();
        ensure(directory.path(), 300_000).unwrap();
        let found = fs::metadata(directory.path().join(FILE)).unwrap();
        assert_eq!(found.len(), 300_000);
        assert!(found.blocks() * 512 >= 300_000, "sparse: {} blocks", found.blocks());
        assert_eq!(found.mode() & 0o777, 0o600);

        ensure(directory.path(), 100_000).unwrap();
        assert_eq!(release(directory.path()).unwrap(), 100_000);
        assert_eq!(release(directory.path()).unwrap(), 0);
        assert!(!disk_is_full(directory.path()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_ballast_never_takes_most_of_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let refused = ensure(directory.path(), 1 << 60).unwrap_err().to_string();
        assert!(refused.contains("1099511627776 MiB would take more than half"), "{refused}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        ensure(directory.path(), 300_000).unwrap();
        ensure(directory.path(), 1 << 60).unwrap_err();
        assert_eq!(release(directory.path()).unwrap(), 300_000, "a smaller one stays");
    }

    #[test]
    fn a_full_disk_is_seen() {
        // Every write to /dev/full fails as on a full disk.
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", directory.path().join("probe")).unwrap();
        assert!(disk_is_full(directory.path()));
    }
}
