//! What the simulated log holds: tokens with unique names, and the members.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::{MemberChange, Members};
use crate::store::log::{Entry, Head};

/// The number of a client's change, which never changes.
pub(super) type ChangeId = u32;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Op {
    Create { change: ChangeId, name: u8 },
    Revoke { change: ChangeId, name: u8 },
    Member(MemberChange),
}

/// A client's request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub id: ChangeId,
    pub name: u8,
    pub creates: bool,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model {
    pub head: Head,
    /// The change that created the token with each name.
    names: BTreeMap<u8, ChangeId>,
    pub members: Members,
}

impl Model {
    pub fn empty() -> Self {
        Self { head: Head::EMPTY, names: BTreeMap::new(), members: Members::default() }
    }

    /// Plans the change as an operation; `None` refuses it.
    pub fn plan(&self, change: Change) -> Option<Op> {
        let Change { id, name, creates } = change;
        match (creates, self.names.contains_key(&name)) {
            (true, false) => Some(Op::Create { change: id, name }),
            (false, true) => Some(Op::Revoke { change: id, name }),
            (true, true) | (false, false) => None,
        }
    }

    pub fn apply_ops(&mut self, ops: &[Op]) -> Vec<MemberChange> {
        let mut members = Vec::new();
        for op in ops {
            match op {
                Op::Create { change, name } => drop(self.names.insert(*name, *change)),
                Op::Revoke { name, .. } => drop(self.names.remove(name)),
                Op::Member(change) => {
                    self.members.apply(change);
                    members.push(change.clone());
                }
            }
        }
        members
    }

    /// Applies an entry; returns its changes of the members.
    pub fn apply(&mut self, entry: &Entry) -> Vec<MemberChange> {
        self.head = entry.head();
        self.apply_ops(&decode(&entry.operations))
    }
}

pub(super) fn encode(ops: &[Op]) -> Vec<u8> {
    postcard::to_allocvec(ops).unwrap()
}

pub(super) fn decode(bytes: &[u8]) -> Vec<Op> {
    postcard::from_bytes(bytes).unwrap()
}

/// The clients' changes in an entry.
pub(super) fn changes(ops: &[Op]) -> impl Iterator<Item = ChangeId> {
    ops.iter().filter_map(|op| match op {
        Op::Create { change, .. } | Op::Revoke { change, .. } => Some(*change),
        Op::Member(_) => None,
    })
}
