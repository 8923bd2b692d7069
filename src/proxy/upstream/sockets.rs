//! What upstreams have of the process's budgets: sockets and tunnels. One that takes all that it can get
//! leaves some for the others.

use std::{rc::Rc, sync::Arc};

use tokio::{
    sync::Notify,
    task::{AbortHandle, spawn_local},
};

use crate::{
    net::{Budgets, Holder, Reservation},
    proxy::upstream::{
        admission::{SharedLimit, Yielders},
        endpoint::Endpoint,
    },
};

/// One per process.
pub struct Sockets {
    budgets: Arc<Budgets>,
    yielders: Yielders,
}

/// One upstream's part.
#[derive(Clone)]
pub struct UpstreamSockets {
    all: Arc<Sockets>,
    sockets: Holder,
    tunnels: Holder,
}

/// How many times what is left for all others one upstream may have: an eighth always remains.
const MULTIPLE: usize = 7;

impl Sockets {
    pub fn new(budgets: Arc<Budgets>) -> Arc<Self> {
        Arc::new(Self { budgets, yielders: Yielders::default() })
    }

    /// So many upstreams share the budgets. One alone may have everything.
    pub fn set_upstreams(&self, count: usize) {
        let multiple = if count > 1 { MULTIPLE } else { 0 };
        self.budgets.upstream_connections.set_multiple(multiple);
        self.budgets.tunnels.set_multiple(multiple);
    }

    pub fn of_upstream(self: &Arc<Self>) -> UpstreamSockets {
        UpstreamSockets { all: self.clone(), sockets: Holder::default(), tunnels: Holder::default() }
    }
}

impl UpstreamSockets {
    /// For a connection to the upstream.
    pub fn take(&self) -> Option<Reservation> {
        self.all.budgets.upstream_connections.take(&self.sockets, 1)
    }

    pub fn take_tunnel(&self) -> Option<Reservation> {
        self.all.budgets.tunnels.take(&self.tunnels, 1)
    }

    /// Whether nobody gets a socket any more.
    pub fn is_exhausted(&self) -> bool {
        self.all.budgets.upstream_connections.left() <= 1
    }

    /// What is notified when idle connections are to give up their sockets.
    pub fn yielders(&self) -> &Yielders {
        &self.all.yielders
    }
}

/// A request that waits on another worker, or for another url, cannot use a connection that is idle
/// here, but it can use the permit or the socket.
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
