//! One node's state in the cluster: whether it may forward, what it waits for, and what it appends to the
//! log.

use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;

use super::{BootTime, Completed, Completions, Fork, Incarnation, MemberChange, Members, Permission, Timing};
use crate::store::op::FORMAT;

/// Number of positions with cuts that an acknowledgement keeps.
pub const MAX_CUTS: usize = 64;

/// A node's acknowledgement, stored under `ack/<node>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// Stored in the key only.
    #[serde(skip)]
    pub node: String,
    pub incarnation: Incarnation,
    /// The highest position in force there.
    pub position: u64,
    /// The last [`MAX_CUTS`] positions for which something was cut, each with its count.
    pub cuts: Vec<(u64, u64)>,
}

impl Acknowledgement {
    /// How much the node cut for the change at `position`; `None` if that is no longer known.
    pub fn cut_at(&self, position: u64) -> Option<u64> {
        self.cuts.iter().find(|(at, _)| *at == position).map(|(_, cut)| *cut)
    }

    /// Encodes it without the node's name, which is in the key.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("memory takes every serialisable value")
    }

    /// Returns `None` for bytes that this version does not write.
    pub fn decode(node: &str, bytes: &[u8]) -> Option<Self> {
        let ack: Self = postcard::from_bytes(bytes).ok()?;
        (ack.cuts.len() <= MAX_CUTS).then(|| Self { node: node.to_owned(), ..ack })
    }
}

/// This node's standing in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "lowercase", const_into_str)]
pub enum MembershipState {
    /// It has not joined, or was dropped and joins again.
    #[strum(serialize = "joining")]
    Outside,
    Member,
    /// Another process has joined under its name; this one serves no more.
    Displaced,
    /// The engine has lost acknowledged entries. The node serves nothing until an operator decides.
    Forked(Fork),
    /// It has left, and serves no more.
    Left,
}

/// One node's part of the protocol; one per process.
#[derive(Debug)]
pub struct Protocol {
    identity: NodeIdentity,
    membership: MembershipState,
    /// Whether it has been a member. From then on, another run with its name displaces it.
    joined: bool,
    applied: u64,
    members: Members,
    pub(super) permission: Permission,
    pub(super) completions: Completions,
    cuts: Vec<(u64, u64)>,
    /// When all acknowledgements were last read again.
    read: Option<BootTime>,
    lapsed: Option<BootTime>,
}

/// A node, and the run of its process.
#[derive(Debug)]
pub struct NodeIdentity {
    pub node: String,
    pub incarnation: Incarnation,
    /// The previous run with this replica. It has certainly ended, since the lock was free.
    pub predecessor: Option<Incarnation>,
    /// Digest of its rules.
    pub rules: [u8; 32],
}

impl Protocol {
    /// For a node whose replica is at `position` with these members.
    pub fn new(
        identity: NodeIdentity,
        members: Members,
        position: u64,
        timing: Timing,
        now: BootTime,
    ) -> Self {
        let NodeIdentity { node, incarnation, .. } = &identity;
        Self {
            permission: Permission::new(node, *incarnation, timing.permission, &members, position),
            completions: Completions::new(timing.lapse, &members, now),
            membership: MembershipState::Outside,
            joined: false,
            applied: position,
            cuts: Vec::new(),
            read: None,
            lapsed: None,
            identity,
            members,
        }
    }

    /// The first moment at which nothing may be forwarded any more; `None`: nothing may be forwarded.
    pub fn permitted_until(&self) -> Option<BootTime> {
        match self.membership {
            MembershipState::Outside | MembershipState::Member => self.permission.until,
            MembershipState::Displaced | MembershipState::Forked(_) | MembershipState::Left => None,
        }
    }

    pub fn membership(&self) -> MembershipState {
        self.membership
    }

    pub fn members(&self) -> &Members {
        &self.members
    }

    /// The engine's history is not the one that this node followed.
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
        match (self.membership, self.members.get(&self.identity.node)) {
            (MembershipState::Displaced | MembershipState::Forked(_) | MembershipState::Left, _) => {}
            (_, Some(member)) if member.incarnation == self.identity.incarnation => {
                (self.membership, self.joined) = (MembershipState::Member, true);
            }
            (_, Some(_)) if self.joined => self.membership = MembershipState::Displaced,
            // The run that has the name joined before this process.
            (_, Some(_) | None) => self.membership = MembershipState::Outside,
        }
    }

    /// Every worker has applied everything up to `position`; `cut` is what was cut for that entry.
    pub fn in_force(&mut self, position: u64, cut: u64) {
        self.permission.in_force(position);
        if cut > 0 {
            self.cuts.push((position, cut));
            let excess = self.cuts.len().saturating_sub(MAX_CUTS);
            self.cuts.drain(..excess);
        }
        let own = self.acknowledgement();
        self.completions.acknowledged(own);
    }

    /// What to write under `ack/<node>`.
    pub fn acknowledgement(&self) -> Acknowledgement {
        Acknowledgement {
            node: self.identity.node.clone(),
            incarnation: self.identity.incarnation,
            position: self.permission.in_force,
            cuts: self.cuts.clone(),
        }
    }

    /// Waits for a change of this node, at the position applied last. Its commit became known at `known`.
    pub fn fence(&mut self, known: BootTime) {
        let me = (self.identity.node.clone(), self.identity.incarnation);
        self.completions.wait(self.applied, &self.members, me, known);
    }

    /// Takes in another node's acknowledgement.
    pub fn acknowledged(&mut self, ack: Acknowledgement) {
        if ack.node != self.identity.node || ack.incarnation != self.identity.incarnation {
            self.completions.acknowledged(ack);
        }
    }

    /// All acknowledgements were read again, by a request sent at `sent`, and passed in.
    pub fn acknowledgements_read(&mut self, sent: BootTime) {
        self.read = self.read.max(Some(sent));
    }

    /// Sets the rules that are in force here. The next proposal announces them to the members.
    pub fn set_rules(&mut self, digest: [u8; 32]) {
        self.identity.rules = digest;
    }

    /// Returns the changes of this node that are in force everywhere by now.
    pub fn completed(&mut self, now: BootTime) -> Vec<Completed> {
        let completed = self.completions.poll(now);
        if completed.iter().any(|done| !done.lapsed.is_empty()) {
            self.lapsed = Some(now);
        }
        completed
    }

    /// Whether a node did not acknowledge in time, so that all acknowledgements must be read again.
    /// Otherwise a node that was itself cut off would evict all others.
    pub fn wants_acknowledgements(&self) -> bool {
        self.lapsed > self.read && self.completions.silent().next().is_some()
    }

    /// The member changes that this node must append to the log.
    ///
    /// Valid only in the entry directly after the position applied last.
    pub fn proposals(&self, now: BootTime) -> Vec<MemberChange> {
        let NodeIdentity { node, incarnation, predecessor, rules } = &self.identity;
        let member = self.members.get(node);
        let mut changes = Vec::new();
        if self.membership == MembershipState::Outside {
            let before = member.map(|member| member.incarnation);
            if let Some(before) = before.filter(|before| before != incarnation) {
                changes.push(departure(node, before, *predecessor == Some(before)));
            }
            changes.push(self.join_proposal());
        }
        // The previous run may have been evicted meanwhile.
        if let Some(before) = *predecessor
            && self.members.departed().contains(&(node.clone(), before))
        {
            changes.push(departure(node, before, true));
        }
        if self.membership != MembershipState::Member {
            return changes;
        }
        if member.is_some_and(|member| member.rules != *rules) {
            changes.push(self.join_proposal());
        }
        let fresh = self.lapsed.is_some() && self.read >= self.lapsed;
        let silent = self.completions.silent().filter(|run| fresh && (&run.0, &run.1) != (node, incarnation));
        changes.extend(silent.map(|(node, incarnation)| departure(node, *incarnation, false)));
        if self.members.eldest() == Some(node) {
            let gone = self.completions.departed_for_good(now);
            changes.extend(gone.map(|(node, incarnation)| departure(node, *incarnation, true)));
        }
        changes
    }

    /// Stops serving. The returned change must be appended to the log.
    pub fn leave(&mut self) -> MemberChange {
        self.membership = MembershipState::Left;
        departure(&self.identity.node, self.identity.incarnation, true)
    }

    fn join_proposal(&self) -> MemberChange {
        MemberChange::Put {
            node: self.identity.node.clone(),
            incarnation: self.identity.incarnation.0,
            format: FORMAT,
            rules: self.identity.rules,
            since: self.members.since_of(&self.identity.node, self.identity.incarnation),
        }
    }
}

fn departure(node: &str, Incarnation(incarnation): Incarnation, over: bool) -> MemberChange {
    MemberChange::Drop { node: node.to_owned(), incarnation, over }
}
