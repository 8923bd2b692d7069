//! The target that the log's thread writes to.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::proxy::access_log::LogTarget;

pub enum Sink {
    Off,
    Stdout,
    File { path: PathBuf, file: File },
}

impl Sink {
    pub fn open(target: LogTarget) -> io::Result<Self> {
        Ok(match target {
            LogTarget::Off => Self::Off,
            LogTarget::Stdout => Self::Stdout,
            LogTarget::File(path) => {
                let file = append(&path)?;
                Self::File { path, file }
            }
        })
    }

    /// If the file cannot be opened again, lines still go to the old one.
    pub fn reopen(&mut self) {
        if let Self::File { path, file } = self {
            match append(path) {
                Ok(fresh) => *file = fresh,
                Err(error) => tracing::error!(path = %path.display(), %error, "cannot reopen the access log"),
            }
        }
    }

    pub fn write(&mut self, lines: &[u8]) {
        let written = match self {
            Self::Off => Ok(()),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines).and_then(|()| stdout.flush())
            }
            Self::File { file, .. } => file.write_all(lines),
        };
        if let Err(error) = written {
            tracing::error!(%error, "cannot write the access log");
        }
    }
}

/// Logins, addresses and paths are not for every user of the machine. A file that is there keeps its mode.
fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}
