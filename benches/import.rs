//! Tokens per second of an import into an offline store, compared with bare sled inserting the same rows:
//! `cargo bench --bench import -- [--tokens N] [--owners N] [--rounds N]`.

#![allow(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

#[path = "../tests/support/spec.rs"]
mod spec;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use permgate::{
    authz::rules::Settings as RuleSettings,
    store::{
        Configuration, Policy, Settings,
        import::{self, Options},
    },
};

/// The trees of a token: its record, and the indexes by id and by name.
const TREES: [&str; 3] = ["tokens", "ids", "names"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.map_or(default, |at| arguments[at + 1].parse().unwrap())
    };
    let (tokens, owners) = (number("--tokens", 100_000), number("--owners", 1000));
    let lines = lines(tokens, owners);
    let rate = |took: Duration| tokens as f64 / took.as_secs_f64();
    for _ in 0..number("--rounds", 5) {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        let imported = import(&store, &lines, tokens);
        let rows = rows(&sled_of(&store));
        let bare = baseline(&directory.path().join("bare"), &rows);
        println!(
            "{tokens} tokens of {owners} owners: {:.0} a second; bare sled, in the order of keys: {:.0}; {:.2} of it",
            rate(imported),
            rate(bare),
            rate(imported) / rate(bare)
        );
    }
}

fn lines(tokens: u64, owners: u64) -> String {
    (0..tokens).fold(String::new(), |mut lines, number| {
        let digest = blake3::hash(&number.to_le_bytes()).to_hex();
        let (owner, service) = (number % owners, number % 48);
        writeln!(
            lines,
            r#"{{"digest":"{digest}","owner":"user{owner}","name":"token {number}","scope":["svc{service:02}"]}}"#
        )
        .unwrap();
        lines
    })
}

fn import(store: &Path, lines: &str, tokens: u64) -> Duration {
    let settings = Settings { path: store.to_owned(), ballast: 0 };
    let spec = |number| spec::service(&format!("svc{number:02}"), &[&format!("/svc{number:02}")], &[]);
    let configuration = Configuration {
        services: (0..48).map(spec).collect(),
        public: Vec::new(),
        rules: RuleSettings { perm_alias: true, trusted_proxies: Default::default() },
        proxy: Default::default(),
        policy: Policy::default(),
    };
    let options = Options { make_owners: true, configuration, now: std::time::SystemTime::now().into() };
    let begun = Instant::now();
    let report = import::offline(&settings, options, lines.as_bytes(), &mut |_| {}).unwrap();
    assert_eq!((report.tokens, report.bad), (tokens, 0));
    begun.elapsed()
}

/// The database of the store's only generation.
fn sled_of(store: &Path) -> PathBuf {
    let entries = std::fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path().join("sled"));
    entries.into_iter().find(|path| path.is_dir()).expect("a generation has a sled")
}

type Rows = Vec<(sled::IVec, sled::IVec)>;

fn rows(path: &Path) -> [Rows; TREES.len()] {
    let db = open(path);
    TREES.map(|tree| db.open_tree(tree).unwrap().iter().collect::<Result<_, _>>().unwrap())
}

fn baseline(path: &Path, rows: &[Rows]) -> Duration {
    let db = open(path);
    let begun = Instant::now();
    for (name, rows) in TREES.iter().zip(rows) {
        let tree = db.open_tree(name).unwrap();
        for (key, row) in rows {
            tree.insert(key, row).unwrap();
        }
    }
    db.flush().unwrap();
    begun.elapsed()
}

/// Opens a database with the store's segment size and sled's default cache, which fits all of it.
fn open(path: &Path) -> sled::Db {
    sled::Config::new().path(path).segment_size(2 << 20).open().unwrap()
}
