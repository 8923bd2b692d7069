//! What must be true after every event of the simulation, and at its end.

use std::collections::BTreeMap;

use super::{
    model::{self, ChangeId},
    world::{Status, World},
};
use crate::store::log::EntryHash;

impl World {
    pub(super) fn check(&mut self) {
        let head = self.engine.head();
        while self.states.last().unwrap().head != head {
            let next = self.states.len();
            let mut state = self.states.last().unwrap().clone();
            state.apply(&self.engine.entry(next as u64));
            self.states.push(state);
        }
        for (index, machine) in self.machines.iter_mut().enumerate() {
            let Some(node) = &machine.node else { continue };
            if node.permits(machine.clock(self.now)) && node.in_force < self.answered {
                self.violation = Some(format!(
                    "{} us: node {index} permits by position {} after the answer of {}",
                    self.now, node.in_force, self.answered
                ));
            }
            let position = node.model.head.position;
            if position != machine.checked {
                machine.checked = position;
                let expected = self.states.get(usize::try_from(position).unwrap());
                if expected != Some(&node.model) {
                    self.violation =
                        Some(format!("{} us: node {index} differs at position {position}", self.now));
                }
            }
        }
    }

    pub fn verify_running(&self) {
        assert_eq!(self.violation, None);
    }

    /// Checks the end, once everything has come to rest. An answered change is in the log, a refused one is
    /// not, none is there twice, the chain verifies, and every node is at the head of the log and serves.
    pub fn verify(&self) -> Result<(), String> {
        if let Some(violation) = &self.violation {
            return Err(violation.clone());
        }
        let mut seen: BTreeMap<ChangeId, u64> = BTreeMap::new();
        let mut previous = EntryHash::NONE;
        for entry in self.engine.entries() {
            if entry.previous != previous {
                return Err(format!("the chain breaks at {}", entry.position));
            }
            previous = entry.hash;
            for change in model::changes(&model::decode(&entry.operations)) {
                if let Some(first) = seen.insert(change, entry.position) {
                    return Err(format!("change {change} was made twice: {first}, {}", entry.position));
                }
            }
        }
        for (status, change) in self.statuses.iter().zip(0..) {
            let made = seen.get(&change);
            match status {
                Status::Answered { completed, .. } if made == Some(&completed.position) => {}
                Status::Refused if made.is_none() => {}
                Status::Unknown => {}
                status => return Err(format!("change {change} is {status:?}, but was made at {made:?}")),
            }
        }
        for (index, machine) in self.machines.iter().enumerate() {
            let Some(node) = &machine.node else { return Err(format!("node {index} does not run")) };
            if node.model.head != self.engine.head() || !node.permits(machine.clock(self.now)) {
                return Err(format!(
                    "node {index} is at {}, {:?}, and permits until {:?}",
                    node.model.head.position,
                    node.protocol.membership(),
                    node.protocol.permitted_until()
                ));
            }
        }
        Ok(())
    }
}
