//! The cost of the parts of one authorization: `cargo bench --bench authz`.

#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

#[path = "../tests/support/spec.rs"]
mod spec;

use std::sync::{Arc, LazyLock};

use divan::{Bencher, black_box};
use http::Method;
use permgate::{
    authz::{
        decide::{Credential, Facts, Query, decide},
        path::RequestPath,
        rules::{Rules, ServiceId, ServiceIds, Settings},
        secret::{Bearer, BearerForm, Digest, TokenId},
        subject::{Access, Directory, Permissions, Restrictions, Scope, Token, User, UserIx},
        time::Timestamp,
    },
    state::{Snapshot, State},
};

use spec::service;

fn main() {
    divan::main();
}

const TEXT: &str = "pgt_A1iceYt00001_fAP2l3cGjaBAHokSsW17RyEusf3hEGifhgPiofGdOYe1Q6rwW";
const PLAIN: &str = "/service-150/api/issues/42-17";
const TOKENS: u64 = 1_000_000;

#[divan::bench(args = [PLAIN, "/service-150/api/projects/a%2Fb", "/service-150/api/a;v=1//b%20c%2Fd."])]
fn parse(path: &str) -> bool {
    RequestPath::parse(black_box(path)).is_ok()
}

#[divan::bench]
fn digest() -> Digest {
    Bearer::parse(black_box(TEXT)).unwrap().classify(true).0.digest()
}

#[divan::bench]
fn credential() -> Credential {
    Credential::from_field(
        black_box(b"Bearer pgt_A1iceYt00001_fAP2l3cGjaBAHokSsW17RyEusf3hEGifhgPiofGdOYe1Q6rwW"),
        true,
        false,
    )
}

/// With 200 services of two prefixes each.
#[divan::bench]
fn decision(bencher: Bencher<'_, '_>) {
    let (rules, directory, token) = (rules(), directory(), token());
    let query = Query {
        method: &Method::GET,
        host: Some("example.org"),
        path: RequestPath::parse(PLAIN),
        token_in_url: false,
        credential: Credential::Bearer { form: BearerForm::Own, digest: Some(Digest::from_bytes([0; 32])) },
        client: [127, 0, 0, 1].into(),
        upgrade: false,
        method_override: false,
        destination: None,
        stated_hosts: &[],
    };
    let now = Timestamp::from_millis(0);
    let facts = Facts { rules: &rules, directory: &directory, token: Some(&token), imports: false, now };
    assert!(decide(&query, facts).is_ok());
    bencher.bench_local(|| decide(black_box(&query), facts).is_ok());
}

#[divan::bench]
fn index_hit_of_a_million(bencher: Bencher<'_, '_>) {
    look_up(bencher, 0, true);
}

#[divan::bench]
fn index_miss_of_a_million(bencher: Bencher<'_, '_>) {
    look_up(bencher, TOKENS, false);
}

/// Looks up digests with a stride, so that no lookup finds its cache line loaded.
fn look_up(bencher: Bencher<'_, '_>, first: u64, found: bool) {
    let index = INDEX.index();
    assert_eq!(index.len() as u64, TOKENS);
    let mut at = 0;
    let digests: Vec<Digest> = (0..1 << 16).map(|n| numbered(first + n * 7919 % TOKENS)).collect();
    bencher.bench_local(|| {
        at = (at + 1) & 0xffff;
        index.with(&digests[at], |token| assert_eq!(token.is_some(), found));
    });
}

static INDEX: LazyLock<Arc<State>> = LazyLock::new(|| {
    let snapshot =
        Snapshot { rules: Arc::new(rules()), directory: Arc::new(directory()), proxy: Arc::default() };
    let state = State::new(snapshot);
    (0..TOKENS).for_each(|number| state.index().put(numbered(number), token()));
    state
});

fn numbered(number: u64) -> Digest {
    Digest::from_bytes(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

fn rules() -> Rules {
    let spec = |number: usize| {
        let at = |end: &str| format!("/service-{number}/{end}");
        service(&format!("service-{number}"), &[&at("api"), &at("rest")], &["all-users"])
    };
    let settings = Settings { perm_alias: true, trusted_proxies: Default::default() };
    Rules::compile((0..200).map(spec).collect(), Vec::new(), settings, &mut ServiceIds::default()).unwrap()
}

fn directory() -> Directory {
    let user = User {
        ix: UserIx(0),
        id: "0198c2f0-0000-7000-8000-000000000000".into(),
        login: "alice".into(),
        banned: false,
        deleted: false,
        groups: Box::default(),
        permissions: Permissions::NONE,
        readable: (0..200).map(ServiceId).collect(),
    };
    Directory { users: vec![Arc::new(user)], ..Directory::default() }
}

fn token() -> Token {
    Token {
        id: TokenId::parse("A1iceYt00001").unwrap(),
        owner: UserIx(0),
        scope: Scope::new([(ServiceId(7), Access::Full), (ServiceId(150), Access::Full)]).unwrap(),
        expires_at: None,
        restrictions: Restrictions::NONE,
    }
}
