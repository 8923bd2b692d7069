//! Fixture for the tests of `authz`: the developer alice, and her token for YouTrack.

use std::{sync::Arc, time::Duration};

use http::Method;

use crate::authz::{
    decide::Facts,
    rules::{
        Authorization, Identity, Origin, PublicSpec, ReadMethod, RuleError, Rules, ServiceIds, ServiceKey,
        ServiceSpec, Settings,
    },
    secret::{Digest, TokenId},
    subject::{
        Access, Directory, GroupIx, Permissions, Restrictions, Scope, ServiceSet, Token, User, UserIx,
    },
    time::Timestamp,
};

pub const DIGEST: Digest = Digest::from_bytes([7; 32]);
pub const NOW: Timestamp = Timestamp::from_millis(1_000_000);

/// The CPU time of this thread, which does not pass while others have the processor.
pub fn cpu_time() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    spent.try_into().unwrap()
}

pub struct Fixture {
    pub rules: Rules,
    pub directory: Directory,
}

pub fn origin(line: u32) -> Origin {
    Origin { file: "gateway.toml".into(), line }
}

pub fn service(key: &str, paths: &[&str]) -> ServiceSpec {
    let reading = [Method::GET, Method::HEAD, Method::OPTIONS];
    ServiceSpec {
        key: ServiceKey::parse(key).unwrap(),
        title: key.to_owned(),
        about: String::new(),
        upstream: key.into(),
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
        hosts: Vec::new(),
        readers: vec!["developers".to_owned()],
        methods: None,
        read_methods: reading.map(|method| ReadMethod { method, prefix: None }).into(),
        authorization: Authorization::Strip,
        credentials: crate::authz::carriers::Carriers::BEARER,
        registry: false,
        identity: Identity::Headers,
        identity_groups: None,
        allow: Vec::new(),
        fields: Default::default(),
        max_body: None,
        origin: origin(10),
    }
}

pub fn compile(services: Vec<ServiceSpec>, public: Vec<PublicSpec>) -> Result<Rules, Vec<RuleError>> {
    let settings = Settings { perm_alias: true, trusted_proxies: Default::default() };
    Rules::compile(services, public, settings, &mut ServiceIds::default())
}

impl Fixture {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// The services `youtrack` (after `change`) and `reports`.
    pub fn with(change: impl FnOnce(&mut ServiceSpec)) -> Self {
        let mut youtrack = service("youtrack", &["/api", "/rest"]);
        change(&mut youtrack);
        Self::of(vec![youtrack, service("reports", &["/api/reports"])], Vec::new())
    }

    /// Alice may read every service.
    pub fn of(services: Vec<ServiceSpec>, public: Vec<PublicSpec>) -> Self {
        let rules = compile(services, public).unwrap();
        let groups = ["all-users", "developers", "auditors", "Développeurs, 100%", &"l".repeat(199)];
        let alice = User {
            ix: UserIx(0),
            id: "id-alice".into(),
            login: "alice".into(),
            banned: false,
            deleted: false,
            groups: [0, 1, 3, 4].map(GroupIx).into(),
            permissions: Permissions::NONE,
            readable: rules.services().iter().map(|service| service.id).collect::<ServiceSet>(),
        };
        let directory = Directory {
            users: vec![Arc::new(alice)],
            by_login: Arc::default(),
            groups: Arc::new(groups.iter().map(|name| Arc::from(*name)).collect()),
        };
        Self { rules, directory }
    }

    /// Alice's token for the first service.
    pub fn token(&self) -> Token {
        Token {
            id: TokenId::parse("A1iceYt00001").unwrap(),
            owner: UserIx(0),
            scope: Scope::new([(self.rules.services()[0].id, Access::Full)]).unwrap(),
            expires_at: None,
            restrictions: Restrictions::NONE,
        }
    }

    pub fn facts(&self) -> Facts<'_> {
        Facts { rules: &self.rules, directory: &self.directory, token: None, imports: false, now: NOW }
    }

    pub fn change_user(&mut self, change: impl FnOnce(&mut User)) {
        change(Arc::make_mut(&mut self.directory.users[0]));
    }
}
