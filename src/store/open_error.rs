//! Why a store does not open.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    ReadError,
    generation::GenerationError,
    log::{self, Failure, journal},
    replica::ReplicaError,
};
use crate::authz::rules::RuleError;

/// Why a store does not open. Each message says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{path} is a node's copy of a cluster's store: start its gateway with [store.cluster], or run the command against a running one"
    )]
    Copy { path: PathBuf },
    #[error(
        "the store {path} is in use by {holder}: stop it first; commands reach a running gateway without --offline"
    )]
    Locked { path: PathBuf, holder: String },
    #[error(
        "the store {path} cannot be opened: Permission denied; it belongs to the user {uid}: run this as that user or as root; commands reach a running gateway without --offline"
    )]
    Denied { path: PathBuf, uid: u32 },
    #[error(
        "{path} is not a permgate store (it is a file); name an empty or absent directory as [store] path to create one"
    )]
    File { path: PathBuf },
    /// Only where no store is to be created.
    #[error("there is no store in {path}, the directory that [store] path names")]
    Absent { path: PathBuf },
    /// Only where no store is to be migrated.
    #[error("the store {path} is of the first release: start permgate once to migrate it, then verify")]
    Released { path: PathBuf },
    #[error(transparent)]
    Generation(#[from] GenerationError),
    #[error(transparent)]
    Journal(journal::OpenError),
    #[error("the journal cannot be read: {0}")]
    Log(#[from] log::ReadError),
    #[error(
        "the store {path} is damaged ({why}); nothing was changed. Copy it, then restore a backup with `permgate store restore`{}",
        newest_backup(path)
    )]
    Damaged { path: PathBuf, why: String },
    #[error("the store {path} cannot be read ({why}); run the newer permgate that wrote it")]
    Newer { path: PathBuf, why: String },
    #[error(
        "the disk of the store {path} is full, and there is no ballast file left to delete ({why}); free some space and start again"
    )]
    DiskFull { path: PathBuf, why: String },
    #[error("the store {path} cannot be written: {why}")]
    Write { path: PathBuf, why: String },
    #[error(transparent)]
    Io(#[from] Failure),
    #[error("the rules of the configuration conflict")]
    Rules(Vec<RuleError>),
    #[error("the store's rows cannot be read: {0}")]
    Read(#[from] ReadError),
    /// It can be rebuilt.
    #[error("the replica is damaged: {0}")]
    Replica(String),
    /// A row that no version of permgate writes.
    #[error("the store has an impossible row: {0}")]
    Row(String),
    #[error("a thread of the store cannot be started: {0}")]
    Thread(#[from] io::Error),
}

impl From<ReplicaError> for OpenError {
    fn from(error: ReplicaError) -> Self {
        match error {
            ReplicaError::Thread(error) => error.into(),
            damage => Self::Replica(damage.to_string()),
        }
    }
}

/// `; the newest beside it is ...`, or empty if there is no backup beside the store or in `backups` there.
fn newest_backup(store: &Path) -> String {
    let beside = store.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let places = [beside.to_owned(), beside.join("backups")];
    let files = places.iter().filter_map(|place| fs::read_dir(place).ok()).flatten().flatten();
    let newest = files
        .filter(|file| file.path().extension().is_some_and(|e| e == "backup"))
        .filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file.path())))
        .max();
    newest.map_or(String::new(), |(_, path)| format!("; the newest one next to it is {}", path.display()))
}
