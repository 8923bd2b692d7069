//! Checkpoints: the state at one position, as a backup stream beside the journal. With one, the journal can
//! be trimmed and the replica rebuilt. A separate thread writes one when the journal has grown.

use std::{
    error::Error,
    fs::{self, File},
    io::{BufReader, BufWriter, Write as _},
    ops::ControlFlow,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use parking_lot::Mutex;

use super::{Engine, LogState};
use crate::store::{
    backup::{self, BackupError, Reader, StreamError},
    load::wall_clock,
    log::{
        Failure, Head, StoreId,
        files::{self, Directory as _, OsDirectory},
    },
    replica::Replica,
};

/// Operations per transaction while a checkpoint is loaded.
pub(super) const LOAD_BATCH: usize = 10_000;

/// A checkpoint is due when the journal has grown by this many bytes since the last one.
const DUE_BYTES: u64 = 64 << 20;

/// Number of checkpoints that are kept: if the newest is unreadable, the one before is used.
const KEPT_CHECKPOINTS: usize = 2;

const PREFIX: &str = "checkpoint-";
const UNFINISHED: &str = "checkpoint.new";

/// The path of a position's checkpoint.
pub(crate) fn path(generation: &Path, position: u64) -> PathBuf {
    generation.join(format!("{PREFIX}{position}"))
}

/// The positions of the existing checkpoints, newest first.
pub(super) fn list(generation: &Path) -> Result<Vec<u64>, Failure> {
    let names = OsDirectory::new(generation).names()?;
    let position = |name: &String| {
        let position: u64 = name.strip_prefix(PREFIX)?.parse().ok()?;
        (*name == format!("{PREFIX}{position}")).then_some(position)
    };
    let mut positions: Vec<u64> = names.iter().filter_map(position).collect();
    positions.sort_unstable_by(|a, b| b.cmp(a));
    Ok(positions)
}

/// Writes a checkpoint with `fill`, which returns its position. The file exists whole and durable, or not
/// at all.
pub(crate) fn write<E: From<Failure>>(
    generation: &Path,
    fill: impl FnOnce(&mut BufWriter<File>) -> Result<u64, E>,
) -> Result<(), E> {
    let unfinished = generation.join(UNFINISHED);
    let failure = |action| {
        let path = &unfinished;
        move |e| Failure::new(action, path, e)
    };
    files::remove_file(&unfinished)?;
    let made = File::options().write(true).create_new(true).mode(0o600).open(&unfinished);
    let mut file = BufWriter::with_capacity(1 << 18, made.map_err(failure("create"))?);
    let written = fill(&mut file).and_then(|position| {
        file.flush().map_err(failure("write to"))?;
        file.get_ref().sync_all().map_err(failure("sync"))?;
        Ok(position)
    });
    // A partial checkpoint is useless, and the disk may be full.
    let position = written.inspect_err(|_| drop(fs::remove_file(&unfinished)))?;
    fs::rename(&unfinished, path(generation, position)).map_err(failure("rename"))?;
    Ok(files::sync_directory(generation)?)
}

impl Engine {
    /// Begins a checkpoint if one is due and none is being written.
    pub(super) fn checkpoint_when_due(&self) {
        let log = self.log.lock();
        // A shared log has snapshots of its own.
        if log.since_checkpoint < DUE_BYTES || log.log.is_shared() || self.closing.load(Ordering::Acquire) {
            return;
        }
        drop(log);
        let mut running = self.checkpoint.lock();
        if running.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        let job = CheckpointTask {
            generation: self.generation.clone(),
            replica: self.replica.clone(),
            log: self.log.clone(),
            closing: self.closing.clone(),
        };
        // Reset even if this checkpoint fails, so that the next attempt waits for as much growth again.
        self.log.lock().since_checkpoint = 0;
        let spawned = thread::Builder::new().name("permgate-checkpoint".into()).spawn(move || job.run());
        match spawned {
            Ok(thread) => *running = Some(thread),
            Err(error) => tracing::warn!(%error, "the thread that writes a checkpoint cannot be started"),
        }
    }

    /// Writes a checkpoint now and trims the journal.
    #[cfg(test)]
    pub(crate) fn checkpoint_now(&self) {
        self.try_checkpoint().unwrap();
    }

    #[cfg(test)]
    pub(crate) fn try_checkpoint(&self) -> Result<(), String> {
        let (replica, log, closing) = (self.replica.clone(), self.log.clone(), self.closing.clone());
        let job = CheckpointTask { generation: self.generation.clone(), replica, log, closing };
        job.write_and_trim().map_err(|error| error.to_string())
    }
}

struct CheckpointTask {
    generation: PathBuf,
    replica: Arc<Replica>,
    log: Arc<Mutex<LogState>>,
    closing: Arc<AtomicBool>,
}

impl CheckpointTask {
    fn run(self) {
        match self.write_and_trim() {
            Err(error) if !matches!(error.downcast_ref(), Some(BackupError::Stopped)) => {
                // Without a checkpoint, the journal is merely not trimmed.
                tracing::warn!(error, "a checkpoint of the store could not be completed");
            }
            _ => {}
        }
    }

    fn write_and_trim(&self) -> Result<(), Box<dyn Error>> {
        write(&self.generation, |out| -> Result<u64, Box<dyn Error>> {
            let mut copied = |_| match self.closing.load(Ordering::Acquire) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            let (head, ..) = backup::write(&self.replica, wall_clock(), out, &mut copied)?;
            Ok(head.position)
        })?;
        self.replica.flush().map_err(|e| format!("the replica cannot be synced: {e}"))?;
        let checkpoints = list(&self.generation)?;
        let Some(kept) = checkpoints.get(KEPT_CHECKPOINTS - 1) else { return Ok(()) };
        let trimmed = self.log.lock().log.trim(kept + 1);
        trimmed.map_err(|e| format!("the journal cannot be trimmed: {e}"))?;
        for position in &checkpoints[KEPT_CHECKPOINTS..] {
            let path = path(&self.generation, *position);
            files::remove_file(&path)?;
        }
        Ok(())
    }
}

pub(super) fn open(path: &Path) -> Result<Reader<BufReader<File>>, StreamError> {
    let file = File::open(path).map_err(StreamError::Io)?;
    Reader::open(BufReader::with_capacity(1 << 18, file))
}

/// Verifies that a checkpoint is whole and of this store, and returns its position. `on_progress` gets the
/// number of rows and may stop it.
pub(super) fn read_through(
    path: &Path,
    store: StoreId,
    on_progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<Head, StreamError> {
    let mut reader = open(path)?;
    if reader.header.store != store.to_string() {
        return Err(StreamError::Foreign);
    }
    let mut ops = Vec::new();
    while reader.next(&mut ops)? {
        if ops.len() >= LOAD_BATCH {
            ops.clear();
            if on_progress(reader.progress.rows).is_break() {
                return Err(StreamError::Truncated(reader.progress.rows));
            }
        }
    }
    Ok(reader.head)
}
