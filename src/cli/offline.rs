//! `--offline`: the admin API on a store that this process opens itself, so that every verb obeys
//! the same rules and writes the same audit log with a gateway and without.

use std::{
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::{runtime::Runtime, task::LocalSet};

use super::{
    Global,
    client::Answer,
    failure::{Failure, chain},
    target,
};
use crate::{
    admin::{self, Context, MetricsAccess, Parts, Server},
    authz::{forwarding::TrustedProxies, secret::Digest},
    fence::{ACKNOWLEDGE_TIMEOUT, Fence},
    metrics::Metrics,
    net::{Budgets, Connection, Peer, RequestBody, Service},
    store::{Actor, Store, model::LastUsed},
};

pub(super) struct Offline {
    runtime: Runtime,
    tasks: LocalSet,
    server: Rc<Server>,
    store: Store,
    uid: u32,
}

impl Offline {
    pub(super) fn open(global: &Global) -> Result<Self, Failure> {
        let config = target::load(global.config())?;
        let fence = Fence::new(ACKNOWLEDGE_TIMEOUT);
        let configuration = config.configuration();
        let (store, state) = Store::open(&config.store, configuration, fence.clone())
            .map_err(|error| Failure::failed(chain(&error)))?;
        // The operator is who may read the store's files: who runs this.
        let uid = rustix::process::geteuid().as_raw();
        let context = Context::new(Parts {
            metrics: Metrics::new(Arc::default()),
            store: store.clone(),
            state,
            fence,
            uses: Arc::new(Nothing),
            configuration: Arc::new(Nothing),
            ready: Arc::new(AtomicBool::new(false)),
            hosts: Vec::new(),
            sign_in: config.admin.sign_in.clone(),
            trusted_proxies: TrustedProxies::default(),
            metrics_access: MetricsAccess::default(),
            bodies: Budgets::of_process().bodies.clone(),
            own_uid: uid,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tasks = LocalSet::new();
        let server = tasks.block_on(&runtime, async { Server::new(context) });
        Ok(Self { runtime, tasks, server, store, uid })
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    pub(super) fn send(&self, method: &Method, path: &str, body: Option<&Value>) -> Result<Answer, Failure> {
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONTENT_LENGTH, bytes.len())
            .body(RequestBody::full(bytes))
            .map_err(|error| Failure::usage(format!("{path:?} cannot be asked for: {error}")))?;
        self.tasks.block_on(&self.runtime, async {
            let connection = Rc::new(Connection::detached(Peer::Unix { uid: self.uid, pid: None }));
            let response = self.server.clone().call(Box::new(request), connection).await;
            let status = response.status();
            let body = response.into_body().collect().await;
            let body = body.map_err(|_| Failure::failed("the response broke off"))?.to_bytes();
            Ok(Answer::new(status, &body))
        })
    }
}

impl Drop for Offline {
    fn drop(&mut self) {
        self.tasks.block_on(&self.runtime, self.store.close());
    }
}

/// No worker runs here, so none knows more than the store; and there is nothing to reload.
struct Nothing;

impl admin::UsageTracker for Nothing {
    fn last(&self, _: &Digest) -> Option<LastUsed> {
        None
    }

    fn note(&self, _: &Digest, _: LastUsed) {}

    fn refused(&self, _: admin::RefusedRequest<'_>) {}
}

impl admin::Configuration for Nothing {
    fn text(&self) -> String {
        String::new()
    }

    fn check(&self, _: &str, _: bool) -> Result<(), Vec<admin::ConfigurationError>> {
        Err(vec![none()])
    }

    fn reload(&self, _: Actor) -> admin::Reloading {
        Box::pin(async { Err(admin::ReloadError::Invalid(vec![none()])) })
    }
}

fn none() -> admin::ConfigurationError {
    let message = "no gateway runs here: `permgate check` validates, the next start reads".to_owned();
    admin::ConfigurationError { file: String::new(), line: None, column: None, message }
}
