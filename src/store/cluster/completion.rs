//! When a change of this node is in force on every node.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Acknowledgement, BootTime, Incarnation, Members};

/// A node and which run of it.
pub(super) type Run = (String, Incarnation);

/// A change that no node contradicts any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    pub position: u64,
    /// Nodes on which it is in force.
    pub confirmed: Vec<String>,
    /// Nodes that have said nothing, but cannot forward any more.
    pub lapsed: Vec<String>,
    /// Requests, streams and tunnels that the confirmed nodes have cut.
    pub cut: u64,
}

/// This node's changes that somebody has yet to acknowledge.
#[derive(Debug)]
pub struct Completions {
    lapse: Duration,
    acks: BTreeMap<Run, Acknowledgement>,
    /// When each of those who were dropped cannot forward any more.
    departing: BTreeMap<Run, BootTime>,
    waiting: Vec<Waiting>,
    /// Waited for in vain: the position that each has not acknowledged.
    silent: BTreeMap<Run, u64>,
}

#[derive(Debug)]
struct Waiting {
    position: u64,
    since: BootTime,
    /// Until when each is waited for.
    awaited: BTreeMap<Run, BootTime>,
    confirmed: BTreeSet<Run>,
    lapsed: BTreeSet<Run>,
}

impl Completions {
    /// Whoever has departed is waited for as if that had just become known.
    pub fn new(lapse: Duration, members: &Members, now: BootTime) -> Self {
        let departing = members
            .departed()
            .iter()
            .map(|gone| ((gone.node.clone(), gone.incarnation), now + lapse))
            .collect();
        Self { lapse, acks: BTreeMap::new(), departing, waiting: Vec::new(), silent: BTreeMap::new() }
    }

    /// An entry has been applied, with these members as the result. `now` is not before its commit.
    pub fn applied(&mut self, members: &Members, now: BootTime) {
        self.departing.retain(|(node, incarnation), _| {
            members.departed().iter().any(|gone| &gone.node == node && gone.incarnation == *incarnation)
        });
        for gone in members.departed() {
            let run = (gone.node.clone(), gone.incarnation);
            self.departing.entry(run).or_insert(now + self.lapse);
        }
        // Whoever is no member any more is not to be evicted.
        self.silent.retain(|(node, incarnation), _| members.is_member(node, *incarnation));
        let departing = &self.departing;
        self.acks.retain(|run, _| members.is_member(&run.0, run.1) || departing.contains_key(run));
    }

    /// Waits for every member, for everybody who may still have permission, and for this node, by the
    /// members as of `position`, whose commit became known at `known`.
    pub fn wait(&mut self, position: u64, members: &Members, me: Run, known: BootTime) {
        let end = known + self.lapse;
        let members = members.iter().map(|(node, member)| ((node.to_owned(), member.incarnation), end));
        let departing = self.departing.iter().filter(|(_, gone)| **gone > known);
        let departing = departing.map(|(run, gone)| (run.clone(), end.min(*gone)));
        let awaited = members.chain(departing).chain([(me, end)]).collect();
        self.waiting.push(Waiting {
            position,
            since: known,
            awaited,
            confirmed: BTreeSet::new(),
            lapsed: BTreeSet::new(),
        });
    }

    /// What a node says of itself; an older word than is known changes nothing.
    pub fn acknowledged(&mut self, ack: Acknowledgement) {
        let run = (ack.node.clone(), ack.incarnation);
        if let Some(position) = self.silent.get(&run)
            && ack.position >= *position
        {
            self.silent.remove(&run);
        }
        let known = self.acks.entry(run).or_insert_with(|| ack.clone());
        if ack.position >= known.position {
            *known = ack;
        }
    }

    /// Those that are complete by now.
    pub fn poll(&mut self, now: BootTime) -> Vec<Completed> {
        let mut complete = Vec::new();
        let (acks, silent) = (&self.acks, &mut self.silent);
        self.waiting.retain_mut(|waiting| {
            let position = waiting.position;
            for (run, _) in waiting
                .awaited
                .extract_if(.., |run, _| acks.get(run).is_some_and(|ack| ack.position >= position))
            {
                waiting.confirmed.insert(run);
            }
            for (run, end) in waiting.awaited.extract_if(.., |_, end| *end <= now) {
                // Who departs is gone already.
                if end == waiting.since + self.lapse {
                    silent.entry(run.clone()).or_insert(position);
                }
                waiting.lapsed.insert(run);
            }
            if !waiting.awaited.is_empty() {
                return true;
            }
            let names = |runs: &BTreeSet<Run>| {
                let mut names: Vec<_> = runs.iter().map(|(node, _)| node.clone()).collect();
                names.dedup();
                names
            };
            let cuts = waiting.confirmed.iter().filter_map(|run| acks.get(run)?.cut_at(position));
            complete.push(Completed {
                position,
                confirmed: names(&waiting.confirmed),
                lapsed: names(&waiting.lapsed),
                cut: cuts.sum(),
            });
            false
        });
        complete
    }

    /// When [`poll`](Self::poll) may have more to say without a further acknowledgement.
    pub fn deadline(&self) -> Option<BootTime> {
        self.waiting.iter().flat_map(|waiting| waiting.awaited.values()).min().copied()
    }

    /// Nodes that were waited for in vain and have still not acknowledged.
    pub fn silent(&self) -> impl Iterator<Item = &Run> {
        self.silent.keys()
    }

    /// Whoever was dropped so long ago that they cannot forward any more.
    pub fn departed_for_good(&self, now: BootTime) -> impl Iterator<Item = &Run> {
        self.departing.iter().filter(move |(_, end)| **end <= now).map(|(run, _)| run)
    }

    pub fn acknowledged_by(&self, node: &str, incarnation: Incarnation) -> Option<u64> {
        self.acks.get(&(node.to_owned(), incarnation)).map(|ack| ack.position)
    }

    /// How many changes wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}
