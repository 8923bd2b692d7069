//! One suite of what every log must do.

use super::{
    AppendError, EntryHash, Head, Log, ReadError, StoreId, TrimError,
    journal::Journal,
    memory::{Fault, MemoryLog},
    tests::disk::{Disk, Weakness},
};

pub(super) const STORE: StoreId = StoreId([3; 16]);

/// One log that can be opened again and made to fail.
pub(super) trait LogFixture {
    fn open(&self) -> Box<dyn Log + '_>;
    /// Makes the next append fail with an unclear outcome.
    fn fail_next(&self);
}

pub(super) fn conforms(fixture: &dyn LogFixture) {
    let mut log = fixture.open();
    assert_eq!(log.store(), STORE);
    empty(&mut *log);
    let head = appended(&mut *log);
    let head = bounds(&mut *log, head);
    expectations(&mut *log, head);
    drop(log);
    let mut log = fixture.open();
    assert_eq!(log.head().unwrap(), head, "reopened");
    trimmed(&mut *log, head);
    drop(log);
    failures(fixture, head);
}

fn empty(log: &mut dyn Log) {
    assert_eq!(log.head().unwrap(), Head::EMPTY);
    assert_eq!(log.first().unwrap(), 1);
    assert_eq!(log.read(1, usize::MAX).unwrap(), []);
    assert!(matches!(log.read(0, 1), Err(ReadError::Trimmed { from: 0, first: 1 })));
    assert!(matches!(log.read(2, 1), Err(ReadError::Ahead { from: 2, head: 0 })));
    log.trim(1).unwrap();
    assert!(matches!(log.trim(2), Err(TrimError::Ahead { below: 2, head: 0 })));
}

fn appended(log: &mut dyn Log) -> Head {
    let mut head = Head::EMPTY;
    for number in 0..200_u64 {
        head = log.append(head, &number.to_le_bytes()).unwrap();
        assert_eq!(head.position, number + 1);
        assert_eq!(log.head().unwrap(), head);
    }
    let entries = log.read(1, usize::MAX).unwrap();
    assert_eq!(entries.len(), 200);
    let mut before = EntryHash::NONE;
    for (entry, number) in entries.iter().zip(0_u64..) {
        assert_eq!((entry.position, entry.previous), (number + 1, before));
        assert_eq!(entry.operations, number.to_le_bytes());
        before = entry.hash;
    }
    assert_eq!(before, head.hash);
    assert_eq!(log.read(150, usize::MAX).unwrap(), entries[149..]);
    assert_eq!(log.read(150, 0).unwrap(), entries[149..150], "at least one");
    let page = log.read(150, 1000).unwrap();
    assert!((2..20).contains(&page.len()), "{}", page.len());
    assert_eq!(log.read(201, usize::MAX).unwrap(), []);
    head
}

fn bounds(log: &mut dyn Log, head: Head) -> Head {
    let largest = log.max_operations();
    let refused = log.append(head, &vec![0; largest + 1]);
    assert!(matches!(refused, Err(AppendError::TooLarge { .. })), "{refused:?}");
    let head = log.append(head, b"").unwrap();
    let head = log.append(head, &vec![9; largest]).unwrap();
    let entries = log.read(201, usize::MAX).unwrap();
    assert_eq!(entries[0].operations, b"");
    assert_eq!(entries[1].operations, vec![9; largest]);
    log.append(head, b"behind the large one").unwrap()
}

fn expectations(log: &mut dyn Log, head: Head) {
    for expected in
        [Head::EMPTY, Head { position: head.position + 1, ..head }, Head { hash: EntryHash([1; 32]), ..head }]
    {
        let refused = log.append(expected, b"never");
        assert!(
            matches!(refused, Err(AppendError::Conflict { head: found }) if found == head),
            "{refused:?}"
        );
    }
    assert_eq!(log.head().unwrap(), head);
    assert!(log.failure().is_none());
}

fn trimmed(log: &mut dyn Log, head: Head) {
    let before = log.read(100, usize::MAX).unwrap();
    log.trim(100).unwrap();
    assert!(log.first().unwrap() <= 100);
    assert_eq!(log.read(100, usize::MAX).unwrap(), before);
    log.trim(head.next()).unwrap();
    let first = log.first().unwrap();
    assert!(first > 100 && first <= head.next(), "{first}");
    assert!(matches!(log.read(1, 1), Err(ReadError::Trimmed { from: 1, first: found }) if found == first));
    assert_eq!(log.head().unwrap(), head);
}

fn failures(fixture: &dyn LogFixture, mut head: Head) {
    for round in 0..4 {
        let mut log = fixture.open();
        assert_eq!(log.head().unwrap(), head);
        fixture.fail_next();
        let failed = log.append(head, b"unclear");
        assert!(matches!(failed, Err(AppendError::UnknownOutcome(_))), "{failed:?}");
        assert!(log.failure().is_some());
        let refused = log.append(head, b"after it");
        assert!(matches!(refused, Err(AppendError::Stopped(_))), "{refused:?}");
        log.trim(head.position).unwrap_err();
        log.read(head.next(), 1).unwrap();
        drop(log);
        let mut log = fixture.open();
        let found = log.head().unwrap();
        if found != head {
            let entry = log.read(head.next(), 1).unwrap().remove(0);
            assert_eq!((entry.previous, entry.operations.as_slice()), (head.hash, b"unclear".as_slice()));
            assert_eq!(found, entry.head());
        }
        head = log.append(found, format!("round {round}").as_bytes()).unwrap();
    }
}

impl LogFixture for Disk {
    fn open(&self) -> Box<dyn Log + '_> {
        let file_size = 128 << 10;
        if self.root().list().unwrap().is_empty() {
            return Box::new(Journal::create(self.root(), STORE, Head::EMPTY, file_size).unwrap());
        }
        Box::new(Journal::open(self.root(), STORE, file_size).unwrap().0)
    }

    fn fail_next(&self) {
        self.fail_sync_after(1);
    }
}

#[test]
fn the_journal_conforms() {
    conforms(&Disk::new(512, Weakness::None, 1));
}

#[test]
fn the_journal_in_real_files_conforms() {
    /// Fails by a file that accepts no writes.
    struct Files(tempfile::TempDir);
    impl Files {
        fn journal(&self) -> Journal {
            let directory = Box::new(super::files::OsDirectory::new(self.0.path()));
            let file_size = 128 << 10;
            match Journal::open(directory.clone(), STORE, file_size) {
                Ok((journal, _)) => journal,
                Err(super::journal::OpenError::Absent { .. }) => {
                    Journal::create(directory, STORE, Head::EMPTY, file_size).unwrap()
                }
                Err(e) => panic!("{e}"),
            }
        }
    }
    let files = Files(tempfile::tempdir().unwrap());
    let mut log = files.journal();
    empty(&mut log);
    let head = appended(&mut log);
    let head = bounds(&mut log, head);
    expectations(&mut log, head);
    log.sync().unwrap();
    drop(log);
    let mut log = files.journal();
    trimmed(&mut log, head);
    let names = std::fs::read_dir(files.0.path()).unwrap().count();
    assert_eq!(names, 1, "only the newest file is left");
}

#[test]
fn the_memory_log_conforms() {
    struct Memory(MemoryLog, std::cell::Cell<bool>);
    impl LogFixture for Memory {
        fn open(&self) -> Box<dyn Log + '_> {
            Box::new(self.0.reopen())
        }

        fn fail_next(&self) {
            self.0.inject(if self.1.replace(!self.1.get()) { Fault::Lost } else { Fault::Unanswered });
        }
    }
    conforms(&Memory(MemoryLog::new(STORE, Head::EMPTY), false.into()));
}

#[test]
fn writers_of_one_memory_log_exclude_each_other() {
    let mut one = MemoryLog::new(STORE, Head::EMPTY);
    let mut two = one.reopen();
    let head = one.append(Head::EMPTY, b"one").unwrap();
    assert!(
        matches!(two.append(Head::EMPTY, b"two"), Err(AppendError::Conflict { head: found }) if found == head)
    );
    two.inject(Fault::NotWritten);
    assert!(matches!(two.append(head, b"two"), Err(AppendError::NotWritten(_))));
    two.append(head, b"two").unwrap();
    assert_eq!(one.head().unwrap().position, 2);
}
