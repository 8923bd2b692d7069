//! Tracks when a change of this node is in force on every node.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Acknowledgement, BootTime, Incarnation, Members, NodeRun};

/// A change that is in force on every node that can still forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    pub position: u64,
    /// Nodes on which it is in force.
    pub confirmed: Vec<String>,
    /// Nodes that have not acknowledged, but cannot forward any more.
    pub lapsed: Vec<String>,
    /// Requests, streams and tunnels that the confirmed nodes have cut.
    pub cut: u64,
}

/// This node's changes that other nodes have yet to acknowledge.
#[derive(Debug)]
pub struct Completions {
    lapse: Duration,
    acks: BTreeMap<NodeRun, Acknowledgement>,
    /// When each dropped run can no longer forward.
    departing: BTreeMap<NodeRun, BootTime>,
    waiting: Vec<Waiting>,
    /// Runs that did not acknowledge in time, each with the position it missed.
    silent: BTreeMap<NodeRun, u64>,
}

#[derive(Debug)]
struct Waiting {
    position: u64,
    since: BootTime,
    /// Until when each run is waited for.
    awaited: BTreeMap<NodeRun, BootTime>,
    confirmed: BTreeSet<NodeRun>,
    lapsed: BTreeSet<NodeRun>,
}

impl Completions {
    /// Departed runs are waited for as if their departure had just become known.
    pub fn new(lapse: Duration, members: &Members, now: BootTime) -> Self {
        let departing = members.departed().iter().map(|run| (run.clone(), now + lapse)).collect();
        Self { lapse, acks: BTreeMap::new(), departing, waiting: Vec::new(), silent: BTreeMap::new() }
    }

    /// Takes in the members after an entry was applied. `now` is not before its commit.
    pub fn applied(&mut self, members: &Members, now: BootTime) {
        self.departing.retain(|run, _| members.departed().contains(run));
        for run in members.departed() {
            self.departing.entry(run.clone()).or_insert(now + self.lapse);
        }
        // A run that is no longer a member needs no eviction.
        self.silent.retain(|(node, incarnation), _| members.is_member(node, *incarnation));
        let departing = &self.departing;
        self.acks.retain(|run, _| members.is_member(&run.0, run.1) || departing.contains_key(run));
    }

    /// Waits for every member, for every departed run that may still have permission, and for this node.
    /// `members` are those as of `position`, whose commit became known at `known`.
    pub fn wait(&mut self, position: u64, members: &Members, me: NodeRun, known: BootTime) {
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

    /// Takes in a node's acknowledgement; one older than the last is ignored.
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

    /// Returns the changes that are complete by now.
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
                // A departed run is no member any more, so it needs no eviction.
                if end == waiting.since + self.lapse {
                    silent.entry(run.clone()).or_insert(position);
                }
                waiting.lapsed.insert(run);
            }
            if !waiting.awaited.is_empty() {
                return true;
            }
            let names = |runs: &BTreeSet<NodeRun>| {
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

    /// When [`poll`](Self::poll) may return more without a further acknowledgement.
    pub fn deadline(&self) -> Option<BootTime> {
        self.waiting.iter().flat_map(|waiting| waiting.awaited.values()).min().copied()
    }

    /// Runs that did not acknowledge in time, and still have not.
    pub fn silent(&self) -> impl Iterator<Item = &NodeRun> {
        self.silent.keys()
    }

    /// Runs that were dropped so long ago that they cannot forward any more.
    pub fn departed_for_good(&self, now: BootTime) -> impl Iterator<Item = &NodeRun> {
        self.departing.iter().filter(move |(_, end)| **end <= now).map(|(run, _)| run)
    }

    pub fn acknowledged_by(&self, node: &str, incarnation: Incarnation) -> Option<u64> {
        self.acks.get(&(node.to_owned(), incarnation)).map(|ack| ack.position)
    }

    /// Number of changes that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}
