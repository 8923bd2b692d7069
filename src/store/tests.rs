//! The store over a real engine, with a clock that stands still unless it is moved.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use tokio::sync::oneshot;

use super::{model::*, op::Op, *};
use crate::{
    authz::{
        rules::{Authorization, Identity, Origin, ServiceKey, ServiceSpec, Settings as RuleSettings},
        secret::{Digest, TokenId},
        subject::{Access, Token, TokenEnd},
        time::Timestamp,
    },
    fence::{ACKNOWLEDGE_TIMEOUT, Fence},
    state::State,
};

mod accounts;
mod batches;
mod deletion;
mod failures;
mod follow;
mod limits;
mod pages;
mod retention;
mod sessions;
mod tokens;
mod vectors;

const FULL: Access = Access::Full;
/// 2026-06-01T12:00:00Z.
const NOW: i64 = 1_780_315_200_000;

/// A store in a directory of its own.
struct Bench {
    dir: tempfile::TempDir,
    store: Store,
    state: Arc<State>,
    clock: Arc<AtomicI64>,
}

pub(super) fn service(key: &str, path: &str, readers: &[&str]) -> ServiceSpec {
    ServiceSpec {
        key: ServiceKey::parse(key).unwrap(),
        title: key.into(),
        about: String::new(),
        upstream: "one".into(),
        paths: vec![path.into()],
        hosts: Vec::new(),
        readers: readers.iter().map(|reader| (*reader).to_owned()).collect(),
        methods: None,
        read_methods: Vec::new(),
        authorization: Authorization::Strip,
        credentials: crate::authz::carriers::Carriers::BEARER,
        registry: false,
        identity: Identity::Headers,
        identity_groups: None,
        allow: Vec::new(),
        fields: Default::default(),
        max_body: None,
        origin: Origin { file: "gateway.toml".into(), line: 1 },
    }
}

pub(super) fn configuration(services: Vec<ServiceSpec>) -> Configuration {
    Configuration {
        services,
        public: Vec::new(),
        rules: RuleSettings { perm_alias: true, trusted_proxies: Default::default() },
        proxy: Arc::default(),
        policy: Policy::default(),
    }
}

/// `wiki` for everybody, `hub` for developers.
fn usual() -> Configuration {
    configuration(vec![service("wiki", "/wiki", &["all-users"]), service("hub", "/hub", &["developers"])])
}

fn settings(dir: &tempfile::TempDir) -> Settings {
    Settings { path: dir.path().join("data"), ballast: 0 }
}

fn operator() -> Actor {
    Actor::new(ActorKind::Operator)
}

fn named(owner: &str, name: &str) -> NewToken {
    NewToken {
        owner: owner.into(),
        name: name.into(),
        note: String::new(),
        scope: vec![("wiki".into(), FULL)],
        not_before: None,
        expires_at: None,
        allow_ips: Vec::new(),
    }
}

fn expiring(owner: &str, name: &str, at: Timestamp) -> NewToken {
    NewToken { expires_at: Some(at), ..named(owner, name) }
}

fn person(login: &str) -> NewUser {
    NewUser { login: login.into(), name: login.into(), email: None, kind: UserKind::Human, password: None }
}

fn code<T>(result: Result<T, ChangeError>) -> String {
    match result {
        Ok(_) => "ok".into(),
        Err(ChangeError::Refused(refusal)) => refusal.code.word().into(),
        Err(ChangeError::Stale) => "stale".into(),
        Err(ChangeError::IdempotencyKeyReused) => "key_reused".into(),
        Err(ChangeError::RateLimited(_)) => "too_fast".into(),
        Err(ChangeError::Closed(_)) => "closed".into(),
        Err(ChangeError::Unknown(_)) => "unknown".into(),
        Err(ChangeError::NotDurable { .. }) => "not_durable".into(),
        Err(error) => error.to_string(),
    }
}

impl Bench {
    fn new() -> Self {
        Self::with(usual())
    }

    fn with_policy(policy: Policy) -> Self {
        Self::with(Configuration { policy, ..usual() })
    }

    fn with(configuration: Configuration) -> Self {
        Self::over(tempfile::tempdir().unwrap(), configuration, Arc::new(AtomicI64::new(NOW)))
    }

    fn over(dir: tempfile::TempDir, configuration: Configuration, clock: Arc<AtomicI64>) -> Self {
        Self::with_fence(dir, configuration, clock, Fence::new(ACKNOWLEDGE_TIMEOUT))
    }

    fn with_fence(
        dir: tempfile::TempDir,
        configuration: Configuration,
        clock: Arc<AtomicI64>,
        fence: Arc<Fence>,
    ) -> Self {
        let now = clock.clone();
        let time_source: writer::Clock =
            Arc::new(move || Timestamp::from_millis(now.load(Ordering::Relaxed)));
        let (store, state) = load::open(&settings(&dir), configuration, fence, time_source).unwrap();
        Self { dir, store, state, clock }
    }

    /// A store whose engine has these rows before it is opened.
    fn seeded(configuration: Configuration, ops: &[Op]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine::Engine::open(&settings(&dir)).unwrap();
        engine.commit(ops).unwrap();
        engine.close();
        Self::over(dir, configuration, Arc::new(AtomicI64::new(NOW)))
    }

    /// The store, closed and opened again.
    async fn again(self) -> Self {
        self.store.close().await;
        Self::over(self.dir, usual(), self.clock)
    }

    /// Keeps the writer busy until the returned sender is dropped.
    async fn hold(&self) -> std::sync::mpsc::Sender<()> {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (begins, begun) = oneshot::channel::<()>();
        let mut begins = Some(begins);
        let plan = move |_: &mut _| {
            drop(begins.take());
            let _ = held.recv();
            Err(ChangeError::Stale)
        };
        let waits = writer::Task::new(writer::TaskKind::Counted, Box::new(plan), oneshot::channel().0);
        assert!(self.store.queue.send(writer::Command::Change(waits)).await.is_ok());
        assert!(begun.await.is_err());
        release
    }

    /// A bench with two users: alice, who is in the group developers, and bob.
    async fn peopled() -> Self {
        let bench = Self::new();
        for login in ["alice", "bob"] {
            bench.store.create_user(operator(), person(login)).await.unwrap();
        }
        bench.store.create_group(operator(), "developers".into(), None).await.unwrap();
        bench.store.set_member(operator(), "developers".into(), "alice".into(), true).await.unwrap();
        bench
    }

    fn by(&self, login: &str) -> Actor {
        let accounts = self.store.accounts();
        let user = accounts.users().find(|user| user.record.login == login).unwrap();
        Actor::new(ActorKind::User(user.record.id.clone()))
    }

    fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.load(Ordering::Relaxed))
    }

    fn indexed(&self, digest: &Digest) -> Option<Token> {
        let mut found = None;
        self.state.index().with(digest, |token| found = token.cloned());
        found
    }

    fn ending(&self, digest: &Digest) -> TokenEnd {
        self.indexed(digest).unwrap().restrictions.end
    }

    /// Whether a user can read a service, by the directory that workers read.
    fn reads(&self, login: &str, service: &str) -> bool {
        let snapshot = self.state.snapshot();
        let id = snapshot.rules.service_by_key(service).unwrap().id;
        snapshot.directory.user_by_login(login).is_some_and(|user| user.readable.contains(id))
    }

    fn events(&self) -> Vec<String> {
        let mut events: Vec<String> =
            self.store.audit(None, 1000).unwrap().items.into_iter().map(|event| event.event).collect();
        events.reverse();
        events
    }
}
