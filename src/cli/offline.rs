//! `--offline`: the admin API in this process, on a store that it opens itself. Commands obey the same rules
//! and write the same audit log as with a gateway.

use std::{
    cell::OnceCell,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use tokio::{runtime::Runtime, task::LocalSet};

use super::{
    Global,
    client::ApiResponse,
    failure::{Failure, chain},
    owner::{StoreOwner, with_owner_advice},
    target,
};
use crate::{
    admin::{self, Context, MetricsAccess, Parts, Server},
    authz::{forwarding::TrustedProxies, secret::Digest},
    config::Config,
    fence::{ACKNOWLEDGE_TIMEOUT, Fence},
    metrics::Metrics,
    net::{Budgets, Connection, Peer, RequestBody, Service},
    store::{self, Actor, Store, model::LastUsed},
};

pub(super) struct Offline {
    config: Config,
    /// Opened by the first call. A call that only reads does not create a store.
    opened: OnceCell<Opened>,
}

struct Opened {
    runtime: Runtime,
    tasks: LocalSet,
    server: Rc<Server>,
    store: Store,
    uid: u32,
    /// Dropped last.
    _owner: StoreOwner,
}

impl Offline {
    pub(super) fn new(global: &Global) -> Result<Self, Failure> {
        Ok(Self { config: target::load(global.config())?, opened: OnceCell::new() })
    }

    /// The store; fails if there is none.
    pub(super) fn store(&self) -> Result<&Store, Failure> {
        Ok(&self.open(false)?.store)
    }

    fn open(&self, may_create: bool) -> Result<&Opened, Failure> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        if !may_create && !store::exists(&self.config.store) {
            let path = self.config.store.path.display();
            let advice = "[store] path names it, and `permgate run` makes one";
            return Err(Failure::usage(format!("there is no store in {path}; {advice}")));
        }
        let opened = Opened::new(&self.config)?;
        Ok(self.opened.get_or_init(|| opened))
    }

    pub(super) fn send(&self, request: Request<Bytes>) -> Result<ApiResponse, Failure> {
        let asks = request.method() == Method::GET || request.uri().path() == "/v1/explain";
        self.open(!asks)?.send(request)
    }
}

impl Opened {
    fn new(config: &Config) -> Result<Self, Failure> {
        let owner = StoreOwner::detect(&config.store.path);
        let fence = Fence::new(ACKNOWLEDGE_TIMEOUT);
        let configuration = config.configuration();
        let (store, state) = Store::open(&config.store, configuration, fence.clone())
            .map_err(|error| with_owner_advice(Failure::failed(chain(&error)), &config.store.path))?;
        // The operator is the user of this process, who can read the store's files.
        let uid = rustix::process::geteuid().as_raw();
        let context = Context::new(Parts {
            metrics: Metrics::new(Arc::default()),
            store: store.clone(),
            state,
            fence,
            uses: Arc::new(NoGateway),
            configuration: Arc::new(NoGateway),
            ready: Arc::new(AtomicBool::new(false)),
            hosts: Vec::new(),
            sign_in: config.admin.sign_in.clone(),
            trusted_proxies: TrustedProxies::default(),
            metrics_access: MetricsAccess::default(),
            budgets: Budgets::for_process(),
            own_uid: uid,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tasks = LocalSet::new();
        let server = tasks.block_on(&runtime, async { Server::new(context) });
        Ok(Self { runtime, tasks, server, store, uid, _owner: owner })
    }

    fn send(&self, mut request: Request<Bytes>) -> Result<ApiResponse, Failure> {
        let length = request.body().len().into();
        request.headers_mut().insert(header::CONTENT_LENGTH, length);
        self.tasks.block_on(&self.runtime, async {
            let connection = Rc::new(Connection::detached(Peer::Unix { uid: self.uid, pid: None }));
            let request = Box::new(request.map(RequestBody::full));
            let response = self.server.clone().call(request, connection).await;
            let status = response.status();
            let body = response.into_body().collect().await;
            let body = body.map_err(|_| Failure::failed("the response ended early"))?.to_bytes();
            Ok(ApiResponse::new(status, &body))
        })
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.tasks.block_on(&self.runtime, self.store.close());
    }
}

/// Stands for the workers, which do not run here, and for the configuration, which cannot be reloaded.
struct NoGateway;

impl admin::UsageTracker for NoGateway {
    fn last(&self, _: &Digest) -> Option<LastUsed> {
        None
    }

    fn note(&self, _: &Digest, _: LastUsed) {}

    fn refused(&self, _: admin::RefusedRequest<'_>) {}
}

impl admin::Configuration for NoGateway {
    fn text(&self) -> String {
        String::new()
    }

    fn check(&self, _: &str, _: bool) -> Result<(), Vec<admin::ConfigurationError>> {
        Err(vec![none()])
    }

    fn reload(self: Arc<Self>, _: Actor) -> admin::Reloading {
        Box::pin(async { Err(admin::ReloadError::Invalid(vec![none()])) })
    }
}

fn none() -> admin::ConfigurationError {
    let message =
        "no gateway runs with --offline: `permgate check` validates the file, and the next start reads it"
            .to_owned();
    admin::ConfigurationError { file: String::new(), line: None, column: None, message }
}
