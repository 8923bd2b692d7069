//! The time from a closed store of a million tokens to one that decides: `cargo bench --bench startup`.

#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

#[path = "../tests/support/spec.rs"]
mod spec;

use std::{
    io::{BufReader, Read},
    sync::{Arc, LazyLock},
    time::Duration,
};

use divan::Bencher;
use permgate::{
    authz::rules::Settings as RuleSettings,
    fence::Fence,
    store::{
        Configuration, Policy, Settings, Store,
        import::{self, Options},
    },
};

use spec::service;

fn main() {
    divan::main();
}

const TOKENS: u64 = 1_000_000;
const OWNERS: u64 = 1000;
const SERVICES: u64 = 48;

/// Covers opening, the scan into the index and the first snapshot, but not closing.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn start_with_a_million_tokens(bencher: Bencher<'_, '_>) {
    let settings = Settings { path: STORE.path().join("store"), ballast: 0 };
    bencher.bench_local(|| Opened::open(&settings));
}

struct Opened(Store);

impl Opened {
    fn open(settings: &Settings) -> Self {
        let (store, state) =
            Store::open(settings, configuration(), Fence::new(Duration::from_secs(1))).unwrap();
        assert_eq!(state.index().len() as u64, TOKENS);
        Self(store)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.0.close());
    }
}

static STORE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { path: directory.path().join("store"), ballast: 0 };
    let options = Options {
        make_owners: true,
        configuration: configuration(),
        now: std::time::SystemTime::now().into(),
    };
    let lines = Lines { number: 0, line: Vec::new(), at: 0 };
    let report = import::offline(&settings, options, BufReader::new(lines), &mut |_| {}).unwrap();
    assert_eq!((report.tokens, report.bad), (TOKENS, 0));
    directory
});

/// An import file that is generated while it is read.
struct Lines {
    number: u64,
    line: Vec<u8>,
    at: usize,
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.line.len() && self.number < TOKENS {
            let number = self.number;
            let digest = blake3::hash(&number.to_le_bytes()).to_hex();
            let scope = [number % 16, 16 + number % 16, 32 + number % 16].map(|n| format!("svc{n:02}"));
            let line = format!(
                r#"{{"digest":"{digest}","owner":"user{}","name":"token {number}","scope":{scope:?}}}"#,
                number % OWNERS
            );
            self.line = (line + "\n").into_bytes();
            self.at = 0;
            self.number += 1;
        }
        let read = (&self.line[self.at..]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}

fn configuration() -> Configuration {
    let spec =
        |number: u64| service(&format!("svc{number:02}"), &[&format!("/svc{number:02}")], &["all-users"]);
    Configuration {
        services: (0..SERVICES).map(spec).collect(),
        public: Vec::new(),
        rules: RuleSettings { perm_alias: true, trusted_proxies: Default::default() },
        proxy: Arc::default(),
        policy: Policy::default(),
    }
}
