//! Audit events and idempotency records.

use super::{at, event, id};
use crate::store::{
    engine::Engine,
    model::{AuditEvent, AuditPosition, IdempotencyRecord},
    op::Op,
    replica::Staged,
};

pub(super) fn audit(engine: &Engine) {
    let seqs = |events: Vec<AuditEvent>| events.iter().map(|event| event.seq).collect::<Vec<_>>();
    let events: Vec<Op> = (1..=300).map(|seq| Op::AppendAudit(event(seq))).collect();
    engine.commit(&events).unwrap();
    assert_eq!(engine.audit_from(7, 1).unwrap(), [event(7)], "every field comes back");
    assert_eq!(seqs(engine.audit_before(None, 2).unwrap()), [300, 299], "newest first");
    assert_eq!(seqs(engine.audit_before(Some(256), 2).unwrap()), [255, 254]);
    assert_eq!(seqs(engine.audit_from(255, 3).unwrap()), [255, 256, 257], "oldest first");
    let start = AuditPosition { seq: 299, prev: [9; 32] };
    engine.commit(&[Op::TrimAudit(start)]).unwrap();
    assert_eq!(seqs(engine.audit_from(0, 10).unwrap()), [299, 300]);
    assert_eq!(engine.audit_start().unwrap(), Some(start));
}

pub(super) fn idempotency(engine: &Engine) {
    // Whatever a client sends as a key: separators, length, other writing systems.
    let long = "k".repeat(5000);
    for key in ["plain", "ann\0key", "", "ключ", long.as_str()] {
        let record = |seconds| IdempotencyRecord {
            key: key.to_owned(),
            request: [3; 32],
            token: id(3),
            at: at(seconds),
        };
        engine.commit(&[Op::PutIdempotency(record(-10))]).unwrap();
        assert_eq!(
            engine.with_staged(&Staged::default()).idempotency(key).unwrap(),
            Some(record(-10)),
            "{key}"
        );
        engine.commit(&[Op::PutIdempotency(record(10))]).unwrap();
        assert_eq!(engine.idempotency_records(None, 9).unwrap(), [record(10)], "replaced");
        assert_eq!(engine.idempotency_records(Some(key), 9).unwrap(), [], "after the only one");
        engine.commit(&[Op::DropIdempotency { key: key.into() }]).unwrap();
        assert_eq!(engine.with_staged(&Staged::default()).idempotency(key).unwrap(), None);
        assert_eq!(engine.idempotency_records(None, 9).unwrap(), []);
    }
}
