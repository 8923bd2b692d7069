//! The file and directory operations that a store uses: as traits where tests replace them by a disk that
//! loses power, else as functions.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::Failure;

/// A directory. Names are single components.
///
/// A change of names is durable only after [`sync`](Directory::sync).
pub trait Directory: Send + Sync {
    /// Its path, for messages.
    fn path(&self) -> &Path;
    /// The names in it, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Creates a file, which must not exist, for reading and writing, with mode 0600.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;
    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn File>>;
    /// Renames a file, replacing any file of the new name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Creates a directory, which must not exist, with mode 0700.
    fn create_directory(&self, name: &str) -> io::Result<Box<dyn Directory>>;
    /// Opens a directory within this one.
    fn open_directory(&self, name: &str) -> io::Result<Box<dyn Directory>>;
    /// Removes a directory in this one, with everything in it.
    fn remove_directory(&self, name: &str) -> io::Result<()>;
    /// Returns once every change of names so far is durable.
    fn sync(&self) -> io::Result<()>;

    /// [`list`](Directory::list), with an error that names the directory.
    fn names(&self) -> Result<Vec<String>, Failure> {
        self.list().map_err(|e| Failure::new("list the directory", self.path(), e))
    }

    /// [`remove`](Directory::remove), with an error that names the file.
    fn remove_file(&self, name: &str) -> Result<(), Failure> {
        self.remove(name).map_err(|e| self.failure("remove", name, e))
    }

    /// [`sync`](Directory::sync), with an error that names the directory.
    fn sync_names(&self) -> Result<(), Failure> {
        self.sync().map_err(|e| Failure::new("sync the directory", self.path(), e))
    }

    /// Replaces a file as a whole, or not at all. Durable on return.
    fn replace(&self, name: &str, content: &str) -> Result<(), Failure> {
        let new = &format!("{name}.new");
        unless_absent(&self.path().join(new), self.remove(new))?;
        let file = self.create(new).map_err(|e| self.failure("create", new, e))?;
        file.write_all_at(content.as_bytes(), 0).map_err(|e| self.failure("write to", new, e))?;
        file.sync_all().map_err(|e| self.failure("sync", new, e))?;
        self.rename(new, name).map_err(|e| self.failure("replace", name, e))?;
        self.sync_names()
    }

    /// The error of an action on a file.
    fn failure(&self, action: &'static str, name: &str, e: io::Error) -> Failure {
        Failure::new(action, self.path().join(name), e)
    }
}

/// An open file. Offsets and sizes are in bytes.
pub trait File: Send + Sync {
    /// The file's size.
    fn size(&self) -> io::Result<u64>;
    /// Fills the buffer; fails with `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all bytes. They reach the disk at the next sync, or earlier.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns once the content, and what is needed to read it, is durable (`fdatasync`).
    fn sync_data(&self) -> io::Result<()>;
    /// Returns once the content and all metadata are durable (`fsync`).
    fn sync_all(&self) -> io::Result<()>;
}

/// A directory of the operating system.
#[derive(Clone, Debug)]
pub struct OsDirectory {
    path: PathBuf,
}

impl OsDirectory {
    /// The directory at `path`. If it does not exist, later calls fail.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl Directory for OsDirectory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(Box::new(options.open(self.path.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn create_directory(&self, name: &str) -> io::Result<Box<dyn Directory>> {
        let path = self.path.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Box::new(Self { path }))
    }

    fn open_directory(&self, name: &str) -> io::Result<Box<dyn Directory>> {
        let path = self.path.join(name);
        if !fs::metadata(&path)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Box::new(Self { path }))
    }

    fn remove_directory(&self, name: &str) -> io::Result<()> {
        fs::remove_dir_all(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()
    }
}

impl File for fs::File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        fs::File::sync_data(self)
    }

    fn sync_all(&self) -> io::Result<()> {
        fs::File::sync_all(self)
    }
}

/// Removes a file, if it exists.
pub(in crate::store) fn remove_file(path: &Path) -> Result<(), Failure> {
    unless_absent(path, fs::remove_file(path))
}

/// Removes a directory with everything in it, if it exists.
pub(in crate::store) fn remove_directory(path: &Path) -> Result<(), Failure> {
    unless_absent(path, fs::remove_dir_all(path))
}

fn unless_absent(path: &Path, removed: io::Result<()>) -> Result<(), Failure> {
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::new("remove", path, e)),
        _ => Ok(()),
    }
}

/// Returns once every change of names in the directory is durable.
pub(in crate::store) fn sync_directory(path: &Path) -> Result<(), Failure> {
    OsDirectory::new(path).sync_names()
}
