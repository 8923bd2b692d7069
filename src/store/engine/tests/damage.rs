//! Damage to any file of a store, after a clean stop and after a SIGKILL: it is found and refused, or
//! nothing is lost. Each run tries a few places; `PERMGATE_TEST_DAMAGE=300` tries 300 flipped bits and 100
//! cuts of each file.

use std::{collections::BTreeMap, fmt::Write as _, io, ops::ControlFlow};

use super::*;
use crate::{
    authz::time::Timestamp,
    store::{
        ReadError, backup,
        conformance::{
            token,
            whole::{chained, one_of_each},
        },
        log::tests::Random,
        model::AuditPosition,
        replica::ReplicaError,
    },
};

/// Flipped bits of each file, by default.
const FLIPS: usize = 3;

fn flips() -> usize {
    std::env::var("PERMGATE_TEST_DAMAGE").map_or(FLIPS, |number| number.parse().unwrap())
}

/// A store's directory, and the rows that it must have.
struct FilledStore {
    dir: TestDirectory,
    rows: Vec<u8>,
}

/// Every row and the position, as a backup stream.
fn rows(engine: &Engine) -> Result<Vec<u8>, String> {
    let mut rows = Vec::new();
    let now = Timestamp::from_millis(0);
    backup::write(engine.replica(), now, &mut rows, &mut |_| ControlFlow::Continue(()))
        .map_err(|e| e.to_string())?;
    Ok(rows)
}

/// A store with rows of every kind, several files of a trimmed journal, and two checkpoints.
fn filled(killed: bool) -> FilledStore {
    let dir = TestDirectory::new();
    let engine = dir.open().unwrap();
    engine.commit(&one_of_each()).unwrap();
    let mut head = AuditPosition::load(&engine).unwrap();
    let mut change = |engine: &Engine, numbers: std::ops::Range<usize>| {
        for number in numbers {
            let ops = [Op::PutToken(token(number, "u1")), chained(&mut head)];
            engine.commit(&ops).unwrap();
        }
    };
    for round in 0..3 {
        change(&engine, 1000 + round * 200..1200 + round * 200);
        engine.checkpoint_now();
    }
    engine.close();
    let engine = dir.open().unwrap();
    change(&engine, 2000..2060);
    let rows = rows(&engine).unwrap();
    if killed {
        // A copy of what another process would find now.
        let filled = TestDirectory::new();
        copy(&dir.path(), &filled.path());
        engine.close();
        return FilledStore { dir: filled, rows };
    }
    engine.close();
    FilledStore { dir, rows }
}

/// The paths of the files in STORE, without the ballast.
fn files(store: &Path) -> Vec<String> {
    let (mut files, mut directories) = (Vec::new(), vec![store.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(store).unwrap().to_str().unwrap().to_owned();
                files.extend(Some(name).filter(|name| name != "ballast"));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn rows_that_cannot_be_read_are_rebuilt_by_the_start_that_finds_them() {
    let dir = TestDirectory::new();
    let mut engine = dir.open().unwrap();
    engine.commit(&one_of_each()).unwrap();
    let written = rows(&engine).unwrap();
    let mut loads = 0;
    let loaded = engine.load_or_rebuild(|engine| {
        loads += 1;
        if loads == 1 {
            return Err(OpenError::Read(ReadError("the storage engine panicked".to_owned())));
        }
        engine.load(&mut |_, _| {})
    });
    loaded.unwrap();
    assert_eq!((loads, rows(&engine).unwrap()), (2, written));
}

/// As `cluster adopt` opens a copy.
#[cfg(feature = "etcd")]
#[test]
fn a_replica_that_is_not_rebuilt_is_refused_with_its_path_and_what_to_do() {
    let dir = TestDirectory::new();
    let engine = dir.filled();
    let generation = Generation { path: dir.generation(), store: engine.store };
    engine.mark_damaged("a row is missing");
    engine.close();
    let Err(error) = generation.open_replica() else { panic!("opened") };
    let said = error.to_string();
    let path = dir.path().display().to_string();
    let expected = ["a row is missing", "permgate store restore", &path];
    assert!(expected.iter().all(|part| said.contains(part)), "{said}");
}

#[test]
fn a_thread_that_cannot_be_started_is_no_damage() {
    let dir = TestDirectory::new();
    let mut engine = dir.open().unwrap();
    let marker = engine.generation.join("sled/marker");
    fs::write(&marker, "").unwrap();
    let loaded = engine.load_or_rebuild(|_| -> Result<(), _> {
        Err(ReplicaError::Thread(io::ErrorKind::WouldBlock.into()).into())
    });
    assert!(matches!(loaded, Err(OpenError::Thread(_))), "{loaded:?}");
    assert!(marker.exists(), "the replica is left as it is");
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Refused,
    /// The first start reads it as it was.
    Harmless,
    /// The first start notices it while it serves, and the next one rebuilds the replica.
    NoticedLater,
}

fn outcome(filled: &FilledStore, file: &str, spoil: &dyn Fn(&mut Vec<u8>), what: &str) -> Outcome {
    let dir = TestDirectory::new();
    copy(&filled.dir.path(), &dir.path());
    let path = dir.path().join(file);
    let mut content = fs::read(&path).unwrap();
    spoil(&mut content);
    fs::write(&path, content).unwrap();
    let closed =
        verify_closed(&Settings { path: dir.path(), ballast: 4096 }, &mut |_| ControlFlow::Continue(()));
    let engine = match dir.open() {
        Ok(engine) => engine,
        Err(error) => {
            let said = error.to_string();
            assert!(said.contains("permgate store restore"), "{what}: {said}");
            assert!(!file.contains("/sled/"), "{what}: a replica can be made again: {said}");
            assert!(closed.is_err() || !closed.unwrap().is_sound(), "{what}: refused, and yet sound: {said}");
            return Outcome::Refused;
        }
    };
    let outcome = match rows(&engine) {
        Ok(rows) => {
            assert!(rows == filled.rows, "{what}: silently lost");
            Outcome::Harmless
        }
        Err(_) => Outcome::NoticedLater,
    };
    let report = engine.verify(&mut |_| ControlFlow::Continue(())).unwrap();
    engine.close();
    let replica_is_damaged = report.damage.iter().any(|damage| damage.place.contains("/sled"));
    assert!(outcome == Outcome::Harmless || replica_is_damaged, "{what}: {report:?}");
    if !replica_is_damaged {
        return outcome;
    }
    let engine = dir.open().unwrap();
    assert!(rows(&engine).unwrap() == filled.rows, "{what}: made again");
    let report = engine.verify(&mut |_| ControlFlow::Continue(())).unwrap();
    let replica_is_damaged = report.damage.iter().any(|damage| damage.place.contains("/sled"));
    assert!(!replica_is_damaged, "{what}: {report:?}");
    Outcome::NoticedLater
}

/// Damage to the last acknowledged entry must be found, so places close to it are tried more often.
fn place_in(random: &mut Random, number: usize, content: &[u8]) -> usize {
    let used = content.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    match number % 3 {
        0 => random.below(content.len()),
        1 => random.below(used),
        _ => used - 1 - random.below(used.min(600)),
    }
}

fn damage(killed: bool) {
    let filled = filled(killed);
    let mut table = String::new();
    for file in files(&filled.dir.path()) {
        let content = fs::read(filled.dir.path().join(&file)).unwrap();
        if content.is_empty() {
            continue;
        }
        let random = &mut Random(u64::from(killed) + 1);
        let mut outcomes: BTreeMap<(&str, Outcome), usize> = BTreeMap::new();
        for number in 0..flips() {
            let (at, bit) = (place_in(random, number, &content), random.below(8));
            let what = format!("{file}, killed: {killed}: bit {bit} of byte {at}");
            let outcome = outcome(&filled, &file, &|content| content[at] ^= 1 << bit, &what);
            *outcomes.entry(("flipped", outcome)).or_default() += 1;
        }
        for number in 0..flips().div_ceil(3) {
            let length = place_in(random, number + 1, &content);
            let what = format!("{file}, killed: {killed}: cut to {length}");
            let outcome = outcome(&filled, &file, &|content| content.truncate(length), &what);
            *outcomes.entry(("cut", outcome)).or_default() += 1;
        }
        writeln!(table, "{file}: {outcomes:?}").unwrap();
    }
    println!("killed: {killed}\n{table}");
}

#[test]
fn damage_after_a_clean_stop_is_found_or_harmless() {
    damage(false);
}

#[test]
fn damage_after_a_kill_is_found_or_harmless() {
    damage(true);
}

/// A kill between the entries of a large batch: it was never made, and nothing is damaged.
#[test]
fn a_batch_that_was_cut_off_is_no_damage() {
    let dir = TestDirectory::new();
    let engine = dir.filled();
    let head = engine.head();
    let ops: Vec<Op> = (1000..21_000).map(|number| Op::PutToken(token(number, "ann"))).collect();
    let entries = op::encode_batch(&ops, crate::store::log::MAX_OPERATIONS).unwrap();
    let (_, first) = entries.split_last().unwrap();
    first.iter().for_each(|entry| engine.log.lock().append(entry).unwrap());
    engine.close();
    let engine = dir.open().unwrap();
    assert_eq!(engine.head().position, head.position + first.len() as u64);
    assert_eq!(count(&engine), 200);
    assert_eq!(engine.acknowledged_audit().unwrap(), engine.replica().state().audit);
    let report = engine.verify(&mut |_| std::ops::ControlFlow::Continue(())).unwrap();
    // The tokens of these tests have no owners.
    let behind = report.damage.iter().filter(|damage| damage.what.contains("acknowledged"));
    assert_eq!(behind.count(), 0, "{report:?}");
    commit(&engine, 200);
    engine.close();
    assert_eq!(count(&dir.open().unwrap()), 201);
}
