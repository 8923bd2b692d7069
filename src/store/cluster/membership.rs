//! The members of the cluster, as recorded in the log. Nodes that have applied the same entries have the
//! same members.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::Incarnation;

/// A node that changes wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub incarnation: Incarnation,
    /// Digest of its rules; nodes may run different rules for a while.
    pub rules: [u8; 32],
    /// Increases from member to member: the lowest is the eldest.
    pub since: u64,
}

/// A node's name, and a run of its process.
pub type NodeRun = (String, Incarnation);

/// A change of the members. Stored in the log as it is here, so it never changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberChange {
    /// The node joins, or joins again. `format`: the newest entry format that it reads.
    Put { node: String, incarnation: [u8; 16], format: u8, rules: [u8; 32], since: u64 },
    /// The incarnation leaves. Changes no longer wait for it once its permission must have expired. `over`:
    /// it has expired already. The node itself, its successor on the same directory, or a node that waited
    /// for the lapse may set this.
    Drop { node: String, incarnation: [u8; 16], over: bool },
}

/// Members by name, and those dropped recently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    members: BTreeMap<String, Member>,
    departed: BTreeSet<NodeRun>,
}

impl Members {
    /// Applies a change. Idempotent.
    pub fn apply(&mut self, change: &MemberChange) {
        match change {
            MemberChange::Put { node, incarnation, rules, since, .. } => {
                let incarnation = Incarnation(*incarnation);
                self.departed.remove(&(node.clone(), incarnation));
                let member = Member { incarnation, rules: *rules, since: *since };
                let before = self.members.insert(node.clone(), member);
                // A joining node drops its predecessor first. Without that, the predecessor may still
                // forward.
                if let Some(before) = before.filter(|before| before.incarnation != incarnation) {
                    self.departed.insert((node.clone(), before.incarnation));
                }
            }
            MemberChange::Drop { node, incarnation, over } => {
                let incarnation = Incarnation(*incarnation);
                if self.is_member(node, incarnation) {
                    self.members.remove(node);
                }
                let run = (node.clone(), incarnation);
                if *over {
                    self.departed.remove(&run)
                } else {
                    self.departed.insert(run)
                };
            }
        }
    }

    /// The [`Member::since`] of a node that joins now. A member keeps its own.
    pub fn since_of(&self, node: &str, incarnation: Incarnation) -> u64 {
        let member = self.members.get(node).filter(|member| member.incarnation == incarnation);
        let last = self.members.values().map(|member| member.since).max();
        member.map_or(last.unwrap_or(0) + 1, |member| member.since)
    }

    pub fn get(&self, node: &str) -> Option<&Member> {
        self.members.get(node)
    }

    pub fn is_member(&self, node: &str, incarnation: Incarnation) -> bool {
        self.members.get(node).is_some_and(|member| member.incarnation == incarnation)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Member)> {
        self.members.iter().map(|(node, member)| (node.as_str(), member))
    }

    /// Dropped nodes whose permission may not have expired yet.
    pub fn departed(&self) -> &BTreeSet<NodeRun> {
        &self.departed
    }

    /// The member that does what is done once for the whole cluster.
    pub fn eldest(&self) -> Option<&str> {
        self.members.iter().min_by_key(|(_, member)| member.since).map(|(node, _)| node.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(node: &str, incarnation: u8, since: u64) -> MemberChange {
        let format = incarnation;
        MemberChange::Put {
            node: node.to_owned(),
            incarnation: [incarnation; 16],
            format,
            rules: [0; 32],
            since,
        }
    }

    fn drop(node: &str, incarnation: u8, over: bool) -> MemberChange {
        MemberChange::Drop { node: node.to_owned(), incarnation: [incarnation; 16], over }
    }

    #[test]
    fn members_come_and_go() {
        let check =
            |name: &str, changes: &[MemberChange], members: &[(&str, u8, u64)], gone: &[(&str, u8)]| {
                let mut state = Members::default();
                for change in changes {
                    state.apply(change);
                    let once = state.clone();
                    state.apply(change);
                    assert_eq!(state, once, "{name}: {change:?} applied twice");
                }
                let found: Vec<_> = state.iter().map(|(n, m)| (n, m.incarnation.0[0], m.since)).collect();
                assert_eq!(found, members, "{name}: members");
                let departed: Vec<_> =
                    state.departed().iter().map(|(node, run)| (node.as_str(), run.0[0])).collect();
                assert_eq!(departed, gone, "{name}: departed");
            };
        check("two join", &[put("a", 1, 1), put("b", 2, 2)], &[("a", 1, 1), ("b", 2, 2)], &[]);
        check("evicted", &[put("a", 1, 1), drop("a", 1, false)], &[], &[("a", 1)]);
        check("evicted and over", &[put("a", 1, 1), drop("a", 1, false), drop("a", 1, true)], &[], &[]);
        check("left by itself", &[put("a", 1, 1), drop("a", 1, true)], &[], &[]);
        check("back again", &[put("a", 1, 1), drop("a", 1, false), put("a", 1, 3)], &[("a", 1, 3)], &[]);
        check("restarted", &[put("a", 1, 1), drop("a", 1, true), put("a", 2, 2)], &[("a", 2, 2)], &[]);
        check("replaced", &[put("a", 1, 1), put("a", 2, 2)], &[("a", 2, 2)], &[("a", 1)]);
        check("not by this run", &[put("a", 2, 1), drop("a", 1, true)], &[("a", 2, 1)], &[]);
    }

    #[test]
    fn the_eldest_is_the_same_on_every_node() {
        let mut state = Members::default();
        assert_eq!(state.eldest(), None);
        for (node, incarnation) in [("b", 3), ("a", 2), ("c", 7)] {
            let since = state.since_of(node, Incarnation([incarnation; 16]));
            state.apply(&put(node, incarnation, since));
        }
        assert_eq!(state.eldest(), Some("b"));
        assert_eq!(state.since_of("b", Incarnation([3; 16])), 1, "it keeps its place");
        assert_eq!(state.since_of("b", Incarnation([4; 16])), 4);
        state.apply(&drop("b", 3, true));
        assert_eq!(state.eldest(), Some("a"));
    }
}
