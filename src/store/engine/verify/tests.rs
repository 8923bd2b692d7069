//! Damage to the files of a store is reported where it is, with and without a gateway.

use std::fs;

use super::*;
use crate::store::{
    conformance::{token, whole::chained},
    model::AuditPosition,
    op::Op,
};

struct TestDirectory {
    directory: tempfile::TempDir,
}

impl TestDirectory {
    fn settings(&self) -> Settings {
        Settings { path: self.directory.path().join("store"), ballast: 0 }
    }

    fn generation(&self) -> PathBuf {
        self.settings().path.join("gen-1")
    }

    fn filled() -> (Self, Engine) {
        let dir = Self { directory: tempfile::tempdir().unwrap() };
        let engine = Engine::open(&dir.settings()).unwrap();
        let mut head = AuditPosition::START;
        for _ in 0..50 {
            engine.commit(&[chained(&mut head)]).unwrap();
        }
        engine.checkpoint_now();
        for _ in 0..10 {
            engine.commit(&[chained(&mut head)]).unwrap();
        }
        (dir, engine)
    }

    fn file(&self, prefix: &str) -> PathBuf {
        let mut files = fs::read_dir(self.generation()).unwrap().map(|file| file.unwrap().path());
        files.find(|file| file.file_name().unwrap().to_string_lossy().starts_with(prefix)).unwrap()
    }
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

fn all(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn wrong(report: &Report) -> Vec<(String, String, &'static str)> {
    report.damage.iter().map(|damage| (damage.place.clone(), damage.what.clone(), damage.advice)).collect()
}

#[test]
fn what_is_sound_is_counted() {
    let (dir, engine) = TestDirectory::filled();
    let report = engine.verify(&mut all).unwrap();
    assert_eq!(wrong(&report), []);
    assert_eq!((report.position, report.journal_entries, report.checkpoints), (60, 60, 1));
    assert_eq!(report.tables.iter().find(|(name, _)| *name == "audit").unwrap().1, 60);
    engine.close();
    let closed = verify_closed(&dir.settings(), &mut all).unwrap();
    assert_eq!(wrong(&closed), []);
    assert_eq!((closed.position, closed.journal_entries, closed.checkpoints), (60, 60, 1));
    assert_eq!(closed.notes, [""; 0]);
}

#[test]
fn damage_to_a_file_is_found_with_its_place() {
    let check = |name: &str, prefix: &str, at: usize, what: &str, advice: &str| {
        for open in [true, false] {
            let (dir, engine) = TestDirectory::filled();
            let file = dir.file(prefix);
            let report = if open {
                flip(&file, at);
                engine.verify(&mut all).unwrap()
            } else {
                engine.close();
                flip(&file, at);
                let report = verify_closed(&dir.settings(), &mut all).unwrap();
                assert!(Engine::open(&dir.settings()).is_err() == (prefix == "journal-"), "{name}");
                report
            };
            let [(place, found, recommended)] = &wrong(&report)[..] else { panic!("{name}: {report:?}") };
            assert!(
                place.contains(prefix) && found.contains(what) && recommended.contains(advice),
                "{name}: {report:?}"
            );
        }
    };
    check("a batch", "journal-", 12288 + 4096 * 20 + 50, "position 21", "permgate store restore");
    check("the header", "journal-", 20, "header", "permgate store restore");
    check("a checkpoint", "checkpoint-", 400, "damaged", "nothing is lost");
}

#[test]
fn a_replica_in_which_damage_was_found_is_made_again_at_the_next_start() {
    let (dir, engine) = TestDirectory::filled();
    // An owner that does not exist, which a start does not check.
    engine.commit(&[Op::PutToken(token(1, "nobody"))]).unwrap();
    let report = engine.verify(&mut all).unwrap();
    let [(found, what, advice)] = &wrong(&report)[..] else { panic!("{report:?}") };
    assert!(found.ends_with("sled: tokens") && what.contains("names the user nobody"), "{found}: {what}");
    assert_eq!(*advice, REPLICA_ADVICE);
    engine.close();
    assert!(matches!(
        Replica::open(&dir.generation().join(REPLICA), engine.store),
        Err(OpenError::Replica(_))
    ));
    Engine::open(&dir.settings()).unwrap().close();
    Replica::open(&dir.generation().join(REPLICA), engine.store).unwrap().unwrap().close();
}

/// Without a gateway, nothing is marked, so a restart would not notice.
#[test]
fn verifying_a_closed_store_does_not_mark_its_replica() {
    let (dir, engine) = TestDirectory::filled();
    engine.commit(&[Op::PutToken(token(1, "nobody"))]).unwrap();
    engine.close();
    for _ in 0..2 {
        let report = verify_closed(&dir.settings(), &mut all).unwrap();
        let [(found, _, advice)] = &wrong(&report)[..] else { panic!("{report:?}") };
        assert!(found.ends_with("sled: tokens") && advice.contains("move the directory sled"), "{advice}");
        assert!(!dir.generation().join(REPLICA).join("condemned").exists());
    }
}

#[test]
fn where_there_is_no_store_none_is_made() {
    let dir = TestDirectory { directory: tempfile::tempdir().unwrap() };
    let settings = dir.settings();
    let error = verify_closed(&settings, &mut all).unwrap_err().to_string();
    assert!(error.contains("there is no store"), "{error}");
    assert!(!settings.path.exists());
    fs::create_dir(&settings.path).unwrap();
    fs::write(settings.path.join("format"), "permgate store\nformat 1\n").unwrap();
    let error = verify_closed(&settings, &mut all).unwrap_err().to_string();
    assert!(error.contains("first release"), "{error}");
}

#[test]
fn a_copy_of_a_clusters_store_has_no_journal_to_miss() {
    let (dir, engine) = TestDirectory::filled();
    engine.close();
    fs::remove_file(dir.file("journal-")).unwrap();
    assert!(!verify_closed(&dir.settings(), &mut all).unwrap().is_sound());
    fs::write(dir.settings().path.join("cluster"), "").unwrap();
    let report = verify_closed(&dir.settings(), &mut all).unwrap();
    assert_eq!((wrong(&report), report.position), (Vec::new(), 60));
    assert_eq!(report.notes, ["this is a node's copy of a cluster's store, whose log is in etcd"]);
}
