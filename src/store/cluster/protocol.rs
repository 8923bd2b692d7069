//! One node's part in the cluster: what it may do, what it waits for, and what it puts into the log.

use serde::{Deserialize, Serialize};

use super::{
    BootTime, Completed, Completions, Fork, Incarnation, MemberChange, Members, Permission, Probe, Timing,
};
use crate::store::log::Head;

/// So many positions with cuts an acknowledgement keeps.
pub const CUTS: usize = 64;

/// What a node says of itself under `ack/<node>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    pub node: String,
    pub incarnation: Incarnation,
    /// The highest position in force there.
    pub position: u64,
    /// The last [`CUTS`] positions for which something was cut, and how much.
    pub cuts: Vec<(u64, u64)>,
}

/// As it is stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    incarnation: [u8; 16],
    position: u64,
    cuts: Vec<(u64, u64)>,
}

impl Acknowledgement {
    /// How much was cut there for the change at `position`; `None` when it is not known any more.
    pub fn cut_at(&self, position: u64) -> Option<u64> {
        self.cuts.iter().find(|(at, _)| *at == position).map(|(_, cut)| *cut)
    }

    /// Without the node's name, which is the key.
    pub fn encode(&self) -> Vec<u8> {
        let Self { incarnation, position, cuts, .. } = self;
        let stored = Stored { incarnation: incarnation.0, position: *position, cuts: cuts.clone() };
        postcard::to_allocvec(&stored).expect("memory takes every serialisable value")
    }

    /// `None` for bytes that no permgate of this version writes.
    pub fn decode(node: &str, bytes: &[u8]) -> Option<Self> {
        let Stored { incarnation, position, cuts } = postcard::from_bytes(bytes).ok()?;
        (cuts.len() <= CUTS).then(|| Self {
            node: node.to_owned(),
            incarnation: Incarnation(incarnation),
            position,
            cuts,
        })
    }
}

/// How this node stands to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MembershipState {
    /// It has not joined, or was dropped and joins again.
    Outside,
    Member,
    /// Another process has joined under its name: this one serves no more.
    Displaced,
    /// The engine has lost entries that were acknowledged: nothing is served until somebody decides.
    Forked(Fork),
    /// It leaves, and serves no more.
    Left,
}

/// See the module. One a process.
#[derive(Debug)]
pub struct Protocol {
    node: String,
    incarnation: Incarnation,
    /// The run before, which certainly has ended.
    predecessor: Option<Incarnation>,
    format: u8,
    rules: [u8; 32],
    membership: MembershipState,
    /// Whether it has been a member: from then on nobody else may have its name.
    joined: bool,
    applied: u64,
    members: Members,
    permission: Permission,
    completions: Completions,
    cuts: Vec<(u64, u64)>,
    /// When every acknowledgement was read anew.
    read: Option<BootTime>,
    lapsed: Option<BootTime>,
}

/// What a node is and what its replica holds when it starts.
pub struct Start {
    pub node: String,
    pub incarnation: Incarnation,
    /// The run that had this replica before and certainly has ended, since its lock is free.
    pub predecessor: Option<Incarnation>,
    /// The newest format of entries that this node reads.
    pub format: u8,
    /// The digest of its rules.
    pub rules: [u8; 32],
    pub members: Members,
    /// What the replica has applied.
    pub position: u64,
}

impl Protocol {
    pub fn new(start: Start, timing: Timing, now: BootTime) -> Self {
        let Start { node, incarnation, predecessor, format, rules, members, position } = start;
        Self {
            permission: Permission::new(&node, incarnation, timing.permission, &members, position),
            completions: Completions::new(timing.lapse, &members, now),
            membership: MembershipState::Outside,
            joined: false,
            applied: position,
            cuts: Vec::new(),
            read: None,
            lapsed: None,
            node,
            incarnation,
            predecessor,
            format,
            rules,
            members,
        }
    }

    /// The first moment at which nothing may be forwarded any more; `None`: nothing may be.
    pub fn permitted_until(&self) -> Option<BootTime> {
        match self.membership {
            MembershipState::Outside | MembershipState::Member => self.permission.until(),
            MembershipState::Displaced | MembershipState::Forked(_) | MembershipState::Left => None,
        }
    }

    pub fn membership(&self) -> MembershipState {
        self.membership
    }

    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The head that a probe has shown. Whether entries are missing here, and whether it fits what was
    /// followed, is [`Follower::behind`](super::Follower::behind)'s to say, first.
    pub fn probed(&mut self, probe: Probe, head: Head) {
        self.permission.answered(probe, head.position);
    }

    /// The engine's history is not the one that was followed.
    pub fn forked(&mut self, fork: Fork) {
        self.membership = MembershipState::Forked(fork);
    }

    /// The entry at `position` has been applied. `now` is not before its commit.
    pub fn applied(&mut self, position: u64, changes: &[MemberChange], now: BootTime) {
        self.applied = position;
        if changes.is_empty() {
            return;
        }
        for change in changes {
            self.members.apply(change);
        }
        self.permission.applied(position, &self.members);
        self.completions.applied(&self.members, now);
        match (self.membership, self.members.get(&self.node)) {
            (MembershipState::Displaced | MembershipState::Forked(_) | MembershipState::Left, _) => {}
            (_, Some(member)) if member.incarnation == self.incarnation => {
                (self.membership, self.joined) = (MembershipState::Member, true);
            }
            (_, Some(_)) if self.joined => self.membership = MembershipState::Displaced,
            // Whoever has the name was there before this process.
            (_, Some(_) | None) => self.membership = MembershipState::Outside,
        }
    }

    /// Every worker has taken over everything up to `position`, and has cut so much for that entry.
    pub fn in_force(&mut self, position: u64, cut: u64) {
        self.permission.in_force(position);
        if cut > 0 {
            self.cuts.push((position, cut));
            let excess = self.cuts.len().saturating_sub(CUTS);
            self.cuts.drain(..excess);
        }
        let own = self.acknowledgement();
        self.completions.acknowledged(own);
    }

    /// What to write under `ack/<node>`.
    pub fn acknowledgement(&self) -> Acknowledgement {
        Acknowledgement {
            node: self.node.clone(),
            incarnation: self.incarnation,
            position: self.permission.in_force_at(),
            cuts: self.cuts.clone(),
        }
    }

    /// A change of this node, which it has just applied, at the position applied last.
    pub fn fence(&mut self, known: BootTime) {
        let me = (self.node.clone(), self.incarnation);
        self.completions.wait(self.applied, &self.members, me, known);
    }

    /// What another node says of itself.
    pub fn acknowledged(&mut self, ack: Acknowledgement) {
        if ack.node != self.node || ack.incarnation != self.incarnation {
            self.completions.acknowledged(ack);
        }
    }

    /// Every acknowledgement was read anew, by a request that was sent at `sent`, and handed over.
    pub fn acknowledgements_read(&mut self, sent: BootTime) {
        self.read = self.read.max(Some(sent));
    }

    /// The highest position that a run of a node has acknowledged, as far as this node knows.
    pub fn acknowledged_by(&self, node: &str, incarnation: Incarnation) -> Option<u64> {
        self.completions.acknowledged_by(node, incarnation)
    }

    /// Changes of this node that somebody has yet to acknowledge.
    pub fn waiting(&self) -> usize {
        self.completions.waiting()
    }

    /// Other rules are in force here: the members are told so.
    pub fn set_rules(&mut self, digest: [u8; 32]) {
        self.rules = digest;
    }

    /// Changes of this node that are in force everywhere by now.
    pub fn completed(&mut self, now: BootTime) -> Vec<Completed> {
        let completed = self.completions.poll(now);
        if completed.iter().any(|done| !done.lapsed.is_empty()) {
            self.lapsed = Some(now);
        }
        completed
    }

    /// When [`completed`](Self::completed) may have more to say without a further acknowledgement.
    pub fn deadline(&self) -> Option<BootTime> {
        self.completions.deadline()
    }

    /// Whether somebody was waited for in vain, so that the acknowledgements are to be read anew: a
    /// node that was cut off itself must not evict all others.
    pub fn wants_acknowledgements(&self) -> bool {
        self.lapsed > self.read && self.completions.silent().next().is_some()
    }

    /// What this node has to put into the log about the members.
    ///
    /// Only for an entry behind the position applied last: against another state it may be wrong.
    pub fn proposals(&self, now: BootTime) -> Vec<MemberChange> {
        let drop = |(node, incarnation): &(String, Incarnation), over| MemberChange::Drop {
            node: node.clone(),
            incarnation: incarnation.0,
            over,
        };
        let mut changes = Vec::new();
        if self.membership == MembershipState::Outside {
            let before = self.members.get(&self.node).map(|member| member.incarnation);
            if let Some(before) = before.filter(|before| *before != self.incarnation) {
                let over = self.predecessor == Some(before);
                changes.push(drop(&(self.node.clone(), before), over));
            }
            changes.push(self.joining());
        }
        // The run before may have been evicted meanwhile.
        if let Some(before) = self.predecessor
            && self.members.departed().iter().any(|gone| gone.node == self.node && gone.incarnation == before)
        {
            changes.push(drop(&(self.node.clone(), before), true));
        }
        if self.membership != MembershipState::Member {
            return changes;
        }
        if self.members.get(&self.node).is_some_and(|member| member.rules != self.rules) {
            changes.push(self.joining());
        }
        let fresh = self.lapsed.is_some() && self.read >= self.lapsed;
        let me = (self.node.clone(), self.incarnation);
        let silent = self.completions.silent().filter(|run| fresh && **run != me);
        changes.extend(silent.map(|run| drop(run, false)));
        if self.members.eldest() == Some(&self.node) {
            changes.extend(self.completions.departed_for_good(now).map(|run| drop(run, true)));
        }
        changes
    }

    /// Serves no more, and says so: the answer goes into the log.
    pub fn leave(&mut self) -> MemberChange {
        self.membership = MembershipState::Left;
        MemberChange::Drop { node: self.node.clone(), incarnation: self.incarnation.0, over: true }
    }

    fn joining(&self) -> MemberChange {
        MemberChange::Put {
            node: self.node.clone(),
            incarnation: self.incarnation.0,
            format: self.format,
            rules: self.rules,
            since: self.members.since_of(&self.node, self.incarnation),
        }
    }
}
