//! An admin listener on a free port and on a unix socket, with its store in a temporary directory, and
//! stand-ins for what the composition root provides.

use std::{
    collections::HashMap,
    net::SocketAddr,
    num::NonZeroU32,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use permgate::{
    admin::{self, ConfigurationError, MetricsAccess, RefusedRequest, ReloadError, Reloading},
    authz::{
        forwarding::TrustedProxies,
        reason::Reason,
        rules::{Origin, ReadMethod, ServiceSpec, Settings as RuleSettings},
        secret::Digest,
    },
    fence::{ACKNOWLEDGE_TIMEOUT, Fence},
    metrics::Metrics,
    net::{Address, BudgetLimits, Budgets, Drain, Limits, Machine, Worker, bind, drain, serve},
    settings::Rate,
    store::{Actor, ActorKind, Configuration, Policy, Settings, Store, model::LastUsed},
};
use serde_json::{Value, json};

use crate::exchange::{Answer, Request};

pub const PASSWORD: &str = "correct horse battery staple";

/// A service's key, prefixes and readers.
pub type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

/// The services of the decision vectors.
pub const SERVICES: [Row; 6] = [
    ("youtrack", &["/api", "/rest"], &["developers", "support", "bots"]),
    ("hub", &["/hub/api", "/hub/rest"], &["developers"]),
    ("reports", &["/api/reports"], &["auditors"]),
    ("wiki", &["/wiki"], &["all-users"]),
    ("vault", &["/vault"], &[]),
    ("status", &["/status"], &["all-users"]),
];

pub struct Fixture {
    _dir: tempfile::TempDir,
    pub address: SocketAddr,
    pub socket: PathBuf,
    pub store: Store,
    pub ready: Arc<AtomicBool>,
    pub around: Arc<Around>,
    pub budgets: Arc<Budgets>,
    max_lifetime: Option<Duration>,
    senders: Mutex<HashMap<String, Credentials>>,
    drain: Option<Drain>,
    thread: Option<JoinHandle<()>>,
}

/// The credentials of a request.
#[derive(Clone)]
pub enum Credentials {
    Anonymous,
    Bearer(String),
    Operator,
    /// A browser that has signed in.
    Browser(Browser),
}

/// What a signed-in browser sends.
#[derive(Clone, Debug)]
pub struct Browser {
    /// `NAME=VALUE`.
    pub cookie: String,
    pub csrf: String,
}

/// Stand-ins for what the composition root provides.
#[derive(Default)]
pub struct Around {
    pub uses: Mutex<HashMap<[u8; 32], LastUsed>>,
    pub refused: Mutex<Vec<(Option<String>, Reason)>>,
    /// The result of the next reload: services, or an error of the file.
    pub file: Mutex<Option<Result<Vec<Row>, ConfigurationError>>>,
    /// If set, the next reload waits for it.
    pub hold: Mutex<Option<Arc<tokio::sync::Notify>>>,
    store: OnceLock<Store>,
}

impl Fixture {
    pub fn start() -> Self {
        Self::with(None)
    }

    pub fn with(max_lifetime: Option<Duration>) -> Self {
        Self::signed_in_by(max_lifetime, admin::SignIn::default())
    }

    pub fn signed_in_by(max_lifetime: Option<Duration>, sign_in: admin::SignIn) -> Self {
        Self::new(max_lifetime, sign_in, None)
    }

    /// With `admin.connections`.
    pub fn with_connections(connections: usize) -> Self {
        Self::new(None, admin::SignIn::default(), Some(connections))
    }

    fn new(max_lifetime: Option<Duration>, sign_in: admin::SignIn, connections: Option<usize>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { path: dir.path().join("store"), ballast: 0 };
        let fence = Fence::new(ACKNOWLEDGE_TIMEOUT);
        let configuration = configuration(&SERVICES, max_lifetime);
        let (store, state) = Store::open(&settings, configuration, fence.clone()).unwrap();
        let around = Arc::new(Around::default());
        assert!(around.store.set(store.clone()).is_ok());
        let ready = Arc::new(AtomicBool::new(true));
        let budgets =
            Budgets::for_admin(&BudgetLimits::new(Machine::with_raised_file_limit(), 1, connections));
        let context = admin::Context::new(admin::Parts {
            store: store.clone(),
            state,
            fence,
            metrics: Metrics::new(store.metrics()),
            uses: around.clone(),
            configuration: around.clone(),
            ready: ready.clone(),
            hosts: vec!["gate.example".into()],
            sign_in,
            trusted_proxies: TrustedProxies::default(),
            metrics_access: MetricsAccess::default(),
            budgets: budgets.clone(),
            own_uid: std::fs::metadata(dir.path()).unwrap().uid(),
        });
        let socket = dir.path().join("admin.sock");
        let (drain, draining) = drain();
        let (bound, address) = mpsc::channel();
        let shared = budgets.clone();
        let unix = Address::Unix(socket.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async move {
                let (tcp, unix) = (bind(&"127.0.0.1:0".parse().unwrap()).unwrap(), bind(&unix).unwrap());
                let worker = Worker::new(Limits::default(), shared);
                let server = admin::Server::new(context);
                let address = tcp.local().unwrap();
                let over_tcp =
                    serve(worker.clone(), tcp.listener().unwrap(), server.clone(), draining.clone());
                let over_unix = serve(worker, unix.listener().unwrap(), server, draining);
                bound.send(address).unwrap();
                let (one, other) = tokio::join!(over_tcp, over_unix);
                one.unwrap();
                other.unwrap();
            });
        });
        let Address::Tcp(address) = address.recv().unwrap() else { panic!("a TCP address was bound") };
        Self {
            _dir: dir,
            address,
            socket,
            store,
            ready,
            around,
            budgets,
            max_lifetime,
            senders: Mutex::default(),
            drain: Some(drain),
            thread: Some(thread),
        }
    }

    /// Limits an account to `burst` changes at once, and then one a minute.
    pub fn limit_changes(&self, burst: u32) {
        let mut configuration = configuration(&SERVICES, self.max_lifetime);
        let (count, burst) = (NonZeroU32::MIN, NonZeroU32::new(burst).unwrap());
        configuration.policy.write_rate = Rate { count, window: Duration::from_secs(60), burst };
        let actor = Actor::new(ActorKind::Operator);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(self.store.replace_configuration(actor, configuration)).unwrap();
    }

    pub fn send(&self, sender: &Credentials, request: Request) -> Answer {
        match sender {
            Credentials::Anonymous => request.over_tcp(self.address),
            Credentials::Bearer(text) => {
                request.field("Authorization", &format!("Bearer {text}")).over_tcp(self.address)
            }
            Credentials::Operator => request.over_unix(&self.socket),
            Credentials::Browser(browser) => request
                .field("Cookie", &browser.cookie)
                .field("X-CSRF-Token", &browser.csrf)
                .field("Sec-Fetch-Site", "same-origin")
                .over_tcp(self.address),
        }
    }

    pub fn call(&self, sender: &Credentials, method: &str, target: &str, body: Option<&Value>) -> Answer {
        let request = Request::new(method, target);
        self.send(sender, body.into_iter().fold(request, Request::json))
    }

    /// A call by the operator that must succeed.
    pub fn must(&self, method: &str, target: &str, body: Option<Value>) -> Value {
        let answer = self.call(&Credentials::Operator, method, target, body.as_ref());
        assert!(answer.status < 300, "{method} {target}: {} {}", answer.status, answer.text());
        answer.json()
    }

    /// Creates a user in these groups, which are created if necessary.
    pub fn user(&self, login: &str, groups: &[&str]) {
        self.must("POST", "/v1/users", Some(json!({"login": login, "name": login})));
        for group in groups {
            let path = format!("/v1/groups/{group}");
            if self.call(&Credentials::Operator, "GET", &path, None).status == 404 {
                self.must("POST", "/v1/groups", Some(json!({"name": group})));
            }
            self.must("PUT", &format!("{path}/members/{login}"), None);
        }
    }

    /// Gives the user a role with exactly these permissions.
    pub fn allow(&self, login: &str, permissions: &[&str]) {
        let key = format!("role-{login}");
        let role = json!({"key": key, "name": key, "permissions": permissions});
        self.must("POST", "/v1/roles", Some(role));
        self.must("POST", "/v1/grants", Some(json!({"role": key, "user": login})));
    }

    /// Creates a token. Returns its record with the text.
    pub fn token(&self, login: &str, name: &str, scope: &[&str]) -> Value {
        self.must("POST", &format!("/v1/users/{login}/tokens"), Some(new_token(name, scope)))
    }

    /// Signs the user in with [`PASSWORD`], which is set first if the user has none.
    pub fn browser(&self, login: &str) -> Browser {
        let unset = self.store.accounts().user_by_login(login).unwrap().record.password.is_none();
        if unset {
            self.must("PUT", &format!("/v1/users/{login}/password"), Some(json!({"password": PASSWORD})));
        }
        let answer = self.sign_in(login, PASSWORD);
        assert_eq!(answer.status, 201, "{}", answer.text());
        Browser::of(&answer)
    }

    pub fn sign_in(&self, login: &str, password: &str) -> Answer {
        let body = json!({"login": login, "password": password});
        self.call(&Credentials::Anonymous, "POST", "/v1/session", Some(&body))
    }

    /// Like [`Fixture::credentials`], but created only once per login.
    pub fn cached_credentials(&self, login: &str) -> Credentials {
        let mut senders = self.senders.lock().unwrap();
        senders.entry(login.to_owned()).or_insert_with(|| self.credentials(login)).clone()
    }

    /// The user with a token for the admin listener and everything else that the user may read.
    pub fn credentials(&self, login: &str) -> Credentials {
        let readable = self.must("GET", &format!("/v1/services?readable_by={login}"), None);
        let keys: Vec<&str> =
            readable["items"].as_array().unwrap().iter().map(|s| s["key"].as_str().unwrap()).collect();
        let mut body = new_token("its session", &keys);
        if self.max_lifetime.is_some() {
            body["expires_in"] = "1d".into();
        }
        Credentials::Bearer(text(&self.must("POST", &format!("/v1/users/{login}/tokens"), Some(body))))
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if let Some(drain) = self.drain.take() {
            drain.begin(Instant::now());
        }
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the control thread panicked");
        }
    }
}

impl Browser {
    /// Reads the cookie and the CSRF token from the answer to a sign-in.
    pub fn of(answer: &Answer) -> Self {
        let cookie = answer.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        Self { cookie, csrf: answer.json()["csrf"].as_str().unwrap().to_owned() }
    }
}

/// The body for a new token. Scope entries are `service` or `service:read`.
pub fn new_token(name: &str, scope: &[&str]) -> Value {
    let entry = |entry: &&str| match entry.split_once(':') {
        Some((service, access)) => json!({"service": service, "access": access}),
        None => json!({"service": entry}),
    };
    json!({"name": name, "scope": scope.iter().map(entry).collect::<Vec<_>>()})
}

pub fn text(made: &Value) -> String {
    made["token"].as_str().unwrap().to_owned()
}

pub fn id(record: &Value) -> String {
    record["id"].as_str().unwrap().to_owned()
}

fn configuration(rows: &[Row], max_lifetime: Option<Duration>) -> Configuration {
    Configuration {
        services: rows.iter().enumerate().map(|(at, row)| service(at, row)).collect(),
        public: Vec::new(),
        rules: RuleSettings { perm_alias: true, trusted_proxies: Default::default() },
        proxy: Arc::default(),
        policy: Policy { max_lifetime, ..Policy::default() },
    }
}

fn service(at: usize, (key, paths, readers): &Row) -> ServiceSpec {
    let reading = [http::Method::GET, http::Method::HEAD, http::Method::OPTIONS];
    ServiceSpec {
        title: (*key).to_owned(),
        about: format!("All about {key}"),
        upstream: "one".into(),
        read_methods: reading.map(|method| ReadMethod { method, prefix: None }).to_vec(),
        origin: Origin { file: "gateway.toml".into(), line: 10 + u32::try_from(at).unwrap() },
        ..crate::spec::service(key, paths, readers)
    }
}

impl admin::UsageTracker for Around {
    fn last(&self, digest: &Digest) -> Option<LastUsed> {
        self.uses.lock().unwrap().get(digest.as_bytes()).cloned()
    }

    fn note(&self, digest: &Digest, used: LastUsed) {
        self.uses.lock().unwrap().insert(*digest.as_bytes(), used);
    }

    fn refused(&self, refused: RefusedRequest<'_>) {
        let token = refused.token.map(|token| token.to_string());
        self.refused.lock().unwrap().push((token, refused.reason));
    }
}

impl admin::Configuration for Around {
    fn text(&self) -> String {
        "version = 1\n".into()
    }

    fn check(&self, text: &str, _outside: bool) -> Result<(), Vec<ConfigurationError>> {
        if text.starts_with("version = 1") { Ok(()) } else { Err(vec![bad_file()]) }
    }

    fn reload(self: Arc<Self>, actor: Actor) -> Reloading {
        let (store, found) = (self.store.get().unwrap().clone(), self.file.lock().unwrap().take());
        let hold = self.hold.lock().unwrap().take();
        Box::pin(async move {
            if let Some(hold) = hold {
                hold.notified().await;
            }
            let rows = match found {
                Some(Ok(rows)) => rows,
                Some(Err(error)) => return Err(ReloadError::Invalid(vec![error])),
                None => SERVICES.to_vec(),
            };
            let replaced = store.replace_configuration(actor, configuration(&rows, None)).await;
            replaced.map_err(ReloadError::Change)
        })
    }
}

pub fn bad_file() -> ConfigurationError {
    let message = "unknown key \"lisen\", did you mean \"listen\"?".to_owned();
    ConfigurationError { file: "gateway.toml".into(), line: Some(3), column: Some(1), message }
}

/// Makes the listener unready, as the composition root does when draining begins.
pub fn begin_drain(fixture: &Fixture) {
    fixture.ready.store(false, Ordering::Release);
}
