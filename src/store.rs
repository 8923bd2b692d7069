//! The persistent state: users, groups, roles, grants, tokens and the audit log. [`Store`] offers the
//! changes and look-ups of the domain over an engine; one writer thread makes every change and is the only
//! publisher of snapshots.
//!
//! A method that changes something returns once the change is durable, published and confirmed by the fence.
//! An error means that nothing changed, except for the variants of [`ChangeError`] that say otherwise.

use std::{ops::ControlFlow, sync::Arc};

use crate::{fence::Fence, metrics::StoreMetrics, state::State};

mod audit;
pub mod backup;
pub(crate) mod ballast;
mod change;
pub mod cluster;
#[cfg(test)]
pub(crate) mod conformance;
pub(crate) mod engine;
pub mod generation;
pub mod import;
mod load;
pub mod log;
mod migration;
pub mod model;
mod op;
mod open_error;
mod read;
pub mod record;
mod replica;
pub mod restore;
mod sessions;
mod state;
pub mod verify;
mod write;
mod writer;

pub use audit::{Verified, VerifyError};
pub use change::{
    AcceptedImport, Actor, ActorKind, ChangeError, Configuration, CreatedToken, ExchangedToken,
    FederatedSession, GrantTarget, GroupEdit, Idempotency, ImportedToken, NewSession, NewToken, NewUser,
    Nodes, Page, Policy, ReadError, RoleEdit, Settings, TokenEdit, TokenFilter, TokenState, Updated,
    UserEdit,
};
pub use open_error::OpenError;
pub use sessions::{ABSOLUTE, IDLE};

pub use crate::authz::administration::{AdminError, AdminErrorCode};

/// Whether a store exists at the path, intact or not. Also `true` if this user may not look there.
pub fn exists(settings: &Settings) -> bool {
    let there = match settings.path.join(generation::CURRENT).try_exists() {
        Ok(there) => there,
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    };
    there || migration::exists(&settings.path)
}

/// The error that opening would return for what is at the path, as far as it is known without the lock and the
/// journal. Changes nothing.
pub fn directory_error(settings: &Settings) -> Option<OpenError> {
    engine::StoreDirectory::check(&settings.path).err()
}

/// A handle to the writer thread and to the engine's reads. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<writer::Shared>,
    queue: writer::Queue,
}

impl Store {
    /// Opens or creates the store, loads it into the index, publishes the first snapshot and starts the
    /// writer thread. Takes the directory's lock first, so that a second process fails with a clear error.
    pub fn open(
        settings: &Settings,
        configuration: Configuration,
        fence: Arc<Fence>,
    ) -> Result<(Store, Arc<State>), OpenError> {
        load::open(settings, configuration, fence, Arc::new(load::wall_clock))
    }

    /// The writer's counters, for the metrics endpoint.
    pub fn metrics(&self) -> Arc<StoreMetrics> {
        self.shared.metrics.clone()
    }

    /// This process's node in its cluster; `None` for a gateway that runs alone.
    pub fn node(&self) -> Option<&Arc<cluster::Node>> {
        self.shared.node.as_ref()
    }

    /// Whether the store accepts changes; `Err` holds the reason.
    pub fn writable(&self) -> Result<(), String> {
        match self.shared.close_reason() {
            Some(reason) => Err(reason),
            None if self.queue.is_closed() => Err("the writer thread has ended".into()),
            None => Ok(()),
        }
    }

    /// Resolves when the writer thread has ended, after [`Store::close`] or by a panic. From then on not
    /// even a removal takes effect, so the process must not go on serving.
    pub async fn ended(&self) {
        self.queue.closed().await;
    }

    /// Writes the current state as a stream that [`restore::offline`] reads; changes continue meanwhile.
    /// Blocks, so it must not run on a worker or the control runtime.
    pub fn backup(
        &self,
        out: &mut dyn std::io::Write,
        on_progress: &mut dyn FnMut(backup::Progress),
    ) -> Result<(backup::Header, backup::Progress), backup::BackupError> {
        let mut report = |progress| {
            on_progress(progress);
            ControlFlow::Continue(())
        };
        let (_, header, progress) =
            backup::write(self.engine().replica(), (self.shared.clock)(), out, &mut report)?;
        Ok((header, progress))
    }

    pub(crate) fn engine(&self) -> &engine::Engine {
        &self.shared.engine
    }
}

#[cfg(test)]
mod tests;
