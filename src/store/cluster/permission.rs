//! Whether this node may forward, and until when.

use std::{collections::VecDeque, time::Duration};

use super::{BootTime, Incarnation, Members};
use crate::store::log::Head;

/// A probe in flight. The engine orders it among the commits: a commit that the answer does not show came
/// after the probe, hence after it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub sent: BootTime,
    /// The head applied here when the probe was sent. An answer before it means that the engine has lost
    /// entries.
    pub floor: Head,
}

/// A node's permission to forward, which each probe extends.
#[derive(Debug)]
pub struct Permission {
    node: String,
    incarnation: Incarnation,
    duration: Duration,
    /// The position up to which every worker has applied the log.
    pub(super) in_force: u64,
    member: bool,
    /// Changes of this incarnation's membership at positions that are not in force yet.
    changes: VecDeque<(u64, bool)>,
    /// Answers whose head is not in force yet: when the probe was sent, and the head's position.
    answered: Vec<(BootTime, u64)>,
    /// When the newest probe whose head is in force was sent.
    shown: Option<BootTime>,
    /// The first moment at which nothing may be forwarded any more; `None` before the first permission.
    pub(super) until: Option<BootTime>,
}

impl Permission {
    /// For a node whose replica is at `position` with these members.
    pub fn new(
        node: &str,
        incarnation: Incarnation,
        duration: Duration,
        members: &Members,
        position: u64,
    ) -> Self {
        Self {
            node: node.to_owned(),
            incarnation,
            duration,
            in_force: position,
            member: members.is_member(node, incarnation),
            changes: VecDeque::new(),
            answered: Vec::new(),
            shown: None,
            until: None,
        }
    }

    /// Takes in the members after the entry at `position` was applied.
    pub fn applied(&mut self, position: u64, members: &Members) {
        let member = members.is_member(&self.node, self.incarnation);
        let last = self.changes.back().map_or(self.member, |(_, member)| *member);
        if member != last {
            self.changes.push_back((position, member));
        }
    }

    /// Every worker has applied everything up to `position`.
    pub fn in_force(&mut self, position: u64) {
        self.in_force = self.in_force.max(position);
        while let Some((at, member)) = self.changes.front().copied()
            && at <= self.in_force
        {
            self.member = member;
            self.changes.pop_front();
        }
        self.extend();
    }

    /// A probe has shown `position` as the head. [`Follower::missing_from`](super::Follower::missing_from) must
    /// first check that the head fits what was followed, and whether entries are missing here.
    pub fn answered(&mut self, probe: Probe, position: u64) {
        self.answered.push((probe.sent, position));
        self.extend();
    }

    /// Extends the permission by the newest probe whose head is in force, if this incarnation is a member
    /// there. A later commit waits for this node's acknowledgement, or for the end of what the probe
    /// permits.
    fn extend(&mut self) {
        let in_force = self.in_force;
        let shown = self.answered.extract_if(.., |(_, position)| *position <= in_force);
        self.shown = self.shown.max(shown.map(|(sent, _)| sent).max());
        if let Some(sent) = self.shown.filter(|_| self.member) {
            self.until = self.until.max(Some(sent + self.duration));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::MemberChange, *};

    const ME: Incarnation = Incarnation([1; 16]);

    fn at(seconds: u64) -> BootTime {
        BootTime::from_start(Duration::from_secs(seconds))
    }

    fn probe(seconds: u64) -> Probe {
        Probe { sent: at(seconds), floor: Head::EMPTY }
    }

    fn join() -> MemberChange {
        MemberChange::Put { node: "a".to_owned(), incarnation: ME.0, format: 1, rules: [0; 32], since: 1 }
    }

    fn joined() -> (Permission, Members) {
        let mut members = Members::default();
        members.apply(&join());
        (Permission::new("a", ME, Duration::from_secs(9), &members, 3), members)
    }

    #[test]
    fn it_counts_from_the_sending_and_waits_for_what_the_probe_showed() {
        let (mut permission, members) = joined();
        permission.answered(probe(10), 3);
        assert_eq!(permission.until, Some(at(19)));
        permission.answered(probe(12), 5);
        permission.applied(4, &members);
        permission.in_force(4);
        assert_eq!(permission.until, Some(at(19)), "5 is not in force");
        permission.in_force(5);
        assert_eq!(permission.until, Some(at(21)));
        permission.answered(probe(11), 5);
        assert_eq!(permission.until, Some(at(21)), "an older probe shortens nothing");
    }

    #[test]
    fn whoever_was_dropped_gets_none_until_it_has_joined_again() {
        let (mut permission, mut members) = joined();
        permission.answered(probe(10), 3);
        members.apply(&MemberChange::Drop { node: "a".to_owned(), incarnation: ME.0, over: false });
        permission.applied(4, &members);
        permission.in_force(4);
        permission.answered(probe(12), 4);
        assert_eq!(permission.until, Some(at(19)), "what it has lasts");
        members.apply(&join());
        permission.applied(6, &members);
        permission.answered(probe(14), 4);
        assert_eq!(permission.until, Some(at(19)), "joined, but at 6, which is not in force");
        permission.in_force(6);
        permission.answered(probe(15), 6);
        assert_eq!(permission.until, Some(at(24)));
    }
}
