//! Durability, the errors for damaged and foreign directories, and how the replica is rebuilt.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::*;
use crate::store::{
    Settings,
    conformance::{conforms, event, id, token},
    generation::GenerationError,
    model::TokenRecord,
};

mod damage;

struct TestDirectory(tempfile::TempDir);

impl TestDirectory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("store")
    }

    fn generation(&self) -> PathBuf {
        self.path().join("gen-1")
    }

    fn open(&self) -> Result<Engine, OpenError> {
        Engine::open(&Settings { path: self.path(), ballast: 4096 })
    }

    fn filled(&self) -> Engine {
        let engine = self.open().unwrap();
        for number in 0..200 {
            commit(&engine, number);
        }
        engine
    }

    /// Removes the replica.
    fn forget(&self) {
        fs::remove_dir_all(self.generation().join("sled")).unwrap();
    }

    fn journals(&self) -> Vec<PathBuf> {
        self.files_named("journal-")
    }

    fn files_named(&self, prefix: &str) -> Vec<PathBuf> {
        let files = fs::read_dir(self.generation()).unwrap().map(|file| file.unwrap().path());
        let named = |file: &PathBuf| file.file_name().unwrap().to_string_lossy().starts_with(prefix);
        files.filter(named).collect()
    }
}

fn commit(engine: &Engine, number: usize) {
    let ops = [Op::PutToken(token(number, "ann")), Op::AppendAudit(event(number as u64))];
    engine.commit(&ops).unwrap();
}

fn count(engine: &Engine) -> usize {
    engine.tokens(None, 100_000).unwrap().len()
}

#[test]
fn it_keeps_what_it_should() {
    let dir = TestDirectory::new();
    conforms(|| dir.open().unwrap());
}

#[test]
fn after_a_failure_nothing_is_acknowledged_any_more() {
    let dir = TestDirectory::new();
    let engine = dir.filled();
    engine.break_sync();
    let failed = engine.commit(&[Op::PutToken(token(1000, "ann"))]);
    assert!(matches!(failed, Err(CommitError::Failed(_))));
    // The disk works again, but what it lost may never be written.
    engine.restore_sync();
    let later = engine.commit(&[Op::PutToken(token(1001, "ann"))]);
    assert!(matches!(later, Err(CommitError::Failed(_))));
    assert_eq!(engine.token(id(1001)).unwrap(), None);
    assert!(engine.token(id(7)).unwrap().is_some(), "reads go on");
    engine.close();
    let engine = dir.open().unwrap();
    assert!(engine.token(id(199)).unwrap().is_some(), "what was acknowledged is there");
    engine.commit(&[Op::PutToken(token(1001, "ann"))]).expect("a restart takes changes again");
}

#[test]
fn nothing_leaves_the_data_file_however_large_the_records_are() {
    let dir = TestDirectory::new();
    let engine = dir.open().unwrap();
    for number in 0..120 {
        let note = "x".repeat(16 * 1024 - 300);
        engine.commit(&[Op::PutToken(TokenRecord { note, ..token(number, "ann") })]).unwrap();
    }
    let blobs = fs::read_dir(dir.generation().join("sled/blobs")).unwrap().count();
    assert_eq!(blobs, 0);
    engine.close();
    assert_eq!(count(&dir.open().unwrap()), 120);
}

#[test]
fn only_the_owner_may_read_it() {
    let dir = TestDirectory::new();
    dir.filled().close();
    let engine = dir.open().unwrap();
    engine.checkpoint_now();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.path()), 0o700);
    assert_eq!(mode(&dir.generation()), 0o700);
    assert_eq!(mode(&dir.generation().join("sled")), 0o700);
    for file in ["lock", "CURRENT", "ballast"] {
        assert_eq!(mode(&dir.path().join(file)), 0o600, "{file}");
    }
    for file in dir.journals().iter().chain(&dir.files_named("checkpoint-")) {
        assert_eq!(mode(file), 0o600, "{}", file.display());
    }
}

#[test]
fn a_second_opening_is_refused_until_the_first_is_closed() {
    let dir = TestDirectory::new();
    let engine = dir.filled();
    let Err(OpenError::Locked { path, holder }) = dir.open() else { panic!("opened twice") };
    assert_eq!(path, dir.path());
    assert_eq!(holder, format!("process {}", std::process::id()));
    engine.close();
    dir.open().unwrap();
}

/// Whatever part of the replica is lost comes back.
#[test]
fn a_damaged_replica_is_made_again() {
    let check = |name: &str, spoil: &dyn Fn(&Path)| {
        for checkpointed in [false, true] {
            let dir = TestDirectory::new();
            let engine = dir.filled();
            if checkpointed {
                engine.checkpoint_now();
            }
            commit(&engine, 200);
            engine.close();
            spoil(&dir.generation().join("sled"));
            let engine = dir.open().unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(count(&engine), 201, "{name}");
            assert_eq!(engine.audit_before(None, 1).unwrap()[0].seq, 200, "{name}");
            engine.close();
        }
    };
    let data = |path: &Path| path.join("db");
    let shorten = |path: &Path, to: u64| {
        fs::File::options().write(true).open(path).unwrap().set_len(to).unwrap();
    };
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    check("all of it", &|p| fs::remove_dir_all(p).unwrap());
    check("no data file", &|p| fs::remove_file(data(p)).unwrap());
    check("an empty data file", &|p| shorten(&data(p), 0));
    check("half a data file", &|p| shorten(&data(p), size(&data(p)) / 2));
    check("a page of it", &|p| shorten(&data(p), 4096));
    check("another file in its place", &|p| fs::write(data(p), [b'x'; 100_000]).unwrap());
    check("zeros in its place", &|p| fs::write(data(p), vec![0; 4 << 20]).unwrap());
    check("no sled configuration", &|p| fs::write(p.join("conf"), "segment_size: ?\nno more").unwrap());
    check("the replica of another store", &|p| {
        let other = TestDirectory::new();
        other.filled().close();
        fs::remove_dir_all(p).unwrap();
        fs::rename(other.generation().join("sled"), p).unwrap();
    });
}

#[test]
fn the_journal_makes_the_replica_again_behind_the_newest_checkpoint() {
    let dir = TestDirectory::new();
    let engine = dir.filled();
    for round in 0..4 {
        engine.checkpoint_now();
        for number in 0..100 {
            commit(&engine, 1000 + round * 100 + number);
        }
    }
    engine.close();
    let checkpoints = dir.files_named("checkpoint-");
    assert_eq!(checkpoints.len(), KEPT_CHECKPOINTS, "{checkpoints:?}");
    dir.forget();
    let engine = dir.open().unwrap();
    assert_eq!(count(&engine), 600);
    engine.close();

    // The newest one is damaged: the one before it and more of the journal are used.
    dir.forget();
    let newest = dir.generation().join("checkpoint-500");
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).unwrap();
    let engine = dir.open().unwrap();
    assert_eq!(count(&engine), 600);
    engine.close();

    // Both are damaged: nothing is made up, and nothing is removed.
    fs::write(dir.generation().join("checkpoint-400"), "x").unwrap();
    dir.open().unwrap().close();
    fs::write(dir.generation().join("sled/db"), "x").unwrap();
    let Err(error) = dir.open() else { panic!("opened") };
    let said = error.to_string();
    assert!(said.contains("there is no checkpoint") && said.contains("permgate store restore"), "{said}");
    assert_eq!(fs::read(dir.generation().join("sled/db")).unwrap(), b"x");
}

const KEPT_CHECKPOINTS: usize = 2;

/// As on a full disk: the journal keeps what the checkpoint would have made redundant.
#[test]
fn a_checkpoint_that_cannot_be_written_costs_nothing() {
    let dir = TestDirectory::new();
    let engine = dir.filled();
    engine.checkpoint_now();
    let obstacle = dir.generation().join("checkpoint.new");
    fs::create_dir(&obstacle).unwrap();
    commit(&engine, 200);
    assert!(engine.try_checkpoint().is_err());
    commit(&engine, 201);
    engine.close();
    dir.forget();
    let engine = dir.open().unwrap();
    assert_eq!(count(&engine), 202);
    fs::remove_dir(&obstacle).unwrap();
    engine.checkpoint_now();
}

#[test]
fn a_replica_that_was_left_behind_catches_up() {
    let dir = TestDirectory::new();
    dir.filled().close();
    let sled = dir.generation().join("sled");
    let kept = dir.0.path().join("kept");
    copy(&sled, &kept);
    let engine = dir.open().unwrap();
    for number in 200..300 {
        commit(&engine, number);
    }
    engine.close();
    fs::remove_dir_all(&sled).unwrap();
    copy(&kept, &sled);
    let engine = dir.open().unwrap();
    assert_eq!(count(&engine), 300);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_directory_that_cannot_be_trusted_is_refused() {
    let check = |name: &str, spoil: &dyn Fn(&TestDirectory), expected: &str| {
        let dir = TestDirectory::new();
        dir.filled().close();
        fs::write(dir.0.path().join("monday.backup"), "").unwrap();
        spoil(&dir);
        let said = match dir.open() {
            Ok(_) => panic!("{name}: opened"),
            Err(error) => error.to_string(),
        };
        assert!(said.contains(expected), "{name}: {said}");
        assert!(said.contains(&*dir.path().to_string_lossy()), "{name}: {said}");
    };
    let restore = "monday.backup";
    let journal = |dir: &TestDirectory| dir.journals().pop().unwrap();
    check("no journal", &|p| fs::remove_file(journal(p)).unwrap(), restore);
    check("an empty journal", &|p| fs::write(journal(p), "").unwrap(), restore);
    check(
        "half a journal",
        &|p| {
            let journal = fs::File::options().write(true).open(journal(p)).unwrap();
            journal.set_len(journal.metadata().unwrap().len() / 2).unwrap();
        },
        restore,
    );
    check("another file in its place", &|p| fs::write(journal(p), [b'x'; 100_000]).unwrap(), restore);
    check(
        "an older journal",
        &|p| {
            let (name, old) = (journal(p), fs::read(journal(p)).unwrap());
            let engine = p.open().unwrap();
            commit(&engine, 200);
            engine.close();
            p.journals().iter().for_each(|file| fs::remove_file(file).unwrap());
            fs::write(name, old).unwrap();
        },
        "ends at position 200, but position 201 was acknowledged",
    );
    check("a malformed CURRENT", &|p| fs::write(p.path().join("CURRENT"), "hello").unwrap(), "damaged");
    check("no CURRENT", &|p| fs::remove_file(p.path().join("CURRENT")).unwrap(), "not a permgate store");
    check("no generation", &|p| fs::remove_dir_all(p.generation()).unwrap(), "missing");
}

#[test]
fn noise_in_the_replica_never_panics_and_loses_nothing() {
    let dir = TestDirectory::new();
    dir.filled().close();
    let data = dir.generation().join("sled/db");
    let sound = fs::read(&data).unwrap();
    let used = sound.iter().rposition(|byte| *byte != 0).unwrap();
    for step in 0..24 {
        let mut bytes = sound.clone();
        let from = used * step / 24;
        bytes[from..(from + 200).min(used)].fill(0xa5);
        fs::write(&data, bytes).unwrap();
        for snapshot in fs::read_dir(data.parent().unwrap()).unwrap().flatten() {
            if snapshot.file_name().to_string_lossy().starts_with("snap") {
                fs::remove_file(snapshot.path()).unwrap();
            }
        }
        let engine = dir.open().unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert_eq!(count(&engine), 200, "step {step}");
        engine.close();
    }
}

/// As a full disk, or a kill during an opening, leaves it behind.
#[test]
fn an_unfinished_snapshot_does_no_harm() {
    for content in [&b""[..], b"half of a snapshot"] {
        let dir = TestDirectory::new();
        dir.filled().close();
        let unfinished = dir.generation().join("sled/snap.FFFFFFFFFFFFFFFF.generating");
        fs::write(&unfinished, content).unwrap();
        let engine = dir.open().unwrap();
        assert_eq!(engine.head().position, 200);
        assert!(!unfinished.exists());
    }
}

#[test]
fn a_foreign_directory_is_not_touched() {
    let dir = TestDirectory::new();
    fs::create_dir(dir.path()).unwrap();
    fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
    let Err(error) = dir.open() else { panic!("opened") };
    let strange = matches!(&error, OpenError::Generation(GenerationError::NotAStore { names, .. }) if names.contains("thesis.txt"));
    assert!(strange, "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "not even a lock was left");

    let file = TestDirectory::new();
    fs::write(file.path(), "").unwrap();
    assert!(matches!(file.open(), Err(OpenError::File { .. })));
}

#[test]
fn what_a_file_system_makes_in_its_root_does_no_harm() {
    let dir = TestDirectory::new();
    fs::create_dir(dir.path()).unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    dir.filled().close();
    assert_eq!(count(&dir.open().unwrap()), 200);
}

#[test]
fn a_creation_that_was_cut_off_is_taken_up_again() {
    let dir = TestDirectory::new();
    let directory = StoreDirectory::open(&dir.path()).unwrap();
    directory.generations().begin(None).unwrap();
    drop(directory);
    let engine = dir.filled();
    engine.close();
    assert_eq!(count(&dir.open().unwrap()), 200);
}

#[test]
fn an_unfinished_batch_in_the_journal_was_never_made() {
    let dir = TestDirectory::new();
    let engine = dir.filled();
    let ops: Vec<Op> = (1000..21_000).map(|number| Op::PutToken(token(number, "bob"))).collect();
    let entries = op::encode_batch(&ops, crate::store::log::MAX_OPERATIONS).unwrap();
    assert!(entries.len() > 1);
    engine.log.lock().append(&entries[0]).unwrap();
    engine.close();
    let engine = dir.open().unwrap();
    assert_eq!(count(&engine), 200);
    commit(&engine, 200);
    engine.commit(&ops).unwrap();
    engine.close();
    dir.forget();
    assert_eq!(count(&dir.open().unwrap()), 20_201);
}
