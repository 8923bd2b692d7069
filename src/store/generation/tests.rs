use super::*;
use crate::store::log::{
    files::OsDirectory,
    tests::{
        Random,
        disk::{Disk, Weakness},
    },
};

fn is_own(name: &str) -> bool {
    name == "lock"
}

fn on(disk: &Disk) -> Generations {
    Generations::new(disk.root(), is_own)
}

/// Builds a generation with one synced file in it.
fn build(generations: &Generations, content: &str) -> Result<(), GenerationError> {
    let new = generations.begin(None)?;
    let failure = |e| Failure::new("write", "data", e);
    let file = new.directory.create("data").map_err(failure)?;
    file.write_all_at(content.as_bytes(), 0).map_err(failure)?;
    file.sync_all().map_err(failure)?;
    generations.switch(&new)
}

/// The content of the current generation, read as a start reads it.
fn content(generations: &Generations) -> Option<String> {
    let Contents::Store { directory, .. } = generations.read().unwrap() else { return None };
    let file = directory.open("data").unwrap();
    let mut content = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
    file.read_exact_at(&mut content, 0).unwrap();
    Some(String::from_utf8(content).unwrap())
}

/// Interrupts `change` at each of its steps, by a kill and by power cuts. Returns each content that was
/// found afterwards.
fn cut_everywhere(
    start: &Disk,
    change: impl Fn(&Generations) -> Result<(), GenerationError>,
) -> Vec<Option<String>> {
    let mut found = Vec::new();
    for step in 1.. {
        let mut whole = false;
        for round in 0..12 {
            let disk = start.copy();
            disk.cut_after(step);
            whole = change(&on(&disk)).is_ok();
            match round {
                0 => disk.kill(),
                _ => disk.power_cut(),
            }
            start.reseed(step as u64 * 100 + round);
            let before = content(&on(&disk));
            if whole {
                assert_eq!(before.as_deref(), Some("new"), "done is done");
            }
            found.push(before);
            // Whatever was found, the change works now, and leaves nothing behind.
            change(&on(&disk)).unwrap();
            assert_eq!(content(&on(&disk)).as_deref(), Some("new"));
            let mut names = disk.root().list().unwrap();
            names.retain(|name| !name.starts_with("lost"));
            assert_eq!(names.len(), 2, "{names:?}");
        }
        if whole {
            break;
        }
    }
    found
}

#[test]
fn a_creation_cut_anywhere_begins_anew_or_is_whole() {
    let disk = Disk::new(512, Weakness::None, 1);
    disk.root().create_directory("lost+found").unwrap();
    disk.root().sync().unwrap();
    let found = cut_everywhere(&disk, |generations| build(generations, "new"));
    assert!(found.contains(&None) && found.contains(&Some("new".into())), "{found:?}");
}

#[test]
fn a_switch_cut_anywhere_leaves_the_old_store_or_the_new_one() {
    let disk = Disk::new(512, Weakness::None, 1);
    build(&on(&disk), "old").unwrap();
    let found = cut_everywhere(&disk, |generations| build(generations, "new"));
    assert!(!found.contains(&None), "never empty: {found:?}");
    assert!(found.contains(&Some("old".into())) && found.contains(&Some("new".into())), "{found:?}");
}

#[test]
fn a_failed_sync_leaves_the_old_store_or_the_new_one() {
    for sync in 1..20 {
        let mut random = Random(sync);
        let disk = Disk::new(512, Weakness::None, random.next());
        build(&on(&disk), "old").unwrap();
        disk.fail_sync_after(usize::try_from(sync).unwrap());
        let changed = build(&on(&disk), "new");
        disk.power_cut();
        let found = content(&on(&disk));
        assert!(
            found.as_deref() == Some("new") || changed.is_err() && found.as_deref() == Some("old"),
            "{found:?}"
        );
    }
}

#[test]
fn no_store_is_made_where_anything_lies() {
    let refused = |disk: &Disk, name: &str| {
        let generations = on(disk);
        let message = generations.read().err().unwrap().to_string();
        assert!(message.contains(name), "{message}");
        assert!(generations.begin(None).is_err());
        assert!(disk.root().list().unwrap().iter().all(|name| name != CURRENT));
    };
    for name in ["gen-1", "gen-7", "data", "format", "journal-0000000001", "photos"] {
        let disk = Disk::new(512, Weakness::None, 1);
        disk.root().create_directory(name).unwrap();
        refused(&disk, name);
    }
    // A store that lost its CURRENT.
    let disk = Disk::new(512, Weakness::None, 1);
    build(&on(&disk), "old").unwrap();
    disk.root().remove(CURRENT).unwrap();
    refused(&disk, "gen-1");
    // Names that may be there.
    for name in ["lock", LOST_AND_FOUND, UNFINISHED] {
        let disk = Disk::new(512, Weakness::None, 1);
        drop(disk.root().create(name).unwrap());
        assert!(matches!(on(&disk).read().unwrap(), Contents::Empty), "{name}");
    }
}

#[test]
fn a_damaged_current_and_a_missing_generation_are_refused() {
    let disk = Disk::new(512, Weakness::None, 1);
    build(&on(&disk), "old").unwrap();
    let size = disk.content(CURRENT).len();
    for bit in 0..size * 8 {
        let copy = disk.copy();
        copy.edit(CURRENT, |content| content[bit / 8] ^= 1 << (bit % 8));
        assert!(matches!(on(&copy).read(), Err(GenerationError::Damaged { .. })), "bit {bit}");
        assert!(on(&copy).begin(None).is_err(), "bit {bit}");
    }
    for length in 0..size {
        let copy = disk.copy();
        copy.edit(CURRENT, |content| content.truncate(length));
        assert!(matches!(on(&copy).read(), Err(GenerationError::Damaged { .. })), "cut to {length}");
    }
    disk.root().remove_directory("gen-1").unwrap();
    let message = on(&disk).read().err().unwrap().to_string();
    assert!(message.contains("/disk/gen-1 is missing"), "{message}");
}

#[test]
fn another_version_is_refused_as_such() {
    let disk = Disk::new(512, Weakness::None, 1);
    build(&on(&disk), "old").unwrap();
    disk.edit(CURRENT, |content| {
        let body = "permgate store 2\nanything\n";
        *content = format!("{body}checksum {}\n", blake3::hash(body.as_bytes())).into_bytes();
    });
    assert!(matches!(on(&disk).read(), Err(GenerationError::Newer { found, .. }) if found == "2"));
}

#[test]
fn the_id_stays_over_generations() {
    let disk = Disk::new(512, Weakness::None, 1);
    build(&on(&disk), "old").unwrap();
    let id = || match on(&disk).read().unwrap() {
        Contents::Store { id, .. } => Some(id),
        _ => None,
    };
    let before = id();
    build(&on(&disk), "new").unwrap();
    assert!(before.is_some() && id() == before);
}

#[test]
fn real_directories_behind_a_symlink_work_with_a_read_only_parent() {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    let place = tempfile::tempdir().unwrap();
    let parent = place.path().join("parent");
    fs::create_dir_all(parent.join("store/lost+found")).unwrap();
    let link = place.path().join("link");
    std::os::unix::fs::symlink(parent.join("store"), &link).unwrap();
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o500)).unwrap();
    let generations = Generations::new(Box::new(OsDirectory::new(&link)), is_own);
    assert!(matches!(generations.read().unwrap(), Contents::Empty));
    build(&generations, "old").unwrap();
    build(&generations, "new").unwrap();
    assert_eq!(content(&generations).as_deref(), Some("new"));
    assert!(link.is_symlink());
    let mode = fs::metadata(link.join("gen-2")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o700)).unwrap();
}
