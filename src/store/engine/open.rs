//! Opens STORE: finds, migrates or creates the store, verifies the journal, and brings the replica to the
//! journal's head or rebuilds it from the newest checkpoint.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{Engine, LogState, OpenError, StoreDirectory, checkpoint};
use crate::store::{
    Settings,
    backup::StreamError,
    ballast, cluster,
    generation::{Contents, NewGeneration},
    log::{
        self, Failure, Head, Log, StoreId,
        files::{self, Directory},
        journal::{self, Journal},
    },
    migration,
    op::{BatchError, BatchReader, Op},
    record::DecodeError,
    replica::{ApplyError, Replica, ReplicaError, StageError, Staged},
};

pub(super) const REPLICA: &str = "sled";

impl Engine {
    /// Opens the store at `settings.path`, or creates a new one. Takes the lock first.
    #[cfg(any(test, feature = "etcd"))]
    pub(crate) fn open(settings: &Settings) -> Result<Self, OpenError> {
        let mut engine = Self::open_unloaded(settings)?;
        engine.load_or_rebuild(|engine| engine.load(&mut |_, _| {}))?;
        Ok(engine)
    }

    /// Opens without loading: the caller does that with [`Engine::load_or_rebuild`], so that the tokens are read
    /// only once.
    pub(crate) fn open_unloaded(settings: &Settings) -> Result<Self, OpenError> {
        let directory = StoreDirectory::open(&settings.path)?;
        let mut engine = with_ballast(&settings.path, || open_present(&directory, settings))?;
        engine.directory = Some(directory);
        if let Err(error) = ballast::ensure(&settings.path, settings.ballast) {
            tracing::warn!(%error, "no space for the store's ballast file: if the disk gets full, the store will not open");
        }
        Ok(engine)
    }

    /// Loads; if the rows cannot be read or are not those that were written, rebuilds the replica and loads
    /// again.
    pub(crate) fn load_or_rebuild<T>(
        &mut self,
        mut load: impl FnMut(&Self) -> Result<T, OpenError>,
    ) -> Result<T, OpenError> {
        let why = match load(self) {
            Err(OpenError::Replica(why)) => why,
            Err(OpenError::Read(error)) => error.to_string(),
            outcome => return outcome,
        };
        let generation = Generation { path: self.generation.clone(), store: self.store };
        self.rebuild(&generation, &why)?;
        load(self).map_err(|error| generation.final_error(error))
    }

    /// Rebuilds the replica from the newest checkpoint and the journal. Nothing may read it yet.
    fn rebuild(&mut self, generation: &Generation, why: &str) -> Result<(), OpenError> {
        self.replica.close();
        let log = self.log.lock();
        let replica = generation.make_replica(&*log.log, why)?;
        drop(log);
        self.replica = Arc::new(replica);
        Ok(())
    }
}

/// Opens the store in the directory; creates or migrates it where nothing of the current layout exists.
fn open_present(directory: &StoreDirectory, settings: &Settings) -> Result<Engine, OpenError> {
    if cluster::is_copy(directory.path()) {
        return Err(OpenError::Copy { path: directory.path().to_owned() });
    }
    let generations = directory.generations();
    let mut contents = generations.read()?;
    if let Contents::Empty = contents {
        if !migration::exists(directory.path()) || !migration::migrate(directory, settings)? {
            let new = generations.begin(None)?;
            Generation::begin(&new, Head::EMPTY, settings)?;
            generations.switch(&new)?;
        }
        contents = directory.generations().read()?;
    }
    migration::finish(directory.path())?;
    match contents {
        Contents::Empty => {
            let why = "its CURRENT names no generation, but one was just created".to_owned();
            Err(OpenError::Damaged { path: directory.path().to_owned(), why })
        }
        Contents::Store { id, directory, .. } => {
            Generation { path: directory.path().to_owned(), store: id }.open(directory, settings)
        }
    }
}

/// Opens; if the disk is full, releases the ballast and tries again.
fn with_ballast<T>(path: &Path, open: impl Fn() -> Result<T, OpenError>) -> Result<T, OpenError> {
    let error = match open() {
        Err(error) if ballast::disk_is_full(path) => error,
        outcome => return outcome,
    };
    let released = ballast::release(path).map_err(|e| Failure::new("release the ballast of", path, e))?;
    if released > 0 {
        tracing::warn!(
            store = %path.display(),
            released,
            "the disk is full: deleted the ballast file to open the store; free some space, and the next start creates it again"
        );
        match open() {
            Err(_) if ballast::disk_is_full(path) => {}
            outcome => return outcome,
        }
    }
    Err(OpenError::DiskFull { path: path.to_owned(), why: error.to_string() })
}

/// A directory with checkpoints, journal and replica.
pub(crate) struct Generation {
    pub path: PathBuf,
    pub store: StoreId,
}

impl Generation {
    /// Creates an empty journal in a new generation. Its first entry follows `after`.
    pub(crate) fn begin(new: &NewGeneration, after: Head, settings: &Settings) -> Result<Self, OpenError> {
        let generation = Self { path: new.directory.path().to_owned(), store: new.id };
        let directory = Box::new(files::OsDirectory::new(&generation.path));
        Journal::create(directory, new.id, after, journal_file_size(settings))
            .map_err(|e| generation.open_error(e))?;
        Ok(generation)
    }

    /// Opens the generation without taking the store's lock.
    pub(crate) fn open(
        &self,
        directory: Box<dyn Directory>,
        settings: &Settings,
    ) -> Result<Engine, OpenError> {
        let opened = Journal::open(directory, self.store, journal_file_size(settings));
        let (journal, recovery) = opened.map_err(|e| self.open_error(e))?;
        recovery.notes().iter().for_each(|note| tracing::warn!("{note}"));
        self.with_log(Box::new(journal))
    }

    /// Opens the replica and brings it to the head of `log`, which may be stored elsewhere.
    pub(crate) fn with_log(&self, log: Box<dyn Log>) -> Result<Engine, OpenError> {
        let opened = match Replica::open(&self.replica_path(), self.store) {
            Ok(Some(replica)) => {
                let caught_up = self.catch_up(&replica, &*log).inspect_err(|_| replica.close());
                caught_up.map(|()| Some(replica))
            }
            outcome => outcome,
        };
        let replica = match opened {
            Ok(Some(replica)) => replica,
            Ok(None) => self.make_replica(&*log, "")?,
            Err(OpenError::Replica(why)) => self.make_replica(&*log, &why)?,
            Err(error) => return Err(error),
        };
        let head = log.head()?;
        let newest = checkpoint::list(&self.path)?.first().copied().unwrap_or_default();
        let since_checkpoint = head.position.saturating_sub(newest) * super::BLOCK;
        let log = LogState { log, head, failed: None, since_checkpoint };
        Ok(Engine {
            directory: None,
            generation: self.path.clone(),
            store: self.store,
            replica: Arc::new(replica),
            log: Arc::new(Mutex::new(log)),
            closing: Arc::default(),
            checkpoint: Mutex::default(),
            #[cfg(test)]
            broken: Default::default(),
        })
    }

    fn replica_path(&self) -> PathBuf {
        self.path.join(REPLICA)
    }

    /// Applies the entries that the replica lacks.
    fn catch_up(&self, replica: &Replica, journal: &dyn Log) -> Result<(), OpenError> {
        let (at, head) = (replica.head(), journal.head()?);
        if at.position > head.position {
            let mut why = format!(
                "the log ends at position {}, but position {} was acknowledged",
                head.position, at.position
            );
            if journal.is_shared() {
                why += "; `permgate cluster adopt` puts the state of this copy in force";
            }
            return Err(self.damaged(why));
        }
        if at == head {
            return Ok(());
        }
        if at.next() < journal.first()? {
            let why = format!("it is at position {}, which the journal no longer has", at.position);
            return Err(OpenError::Replica(why));
        }
        self.replay(replica, journal).map_err(|error| match error {
            OpenError::Damaged { why, .. } => OpenError::Replica(why),
            error => error,
        })
    }

    /// Applies the journal's entries after the replica's position.
    fn replay(&self, replica: &Replica, journal: &dyn Log) -> Result<(), OpenError> {
        let mut reader = BatchReader::new(replica.head());
        loop {
            let batches = reader.next(journal).map_err(|error| match error {
                BatchError::Log(error) => error.into(),
                BatchError::Entry { error: why @ DecodeError::Newer { .. }, .. } => {
                    OpenError::Newer { path: self.path.clone(), why: why.to_string() }
                }
                error => self.damaged(error.to_string()),
            })?;
            // Many batches at once: one write to sled for each would be slow.
            let Some((_, head)) = batches.last() else {
                // A batch may have been cut off at the end of the log. It was never made.
                let ended = reader.at != replica.head();
                return if ended { self.apply(replica, [], reader.at) } else { Ok(()) };
            };
            self.apply(replica, batches.iter().flat_map(|(ops, _)| ops), *head)?;
        }
    }

    fn apply<'a>(
        &self,
        replica: &Replica,
        ops: impl IntoIterator<Item = &'a Op>,
        head: Head,
    ) -> Result<(), OpenError> {
        let damaged = |error| match error {
            StageError::Replica(ReplicaError::Thread(error)) => error.into(),
            error => self.damaged(error.to_string()),
        };
        let mut staged = Staged::default();
        ops.into_iter().try_for_each(|op| replica.stage(&mut staged, op)).map_err(damaged)?;
        replica.commit(&staged, head).map_err(|e| self.write_error(&e))
    }

    /// Builds the replica from the newest intact checkpoint, or from nothing, and the journal. An existing
    /// replica is removed only if that is possible. `why` is logged, unless it is empty.
    pub(super) fn make_replica(&self, journal: &dyn Log, why: &str) -> Result<Replica, OpenError> {
        let first = journal.first()?;
        if first > 1 {
            self.fetch_snapshot(journal)?;
        }
        let mut wrong = why.to_owned();
        for position in checkpoint::list(&self.path)? {
            let path = checkpoint::path(&self.path, position);
            if position + 1 < first {
                break;
            }
            match checkpoint::read_through(&path, self.store, &mut |_| ControlFlow::Continue(())) {
                Ok(_) => {}
                Err(StreamError::Newer) => {
                    let why = StreamError::Newer.to_string();
                    return Err(OpenError::Newer { path, why });
                }
                Err(error) => {
                    tracing::warn!(checkpoint = %path.display(), %error, "a checkpoint cannot be read");
                    wrong = format!("{wrong}; {}: {error}", path.display());
                    continue;
                }
            }
            return self.make_replica_from(Some(&path), journal, why);
        }
        // The journal was never trimmed, so it has every change.
        if first == 1 {
            return self.make_replica_from(None, journal, why);
        }
        let why = format!("{wrong}; there is no checkpoint to rebuild the replica from");
        Err(self.damaged(why.trim_start_matches("; ").to_owned()))
    }

    /// Fetches the snapshot of a shared log as a checkpoint: a new replica begins with it.
    fn fetch_snapshot(&self, log: &dyn Log) -> Result<(), OpenError> {
        if !log.is_shared() {
            return Ok(());
        }
        checkpoint::write(&self.path, |out| -> Result<u64, OpenError> {
            let fetched =
                log.snapshot(out).map_err(|e| Failure::new("fetch a snapshot for", &self.path, e))?;
            fetched.ok_or_else(|| self.damaged("its log was trimmed, but has no snapshot".to_owned()))
        })
    }

    /// Opens the replica for reading, without a log.
    #[cfg(feature = "etcd")]
    pub(crate) fn open_replica(&self) -> Result<Replica, OpenError> {
        let opened = Replica::open(&self.replica_path(), self.store);
        let replica = opened.map_err(|error| self.final_error(error))?;
        replica.ok_or_else(|| self.damaged("its replica is missing".to_owned()))
    }

    fn make_replica_from(
        &self,
        checkpoint: Option<&Path>,
        journal: &dyn Log,
        why: &str,
    ) -> Result<Replica, OpenError> {
        let path = self.replica_path();
        if !why.is_empty() {
            tracing::warn!(replica = %path.display(), why, "rebuilding the replica from the journal");
        }
        files::remove_directory(&path)?;
        let replica = Replica::create(&path, self.store).map_err(|error| self.final_error(error))?;
        let mut head = Head::EMPTY;
        if let Some(checkpoint) = checkpoint {
            let damaged = |error: StreamError| self.damaged(format!("{}: {error}", checkpoint.display()));
            let mut reader = checkpoint::open(checkpoint).map_err(damaged)?;
            let mut ops = Vec::new();
            while reader.next(&mut ops).map_err(damaged)? {
                if ops.len() >= checkpoint::LOAD_BATCH {
                    self.apply(&replica, &ops, head)?;
                    ops.clear();
                }
            }
            head = reader.head;
            self.apply(&replica, &ops, head)?;
        }
        replica.finish(head).map_err(|e| self.write_error(&e))?;
        self.replay(&replica, journal)?;
        Ok(replica)
    }

    fn open_error(&self, error: journal::OpenError) -> OpenError {
        match error {
            journal::OpenError::Damaged(log::LogCorruption { file, offset, what }) => {
                self.damaged(format!("{} at byte {offset}: {what}", file.display()))
            }
            journal::OpenError::Absent { .. } => self.damaged("its journal is missing".to_owned()),
            other => OpenError::Journal(other),
        }
    }

    /// An error of a replica that is not rebuilt, or was just now: with the store's path and what to do.
    fn final_error(&self, error: OpenError) -> OpenError {
        match error {
            OpenError::Replica(why) => self.damaged(why),
            error => error,
        }
    }

    fn damaged(&self, why: String) -> OpenError {
        OpenError::Damaged { path: self.path.parent().unwrap_or(&self.path).to_owned(), why }
    }

    fn write_error(&self, error: &ApplyError) -> OpenError {
        OpenError::Write { path: self.path.clone(), why: error.to_string() }
    }
}

/// Sizes the journal's files: each start copies one, and on a full disk the released ballast must have
/// room.
fn journal_file_size(settings: &Settings) -> u64 {
    const SMALLEST: u64 = 1 << 20;
    (settings.ballast / 4).clamp(SMALLEST, journal::FILE_SIZE)
}
