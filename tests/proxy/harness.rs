//! A gateway with one worker, a service at `/api` and a token for it, between a scripted
//! upstream and a client that sends raw bytes.

pub mod frames;
mod raw_connection;
mod server;

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Weak},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use permgate::{
    assertion::{self, Keyring},
    authz::{
        accounts::{Accounts, UserKind, UserRecord, compile},
        rules::{
            Origin as ConfigOrigin, PublicPath, PublicSpec, ReadMethod, Rules, ServiceIds, ServiceKey,
            ServiceSpec, Settings as RuleSettings,
        },
        secret::{Digest, TokenId, TokenText},
        subject::{Access, Directory, Restrictions, Scope, Token, TokenEnd, UserIx},
        time::Timestamp,
    },
    fence::{ACKNOWLEDGE_TIMEOUT, Affected, Cut, Fence, Registry},
    metrics::{Format, Metrics, Readings},
    net::{Address, Budgets, Drain, Limits, Worker, bind, drain, serve},
    proxy::{
        BadTokens, Gateway, LastUsedTables, Parts, TokenLookup, Upstreams,
        access_log::{AccessLog, LogTarget},
        refusals::{self, Refusals},
    },
    settings::{ProxySettings, UpstreamSettings, UpstreamUrl},
    state::{Snapshot, State},
    store::{ReadError, model::TokenRecord},
};
use serde_json::Value;

pub use crate::wait::eventually;
pub use raw_connection::{CloseKind, Origin, RawConnection, field, fields, nobody, status};
pub use server::Server;

/// The configuration of a gateway before it starts.
pub struct Setup {
    pub upstream: UpstreamSettings,
    pub settings: ProxySettings,
    pub rules: RuleSettings,
    pub service: ServiceSpec,
    pub public: Vec<PublicSpec>,
    pub limits: Limits,
    pub assertion: Option<assertion::Settings>,
    pub upstreams: Arc<Upstreams>,
}

pub struct Gate {
    pub address: SocketAddr,
    pub state: Arc<State>,
    pub fence: Arc<Fence>,
    pub budget: Arc<Budgets>,
    pub metrics: Arc<Metrics>,
    pub uses: Arc<LastUsedTables>,
    pub keyring: Arc<Keyring>,
    pub refusals: RefCell<Refusals>,
    pub bearer: String,
    pub digest: Digest,
    pub user: UserIx,
    token: Token,
    log: PathBuf,
    rows_read: Cell<usize>,
    _directory: tempfile::TempDir,
    drain: Option<Drain>,
    worker: Option<JoinHandle<()>>,
}

pub fn config_origin() -> ConfigOrigin {
    ConfigOrigin { file: "gateway.toml".into(), line: 1 }
}

/// A store with one token of Alice's.
struct Recorded(TokenRecord);

impl TokenLookup for Recorded {
    fn find(&self, token: TokenId) -> Result<Option<(TokenRecord, UserKind)>, ReadError> {
        Ok((self.0.id == token).then(|| (self.0.clone(), UserKind::Human)))
    }
}

fn record(id: TokenId, digest: Digest) -> TokenRecord {
    TokenRecord {
        id,
        digest,
        imported: false,
        owner: ALICE.into(),
        author: None,
        name: "nightly".into(),
        note: String::new(),
        scope: vec![("gone".into(), Access::Full), ("main".into(), Access::Full)],
        allow_ips: Vec::new(),
        created_at: Timestamp::from_millis(0),
        not_before: None,
        expires_at: None,
        last_used: None,
        revoked: None,
        rotation: None,
        family: id,
        revision: 1,
    }
}

const ALICE: &str = "0190a000-0000-7000-8000-000000000001";

/// An upstream with the default of every setting.
fn origin(urls: &[SocketAddr]) -> UpstreamSettings {
    let text = "version = 1\n[upstream.origin]\nurls = [\"http://origin.test\"]\n";
    let config = permgate::config::parse(text, std::path::Path::new("gateway.toml")).unwrap();
    let urls = urls.iter().map(|at| UpstreamUrl::parse(&format!("http://{at}")).unwrap().into());
    UpstreamSettings { urls: urls.collect(), ..config.proxy.upstreams["origin"].as_ref().clone() }
}

impl Setup {
    pub fn to(upstreams: &[SocketAddr]) -> Self {
        let reading = |name: &str| ReadMethod { method: name.parse().unwrap(), prefix: None };
        Self {
            upstream: origin(upstreams),
            settings: ProxySettings::default(),
            rules: RuleSettings { perm_alias: true, trusted_proxies: Default::default() },
            service: ServiceSpec {
                title: "Main".into(),
                upstream: "origin".into(),
                read_methods: ["GET", "HEAD", "OPTIONS"].map(reading).into(),
                ..crate::spec::service("main", &["/api"], &["all-users"])
            },
            public: Vec::new(),
            limits: Limits::default(),
            assertion: None,
            upstreams: Upstreams::new(Budgets::for_process()),
        }
    }

    pub fn public(mut self, prefix: &str) -> Self {
        self.public.push(PublicSpec {
            service: ServiceKey::parse("main").unwrap(),
            methods: None,
            path: PublicPath::Prefix(prefix.into()),
            origin: config_origin(),
        });
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn snapshot(self) -> Snapshot {
        let mut ids = ServiceIds::default();
        let rules = Rules::compile(vec![self.service], self.public, self.rules, &mut ids).unwrap();
        let mut accounts = Accounts::new();
        accounts.put_user(UserRecord {
            id: ALICE.into(),
            login: "alice".into(),
            name: "Alice".into(),
            email: None,
            kind: UserKind::Human,
            password: None,
            banned: None,
            created_at: Timestamp::from_millis(0),
            deleted_at: None,
            revision: 1,
        });
        let directory = Arc::new(compile(&accounts, &rules));
        let mut settings = self.settings;
        settings.upstreams.insert("origin".into(), Arc::new(self.upstream));
        Snapshot { rules: Arc::new(rules), directory, proxy: Arc::new(settings) }
    }

    pub fn start(self) -> Gate {
        let limits = self.limits.clone();
        let keyring = Arc::new(Keyring::default());
        if let Some(assertion) = &self.assertion {
            keyring.update_keys(assertion, SystemTime::now().into()).unwrap();
        }
        let upstreams = self.upstreams.clone();
        let snapshot = self.snapshot();
        let service = snapshot.rules.service_by_key("main").unwrap().id;
        let user = snapshot.directory.by_login["alice"];
        let state = State::new(snapshot);
        let (id, text) = TokenText::generate(None, &mut |bytes| getrandom::fill(bytes).unwrap());
        let token = Token {
            id,
            owner: user,
            scope: Scope::new([(service, Access::Full)]).unwrap(),
            expires_at: None,
            restrictions: Restrictions::NONE,
        };
        let digest = text.digest();
        state.index().put(digest, token.clone());

        let record = record(id, digest);
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("access.log");
        let metrics = Metrics::new(Arc::default());
        let access_log = AccessLog::start(LogTarget::File(log.clone()), metrics.clone()).unwrap();
        let _ = metrics.upstream_readings.set(upstreams.clone());
        let (sender, refusals) = refusals::channel(metrics.clone());
        let (fence, uses, budget) =
            (Fence::new(ACKNOWLEDGE_TIMEOUT), Arc::<LastUsedTables>::default(), Budgets::for_process());
        let bound = bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let Address::Tcp(address) = bound.local().unwrap() else { unreachable!() };
        let listener = bound.listener().unwrap();
        let (drain, draining) = drain();
        let worker = {
            let (participant, budget) = (fence.join(), budget.clone());
            let parts = Parts {
                state: state.clone(),
                metrics: metrics.clone(),
                log: access_log,
                uses: uses.clone(),
                refusals: sender,
                bad_tokens: Arc::<BadTokens>::default(),
                records: Arc::new(Recorded(record)),
                issuers: Arc::default(),
                keyring: keyring.clone(),
                upstreams,
                counts: Arc::default(),
            };
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                tokio::task::LocalSet::new().block_on(&runtime, async move {
                    let worker = Worker::new(limits, budget);
                    let registry = Registry::new(participant);
                    let care = parts.upstreams.clone().maintain(parts.state.clone(), worker.clock().clone());
                    tokio::task::spawn_local(care);
                    tokio::task::spawn_local(registry.clone().run());
                    let gateway = Gateway::new(parts, registry);
                    serve(worker, listener, gateway, draining).await.unwrap();
                });
            })
        };
        Gate {
            address,
            state,
            fence,
            budget,
            metrics,
            uses,
            keyring,
            refusals: refusals.into(),
            bearer: text.expose().to_owned(),
            digest,
            user,
            token,
            log,
            rows_read: Cell::new(0),
            _directory: directory,
            drain: Some(drain),
            worker: Some(worker),
        }
    }
}

impl Gate {
    pub fn client(&self) -> RawConnection {
        RawConnection::to(self.address)
    }

    /// A request head with the token and these lines; without a body unless the lines declare one.
    pub fn request(&self, line: &str, fields: &[&str]) -> String {
        let bearer = &self.bearer;
        let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        format!("{line} HTTP/1.1\r\nHost: gate.example\r\nAuthorization: Bearer {bearer}\r\n{fields}\r\n")
    }

    /// A client that has sent a GET for `/api/x`.
    pub fn client_with_get(&self) -> RawConnection {
        let mut client = self.client();
        client.send(self.request("GET /api/x", &[]));
        client
    }

    /// Publishes the revocation as the store does, raises the fence and waits for it.
    pub fn revoke(&self) -> Cut {
        let mut revoked = self.token.clone();
        revoked.restrictions.end = TokenEnd::Revoked;
        self.state.index().put(self.digest, revoked);
        self.raise_fence(Affected::Token(self.digest))
    }

    pub fn restore(&self) {
        self.state.index().put(self.digest, self.token.clone());
    }

    pub fn change_token(&self, change: impl FnOnce(&mut Token)) {
        let mut token = self.token.clone();
        change(&mut token);
        self.state.index().put(self.digest, token);
    }

    pub fn reload(&self, setup: Setup) -> Cut {
        self.state.publish(setup.snapshot());
        self.raise_fence(Affected::All)
    }

    /// Publishes a new directory with the same contents. Returns the one before.
    pub fn renew_directory(&self) -> Weak<Directory> {
        let Snapshot { rules, directory, proxy } = (*self.state.snapshot()).clone();
        let renewed = Arc::new((*directory).clone());
        self.state.publish(Snapshot { rules, directory: renewed, proxy });
        Arc::downgrade(&directory)
    }

    fn raise_fence(&self, affected: Affected) -> Cut {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let ticket = self.fence.raise(affected);
        runtime.block_on(ticket.wait()).unwrap()
    }

    pub fn live(&self) -> usize {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(self.fence.list()).len()
    }

    /// The page of metrics.
    pub fn metrics_text(&self) -> String {
        let readings = Readings { tokens: 0, imported: 0, writable: true, ready: true, cluster: None };
        self.metrics.encode(readings, Format::Prometheus).unwrap()
    }

    /// Begins a drain with this deadline for requests under way.
    pub fn drain(&self, within: Duration) {
        self.drain.as_ref().unwrap().begin(Instant::now() + within);
    }

    /// Waits for the next line of the access log.
    pub fn line(&self) -> Value {
        let row = self.rows_read.get();
        let mut found = None;
        eventually("a line in the access log", || {
            let text = std::fs::read_to_string(&self.log).unwrap();
            found =
                text.split_inclusive('\n').nth(row).filter(|line| line.ends_with('\n')).map(str::to_owned);
            found.is_some()
        });
        self.rows_read.set(row + 1);
        serde_json::from_str(&found.unwrap()).unwrap()
    }

    /// The value of a sample in the metrics.
    pub fn gauge(&self, sample: &str) -> Option<u64> {
        self.metrics_text()
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Outcome, reason and status of the next line.
    pub fn next_outcome(&self) -> (String, String, u64) {
        let line = self.line();
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        (text("outcome"), text("reason"), line["status"].as_u64().unwrap())
    }

    /// Waits until no request is live and no client is connected.
    pub fn wait_until_empty(&self) {
        eventually("no connection is left", || self.budget.open() == 0);
        assert_eq!(self.live(), 0, "an exchange has not left the live registry");
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.drain.take().unwrap().begin(Instant::now());
        let ended = self.worker.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}
