//! The engine's own promises: durability, and what a damaged or foreign directory is told.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::*;
use crate::store::{
    conformance::{conforms, event, id, token},
    engine::Engine,
    model::TokenRecord,
};

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn open(&self) -> Result<Embedded, OpenError> {
        Embedded::open(&Settings { path: self.path(), ballast: 4096 })
    }

    fn filled(&self) -> Embedded {
        let engine = self.open().unwrap();
        for number in 0..200 {
            engine
                .commit(&[Op::PutToken(token(number, "ann")), Op::AppendAudit(event(number as u64))])
                .unwrap();
        }
        engine
    }
}

#[test]
fn it_is_an_engine() {
    let place = Place::new();
    conforms(|| Engine::Embedded(place.open().unwrap()));
}

#[test]
fn every_acknowledged_commit_has_a_sync_of_its_own() {
    let place = Place::new();
    let engine = place.open().unwrap();
    for number in 0..20 {
        let before = engine.syncs();
        engine.commit(&[Op::PutToken(token(number, "ann"))]).unwrap();
        assert_eq!(engine.syncs(), before + 1);
    }
}

#[test]
fn after_a_failure_nothing_is_acknowledged_any_more() {
    for fault in [Fault::Sync, Fault::Apply] {
        let place = Place::new();
        let engine = place.filled();
        engine.inject(fault);
        let failed = engine.commit(&[Op::PutToken(token(1000, "ann"))]);
        assert!(matches!(failed, Err(CommitError::Failed(_))), "{fault:?}");
        // The disk recovers, and yet what it lost may never be written.
        engine.inject(Fault::None);
        let later = engine.commit(&[Op::PutToken(token(1001, "ann"))]);
        assert!(matches!(later, Err(CommitError::Failed(_))), "{fault:?}");
        assert_eq!(engine.token(id(1001)).unwrap(), None, "{fault:?}");
        assert!(engine.token(id(7)).unwrap().is_some(), "{fault:?}: reads go on");
        engine.close();
        let engine = place.open().unwrap();
        assert!(engine.token(id(199)).unwrap().is_some(), "{fault:?}: what was acknowledged is there");
        engine.commit(&[Op::PutToken(token(1001, "ann"))]).expect("a restart takes changes again");
    }
}

#[test]
fn nothing_leaves_the_data_file_however_large_the_records_are() {
    let place = Place::new();
    let engine = place.open().unwrap();
    for number in 0..120 {
        let note = "x".repeat(16 * 1024 - 300);
        engine.commit(&[Op::PutToken(TokenRecord { note, ..token(number, "ann") })]).unwrap();
    }
    let blobs = fs::read_dir(place.path().join("data/blobs")).unwrap().count();
    assert_eq!(blobs, 0);
    engine.close();
    assert_eq!(place.open().unwrap().tokens(None, 1000).unwrap().len(), 120);
}

#[test]
fn only_the_owner_may_read_it() {
    let place = Place::new();
    place.filled().close();
    let engine = place.open().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.path()), 0o700);
    for file in ["lock", "format", "ballast", "data/db", "data/conf"] {
        assert_eq!(mode(&place.path().join(file)), 0o600, "{file}");
    }
    drop(engine);
}

#[test]
fn a_second_opening_is_refused_until_the_first_is_closed() {
    let place = Place::new();
    let engine = place.filled();
    let Err(OpenError::Locked { path, holder }) = place.open() else { panic!("opened twice") };
    assert_eq!(path, place.path());
    assert_eq!(holder, format!("process {}", std::process::id()));
    engine.close();
    place.open().unwrap();
}

#[test]
fn a_directory_that_cannot_be_trusted_is_refused() {
    let check = |name: &str, spoil: &dyn Fn(&Path), expected: &str| {
        let place = Place::new();
        place.filled().close();
        fs::write(place.directory.path().join("monday.backup"), "").unwrap();
        spoil(&place.path());
        let said = match place.open() {
            Ok(_) => panic!("{name}: opened"),
            Err(error) => error.to_string(),
        };
        assert!(said.contains(expected), "{name}: {said}");
        assert!(said.contains(&*place.path().to_string_lossy()), "{name}: {said}");
    };
    let data = |path: &Path| path.join("data/db");
    let shorten = |path: &Path, to: u64| {
        fs::File::options().write(true).open(path).unwrap().set_len(to).unwrap();
    };
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    let restore = "monday.backup";

    check("no data file", &|p| fs::remove_file(data(p)).unwrap(), restore);
    check("an empty data file", &|p| shorten(&data(p), 0), restore);
    check("half a data file", &|p| shorten(&data(p), size(&data(p)) / 2), restore);
    check("a page of it", &|p| shorten(&data(p), 4096), restore);
    check("another file in its place", &|p| fs::write(data(p), [b'x'; 100_000]).unwrap(), restore);
    check("zeros in its place", &|p| fs::write(data(p), vec![0; 4 << 20]).unwrap(), restore);
    check(
        "no sled configuration",
        &|p| fs::write(p.join("data/conf"), "segment_size: ?\nno more").unwrap(),
        restore,
    );
    check("a malformed marker", &|p| fs::write(p.join("format"), "hello").unwrap(), restore);
    check(
        "the data of another store",
        &|p| {
            let other = Place::new();
            other.filled().close();
            fs::remove_dir_all(p.join("data")).unwrap();
            fs::rename(other.path().join("data"), p.join("data")).unwrap();
        },
        "another store",
    );
    check(
        "older data",
        &|p| {
            let format = fs::read_to_string(p.join("format")).unwrap();
            fs::write(p.join("format"), format.replace("revision 200", "revision 201")).unwrap();
        },
        "201 changes were acknowledged, only 200 are left",
    );
    check(
        "a newer format",
        &|p| fs::write(p.join("format"), "permgate store\nformat 2\n").unwrap(),
        "has format 2",
    );
    check("no marker", &|p| fs::remove_file(p.join("format")).unwrap(), "not a permgate store");
}

#[test]
fn noise_in_the_data_file_never_panics() {
    let place = Place::new();
    place.filled().close();
    let sound = fs::read(place.path().join("data/db")).unwrap();
    let used = sound.iter().rposition(|byte| *byte != 0).unwrap();
    let mut opened = 0;
    for step in 0..24 {
        let mut bytes = sound.clone();
        let from = used * step / 24;
        bytes[from..(from + 200).min(used)].fill(0xa5);
        fs::write(place.path().join("data/db"), bytes).unwrap();
        for snapshot in fs::read_dir(place.path().join("data")).unwrap().flatten() {
            if snapshot.file_name().to_string_lossy().starts_with("snap") {
                fs::remove_file(snapshot.path()).unwrap();
            }
        }
        if let Ok(engine) = place.open() {
            opened += 1;
            // What opens has lost nothing that was acknowledged.
            assert_eq!(engine.tokens(None, 1000).map_or(200, |tokens| tokens.len()), 200, "step {step}");
            engine.close();
        }
    }
    assert!(opened < 24, "noise was never noticed");
}

/// As a full disk or a kill leaves it behind in the midst of an opening.
#[test]
fn an_unfinished_snapshot_does_no_harm() {
    for content in [&b""[..], b"half of a snapshot"] {
        let place = Place::new();
        place.filled().close();
        let unfinished = place.path().join("data/snap.FFFFFFFFFFFFFFFF.generating");
        fs::write(&unfinished, content).unwrap();
        let engine = place.open().unwrap();
        assert_eq!(engine.revision(), 200);
        assert!(!unfinished.exists());
    }
}

#[test]
fn a_foreign_directory_is_not_touched() {
    let place = Place::new();
    fs::create_dir(place.path()).unwrap();
    fs::write(place.path().join("thesis.txt"), "years of work").unwrap();
    let Err(error) = place.open() else { panic!("opened") };
    assert!(matches!(&error, OpenError::Foreign { why, .. } if why.contains("thesis.txt")), "{error}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "not even a lock was left");

    let file = Place::new();
    fs::write(file.path(), "").unwrap();
    assert!(matches!(file.open(), Err(OpenError::Foreign { .. })));
}

#[test]
fn a_creation_that_was_cut_off_is_taken_up_again() {
    let place = Place::new();
    let (directory, _) = Directory::open(&place.path()).unwrap();
    let marker = Marker { store: "cut-off".to_owned(), revision: 0, ready: false };
    directory.write_marker(&marker).unwrap();
    directory.create_sled().unwrap();
    drop(directory);
    let engine = place.filled();
    engine.close();
    assert_eq!(place.open().unwrap().tokens(None, 1000).unwrap().len(), 200);
}
