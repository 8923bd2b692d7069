//! A store and a backup that were made by the first release.

use std::{collections::BTreeMap, fs, os::unix::fs::FileExt as _, path::PathBuf};

use serde_json::Value;

use super::*;
use crate::store::{
    audit,
    conformance::live_token_named,
    engine::Engine,
    restore::{self, Options},
};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/store-b654cb1");

struct TestDirectory {
    directory: tempfile::TempDir,
}

impl TestDirectory {
    /// A directory with a store of the first release.
    fn released() -> Self {
        let dir = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir_all(dir.path().join(DATA)).unwrap();
        for file in ["format", "data/conf", "data/db"] {
            fs::copy(format!("{FIXTURE}/store/{file}"), dir.path().join(file)).unwrap();
        }
        dir
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn settings(&self) -> Settings {
        Settings { path: self.path(), ballast: 0 }
    }

    fn open(&self) -> Engine {
        Engine::open(&self.settings()).unwrap()
    }
}

/// Every file below a directory, with its content.
fn content(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()) {
        let name = PathBuf::from(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            all.insert(name.clone(), Vec::new());
            all.extend(content(&entry.path()).into_iter().map(|(below, bytes)| (name.join(below), bytes)));
        } else {
            all.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    all
}

fn read_manifest(directory: &Path) -> Manifest {
    Manifest::parse(&fs::read(directory.join(manifest::FILE)).unwrap()).unwrap().unwrap()
}

fn expected(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(format!("{FIXTURE}/{name}.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["items"].as_array().unwrap().clone()
}

/// The engine has what the first release reported of its store.
fn verify(engine: &Engine, name: &str) {
    let tokens = engine.tokens(None, 10_000).unwrap();
    let expected_tokens = expected("tokens");
    assert_eq!(tokens.len(), expected_tokens.len(), "{name}");
    for expected in &expected_tokens {
        let id = expected["id"].as_str().unwrap();
        let token = tokens.iter().find(|token| token.id.as_str() == id).unwrap();
        let text = |at: &str| expected[at].as_str();
        assert_eq!(token.owner, text("user_id").unwrap(), "{name}: {id}");
        assert_eq!(token.name, text("name").unwrap(), "{name}: {id}");
        assert_eq!(token.note, text("note").unwrap(), "{name}: {id}");
        assert_eq!(token.revoked.is_some(), text("revoked_at").is_some(), "{name}: {id}");
        assert_eq!(token.rotation.map(|r| r.to.as_str().to_owned()).as_deref(), text("rotated_to"));
        assert_eq!(token.family.as_str(), text("family").unwrap(), "{name}: {id}");
        assert_eq!(token.imported, expected["imported"], "{name}: {id}");
        assert_eq!(token.revision, expected["revision"].as_u64().unwrap(), "{name}: {id}");
        assert_eq!(token.scope.len(), expected["scope"].as_array().unwrap().len(), "{name}: {id}");
        assert_eq!(token.allow_ips.len(), expected["allow_ips"].as_array().unwrap().len(), "{name}: {id}");
        // The backup was taken before the last use was written.
        let used = token.last_used.as_ref().map(|used| used.service.as_str());
        assert!(used == text("last_used_service") || name.starts_with("restored"), "{name}: {id}");
        assert_eq!(token.expires_at.map(audit::time_json).is_some(), text("expires_at").is_some());
        let state = text("state").unwrap();
        if state == "active" {
            let name = crate::authz::accounts::fold(&token.name);
            let named = live_token_named(engine, &token.owner, &name, wall_clock()).unwrap();
            assert_eq!(named.map(|token| token.id), Some(token.id), "{id} has its name");
        }
    }
    let logins = |users: Vec<Value>| {
        let mut logins: Vec<String> =
            users.iter().map(|user| user["login"].as_str().unwrap().to_owned()).collect();
        logins.sort();
        logins
    };
    let mut users: Vec<String> = engine.users().unwrap().into_iter().map(|user| user.login).collect();
    users.sort();
    for login in logins(expected("users")) {
        assert!(users.contains(&login), "{name}: {login}");
    }
    assert_eq!(engine.groups().unwrap().len() + 1, expected("groups").len(), "{name}: and all-users");
    assert_eq!(engine.grants().unwrap().len(), expected("grants").len(), "{name}");
    let events = engine.audit_from(0, 10_000).unwrap();
    let expected_events = expected("audit");
    assert!(events.len() >= expected_events.len(), "{name}");
    audit::verify(engine.audit_start().unwrap(), engine.acknowledged_audit().unwrap(), |seq| {
        engine.audit_from(seq, 100)
    })
    .unwrap();
}

#[test]
fn a_released_store_is_migrated_at_its_first_opening() {
    let dir = TestDirectory::released();
    let format = fs::read(dir.path().join("format")).unwrap();
    let engine = dir.open();
    verify(&engine, "migrated");
    assert!(!engine.sessions().unwrap().is_empty(), "who was signed in still is");
    engine.close();
    assert!(!dir.path().join("format").exists() && !dir.path().join("data").exists());
    let kept = dir.path().join("released");
    assert_eq!(fs::read(kept.join("format")).unwrap(), format, "the released permgate opens this");
    assert!(kept.join("data/db").exists());
    let engine = dir.open();
    verify(&engine, "opened again");
}

/// Keys of assertions lie there, and whatever else the first release did not look at.
#[test]
fn a_released_store_with_other_files_is_migrated() {
    let names = ["assertion-keys.json", "assertion-keys.new", "README"];
    let dir = TestDirectory::released();
    for name in names {
        fs::write(dir.path().join(name), name).unwrap();
    }
    StoreDirectory::check(&dir.path()).unwrap();
    let engine = dir.open();
    verify(&engine, "beside other files");
    engine.close();
    for name in names {
        assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), name);
    }
    verify(&dir.open(), "opened again");

    // The creation of the released store was interrupted.
    let begun = TestDirectory::released();
    let manifest = Manifest { ready: false, ..read_manifest(&begun.path()) };
    manifest.write(&begun.path()).unwrap();
    fs::write(begun.path().join("README"), "README").unwrap();
    let engine = begun.open();
    assert!(engine.users().unwrap().is_empty(), "begun anew");
    engine.close();
    assert_eq!(fs::read_to_string(begun.path().join("README")).unwrap(), "README");
    begun.open();

    let foreign = tempfile::tempdir().unwrap();
    fs::write(foreign.path().join(manifest::FILE), "tar\n").unwrap();
    fs::write(foreign.path().join("README"), "no store").unwrap();
    let error = Engine::open(&Settings { path: foreign.path().to_owned(), ballast: 0 }).err().unwrap();
    assert!(error.to_string().contains("not a permgate store: it has README"), "{error}");
    assert_eq!(fs::read_dir(foreign.path()).unwrap().count(), 2, "not even a lock is created");
}

/// A migration that was cut off after any of its steps is completed by the next opening.
#[test]
fn a_migration_that_was_cut_off_is_taken_up_again() {
    let check = |name: &str, cut: &dyn Fn(&Path, &StoreDirectory, &Settings)| {
        let dir = TestDirectory::released();
        let directory = StoreDirectory::open(&dir.path()).unwrap();
        cut(&dir.path(), &directory, &dir.settings());
        directory.unlock();
        let engine = dir.open();
        verify(&engine, name);
        engine.close();
        assert!(!dir.path().join("format").exists(), "{name}");
        assert!(dir.path().join("released/data/db").exists(), "{name}");
        assert!(dir.path().join("released/format").exists(), "{name}");
    };
    let keep = |path: &Path| preserve_manifest(path, &read_manifest(path)).unwrap();
    check("nothing yet", &|_, _, _| {});
    check("the kept directory is made", &|path, _, _| {
        create_kept_directory(&path.join(KEPT_DIRECTORY)).unwrap();
    });
    check("the marker is kept", &|path, _, _| {
        create_kept_directory(&path.join(KEPT_DIRECTORY)).unwrap();
        read_manifest(path).write(&path.join(KEPT_DIRECTORY)).unwrap();
    });
    check("format says 2", &|path, _, _| keep(path));
    check("a generation is begun", &|path, directory, _| {
        keep(path);
        directory.generations().begin(None).unwrap();
    });
    check("it is the store", &|_, directory, settings| assert!(migrate(directory, settings).unwrap()));
    check("the data is moved", &|path, directory, settings| {
        assert!(migrate(directory, settings).unwrap());
        fs::rename(path.join(DATA), path.join(KEPT_DIRECTORY).join(DATA)).unwrap();
    });
}

#[test]
fn a_released_store_that_is_damaged_is_left_as_it_is() {
    let check = |name: &str, spoil: &dyn Fn(&Path), expected: &str| {
        let dir = TestDirectory::released();
        spoil(&dir.path());
        let before = content(&dir.path());
        let Err(error) = Engine::open(&dir.settings()) else { panic!("{name}: opened") };
        assert!(error.to_string().contains(expected), "{name}: {error}");
        let mut after = content(&dir.path());
        after.remove(Path::new("lock"));
        assert!(after == before, "{name}: {:?}", after.keys());
    };
    check("no data file", &|path| fs::remove_file(path.join("data/db")).unwrap(), "missing or empty");
    check("a malformed marker", &|path| fs::write(path.join("format"), "x").unwrap(), "malformed");
    check(
        "a newer format",
        &|path| fs::write(path.join("format"), "permgate store\nformat 3\n").unwrap(),
        "format 3",
    );
    check(
        "older data",
        &|path| {
            let manifest = read_manifest(path);
            Manifest { revision: manifest.revision + 1000, ..manifest }.write(path).unwrap();
        },
        "changes were acknowledged",
    );
    // sled cuts its file off at the first damage.
    let overwrite = |path: &Path| {
        let file = fs::File::options().write(true).open(path.join("data/db")).unwrap();
        file.write_all_at(&[0x5a; 4096], 20_000).unwrap();
    };
    check("a damaged data file", &overwrite, "is damaged");
    check("no marker", &|path| fs::remove_file(path.join("format")).unwrap(), "not a permgate store");
}

#[test]
fn a_released_backup_is_restored() {
    let backup = fs::read(format!("{FIXTURE}/backup.pgb")).unwrap();
    let now = wall_clock();
    let options = Options { accept_lost_revocations: true, now };
    let dir = TestDirectory { directory: tempfile::tempdir().unwrap() };
    restore::offline(&dir.settings(), &options, &backup[..], &mut |_| {}).unwrap();
    let engine = dir.open();
    verify(&engine, "restored");
    engine.close();
    // Over its own store, which is migrated on the way and has the revocations.
    let dir = TestDirectory::released();
    fs::write(dir.path().join("assertion-keys.json"), "keys").unwrap();
    let options = Options { accept_lost_revocations: false, now };
    let restored = restore::offline(&dir.settings(), &options, &backup[..], &mut |_| {}).unwrap();
    assert_eq!((restored.revoked, restored.users), (0, 0));
    verify(&dir.open(), "restored over the store");
}
