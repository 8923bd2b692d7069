//! A simulated node. It uses the protocol as a real one does, over messages that may get lost.

use std::{collections::BTreeMap, mem, time::Duration};

use super::{
    super::{
        Answer, AttemptId, BootTime, CommitAttempt, Completed, Follower, Fork, Incarnation, MembershipState,
        NodeIdentity, Probe, Protocol, SequenceCheck, Step, Timing,
    },
    Fault,
    engine::{Request, Response, WatchEvent, Written},
    model::{self, Change, ChangeId, Model, Op},
    random::Random,
};

pub(super) type RequestId = u64;

/// The default of `store.cluster.lease`.
const LEASE: Duration = Duration::from_secs(10);

/// An action that the node requests.
#[derive(Debug)]
pub(super) enum Output {
    Send(RequestId, Request),
    /// An entry has been applied: the workers take it over a moment later.
    Applied(u64),
    Answered(ChangeId, Completed),
    Refused(ChangeId),
}

pub(super) struct Node {
    pub incarnation: Incarnation,
    pub model: Model,
    pub in_force: u64,
    pub outputs: Vec<Output>,
    pub protocol: Protocol,
    follower: Follower,
    fault: Fault,
    random: Random,
    requests: BTreeMap<RequestId, PendingRequest>,
    next_request: RequestId,
    commit: Option<Commit>,
    todo: Vec<Change>,
    /// Changes in the log that wait until they are in force everywhere, by position.
    fenced: BTreeMap<u64, Vec<ChangeId>>,
    /// The position that this run last put as its acknowledgement.
    ack_put: Option<u64>,
}

/// A request that is on its way.
enum PendingRequest {
    Commit,
    Winner,
    Probe(Probe),
    Range,
    PutAck(u64),
    ReadAcks(BootTime),
}

struct Commit {
    attempt: CommitAttempt,
    ops: Vec<Op>,
    changes: Vec<Change>,
}

impl Node {
    pub fn start(
        name: &str,
        model: Model,
        predecessor: Option<Incarnation>,
        fault: Fault,
        mut random: Random,
        now: BootTime,
    ) -> Self {
        let incarnation = Incarnation(random.bytes());
        let identity = NodeIdentity { node: name.to_owned(), incarnation, predecessor, rules: [0; 32] };
        let (members, position) = (model.members.clone(), model.head.position);
        let mut timing = Timing::from_lease(LEASE);
        if fault == Fault::FullLease {
            timing.permission = LEASE;
        }
        Self {
            incarnation,
            in_force: model.head.position,
            outputs: Vec::new(),
            protocol: Protocol::new(identity, members, position, timing, now),
            follower: Follower::new(model.head),
            model,
            fault,
            random,
            requests: BTreeMap::new(),
            next_request: 0,
            commit: None,
            todo: Vec::new(),
            fenced: BTreeMap::new(),
            ack_put: None,
        }
    }

    /// Called every two seconds.
    pub fn tick(&mut self, now: BootTime) {
        if !self.asks(|asked| matches!(asked, PendingRequest::Probe(_))) {
            let probe = Probe { floor: self.follower.head(), sent: now };
            self.send(Request::Probe, PendingRequest::Probe(probe));
        }
        // A watch may have lost an acknowledgement.
        if !self.fenced.is_empty() {
            self.read_acks(now);
        }
        self.go_on(now);
    }

    pub fn submit(&mut self, change: Change, now: BootTime) {
        self.todo.push(change);
        self.go_on(now);
    }

    pub fn taken_over(&mut self, position: u64, cut: u64, now: BootTime) {
        self.in_force = self.in_force.max(position);
        self.protocol.in_force(position, cut);
        self.go_on(now);
    }

    pub fn on_watch_event(&mut self, event: WatchEvent, now: BootTime) {
        match event {
            WatchEvent::Entry(written) => self.take(written, now),
            WatchEvent::Ack(ack) => self.protocol.acknowledged(ack),
        }
        self.go_on(now);
    }

    pub fn timed_out(&mut self, id: RequestId, now: BootTime) {
        let Some(asked) = self.requests.remove(&id) else { return };
        match asked {
            PendingRequest::Commit if self.fault == Fault::PlansTooEarly => {
                self.give_up_commit();
                self.range();
            }
            PendingRequest::Commit | PendingRequest::Winner => self.commit_answered(Answer::None, None, now),
            PendingRequest::Range => self.range(),
            PendingRequest::Probe(_) | PendingRequest::PutAck(_) | PendingRequest::ReadAcks(_) => {}
        }
        self.go_on(now);
    }

    pub fn answered(&mut self, id: RequestId, response: Response, now: BootTime) {
        let Some(asked) = self.requests.remove(&id) else { return };
        match (asked, response) {
            (PendingRequest::Commit, Response::Committed(written)) => {
                self.commit_answered(Answer::Committed, Some(written), now);
            }
            (PendingRequest::Commit, Response::Conflict(head)) => {
                self.commit_answered(Answer::Conflict { head }, None, now);
            }
            (PendingRequest::Winner, Response::Winner(written)) => {
                self.commit_answered(Answer::Written(written.attempt), Some(written), now);
            }
            (PendingRequest::Probe(probe), Response::Head(head)) => self.on_probe_answer(probe, head, now),
            (PendingRequest::Range, Response::Entries(entries, head)) => {
                for written in entries {
                    self.take(written, now);
                }
                if self.commit.is_none() && head.position > self.follower.head().position {
                    self.range();
                }
            }
            (PendingRequest::PutAck(position), Response::Put) => self.ack_put = Some(position),
            (PendingRequest::ReadAcks(sent), Response::Acks(acks)) => {
                acks.into_iter().for_each(|ack| self.protocol.acknowledged(ack));
                self.protocol.acknowledgements_read(sent);
            }
            _ => unreachable!("the engine answers what was asked"),
        }
        self.go_on(now);
    }

    /// Does what follows from the last event.
    pub fn go_on(&mut self, now: BootTime) {
        let ack = self.protocol.acknowledgement();
        if self.ack_put != Some(ack.position)
            && !self.asks(|asked| matches!(asked, PendingRequest::PutAck(_)))
        {
            let position = ack.position;
            self.send(Request::PutAck(ack), PendingRequest::PutAck(position));
        }
        for completed in self.protocol.completed(now) {
            for change in self.fenced.remove(&completed.position).unwrap_or_default() {
                self.outputs.push(Output::Answered(change, completed.clone()));
            }
        }
        if self.protocol.wants_acknowledgements() {
            self.read_acks(now);
        }
        self.plan(now);
    }

    fn plan(&mut self, now: BootTime) {
        let follows =
            matches!(self.protocol.membership(), MembershipState::Member | MembershipState::Outside);
        if self.commit.is_some() || self.asks(|asked| matches!(asked, PendingRequest::Range)) || !follows {
            return;
        }
        let mut ops: Vec<Op> = self.protocol.proposals(now).into_iter().map(Op::Member).collect();
        if self.fault == Fault::EvictsAtOnce {
            for op in &mut ops {
                if let Op::Member(super::super::MemberChange::Drop { over, .. }) = op {
                    *over = true;
                }
            }
        }
        let mut changes = Vec::new();
        if ops.is_empty() {
            let mut planned = self.model.clone();
            for change in mem::take(&mut self.todo) {
                match planned.plan(change) {
                    Some(op) => {
                        planned.apply_ops(std::slice::from_ref(&op));
                        ops.push(op);
                        changes.push(change);
                    }
                    None => self.outputs.push(Output::Refused(change.id)),
                }
            }
        }
        if ops.is_empty() {
            return;
        }
        let attempt = CommitAttempt::new(AttemptId(self.random.bytes()), self.model.head);
        self.commit = Some(Commit { attempt, ops, changes });
        self.send_commit();
    }

    fn send_commit(&mut self) {
        let Some(Commit { attempt, ops, .. }) = &self.commit else { return };
        let request = Request::Commit {
            attempt: attempt.id(),
            expected: attempt.expected(),
            operations: model::encode(ops),
        };
        self.send(request, PendingRequest::Commit);
    }

    /// `written`: the entry after the expected head, if it is known.
    fn commit_answered(&mut self, answer: Answer, written: Option<Written>, now: BootTime) {
        let Some(commit) = &mut self.commit else { return };
        let position = commit.attempt.position();
        match commit.attempt.on_answer(answer) {
            Step::SendAgain => self.send_commit(),
            Step::ReadWinner => self.send(Request::Winner { position }, PendingRequest::Winner),
            Step::Committed => {
                let commit = self.commit.take().unwrap();
                let written = written.unwrap();
                assert_eq!(written.entry.operations, model::encode(&commit.ops));
                self.follow(&written, now);
                if !commit.changes.is_empty() {
                    self.protocol.fence(now);
                    self.fenced.insert(position, commit.changes.iter().map(|change| change.id).collect());
                }
            }
            Step::Lost => {
                self.give_up_commit();
                match written {
                    Some(written) => self.follow(&written, now),
                    None => self.range(),
                }
            }
            Step::LogLostEntries { head } => self.protocol.forked(Fork { position: head.position }),
        }
    }

    /// Gives the commit up; its changes are planned again.
    fn give_up_commit(&mut self) {
        self.requests.retain(|_, asked| !matches!(asked, PendingRequest::Commit | PendingRequest::Winner));
        if let Some(Commit { mut changes, .. }) = self.commit.take() {
            changes.append(&mut self.todo);
            self.todo = changes;
        }
    }

    fn on_probe_answer(&mut self, mut probe: Probe, head: crate::store::log::Head, now: BootTime) {
        if self.fault == Fault::CountsFromTheAnswer {
            probe.sent = now;
        }
        match self.follower.missing_from(head, probe.floor) {
            Ok(None) => {}
            Ok(Some(_)) if self.commit.is_some() => {}
            Ok(Some(_)) => self.range(),
            Err(fork) => self.protocol.forked(fork),
        }
        self.protocol.permission.answered(probe, head.position);
    }

    /// Takes in an entry from the watch or a range, in any order.
    fn take(&mut self, written: Written, now: BootTime) {
        if let Some(commit) = &self.commit
            && written.entry.position >= commit.attempt.position()
        {
            // This entry decides the current commit; later ones are read once that is settled.
            if written.entry.position == commit.attempt.position() {
                self.requests
                    .retain(|_, asked| !matches!(asked, PendingRequest::Commit | PendingRequest::Winner));
                self.commit_answered(Answer::Written(written.attempt), Some(written), now);
            }
            return;
        }
        self.follow(&written, now);
    }

    fn follow(&mut self, written: &Written, now: BootTime) {
        match self.follower.follow(&written.entry) {
            Ok(SequenceCheck::Next) => self.apply(written, now),
            Ok(SequenceCheck::Duplicate) => {}
            Ok(SequenceCheck::Gap { .. }) if self.fault == Fault::SkipsGaps => {
                self.follower = Follower::new(written.entry.head());
                self.apply(written, now);
            }
            Ok(SequenceCheck::Gap { .. }) => self.range(),
            Err(fork) => self.protocol.forked(fork),
        }
    }

    fn apply(&mut self, written: &Written, now: BootTime) {
        let position = written.entry.position;
        let members = self.model.apply(&written.entry);
        self.protocol.applied(position, &members, now);
        self.outputs.push(Output::Applied(position));
    }

    fn range(&mut self) {
        if !self.asks(|asked| matches!(asked, PendingRequest::Range)) {
            self.send(Request::Range { from: self.follower.head().next() }, PendingRequest::Range);
        }
    }

    fn read_acks(&mut self, now: BootTime) {
        if !self.asks(|asked| matches!(asked, PendingRequest::ReadAcks(_))) {
            self.send(Request::ReadAcks, PendingRequest::ReadAcks(now));
        }
    }

    fn asks(&self, which: impl Fn(&PendingRequest) -> bool) -> bool {
        self.requests.values().any(which)
    }

    fn send(&mut self, request: Request, asked: PendingRequest) {
        let id = self.next_request;
        self.next_request += 1;
        self.requests.insert(id, asked);
        self.outputs.push(Output::Send(id, request));
    }

    /// Whether it would forward a request now.
    pub fn permits(&self, now: BootTime) -> bool {
        self.protocol.permitted_until().is_some_and(|until| now < until)
    }

    /// Time between two probes.
    pub const TICK: Duration = Duration::from_secs(2);
    /// Timeout of a request.
    pub const DEADLINE: Duration = Duration::from_secs(1);
}
