//! The simulated engine: the memory log, the acknowledgements, and one order of all requests.

use std::collections::BTreeMap;

use super::super::{Acknowledgement, AttemptId};
use crate::store::log::{AppendError, Entry, Head, Log, StoreId, memory::MemoryLog};

const STORE: StoreId = StoreId([5; 16]);
/// Entries in one answer.
const PAGE: usize = 8;

/// A node's request.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Commit { attempt: AttemptId, expected: Head, operations: Vec<u8> },
    Winner { position: u64 },
    Probe,
    Range { from: u64 },
    PutAck(Acknowledgement),
    ReadAcks,
}

#[derive(Clone, Debug)]
pub(super) enum Response {
    Committed(Written),
    Conflict(Head),
    Winner(Written),
    Head(Head),
    Entries(Vec<Written>, Head),
    Put,
    Acks(Vec<Acknowledgement>),
}

/// An event that all watches report.
#[derive(Clone, Debug)]
pub(super) enum WatchEvent {
    Entry(Written),
    Ack(Acknowledgement),
}

/// An entry and the attempt that wrote it.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub entry: Entry,
    pub attempt: AttemptId,
}

pub(super) struct Engine {
    log: MemoryLog,
    attempts: Vec<AttemptId>,
    acks: BTreeMap<String, Acknowledgement>,
}

impl Engine {
    pub fn new() -> Self {
        Self { log: MemoryLog::new(STORE, Head::EMPTY), attempts: Vec::new(), acks: BTreeMap::new() }
    }

    pub fn head(&self) -> Head {
        self.log.head().unwrap()
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.log.read(1, usize::MAX).unwrap()
    }

    pub fn entry(&self, position: u64) -> Entry {
        self.log.read(position, 0).unwrap().remove(0)
    }

    /// Returns the answer, and the event that watches report.
    pub fn serve(&mut self, request: Request) -> (Response, Option<WatchEvent>) {
        match request {
            Request::Commit { attempt, expected, operations } => {
                match self.log.append(expected, &operations) {
                    Ok(head) => {
                        self.attempts.push(attempt);
                        let written = self.written(head.position);
                        (Response::Committed(written.clone()), Some(WatchEvent::Entry(written)))
                    }
                    Err(AppendError::Conflict { head }) => (Response::Conflict(head), None),
                    Err(error) => panic!("{error}"),
                }
            }
            Request::Winner { position } => (Response::Winner(self.written(position)), None),
            Request::Probe => (Response::Head(self.head()), None),
            Request::Range { from } => {
                let last = self.head().position.min(from + PAGE as u64 - 1);
                let entries = (from..=last).map(|position| self.written(position)).collect();
                (Response::Entries(entries, self.head()), None)
            }
            Request::PutAck(ack) => {
                self.acks.insert(ack.node.clone(), ack.clone());
                (Response::Put, Some(WatchEvent::Ack(ack)))
            }
            Request::ReadAcks => (Response::Acks(self.acks.values().cloned().collect()), None),
        }
    }

    fn written(&self, position: u64) -> Written {
        let attempt = self.attempts[usize::try_from(position).unwrap() - 1];
        Written { attempt, entry: self.entry(position) }
    }
}
