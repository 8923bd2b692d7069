//! What lasts: users, groups, roles, grants, tokens, the audit log. Domain verbs over an engine;
//! one writer thread, which is also the only publisher.
//!
//! Every verb that changes something answers when the change is durable, published, and the fence
//! stands; an error says what was refused and that nothing changed, but for the two of
//! [`ChangeError`] that say otherwise.

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
pub mod model;
mod op;
mod read;
pub mod record;
mod released;
mod replica;
pub mod restore;
mod sessions;
mod state;
mod verbs;
pub mod verify;
mod writer;

pub use audit::{Verified, VerifyError};
pub use change::{
    Actor, ChangeError, Configuration, CreatedToken, Exchanged, GrantTarget, GroupEdit, Idempotency,
    ImportedToken, NewSession, NewToken, NewUser, Nodes, Page, Policy, ProvidedSession, ReadError,
    Registered, RoleEdit, Settings, TokenEdit, TokenFilter, TokenState, Updated, UserEdit, Who,
};
pub use load::OpenError;
pub use sessions::{ABSOLUTE, IDLE, SeenSession};

pub use crate::authz::administration::{AdminError, AdminErrorCode};

/// Whether something of a store lies there, sound or not, or where this user may not look.
pub fn is_at(settings: &Settings) -> bool {
    let there = match settings.path.join(generation::CURRENT).try_exists() {
        Ok(there) => there,
        Err(error) => error.kind() == std::io::ErrorKind::PermissionDenied,
    };
    there || released::is_at(&settings.path)
}

/// A handle to the writer thread and to the engine's reads. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    shared: Arc<writer::Shared>,
    queue: writer::Queue,
}

impl Store {
    /// Opens or creates, scans into the index, publishes the first snapshot, starts the writer
    /// thread. Takes the lock first: a second process is refused with a clear error.
    pub fn open(
        settings: &Settings,
        configuration: Configuration,
        fence: Arc<Fence>,
    ) -> Result<(Store, Arc<State>), OpenError> {
        load::open(settings, configuration, fence, Arc::new(load::wall_clock))
    }

    /// What the writer counts, for the scrape.
    pub fn metrics(&self) -> Arc<StoreMetrics> {
        self.shared.metrics.clone()
    }

    /// This node in its cluster; `None`: it is alone.
    pub fn node(&self) -> Option<&Arc<cluster::Node>> {
        self.shared.node.as_ref()
    }

    /// Up to where the log is applied here.
    #[cfg(feature = "etcd")]
    pub(crate) fn head(&self) -> log::Head {
        self.engine().replica().head()
    }

    /// Whether changes are taken; `Err` says why not.
    pub fn writable(&self) -> Result<(), String> {
        match self.shared.close_reason() {
            Some(reason) => Err(reason),
            None if self.queue.is_closed() => Err("the writer thread has ended".into()),
            None => Ok(()),
        }
    }

    /// Resolves when the writer thread has ended: after [`Store::close`], or by a panic. Then not even
    /// a removal takes effect any more, so a process that goes on serving is not sound.
    pub async fn ended(&self) {
        self.queue.closed().await;
    }

    /// The store as it is now, as a stream that [`restore::offline`] reads; changes go on meanwhile.
    /// Blocks: not for a worker or the control runtime.
    pub fn backup(
        &self,
        out: &mut dyn std::io::Write,
        tell: &mut dyn FnMut(backup::Progress),
    ) -> Result<(backup::Header, backup::Progress), backup::BackupError> {
        let mut told = |progress| {
            tell(progress);
            ControlFlow::Continue(())
        };
        let (_, header, progress) =
            backup::write(self.engine().replica(), (self.shared.clock)(), out, &mut told)?;
        Ok((header, progress))
    }

    pub(crate) fn engine(&self) -> &engine::Engine {
        &self.shared.engine
    }
}

#[cfg(test)]
mod tests;
