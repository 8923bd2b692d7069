//! Tests against a real etcd, which they start: `cargo test --features etcd --lib etcd -- --ignored`.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use super::*;
use crate::store::log::{
    EntryHash,
    conformance::{self, LogFixture, STORE},
    memory::Fault,
};

mod server;

use server::Etcd;

fn settings(etcd: &Etcd) -> Settings {
    let etcd = crate::store::cluster::Etcd {
        endpoints: etcd.urls(),
        prefix: "/permgate/test".to_owned(),
        tls: None,
        user: None,
    };
    Settings { patience: Duration::from_millis(300), ..Settings::new(etcd) }
}

fn created(etcd: &Etcd) -> Arc<Connection> {
    let connection = Connection::start(settings(etcd)).unwrap();
    connection.create(STORE, Head::EMPTY, None).unwrap();
    connection
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn the_log_in_etcd_conforms() {
    struct Remote {
        connection: Arc<Connection>,
        armed: Mutex<Option<Fault>>,
        last: Mutex<Fault>,
    }
    /// Fails once armed, which may happen after it was opened.
    struct Armed<'a>(EtcdLog, &'a Remote);
    impl Log for Armed<'_> {
        fn store(&self) -> StoreId {
            self.0.store()
        }
        fn first(&self) -> Result<u64, ReadError> {
            self.0.first()
        }
        fn head(&self) -> Result<Head, ReadError> {
            self.0.head()
        }
        fn read(&self, from: u64, bytes: usize) -> Result<Vec<Entry>, ReadError> {
            self.0.read(from, bytes)
        }
        fn append(&mut self, expected: Head, operations: &[u8]) -> Result<Head, AppendError> {
            self.0.fault = self.1.armed.lock().unwrap().take();
            self.0.append(expected, operations)
        }
        fn trim(&mut self, below: u64) -> Result<(), TrimError> {
            self.0.trim(below)
        }
        fn sync(&mut self) -> Result<(), Failure> {
            self.0.sync()
        }
        fn max_operations(&self) -> usize {
            self.0.max_operations()
        }
        fn failure(&self) -> Option<Failure> {
            self.0.failure()
        }
    }
    impl LogFixture for Remote {
        fn open(&self) -> Box<dyn Log + '_> {
            Box::new(Armed(EtcdLog::open(self.connection.clone()).unwrap(), self))
        }

        fn fail_next(&self) {
            let mut last = self.last.lock().unwrap();
            *last = if *last == Fault::Lost { Fault::Unanswered } else { Fault::Lost };
            *self.armed.lock().unwrap() = Some(*last);
        }
    }
    let etcd = Etcd::start(1, &[]);
    let (armed, last) = (Mutex::default(), Mutex::new(Fault::Lost));
    conformance::conforms(&Remote { connection: created(&etcd), armed, last });
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn a_log_is_made_once_and_found_by_everybody() {
    let etcd = Etcd::start(1, &[]);
    let connection = Connection::start(settings(&etcd)).unwrap();
    let error = EtcdLog::open(connection.clone()).err().unwrap().to_string();
    assert!(error.contains("permgate cluster init"), "{error}");
    connection.create(STORE, Head::EMPTY, None).unwrap();
    connection.create(STORE, Head::EMPTY, None).unwrap();
    let other = connection.create(StoreId([9; 16]), Head::EMPTY, None);
    assert!(other.unwrap_err().to_string().contains(&format!("the log of store {STORE}")));
    assert_eq!(EtcdLog::open(connection).unwrap().store(), STORE);
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn a_log_begins_anew_only_where_it_was_read() {
    let etcd = Etcd::start(1, &[]);
    let connection = created(&etcd);
    let mut log = EtcdLog::open(connection.clone()).unwrap();
    let read = log.head_revision();
    let one = log.append(Head::EMPTY, b"one").unwrap();
    let copy = Head { position: 7, hash: EntryHash([7; 32]) };
    assert!(connection.reset(STORE, copy, read, None).unwrap_err().to_string().contains("try again"));
    assert!(connection.reset(STORE, copy, 0, None).is_err(), "it has a head");
    assert_eq!((log.head().unwrap(), log.read(1, usize::MAX).unwrap().len()), (one, 1));
    connection.reset(STORE, copy, log.head_revision(), None).unwrap();
    let mut log = EtcdLog::open(connection).unwrap();
    assert_eq!((log.head().unwrap(), log.first().unwrap()), (copy, 8));
    assert_eq!(log.append(copy, b"next").unwrap().position, 8);
}

/// Another node's upload is not removed by what cleans up after one's own.
#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn a_snapshot_in_flight_outlives_the_clean_up_of_another() {
    let etcd = Etcd::start(1, &[]);
    let connection = created(&etcd);
    let stream = vec![7; 600 << 10];
    let begin = || {
        let mut upload = connection.upload().unwrap();
        io::Write::write_all(&mut upload, &stream).unwrap();
        upload
    };
    let first = begin().finish(1).unwrap();
    connection.publish(&first).unwrap();
    let replaced = connection.snapshot().unwrap().unwrap();
    let abandoned = begin();
    let second = begin().finish(2).unwrap();
    connection.publish(&second).unwrap();
    let in_flight = begin();
    connection.remove_older_snapshots(&second).unwrap();
    assert!(connection.download(&replaced, &mut Vec::new()).is_err(), "it is gone");
    assert!(connection.publish(&abandoned.finish(2).unwrap()).is_err());
    let third = in_flight.finish(3).unwrap();
    connection.publish(&third).unwrap();
    let current = connection.snapshot().unwrap().unwrap();
    let mut read = Vec::new();
    connection.download(&current, &mut read).unwrap();
    assert!(current.position == 3 && read == stream);
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn of_two_writers_one_wins_and_the_other_sees_why() {
    let etcd = Etcd::start(1, &[]);
    let mut one = EtcdLog::open(created(&etcd)).unwrap();
    let mut two = EtcdLog::open(Connection::start(settings(&etcd)).unwrap()).unwrap();
    let head = one.append(Head::EMPTY, b"one").unwrap();
    let lost = two.append(Head::EMPTY, b"two");
    assert!(matches!(lost, Err(AppendError::Conflict { head: found }) if found == head), "{lost:?}");
    let head = two.append(head, b"two").unwrap();
    // A trim puts the head again, which must not make an append fail.
    one.trim(2).unwrap();
    let head = two.append(head, b"three").unwrap();
    assert_eq!((head.position, one.first().unwrap()), (3, 2));
    assert_eq!(one.read(2, usize::MAX).unwrap().len(), 2);
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn a_lost_answer_is_found_out() {
    let etcd = Etcd::start(1, &[]);
    let connection = created(&etcd);
    let log = EtcdLog::open(connection.clone()).unwrap();
    let (mine, other) = (AttemptId([1; 16]), AttemptId([2; 16]));
    let settle = |log: &EtcdLog, id, operations: &[u8]| {
        let expected = log.known().record.head;
        let encoded = fetch::encode(STORE, expected, operations, id);
        let mut attempt = CommitAttempt::new(id, expected);
        // The transaction is carried out, but its answer is lost.
        let sent = connection.block(log.send(&attempt, &encoded)).unwrap();
        assert_eq!(sent, Answer::Committed);
        assert_eq!(attempt.on_answer(Answer::None), Step::SendAgain);
        (attempt, encoded, expected)
    };
    let (attempt, encoded, expected) = settle(&log, mine, b"same");
    let head = connection.block(log.resend_until_known(attempt, &encoded)).unwrap();
    assert_eq!(head.position, 1);
    assert_eq!(log.head().unwrap(), head);
    // The same operations at the same position, but by another attempt.
    let encoded = fetch::encode(STORE, expected, b"same", other);
    let mut attempt = CommitAttempt::new(other, expected);
    attempt.on_answer(Answer::None);
    let lost = connection.block(log.resend_until_known(attempt, &encoded));
    assert!(matches!(lost, Err(AppendError::Conflict { head: found }) if found == head), "{lost:?}");
}

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn the_tail_hears_every_entry_once_and_what_nodes_say() {
    let etcd = Etcd::start(1, &[]);
    let connection = created(&etcd);
    let mut log = EtcdLog::open(connection.clone()).unwrap();
    let mut head = Head::EMPTY;
    for number in 0..20_u8 {
        head = log.append(head, &[number]).unwrap();
    }
    let mut tail = Tail::new(Connection::start(settings(&etcd)).unwrap(), STORE, Head::EMPTY);
    let mut heard = Vec::new();
    let mut hear = |tail: &mut Tail, count: usize| {
        while heard.len() < count {
            heard.extend(connection.block(tail.next()).unwrap());
        }
    };
    hear(&mut tail, 20);
    // From here on by the watch.
    for number in 20..40_u8 {
        head = log.append(head, &[number]).unwrap();
    }
    connection.block(connection.put_acknowledgement("gate-1", b"40".to_vec())).unwrap();
    head = log.append(head, &vec![7; MAX_PIECELESS + 1]).unwrap();
    hear(&mut tail, 42);
    // Entries were lost on the way: they are read, and none is returned twice.
    tail.reread();
    head = log.append(head, b"last").unwrap();
    hear(&mut tail, 43);
    assert_eq!(tail.head(), head);
    let entries: Vec<u64> = heard
        .iter()
        .filter_map(|heard| match heard {
            TailEvent::Entry(entry) => Some(entry.position),
            TailEvent::Acknowledgement { .. } => None,
        })
        .collect();
    assert_eq!(entries, (1..=42).collect::<Vec<_>>());
    let said = TailEvent::Acknowledgement { node: "gate-1".to_owned(), value: b"40".to_vec() };
    assert!(heard.contains(&said));
    let read = connection.block(connection.acknowledgements()).unwrap();
    assert_eq!(read, [("gate-1".to_owned(), b"40".to_vec())]);
    assert_eq!(connection.block(connection.probe()).unwrap(), head);
}

/// Larger entries are stored in pieces.
const MAX_PIECELESS: usize = super::super::MAX_OPERATIONS;

#[test]
#[ignore = "starts etcd: apt-get install etcd-server"]
fn a_dead_endpoint_and_a_killed_leader_cost_a_moment() {
    let mut etcd = Etcd::start(3, &[]);
    let connection = {
        let mut settings = settings(&etcd);
        settings.etcd.endpoints.insert(0, "http://127.0.0.1:9".to_owned());
        settings.patience = Settings::PATIENCE;
        Connection::start(settings).unwrap()
    };
    connection.create(STORE, Head::EMPTY, None).unwrap();
    let mut log = EtcdLog::open(connection).unwrap();
    let mut head = log.append(Head::EMPTY, b"before").unwrap();
    let leader = (0..3).find(|member| etcd.is_leader(*member)).unwrap();
    etcd.kill(leader);
    for number in 0..10_u8 {
        head = log.append(head, &[number]).unwrap();
    }
    assert_eq!(log.head().unwrap(), head);
    assert_eq!(log.read(1, usize::MAX).unwrap().len(), 11);
}
