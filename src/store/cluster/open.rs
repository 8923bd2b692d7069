//! Opens a node's copy of the cluster's store, or creates it from nothing or from a single gateway's store.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use tokio::sync::{Notify, watch};

use super::{Incarnation, MemberChange, NodeIdentity, Settings, driver::Driver, local::LocalCopy};
use crate::{
    fence::Fence,
    state::State,
    store::{
        self, Configuration, OpenError, Store,
        backup::{self, BackupError},
        engine::{self, Engine, Generation, StoreDirectory},
        generation::Contents,
        load::{self, wall_clock},
        log::{
            Failure, Head, Log as _, StoreId,
            etcd::{self, Connection, EtcdError, EtcdLog, UploadedSnapshot},
            files::{Directory as _, OsDirectory},
            random_id,
        },
        migration,
        op::Op,
        replica::Replica,
    },
};

/// Why a node cannot join, or a cluster cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    #[error(transparent)]
    Io(#[from] Failure),
    #[error("cannot start a thread or get random numbers: {0}")]
    System(#[source] io::Error),
    #[error(
        "{path} is a separate store, not a copy of the cluster's: name an empty directory as [store] path, or write this store to etcd with `permgate cluster init`"
    )]
    OwnStore { path: PathBuf },
    #[error(
        "{path} is a copy of store {copy}, but etcd has store {log}: move it away, and the node fetches the store again"
    )]
    Foreign { path: PathBuf, copy: StoreId, log: StoreId },
    #[error(
        "{path} is a copy of store {copy}, but etcd has lost its log: there is none under {prefix}; run `permgate cluster adopt` on the node that is furthest ahead"
    )]
    LogLost { path: PathBuf, copy: StoreId, prefix: String },
    #[error("{path} is not a copy of a cluster's store")]
    NoCopy { path: PathBuf },
    #[error("the snapshot cannot be written: {0}")]
    Snapshot(String),
    #[error(
        "this node is at position {own} and etcd at {etcd}: etcd has lost nothing, so there is nothing to adopt"
    )]
    NothingLost { own: u64, etcd: u64 },
}

/// Set to the reason when the process has to end.
pub type Ended = watch::Receiver<Option<String>>;

/// Pause between attempts to reach etcd at the start.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl Store {
    /// Opens this node's copy, brings it to the head of the log and joins the cluster. While etcd does not
    /// answer, an existing copy is opened as it is: the node listens, but may not forward until etcd
    /// answers. An empty directory waits for etcd.
    pub fn join(
        settings: &store::Settings,
        cluster: &Settings,
        configuration: Configuration,
        fence: Arc<Fence>,
    ) -> Result<(Store, Arc<State>, Ended), JoinError> {
        let directory = StoreDirectory::open(&settings.path)?;
        let connection = connect(cluster)?;
        let copy = LocalCopy::read(&settings.path)?;
        let log = wait_for_log(&connection, || position_of(&directory, copy?.store));
        let log = log.map_err(|error| match copy {
            Some(copy) => advise_adopting(error, &settings.path, copy.store),
            None => error,
        })?;
        let store = log.store();
        if let Some(copy) = copy.filter(|copy| copy.store != store) {
            return Err(JoinError::Foreign { path: settings.path.clone(), copy: copy.store, log: store });
        }
        let contents = directory.generations().read().map_err(OpenError::from)?;
        if copy.is_none() && matches!(contents, Contents::Store { .. }) {
            return Err(JoinError::OwnStore { path: settings.path.clone() });
        }
        let incarnation = Incarnation(random_id().map_err(JoinError::System)?);
        // Before joining: the next run has to know its predecessor.
        LocalCopy { store, last: Some(incarnation) }.write(&settings.path)?;
        let generation = generation(&directory, store)?;
        let mut engine = generation.with_log(Box::new(log))?;
        // Until the engine is closed.
        engine.directory = Some(directory);
        let identity = NodeIdentity {
            node: cluster.node.clone(),
            incarnation,
            predecessor: copy.and_then(|copy| copy.last),
            rules: configuration.digest(),
        };
        let (clock, node) = (Arc::new(wall_clock), Some((identity, cluster.lease)));
        let (store, state, applied) = load::serve(engine, configuration, fence.clone(), clock, node)?;
        let (ended, asked) = watch::channel(None);
        if let Some((node, applied)) = store.node().cloned().zip(applied) {
            let driver = Driver {
                store: store.clone(),
                node,
                connection,
                fence,
                heard: watch::Sender::default(),
                acknowledge: Notify::new(),
                grown: Arc::default(),
            };
            driver.start(applied, ended);
        }
        Ok((store, state, asked))
    }
}

/// Writes the store at `settings.path`, which must not be in use, to etcd. The directory becomes a node's
/// copy. Creates the store if there is none. Returns its id and position.
pub fn init(settings: &store::Settings, cluster: &Settings) -> Result<(StoreId, u64), JoinError> {
    let connection = connect(cluster)?;
    if let Some(copy) = LocalCopy::read(&settings.path)? {
        let log = log_of_copy(&connection, &settings.path, copy.store)?;
        return Ok((log.store(), log.known_head().position));
    }
    let log = EtcdLog::find(connection.clone())?;
    if let Some(log) = &log {
        // A store that is begun here would keep this directory from joining.
        let contents = StoreDirectory::open(&settings.path)?.generations().read().map_err(OpenError::from)?;
        if matches!(contents, Contents::Empty) && !migration::exists(&settings.path) {
            return Err(connection.taken(log.store()).into());
        }
    }
    let engine = Engine::open(settings)?;
    load::begin(&engine, wall_clock())?;
    let (id, head) = (engine.store, engine.replica().head());
    match log {
        None => {
            let snapshot = upload(&connection, engine.replica())?;
            connection.create(id, head, Some(&snapshot))?;
        }
        // An earlier call was interrupted here.
        Some(log) if (log.store(), log.known_head()) == (id, head) => {}
        Some(log) => return Err(connection.taken(log.store()).into()),
    }
    let generation = engine.generation.clone();
    engine.replica().flush().map_err(|e| JoinError::Snapshot(e.to_string()))?;
    LocalCopy { store: id, last: None }.write(&settings.path)?;
    engine.close();
    // etcd has what the journal has.
    let files = OsDirectory::new(generation);
    for name in files.names()?.iter().filter(|name| name.starts_with("journal-")) {
        files.remove_file(name)?;
    }
    Ok((id, head.position))
}

/// Replaces the state in etcd, which has lost entries, by this node's copy, which must not be in use.
/// Returns the position.
pub fn adopt(settings: &store::Settings, cluster: &Settings) -> Result<u64, JoinError> {
    let (_directory, generation) = open_copy(settings)?;
    let connection = connect(cluster)?;
    let replica = generation.open_replica()?;
    let own = replica.head();
    // Unless etcd says that there is no log, this node cannot know what it has lost.
    let log = EtcdLog::find(connection.clone())?;
    if let Some(log) = &log {
        let (store, etcd) = (log.store(), log.known_head());
        if store != generation.store {
            let path = settings.path.clone();
            return Err(JoinError::Foreign { path, copy: generation.store, log: store });
        }
        if etcd.position > own.position || etcd == own {
            return Err(JoinError::NothingLost { own: own.position, etcd: etcd.position });
        }
    }
    let snapshot = upload(&connection, &replica)?;
    let revision = log.as_ref().map_or(0, EtcdLog::head_revision);
    connection.reset(generation.store, own, revision, Some(&snapshot))?;
    replica.close();
    Ok(own.position)
}

/// Removes this stopped node from the cluster at once: no change waits for it any more.
pub fn leave(settings: &store::Settings, cluster: &Settings) -> Result<(), JoinError> {
    let (_directory, generation) = open_copy(settings)?;
    let connection = connect(cluster)?;
    loop {
        let log = log_of_copy(&connection, &settings.path, generation.store)?;
        let engine = generation.with_log(Box::new(log))?;
        let members = engine.members_of_cluster().map_err(OpenError::from)?;
        let Some(member) = members.get(&cluster.node) else { break };
        let incarnation = member.incarnation.0;
        let left = Op::Node(MemberChange::Drop { node: cluster.node.clone(), incarnation, over: true });
        match engine.commit(&[left]) {
            Ok(()) => break,
            Err(engine::CommitError::Conflict(_)) => {}
            Err(error) => {
                return Err(OpenError::Write { path: generation.path, why: error.to_string() }.into());
            }
        }
    }
    Ok(connection.forget(&cluster.node)?)
}

/// The copy of a stopped node. It is locked while the directory is held.
fn open_copy(settings: &store::Settings) -> Result<(StoreDirectory, Generation), JoinError> {
    let directory = StoreDirectory::open(&settings.path)?;
    let absent = || JoinError::NoCopy { path: settings.path.clone() };
    let copy = LocalCopy::read(&settings.path)?.ok_or_else(absent)?;
    let generation = generation(&directory, copy.store)?;
    Ok((directory, generation))
}

fn connect(cluster: &Settings) -> Result<Arc<Connection>, JoinError> {
    Connection::start(etcd::Settings::new(cluster.etcd.clone())).map_err(JoinError::System)
}

/// Retries until etcd answers, since machines start in any order; a missing log is an error at once. `copy`
/// returns what this node can start with meanwhile.
fn wait_for_log(
    connection: &Arc<Connection>,
    copy: impl FnOnce() -> Option<(StoreId, Head)>,
) -> Result<EtcdLog, JoinError> {
    let mut copy = Some(copy);
    loop {
        let error = match EtcdLog::open(connection.clone()) {
            Ok(log) => return Ok(log),
            Err(error) if error.is_final() => return Err(error.into()),
            Err(error) => error,
        };
        if let Some(copy) = copy.take() {
            tracing::warn!(%error, "waiting for etcd");
            if let Some((store, head)) = copy() {
                return Ok(EtcdLog::with_unknown_revision(connection.clone(), store, head));
            }
        }
        thread::sleep(RETRY_PAUSE);
    }
}

/// The position of a copy; `None` if it cannot be opened and must be filled again from etcd.
fn position_of(directory: &StoreDirectory, store: StoreId) -> Option<(StoreId, Head)> {
    let replica = generation(directory, store).ok()?.open_replica().ok()?;
    let head = replica.head();
    replica.close();
    Some((store, head))
}

/// The current generation, or a new first one.
fn generation(directory: &StoreDirectory, store: StoreId) -> Result<Generation, OpenError> {
    let generations = directory.generations();
    let path = match generations.read()? {
        Contents::Store { directory, .. } => directory.path().to_owned(),
        Contents::Empty => {
            let new = generations.begin(Some(store))?;
            generations.switch(&new)?;
            new.directory.path().to_owned()
        }
    };
    Ok(Generation { path, store })
}

pub(super) fn upload(connection: &Connection, replica: &Replica) -> Result<UploadedSnapshot, JoinError> {
    let broken = |error: io::Error| JoinError::Snapshot(error.to_string());
    let mut upload = connection.upload()?;
    let copied =
        backup::write(replica, wall_clock(), &mut upload, &mut |_| std::ops::ControlFlow::Continue(()));
    let (Head { position, .. }, ..) =
        copied.map_err(|error: BackupError| JoinError::Snapshot(error.to_string()))?;
    upload.finish(position).map_err(broken)
}

/// The log of a copy's cluster; fails if etcd has lost it.
fn log_of_copy(connection: &Arc<Connection>, path: &Path, copy: StoreId) -> Result<EtcdLog, JoinError> {
    let log = EtcdLog::open(connection.clone()).map_err(|error| advise_adopting(error.into(), path, copy))?;
    match log.store() {
        store if store == copy => Ok(log),
        store => Err(JoinError::Foreign { path: path.to_owned(), copy, log: store }),
    }
}

/// Only a copy can bring a log back that etcd has lost.
fn advise_adopting(error: JoinError, path: &Path, copy: StoreId) -> JoinError {
    match error {
        JoinError::Etcd(EtcdError::NoLog { prefix }) => {
            JoinError::LogLost { path: path.to_owned(), copy, prefix }
        }
        error => error,
    }
}
