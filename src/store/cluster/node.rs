//! A running node: the state that its writer, its network tasks and the callers waiting for changes share.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};

use super::{
    Acknowledgement, BootTime, Completed, Follower, Fork, MemberChange, Members, MembershipState,
    NodeIdentity, Probe, Protocol, Timing,
};
use crate::{fence::Completion, state::State, store::log::Head};

/// This process's node in its cluster.
pub struct Node {
    name: String,
    shared: Mutex<Shared>,
    /// Where workers read whether they may forward.
    published: Arc<State>,
    applied: mpsc::UnboundedSender<Applied>,
    /// Notified when the protocol may have new results.
    pub(super) changed: Notify,
    /// Notified when the log has entries that are unknown here.
    pub(super) behind: Notify,
}

struct Shared {
    protocol: Protocol,
    head: Head,
    /// Waiting callers with their position, in the order of the protocol's waits.
    waiting: Vec<(u64, Vec<oneshot::Sender<Completed>>)>,
}

/// An entry that the writer has applied, with the fences raised for it.
pub(crate) struct Applied {
    pub position: u64,
    pub completions: Vec<Completion>,
}

/// A node as `permgate cluster status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    pub node: String,
    /// The highest position that it has acknowledged, as far as this node knows.
    pub acknowledged: Option<u64>,
    /// Whether its rules are the same as this node's.
    pub same_rules: bool,
}

/// The cluster as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub node: String,
    pub membership: MembershipState,
    pub head: Head,
    pub in_force: u64,
    /// How long it may still forward; `None`: it may not.
    pub permitted_for: Option<Duration>,
    pub members: Vec<NodeStatus>,
    /// Nodes that were dropped and may still forward.
    pub departed: Vec<String>,
    /// Changes of this node that other nodes have yet to acknowledge.
    pub waiting: usize,
}

impl Node {
    /// Creates a node whose replica has applied everything up to `head`. It may not forward until it has
    /// joined.
    pub(crate) fn new(
        identity: NodeIdentity,
        members: Members,
        lease: Duration,
        head: Head,
        published: Arc<State>,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<Applied>) {
        let (applied, receiver) = mpsc::unbounded_channel();
        published.permission().set_until(None);
        let name = identity.node.clone();
        let (timing, now) = (Timing::from_lease(lease), BootTime::now());
        let protocol = Protocol::new(identity, members, head.position, timing, now);
        let shared = Mutex::new(Shared { protocol, head, waiting: Vec::new() });
        let (changed, behind) = (Notify::new(), Notify::new());
        (Arc::new(Self { name, shared, published, applied, changed, behind }), receiver)
    }

    /// Takes in an entry that the writer has applied, its own or another node's, and the fences raised for
    /// it. For its own entries, `waiting` callers get a receiver for when it is in force everywhere.
    pub(crate) fn applied(
        &self,
        head: Head,
        changes: &[MemberChange],
        completions: Vec<Completion>,
        waiting: usize,
    ) -> Vec<oneshot::Receiver<Completed>> {
        let now = BootTime::now();
        let mut shared = self.shared.lock();
        let before = shared.protocol.membership();
        shared.head = head;
        shared.protocol.applied(head.position, changes, now);
        let receivers = shared.wait(head.position, waiting);
        self.log_transition(before, &shared);
        self.publish(&shared);
        // If the receiver is gone, the process is about to end.
        let _ = self.applied.send(Applied { position: head.position, completions });
        receivers
    }

    /// Registers `waiting` callers whose changes add nothing to the log. They wait until the applied state
    /// is in force everywhere.
    pub(crate) fn wait(&self, waiting: usize) -> Vec<oneshot::Receiver<Completed>> {
        let mut shared = self.shared.lock();
        let position = shared.head.position;
        let receivers = shared.wait(position, waiting);
        self.changed.notify_one();
        receivers
    }

    /// The member changes that the writer must append directly after what it has applied.
    pub(crate) fn proposals(&self) -> Vec<MemberChange> {
        self.shared.lock().protocol.proposals(BootTime::now())
    }

    /// Whether this node does what is done once for the whole cluster.
    pub fn is_eldest(&self) -> bool {
        self.shared.lock().protocol.members().eldest() == Some(&self.name)
    }

    pub fn status(&self) -> Status {
        let shared = self.shared.lock();
        let protocol = &shared.protocol;
        let now = BootTime::now().since_start();
        let until = protocol.permitted_until().map(BootTime::since_start);
        let own = protocol.members().get(&self.name).map(|member| member.rules);
        let members = protocol.members().iter().map(|(node, member)| NodeStatus {
            node: node.to_owned(),
            acknowledged: protocol.completions.acknowledged_by(node, member.incarnation),
            same_rules: own.is_none_or(|own| own == member.rules),
        });
        Status {
            node: self.name.clone(),
            membership: protocol.membership(),
            head: shared.head,
            in_force: protocol.acknowledgement().position,
            permitted_for: until.and_then(|until| until.checked_sub(now)),
            members: members.collect(),
            departed: protocol.members().departed().iter().map(|(node, _)| node.clone()).collect(),
            waiting: protocol.completions.waiting(),
        }
    }

    pub(super) fn probe(&self) -> Probe {
        Probe { floor: self.shared.lock().head, sent: BootTime::now() }
    }

    /// Takes in the head that a probe has shown.
    pub(super) fn on_probe_answer(&self, probe: Probe, head: Head) -> Result<(), Fork> {
        let mut shared = self.shared.lock();
        if Follower::new(shared.head).missing_from(head, probe.floor)?.is_some() {
            self.behind.notify_one();
        }
        shared.protocol.permission.answered(probe, head.position);
        self.publish(&shared);
        Ok(())
    }

    pub(super) fn forked(&self, fork: Fork) {
        self.update(|protocol| {
            if !matches!(protocol.membership(), MembershipState::Forked(_)) {
                tracing::error!(
                    error = %fork,
                    "this node stops serving: run `permgate cluster adopt` on the node that is furthest ahead to put its state in force"
                );
            }
            protocol.forked(fork);
        });
    }

    pub(super) fn acknowledgement(&self) -> Acknowledgement {
        self.shared.lock().protocol.acknowledgement()
    }

    pub(super) fn acknowledged(&self, node: &str, value: &[u8]) {
        match Acknowledgement::decode(node, value) {
            Some(ack) => self.update(|protocol| protocol.acknowledged(ack)),
            None => tracing::warn!(node, "another node's acknowledgement cannot be read"),
        }
    }

    /// Notifies the callers whose changes are in force everywhere by now; returns what else is to do.
    pub(super) fn advance(&self) -> NextSteps {
        let now = BootTime::now();
        let mut shared = self.shared.lock();
        for completed in shared.protocol.completed(now) {
            for node in &completed.lapsed {
                tracing::warn!(
                    node,
                    position = completed.position,
                    "a node has not acknowledged a change in time"
                );
            }
            for sender in shared.take_waiting(completed.position) {
                // The caller may be gone.
                let _ = sender.send(completed.clone());
            }
        }
        let protocol = &shared.protocol;
        let left = |at: BootTime| at.since_start().saturating_sub(now.since_start());
        NextSteps {
            read_acknowledgements: protocol.wants_acknowledgements(),
            propose: !protocol.proposals(now).is_empty(),
            waiting: protocol.completions.waiting() > 0,
            left: protocol.membership() == MembershipState::Left,
            deadline: protocol.completions.deadline().map(left),
            permitted_for: protocol.permitted_until().map(left),
        }
    }

    /// Changes the protocol's state, and publishes what follows from it.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut Protocol) -> T) -> T {
        let mut shared = self.shared.lock();
        let changed = change(&mut shared.protocol);
        self.publish(&shared);
        changed
    }

    fn publish(&self, shared: &Shared) {
        self.published.permission().set_until(shared.protocol.permitted_until());
        self.changed.notify_one();
    }

    fn log_transition(&self, before: MembershipState, shared: &Shared) {
        let (node, members) = (&self.name, shared.protocol.members().iter().count());
        match (before, shared.protocol.membership()) {
            (MembershipState::Outside, MembershipState::Member) => {
                tracing::info!(node, members, "joined the cluster");
            }
            (MembershipState::Member, MembershipState::Outside) => {
                tracing::warn!(node, "another node has removed this one from the cluster: joining again");
            }
            (MembershipState::Member | MembershipState::Outside, MembershipState::Displaced) => {
                tracing::error!(
                    node,
                    "another process has joined the cluster with this node's name: this one stops serving. Give each node its own `store.cluster.node`"
                );
            }
            _ => {}
        }
    }
}

impl Shared {
    /// Takes the callers that were registered first for a position.
    fn take_waiting(&mut self, position: u64) -> Vec<oneshot::Sender<Completed>> {
        let first = self.waiting.iter().position(|(at, _)| *at == position);
        first.map_or_else(Vec::new, |first| self.waiting.remove(first).1)
    }

    fn wait(&mut self, position: u64, waiting: usize) -> Vec<oneshot::Receiver<Completed>> {
        if waiting == 0 {
            return Vec::new();
        }
        self.protocol.fence(BootTime::now());
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..waiting).map(|_| oneshot::channel()).unzip();
        self.waiting.push((position, senders));
        receivers
    }
}

/// The tasks that follow from the protocol's state.
pub(super) struct NextSteps {
    pub read_acknowledgements: bool,
    pub propose: bool,
    /// Whether changes wait for other nodes.
    pub waiting: bool,
    /// Whether this node has left, as every node does that stops.
    pub left: bool,
    /// Time until more may be to do.
    pub deadline: Option<Duration>,
    /// Zero: the permission has expired; `None`: there is none.
    pub permitted_for: Option<Duration>,
}
