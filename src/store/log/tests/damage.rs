//! Damage to a journal at rest: it is found and refused, or it is harmless. A batch that a slot covers is
//! never taken for torn.

use super::*;

/// A journal of several files, its acknowledged entries, and how it was left.
fn filled(seed: u64, clean: bool) -> (Disk, Vec<entry::Entry>) {
    let random = &mut Random(seed);
    let disk = Disk::new(4096, Weakness::None, seed);
    let mut log = Journal::create(disk.root(), STORE, Head::EMPTY, FILE_SIZE).unwrap();
    let mut head = Head::EMPTY;
    for _ in 0..14 {
        head = log.append(head, &operations(random)).unwrap();
    }
    log.trim(4).unwrap();
    let entries = read_all(&log, usize::MAX).unwrap();
    if clean {
        log.sync().unwrap();
    }
    (disk, entries)
}

fn journal_files(disk: &Disk) -> Vec<String> {
    let mut names = disk.root().list().unwrap();
    names.sort();
    assert!(names.len() >= 3, "{names:?}");
    names
}

/// Whether the damage was refused. Fails if anything was lost.
fn refused(disk: &Disk, entries: &[entry::Entry], what: &str) -> bool {
    match open(disk) {
        Err(OpenError::Damaged(damage)) => {
            let message = damage.to_string();
            assert!(message.contains("/disk/journal-") && message.contains("byte"), "{message}");
            true
        }
        Err(e) => panic!("{what}: {e}"),
        Ok((log, recovery)) => {
            assert_eq!(read_all(&log, usize::MAX).unwrap(), entries, "{what}: {recovery:?}");
            false
        }
    }
}

#[test]
fn flipped_bits_are_found_or_harmless() {
    for clean in [true, false] {
        let (disk, entries) = filled(1, clean);
        let random = &mut Random(2);
        for name in journal_files(&disk) {
            let size = disk.content(&name).len();
            let mut found = 0;
            // Damage to what was written last looks like a torn batch.
            let used = disk.content(&name).iter().rposition(|&byte| byte != 0).unwrap() + 1;
            for number in 0..400 {
                let at = if number < 300 { random.below(size) } else { used - 1 - random.below(100) };
                let bit = random.below(8);
                let copy = disk.copy();
                copy.edit(&name, |content| content[at] ^= 1 << bit);
                found += usize::from(refused(&copy, &entries, &format!("{name}: bit {bit} of byte {at}")));
            }
            assert!(found > 30, "{name}: {found}");
        }
    }
}

#[test]
fn cut_files_are_found_or_harmless() {
    for clean in [true, false] {
        let (disk, entries) = filled(3, clean);
        let random = &mut Random(4);
        for name in journal_files(&disk) {
            let size = disk.content(&name).len();
            for length in (0..100).map(|_| random.below(size)) {
                let copy = disk.copy();
                copy.edit(&name, |content| content.truncate(length));
                refused(&copy, &entries, &format!("{name}: cut to {length}"));
            }
        }
    }
}

#[test]
fn zeroed_blocks_are_found_or_harmless() {
    let (disk, entries) = filled(5, false);
    for name in journal_files(&disk) {
        for block in 0..disk.content(&name).len() / 4096 {
            let copy = disk.copy();
            copy.edit(&name, |content| content[block * 4096..][..4096].fill(0));
            refused(&copy, &entries, &format!("{name}: block {block} zeroed"));
        }
    }
}

#[test]
fn a_missing_file_is_found() {
    let (disk, entries) = filled(7, true);
    let names = journal_files(&disk);
    for name in &names {
        let copy = disk.copy();
        copy.root().remove(name).unwrap();
        assert!(refused(&copy, &entries, name), "{name}");
    }
}

#[test]
fn files_of_another_place_are_refused() {
    let (disk, entries) = filled(8, true);
    let names = journal_files(&disk);
    let other = disk.copy();
    assert!(matches!(
        Journal::open(other.root(), StoreId([1; 16]), FILE_SIZE),
        Err(OpenError::OtherStore { found: STORE, .. })
    ));
    // One file under the name of another.
    let content = disk.content(&names[0]);
    disk.edit(&names[1], |replaced| replaced.clone_from(&content));
    assert!(refused(&disk, &entries, "renamed"));
}

/// The slot is only in the disk's cache when the power is cut, and the batch that it covers is damaged,
/// too. This cannot be told from a batch that was never acknowledged. It is reported.
#[test]
fn damage_to_the_last_batch_together_with_a_power_cut_looks_like_a_torn_batch() {
    let disk = Disk::new(4096, Weakness::None, 1);
    let mut log = Journal::create(disk.root(), STORE, Head::EMPTY, FILE_SIZE).unwrap();
    let first = log.append(Head::EMPTY, b"first").unwrap();
    log.append(first, b"second").unwrap();
    drop(log);
    let damage = |disk: &Disk| disk.edit("journal-0000000001", |content| content[4 * 4096 + 100] ^= 1);

    // After a kill or a clean stop, the slot is there, and the damage is found.
    let killed = disk.copy();
    damage(&killed);
    assert!(matches!(open(&killed), Err(OpenError::Damaged(_))));

    // The slot of the second batch is the second one; the cut loses it.
    let cut = disk.copy();
    cut.edit("journal-0000000001", |content| content.copy_within(4096..8192, 8192));
    cut.edit("journal-0000000001", |content| {
        let empty = Disk::new(4096, Weakness::None, 1);
        drop(Journal::create(empty.root(), STORE, Head::EMPTY, FILE_SIZE).unwrap());
        content[8192..12288].copy_from_slice(&empty.content("journal-0000000001")[8192..12288]);
    });
    damage(&cut);
    let (log, recovery) = open(&cut).unwrap();
    assert_eq!(log.head().unwrap(), first);
    let dropped = recovery.dropped.expect("never silently");
    assert_eq!((dropped.offset, dropped.position), (4 * 4096, 2));
}

#[test]
fn a_valid_batch_behind_one_that_does_not_verify_is_damage() {
    let disk = Disk::new(4096, Weakness::None, 1);
    let mut log = Journal::create(disk.root(), STORE, Head::EMPTY, FILE_SIZE).unwrap();
    let first = log.append(Head::EMPTY, b"first").unwrap();
    log.append(first, b"second").unwrap();
    drop(log);
    let empty = Disk::new(4096, Weakness::None, 1);
    drop(Journal::create(empty.root(), STORE, Head::EMPTY, FILE_SIZE).unwrap());
    // No slot covers anything, but the first batch is not the last one.
    let unused = empty.content("journal-0000000001");
    disk.edit("journal-0000000001", |content| {
        content[4096..12288].copy_from_slice(&unused[4096..12288]);
        content[3 * 4096 + 50] ^= 1;
    });
    let message = open(&disk).err().unwrap().to_string();
    assert!(message.contains("there is a later entry at byte 16384"), "{message}");
}

#[test]
fn a_newer_format_is_refused_as_such() {
    let disk = Disk::new(4096, Weakness::None, 1);
    drop(Journal::create(disk.root(), STORE, Head::EMPTY, FILE_SIZE).unwrap());
    disk.edit("journal-0000000001", |content| {
        content[8] = 2;
        let checksum = blake3::hash(&content[..84]);
        content[84..116].copy_from_slice(checksum.as_bytes());
    });
    assert!(matches!(open(&disk), Err(OpenError::Newer { found: 2, .. })));
}

#[test]
fn a_full_disk_refuses_one_append_and_takes_the_next() {
    let disk = Disk::new(4096, Weakness::None, 1);
    let mut log = Journal::create(disk.root(), STORE, Head::EMPTY, FILE_SIZE).unwrap();
    let mut head = log.append(Head::EMPTY, &[1; 15_000]).unwrap();
    disk.refuse_writes(Some(std::io::ErrorKind::StorageFull));
    // The current file has no room for this one.
    let refused = log.append(head, &[2; 15_000]).unwrap_err();
    assert!(matches!(refused, AppendError::NotWritten(_)), "{refused}");
    assert!(refused.to_string().contains("no storage space"), "{refused}");
    assert!(log.failure().is_none());
    disk.refuse_writes(None);
    head = log.append(head, &[2; 15_000]).unwrap();
    drop(log);
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!((log.head().unwrap(), recovery), (head, Recovery::default()));
}
