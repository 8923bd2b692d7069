//! Store directories that cannot be opened: a clear error, exit code 1, and nothing is destroyed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::installation::Installation;

/// Damages a store. The process must report it with these words and leave the directory unchanged.
fn check(row: &str, spoil: impl FnOnce(&Path), says: &[&str]) {
    let installation = Installation::new();
    let store = installation.path().join("data");
    let process = installation.run();
    process.user("alice");
    for number in 0..20 {
        process.token("alice", &format!("token {number}"));
    }
    process.stop();
    spoil(&store);
    let before = content(&store);
    let (code, words) = installation.start_failing();
    assert_eq!(code, Some(1), "{row}: {words}");
    for word in says {
        assert!(words.contains(word), "{row}: {word:?} is missing in {words}");
    }
    assert!(!words.contains("panicked at"), "{row}: {words}");
    let after = content(&store);
    for (name, bytes) in before {
        assert!(after[&name] == bytes, "{row}: {name} was changed");
    }
}

#[test]
fn invalid_store_directory_is_refused_and_unchanged() {
    check(
        "no CURRENT",
        |store| fs::remove_file(store.join("CURRENT")).unwrap(),
        &["not a permgate store", "gen-1"],
    );
    check("a malformed CURRENT", |store| fs::write(store.join("CURRENT"), "x").unwrap(), &["damaged"]);
    check(
        "no generation",
        |store| fs::remove_dir_all(store.join("gen-1")).unwrap(),
        &["gen-1", "missing", "permgate store restore"],
    );
    check(
        "somebody else's directory",
        |store| {
            fs::remove_dir_all(store).unwrap();
            fs::create_dir(store).unwrap();
            fs::write(store.join("thesis.txt"), "years of work").unwrap();
        },
        &["not a permgate store", "thesis.txt"],
    );
    check(
        "a file",
        |store| {
            fs::remove_dir_all(store).unwrap();
            fs::write(store, "a file").unwrap();
        },
        &["not a permgate store", "it is a file"],
    );
    check(
        "no journal",
        |store| fs::remove_file(journal(store)).unwrap(),
        &["damaged", "permgate store restore"],
    );
    for part in [0, 1, 2, 3] {
        check(
            &format!("a journal cut to {part} quarters"),
            |store| {
                let journal = fs::File::options().write(true).open(journal(store)).unwrap();
                journal.set_len(journal.metadata().unwrap().len() * part / 4).unwrap();
            },
            &["damaged", "permgate store restore"],
        );
    }
    check(
        "other bytes as a journal",
        |store| overwrite_with_noise(&journal(store)),
        &["damaged", "permgate store restore"],
    );
}

/// sled holds nothing that the journal does not, so the store is complete whatever happens to sled.
#[test]
fn damaged_replica_is_rebuilt_at_the_next_start() {
    let installation = Installation::new();
    let process = installation.run();
    process.user("alice");
    let (_, good) = process.token("alice", "good");
    let (id, revoked) = process.token("alice", "revoked");
    process.must("DELETE", &format!("/v1/tokens/{id}"), None);
    process.stop();
    let data = installation.path().join("data/gen-1/sled/db");
    let spoils: [&dyn Fn(); 3] = [
        &|| fs::remove_file(&data).unwrap(),
        &|| fs::File::options().write(true).open(&data).unwrap().set_len(4096).unwrap(),
        &|| overwrite_with_noise(&data),
    ];
    for spoil in spoils {
        spoil();
        let process = installation.run();
        assert_eq!((process.status(&good), process.status(&revoked)), (200, 401), "{}", process.output());
        process.stop();
    }
}

fn journal(store: &Path) -> PathBuf {
    let mut files = fs::read_dir(store.join("gen-1")).unwrap().map(|file| file.unwrap().path());
    files.find(|file| file.display().to_string().contains("/journal-")).unwrap()
}

fn overwrite_with_noise(file: &Path) {
    let noise: Vec<u8> = (0..fs::metadata(file).unwrap().len()).map(|n| (n * 31 % 251) as u8).collect();
    fs::write(file, noise).unwrap();
}

/// The content of every file below, except for the lock, which has the id of the last process.
fn content(store: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut left = vec![store.to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if !path.ends_with("lock") {
            files.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    files
}
