//! The simulated world: one true time, clocks that run at different rates, links that lose and delay
//! messages, and invariants that are checked after every event.

use std::{collections::BTreeMap, mem, time::Duration};

use super::{
    super::{BootTime, Completed, Incarnation},
    Fault,
    engine::{Engine, Request, Response, WatchEvent},
    model::{Change, ChangeId, Model},
    node::{Node, Output, RequestId},
    random::Random,
};

/// Microseconds of true time.
pub(super) type Micros = u64;

pub(super) const SECOND: Micros = 1_000_000;
const MILLISECOND: Micros = 1_000;

pub(super) enum Event {
    Arrives(RequestId, Request),
    Answers(RequestId, Response),
    Watch(WatchEvent),
    TimesOut(RequestId),
    Ticks,
    Polls,
    TakenOver(u64),
    Submits(Change),
    Chaos(Chaos),
}

/// A failure of a node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Chaos {
    CutOff,
    Heal,
    Pause(Micros),
    Crash { back_in: Micros },
    Restart,
}

/// The outcome of a client's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Pending {
        node: usize,
    },
    Answered {
        at: Micros,
        completed: Completed,
    },
    Refused,
    /// The node that had it crashed.
    Unknown,
}

/// The quality of the network.
#[derive(Clone, Copy, Debug)]
pub(super) struct NetworkConditions {
    /// Messages per thousand that get lost, in each direction.
    pub loss: u64,
    /// Events of watches per thousand that get lost in addition.
    pub watch_loss: u64,
    /// Messages per thousand that take up to three seconds.
    pub slow: u64,
}

pub(super) const CALM: NetworkConditions = NetworkConditions { loss: 0, watch_loss: 0, slow: 0 };

/// A machine, whether its process runs or not.
pub(super) struct Machine {
    pub node: Option<Node>,
    /// The number of its process: messages to an earlier one are dropped.
    run: u32,
    /// Rate of its clock, in millionths of the true one.
    rate: u64,
    offset: Micros,
    cut_off: bool,
    paused_until: Micros,
    /// What is on the disk after a crash.
    durable: Model,
    predecessor: Option<Incarnation>,
    taken_over_at: Micros,
    pub checked: u64,
    polls_at: Option<Micros>,
}

pub(super) struct World {
    pub now: Micros,
    pub network: NetworkConditions,
    pub statuses: Vec<Status>,
    /// The first violation.
    pub violation: Option<String>,
    pub events: u64,
    random: Random,
    queue: BTreeMap<(Micros, u64), (usize, u32, Event)>,
    sequence: u64,
    pub(super) engine: Engine,
    pub(super) machines: Vec<Machine>,
    /// The correct state at each position.
    pub(super) states: Vec<Model>,
    /// The highest position of an answered change.
    pub(super) answered: u64,
    fault: Fault,
}

impl World {
    pub fn new(seed: u64, nodes: usize, fault: Fault) -> Self {
        let mut random = Random::new(seed);
        let machines = (0..nodes).map(|_| Machine {
            node: None,
            run: 0,
            rate: random.between(960_000, 1_040_001),
            offset: random.between(0, 1000 * SECOND),
            cut_off: false,
            paused_until: 0,
            durable: Model::empty(),
            predecessor: None,
            taken_over_at: 0,
            checked: 0,
            polls_at: None,
        });
        let machines = machines.collect();
        let mut world = Self {
            now: 0,
            network: CALM,
            statuses: Vec::new(),
            violation: None,
            events: 0,
            random,
            queue: BTreeMap::new(),
            sequence: 0,
            engine: Engine::new(),
            machines,
            states: vec![Model::empty()],
            answered: 0,
            fault,
        };
        for machine in 0..nodes {
            world.start(machine);
        }
        world
    }

    /// Lets every node's clock run at the true rate.
    pub fn with_equal_clocks(mut self) -> Self {
        self.machines.iter_mut().for_each(|machine| machine.rate = 1_000_000);
        self
    }

    pub fn submit_at(&mut self, at: Micros, machine: usize, name: u8, creates: bool) -> ChangeId {
        let id = ChangeId::try_from(self.statuses.len()).unwrap();
        self.statuses.push(Status::Pending { node: machine });
        self.schedule(at, machine, Event::Submits(Change { id, name, creates }));
        id
    }

    pub fn chaos_at(&mut self, at: Micros, machine: usize, chaos: Chaos) {
        self.schedule(at, machine, Event::Chaos(chaos));
    }

    /// Whether a node would forward a request now.
    pub fn permits(&self, machine: usize) -> bool {
        let machine = &self.machines[machine];
        machine.node.as_ref().is_some_and(|node| node.permits(machine.clock(self.now)))
    }

    pub fn members(&self) -> usize {
        self.states.last().unwrap().members.iter().count()
    }

    /// Runs until this time, or until the first violation.
    pub fn run_until(&mut self, end: Micros) {
        while self.violation.is_none()
            && let Some(first) = self.queue.first_entry()
            && first.key().0 <= end
        {
            let ((at, _), (machine, run, event)) = first.remove_entry();
            self.now = at;
            self.events += 1;
            self.handle(machine, run, event);
            self.check();
        }
        self.now = end;
    }

    fn handle(&mut self, index: usize, run: u32, event: Event) {
        let machine = &mut self.machines[index];
        match event {
            Event::Chaos(chaos) => return self.inject(index, chaos),
            Event::Arrives(id, request) => {
                if machine.cut_off {
                    return;
                }
                let (response, event) = self.engine.serve(request);
                self.send(index, run, Event::Answers(id, response));
                if let Some(event) = event {
                    self.broadcast(&event);
                }
                return;
            }
            _ if machine.paused_until > self.now => {
                let at = machine.paused_until;
                return self.push(at, index, run, event);
            }
            _ => {}
        }
        let now = machine.clock(self.now);
        // A client's request goes to whichever process runs by then.
        let this_run = machine.run == run || matches!(event, Event::Submits(_));
        let (true, Some(node)) = (this_run, machine.node.as_mut()) else {
            if let Event::Submits(change) = event {
                self.statuses[change.id as usize] = Status::Unknown;
            }
            return;
        };
        match event {
            Event::Answers(id, response) if !machine.cut_off => node.answered(id, response, now),
            Event::Watch(event) if !machine.cut_off => node.on_watch_event(event, now),
            Event::Answers(..) | Event::Watch(_) => {}
            Event::TimesOut(id) => node.timed_out(id, now),
            Event::Ticks => {
                node.tick(now);
                self.after(index, run, Node::TICK, Event::Ticks);
            }
            Event::Polls => {
                machine.polls_at = None;
                node.go_on(now);
            }
            Event::TakenOver(position) => node.taken_over(position, self.random.between(0, 3), now),
            Event::Submits(change) => {
                self.statuses[change.id as usize] = Status::Pending { node: index };
                node.submit(change, now);
            }
            Event::Chaos(_) | Event::Arrives(..) => unreachable!("handled above"),
        }
        self.apply_outputs(index);
    }

    /// Does what the node requests.
    fn apply_outputs(&mut self, index: usize) {
        let machine = &mut self.machines[index];
        let run = machine.run;
        let Some(node) = machine.node.as_mut() else { return };
        if node.model.head != machine.durable.head && self.random.per_mille(300) {
            machine.durable = node.model.clone();
        }
        for output in mem::take(&mut node.outputs) {
            match output {
                Output::Send(id, request) => {
                    self.send(index, run, Event::Arrives(id, request));
                    self.after(index, run, Node::DEADLINE, Event::TimesOut(id));
                }
                Output::Applied(position) => {
                    let longest = if self.random.per_mille(20) { 700 } else { 5 };
                    let delay = self.random.between(100, longest * MILLISECOND);
                    let machine = &mut self.machines[index];
                    machine.taken_over_at = machine.taken_over_at.max(self.now + delay);
                    let at = machine.taken_over_at;
                    self.push(at, index, run, Event::TakenOver(position));
                }
                Output::Answered(change, completed) => {
                    self.answered = self.answered.max(completed.position);
                    self.statuses[change as usize] = Status::Answered { at: self.now, completed };
                }
                Output::Refused(change) => self.statuses[change as usize] = Status::Refused,
            }
        }
        let machine = &mut self.machines[index];
        if let Some(node) = &machine.node
            && let Some(deadline) = node.protocol.completions.deadline()
        {
            let at = machine.true_time(deadline).max(self.now + 1);
            if machine.polls_at.is_none_or(|polls| polls > at) {
                machine.polls_at = Some(at);
                self.push(at, index, run, Event::Polls);
            }
        }
    }

    fn inject(&mut self, index: usize, chaos: Chaos) {
        let machine = &mut self.machines[index];
        match chaos {
            Chaos::CutOff => machine.cut_off = true,
            Chaos::Heal => {
                machine.cut_off = false;
                machine.paused_until = machine.paused_until.min(self.now);
                if machine.node.is_none() {
                    self.start(index);
                }
            }
            Chaos::Pause(length) => machine.paused_until = self.now + length,
            Chaos::Crash { back_in } => {
                let Some(node) = machine.node.take() else { return };
                machine.run += 1;
                machine.paused_until = 0;
                // Sometimes the machine comes back with an empty disk.
                machine.predecessor = Some(node.incarnation);
                if self.random.per_mille(100) {
                    (machine.predecessor, machine.durable) = (None, Model::empty());
                }
                for status in &mut self.statuses {
                    if *status == (Status::Pending { node: index }) {
                        *status = Status::Unknown;
                    }
                }
                self.chaos_at(self.now + back_in, index, Chaos::Restart);
            }
            Chaos::Restart => {
                if machine.node.is_none() {
                    self.start(index);
                }
            }
        }
    }

    fn start(&mut self, index: usize) {
        let random = Random::new(self.random.next());
        let machine = &mut self.machines[index];
        machine.checked = 0;
        machine.polls_at = None;
        machine.taken_over_at = self.now;
        let (name, model) = (format!("node-{index}"), machine.durable.clone());
        let now = machine.clock(self.now);
        machine.node = Some(Node::start(&name, model, machine.predecessor, self.fault, random, now));
        let run = machine.run;
        self.push(self.now + 1, index, run, Event::Ticks);
    }

    fn broadcast(&mut self, event: &WatchEvent) {
        for index in 0..self.machines.len() {
            if self.random.per_mille(self.network.watch_loss) {
                continue;
            }
            let times = if self.random.per_mille(self.network.watch_loss) { 2 } else { 1 };
            for _ in 0..times {
                self.send(index, self.machines[index].run, Event::Watch(event.clone()));
            }
        }
    }

    /// Sends over the link between a node and the engine.
    fn send(&mut self, index: usize, run: u32, event: Event) {
        if self.machines[index].cut_off || self.random.per_mille(self.network.loss) {
            return;
        }
        let longest = match self.random.between(0, 1000) {
            roll if roll < self.network.slow => 3_000,
            roll if roll < self.network.slow * 5 => 60,
            _ => 2,
        };
        let delay = self.random.between(100, longest * MILLISECOND);
        self.push(self.now + delay, index, run, event);
    }

    fn schedule(&mut self, at: Micros, machine: usize, event: Event) {
        self.push(at, machine, self.machines[machine].run, event);
    }

    /// Schedules an event after a delay by the machine's clock.
    fn after(&mut self, index: usize, run: u32, delay: Duration, event: Event) {
        let micros = u64::try_from(delay.as_micros()).unwrap();
        let at = self.now + micros * 1_000_000 / self.machines[index].rate;
        self.push(at, index, run, event);
    }

    fn push(&mut self, at: Micros, machine: usize, run: u32, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), (machine, run, event));
    }
}

impl Machine {
    pub fn clock(&self, now: Micros) -> BootTime {
        BootTime::from_start(Duration::from_micros(self.offset + now * self.rate / 1_000_000))
    }

    fn true_time(&self, clock: BootTime) -> Micros {
        let elapsed = u64::try_from(clock.since_start().as_micros()).unwrap() - self.offset;
        elapsed * 1_000_000 / self.rate + 1
    }
}
