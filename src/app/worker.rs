//! A worker: its own thread, runtime, sockets and upstream pools. It only reads what it shares with other
//! workers.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::JoinHandle,
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::{mpsc, watch},
};

use super::supervisor::Heartbeat;
use crate::{
    fence::{Participant, Registry},
    net::{self, Budgets, Draining, Limits, Listener, Worker},
    proxy::{self, Gateway},
};

/// Everything that a worker's thread needs.
pub struct WorkerParts {
    pub listeners: Vec<Listener>,
    pub participant: Participant,
    pub gateway: proxy::Parts,
    pub budgets: Arc<Budgets>,
    pub limits: watch::Receiver<Limits>,
    pub draining: Draining,
    /// Set if there is a watchdog.
    pub heartbeat: Option<Heartbeat>,
    /// Notified when every listener accepts.
    pub serving: std::sync::mpsc::Sender<()>,
}

/// How a worker ended: drained, or with an error.
pub type Exit = Result<(), String>;

/// Starts the thread. Its end is reported to `exits`, even a panic.
pub fn spawn(
    number: usize,
    parts: WorkerParts,
    exits: mpsc::UnboundedSender<Exit>,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        let exit = match catch_unwind(AssertUnwindSafe(|| run(parts))) {
            Ok(ended) => ended.map_err(|error| format!("worker {number} cannot serve: {error}")),
            Err(_) => Err(format!("worker {number} died")),
        };
        let _ = exits.send(exit);
    })
}

fn run(parts: WorkerParts) -> io::Result<()> {
    // Tasks never leave the thread, and need no `LocalSet` on top of the runtime.
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(serve(parts))
}

async fn serve(parts: WorkerParts) -> io::Result<()> {
    let mut limits = parts.limits;
    let worker = Worker::new(limits.borrow_and_update().clone(), parts.budgets);
    let registry = Registry::new(parts.participant);
    tokio::task::spawn_local(registry.clone().run());
    let gateway = Gateway::new(parts.gateway, registry);
    let following = worker.clone();
    tokio::task::spawn_local(async move {
        while limits.changed().await.is_ok() {
            following.set_limits(limits.borrow_and_update().clone());
        }
    });
    let listeners: Vec<_> = parts
        .listeners
        .into_iter()
        .map(|listener| {
            let served = net::serve(worker.clone(), listener, gateway.clone(), parts.draining.clone());
            tokio::task::spawn_local(served)
        })
        .collect();
    if let Some(heartbeat) = parts.heartbeat {
        tokio::task::spawn_local(heartbeat.keep(worker.clock().clone()));
    }
    let _ = parts.serving.send(());
    drop(parts.serving);
    for listener in listeners {
        listener.await.map_err(io::Error::other)??;
    }
    Ok(())
}
