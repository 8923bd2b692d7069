//! Shares the process's budgets of sockets and tunnels among upstreams. An upstream that takes all it can get
//! leaves some for the others.

use std::{rc::Rc, sync::Arc};

use tokio::{
    sync::Notify,
    task::{AbortHandle, spawn_local},
};

use crate::{
    net::{Budgets, Holder, Reservation},
    proxy::upstream::{
        admission::{SharedLimit, YieldNotifier},
        endpoint::Endpoint,
    },
};

/// One per process.
pub struct Sockets {
    budgets: Arc<Budgets>,
    yielders: YieldNotifier,
}

/// One upstream's part of the budgets.
#[derive(Clone)]
pub struct UpstreamSockets {
    all: Arc<Sockets>,
    sockets: Holder,
    tunnels: Holder,
}

/// One upstream may hold this many times what is left for all others, so an eighth always remains.
const HOLDER_MULTIPLE: usize = 7;

impl Sockets {
    pub fn new(budgets: Arc<Budgets>) -> Arc<Self> {
        Arc::new(Self { budgets, yielders: YieldNotifier::default() })
    }

    /// Sets the number of upstreams that share the budgets. A single one may take everything.
    pub fn set_upstreams(&self, count: usize) {
        let multiple = if count > 1 { HOLDER_MULTIPLE } else { 0 };
        self.budgets.upstream_connections.set_multiple(multiple);
        self.budgets.tunnels.set_multiple(multiple);
    }

    pub fn of_upstream(self: &Arc<Self>) -> UpstreamSockets {
        UpstreamSockets { all: self.clone(), sockets: Holder::default(), tunnels: Holder::default() }
    }
}

impl UpstreamSockets {
    /// Takes a socket for a connection to the upstream. `None`: the budget is exhausted.
    pub fn take(&self) -> Option<Reservation> {
        self.all.budgets.upstream_connections.take(&self.sockets, 1)
    }

    pub fn take_tunnel(&self) -> Option<Reservation> {
        self.all.budgets.tunnels.take(&self.tunnels, 1)
    }

    /// Whether no socket is left for any upstream.
    pub fn is_exhausted(&self) -> bool {
        self.all.budgets.upstream_connections.left() <= 1
    }

    /// The workers to notify when idle connections should release their sockets.
    pub fn yielders(&self) -> &YieldNotifier {
        &self.all.yielders
    }
}

/// Spawns the task that closes an idle connection when notified. A request that waits on another worker or
/// for another URL cannot use a connection that is idle here, but it can use its permit or socket.
pub fn yield_idle(
    limit: Option<Arc<SharedLimit>>,
    sockets: UpstreamSockets,
    endpoints: Vec<Rc<Endpoint>>,
) -> AbortHandle {
    let asked = Arc::new(Notify::new());
    sockets.yielders().add(&asked);
    if let Some(limit) = &limit {
        limit.yielders().add(&asked);
    }
    let task = spawn_local(async move {
        loop {
            asked.notified().await;
            if sockets.is_exhausted() || limit.as_ref().is_some_and(|limit| limit.waiting() > 0) {
                let _ = endpoints.iter().any(|endpoint| endpoint.close_one());
            }
        }
    });
    task.abort_handle()
}
