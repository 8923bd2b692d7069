//! A worker: its own thread, runtime, sockets and upstream pools. What it shares with others it
//! only reads.

use std::{io, sync::Arc, thread::JoinHandle};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, watch},
};

use super::supervisor::Pulse;
use crate::{
    assertion::Keyring,
    fence::{Participant, Registry},
    metrics::WorkerMetrics,
    net::{self, Budgets, Draining, Limits, Listener, Worker},
    proxy::{
        BadTokens, Counts, Gateway, Issuers, LastUsedTable, Parts, TokenLookup, Upstreams,
        access_log::AccessLog, refusals::RefusalSender,
    },
    state::State,
};

/// All that goes into a worker's thread.
pub struct Seed {
    pub listeners: Vec<Listener>,
    pub participant: Participant,
    pub state: Arc<State>,
    pub metrics: WorkerMetrics,
    pub log: Arc<AccessLog>,
    pub uses: Arc<LastUsedTable>,
    pub refusals: RefusalSender,
    pub bad_tokens: Arc<BadTokens>,
    pub records: Arc<dyn TokenLookup>,
    pub issuers: Arc<Issuers>,
    pub keyring: Arc<Keyring>,
    pub upstreams: Arc<Upstreams>,
    pub counts: Arc<Counts>,
    pub budgets: Arc<Budgets>,
    pub limits: watch::Receiver<Limits>,
    pub draining: Draining,
    /// Where somebody watches.
    pub pulse: Option<Pulse>,
    /// Told once every listener accepts.
    pub serving: std::sync::mpsc::Sender<()>,
}

/// A worker has ended: drained, or by what went wrong.
pub type Exit = Result<(), String>;

/// Tells of its end even when the thread panics.
struct Farewell {
    exits: mpsc::UnboundedSender<Exit>,
    exit: Exit,
}

pub fn spawn(number: usize, seed: Seed, exits: mpsc::UnboundedSender<Exit>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        let mut farewell = Farewell { exits, exit: Err(format!("worker {number} died")) };
        farewell.exit = run(seed).map_err(|error| format!("worker {number} cannot serve: {error}"));
    })
}

fn run(seed: Seed) -> io::Result<()> {
    // Its tasks never leave the thread, and no `LocalSet` stands between them and the runtime.
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(serve(seed))
}

async fn serve(seed: Seed) -> io::Result<()> {
    let mut limits = seed.limits;
    let worker = Worker::new(limits.borrow_and_update().clone(), seed.budgets);
    let registry = Registry::new(seed.participant);
    tokio::task::spawn_local(registry.clone().run());
    let gateway = Gateway::new(Parts {
        state: seed.state,
        registry,
        metrics: seed.metrics,
        log: seed.log.writer(),
        uses: seed.uses,
        refusals: seed.refusals,
        bad_tokens: seed.bad_tokens,
        records: seed.records,
        issuers: seed.issuers,
        keyring: seed.keyring,
        upstreams: seed.upstreams,
        counts: seed.counts,
    });
    let following = worker.clone();
    tokio::task::spawn_local(async move {
        while limits.changed().await.is_ok() {
            following.set_limits(limits.borrow_and_update().clone());
        }
    });
    let doors: Vec<_> = seed
        .listeners
        .into_iter()
        .map(|listener| {
            let served = net::serve(worker.clone(), listener, gateway.clone(), seed.draining.clone());
            tokio::task::spawn_local(served)
        })
        .collect();
    if let Some(pulse) = seed.pulse {
        tokio::task::spawn_local(pulse.keep(worker.clock().clone()));
    }
    let _ = seed.serving.send(());
    drop(seed.serving);
    for door in doors {
        door.await.map_err(io::Error::other)??;
    }
    Ok(())
}

impl Drop for Farewell {
    fn drop(&mut self) {
        let _ = self.exits.send(std::mem::replace(&mut self.exit, Ok(())));
    }
}
