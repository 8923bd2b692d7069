//! Store directories that cannot be opened: a clear error, exit code 1, and nothing is destroyed.

use std::{collections::BTreeMap, fs, path::Path};

use crate::place::Place;

/// A store, spoilt: the process says this of it and leaves it as it is.
fn check(row: &str, spoil: impl FnOnce(&Path), says: &[&str]) {
    let place = Place::new();
    let store = place.path().join("data");
    let process = place.run();
    process.user("alice");
    for number in 0..20 {
        process.token("alice", &format!("token {number}"));
    }
    process.stop();
    spoil(&store);
    let before = content(&store);
    let (code, words) = place.fails();
    assert_eq!(code, Some(1), "{row}: {words}");
    for word in says {
        assert!(words.contains(word), "{row}: {word:?} is missing in {words}");
    }
    assert!(!words.contains("panicked at"), "{row}: {words}");
    let after = content(&store);
    for (name, bytes) in before {
        if name.ends_with("data/db") {
            // The storage engine marks as torn what it cannot read.
            assert!(after[&name].len() >= bytes.len(), "{row}: {name} was cut");
        } else {
            assert!(after[&name] == bytes, "{row}: {name} was changed");
        }
    }
}

#[test]
fn a_directory_that_is_no_sound_store_is_refused_and_left_alone() {
    check(
        "no format file",
        |store| fs::remove_file(store.join("format")).unwrap(),
        &["not a permgate store"],
    );
    check("a malformed format file", |store| fs::write(store.join("format"), "x").unwrap(), &["damaged"]);
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
        "no data",
        |store| fs::remove_file(store.join("data/db")).unwrap(),
        &["damaged", "permgate store restore"],
    );
    for part in [0, 1, 2, 3] {
        check(
            &format!("data cut to {part} quarters"),
            |store| {
                let data = fs::File::options().write(true).open(store.join("data/db")).unwrap();
                data.set_len(data.metadata().unwrap().len() * part / 4).unwrap();
            },
            &["damaged", "permgate store restore"],
        );
    }
    check(
        "other bytes as data",
        |store| {
            let data = store.join("data/db");
            let noise: Vec<u8> =
                (0..fs::metadata(&data).unwrap().len()).map(|n| (n * 31 % 251) as u8).collect();
            fs::write(data, noise).unwrap();
        },
        &["damaged", "permgate store restore"],
    );
}

/// Every file below, the lock's number apart: who looked last is written there.
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
