//! A node's network tasks: probes, the tail of the log, acknowledgements, and what the protocol requires.
//! Each is a loop of its own, so that none waits for another.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::{Instant, sleep, timeout},
};

use super::{Applied, BootTime, Node, snapshots::Snapshots};
use crate::{
    fence::{Affected, Fence},
    store::{
        Store,
        log::{
            ReadError,
            etcd::{Connection, Tail, TailError, TailEvent},
        },
    },
};

/// Pause after a probe that was answered.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);
/// Pause before a failed operation is retried.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Interval at which failing probes are logged again: the cause may have changed.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// Pause after etcd refused a probe: an operator has to fix the cause, and a sign-in is expensive for etcd.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
/// Interval at which the protocol is polled even without events: the monotonic clock stops in a suspend.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Interval at which acknowledgements are read while changes wait for them: a watch may lose one.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// What the tasks share.
pub(crate) struct Driver {
    pub store: Store,
    pub node: Arc<Node>,
    pub connection: Arc<Connection>,
    pub fence: Arc<Fence>,
    /// The newest position known to be in the log.
    pub heard: watch::Sender<u64>,
    /// Notified when this node's acknowledgement has changed.
    pub acknowledge: Notify,
    /// Bytes of entries since the last snapshot, as far as this node has seen them.
    pub grown: Arc<AtomicU64>,
}

/// Set to the reason when the node cannot go on.
pub(crate) type Ended = watch::Sender<Option<String>>;

impl Driver {
    /// Starts the tasks, which run until the connection ends. A reason in `ended` requests the end of the
    /// process.
    pub(crate) fn start(self, applied: mpsc::UnboundedReceiver<Applied>, ended: Ended) {
        let (driver, ended) = (Arc::new(self), Arc::new(ended));
        driver.spawn(driver.clone().probes());
        driver.spawn(driver.clone().follow(driver.heard.subscribe()));
        driver.spawn(driver.clone().tail_log(ended));
        driver.spawn(driver.clone().confirm_applied(applied));
        driver.spawn(driver.clone().acknowledge());
        driver.spawn(driver.clone().run_protocol());
    }

    /// Runs a task until the store is closed.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let store = self.store.clone();
        self.connection.spawn(async move {
            tokio::select! {
                () = store.ended() => {}
                () = task => {}
            }
        });
    }

    async fn probes(self: Arc<Self>) {
        // When a failure was last logged, and whether etcd refused the probe.
        let mut failed: Option<(Instant, bool)> = None;
        let metrics = self.store.metrics();
        loop {
            let probe = self.node.probe();
            match self.connection.probe().await {
                Ok(head) => {
                    if failed.take().is_some() {
                        tracing::info!("etcd responds again");
                    }
                    if let Err(fork) = self.node.on_probe_answer(probe, head) {
                        self.node.forked(fork);
                    }
                    if self.store.unwritten() > 0 {
                        // The writer first retries its unwritten removals, then reads other nodes' entries.
                        self.follow_to(None).await;
                    }
                    sleep(PROBE_INTERVAL).await;
                }
                Err(error) => {
                    let refused = error.is_final();
                    let (what, count, pause) = match refused {
                        true => ("refuses this node", &metrics.probes_refused, REFUSED_PAUSE),
                        false => ("does not respond", &metrics.probes_unanswered, RETRY_PAUSE),
                    };
                    // Before the log line: who reads the line finds the failure counted.
                    count.add(1);
                    if failed.is_none_or(|(at, before)| before != refused || at.elapsed() >= LOG_INTERVAL) {
                        failed = Some((Instant::now(), refused));
                        tracing::warn!(%error, "etcd {what}: this node serves until its lease ends");
                    }
                    sleep(pause).await;
                }
            }
        }
    }

    /// Watches the log for new entries. The writer reads the entries itself.
    async fn tail_log(self: Arc<Self>, ended: Arc<Ended>) {
        let engine = self.store.engine();
        let mut tail = Tail::new(self.connection.clone(), engine.store, engine.head());
        loop {
            let heard = tokio::select! {
                heard = tail.next() => heard,
                () = self.node.behind.notified() => {
                    self.follow_to(None).await;
                    tail.reread();
                    continue;
                }
            };
            match heard {
                Ok(heard) => {
                    for heard in heard {
                        match heard {
                            TailEvent::Entry(entry) => {
                                self.grown.fetch_add(entry.operations.len() as u64, Ordering::Relaxed);
                                self.heard.send_replace(entry.position);
                            }
                            TailEvent::Acknowledgement { node, value } => {
                                self.node.acknowledged(&node, &value);
                            }
                        }
                    }
                }
                Err(TailError::Fork(fork)) => {
                    self.node.forked(fork);
                    return;
                }
                Err(TailError::Read(ReadError::Trimmed { from, first })) => {
                    let why = format!("position {from} of the log was trimmed, it begins at {first}");
                    ended.send_replace(Some(format!("this node was away for too long: {why}")));
                    return;
                }
                Err(TailError::Read(error)) => {
                    tracing::debug!(%error, "the log cannot be read now");
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Separate from [`Self::tail_log`], so that acknowledgements do not wait for the writer.
    async fn follow(self: Arc<Self>, mut heard: watch::Receiver<u64>) {
        // The sender lives as long as `self`.
        while heard.changed().await.is_ok() {
            let position = *heard.borrow_and_update();
            self.follow_to(Some(position)).await;
        }
    }

    async fn follow_to(&self, to: Option<u64>) {
        if let Err(error) = self.store.follow(to).await {
            tracing::error!(%error, "this node cannot follow the log");
            sleep(RETRY_PAUSE).await;
        }
    }

    /// In the order of positions: an entry is in force once all before it are.
    async fn confirm_applied(self: Arc<Self>, mut applied: mpsc::UnboundedReceiver<Applied>) {
        while let Some(Applied { position, completions }) = applied.recv().await {
            let mut cut = 0;
            for completion in completions {
                match completion.wait().await {
                    Ok(one) => cut += one.0,
                    // The fence is broken, and the process ends.
                    Err(_) => return,
                }
            }
            self.node.update(|protocol| protocol.in_force(position, cut));
            self.acknowledge.notify_one();
        }
    }

    async fn acknowledge(self: Arc<Self>) {
        let mut written = None;
        loop {
            let ack = self.node.acknowledgement();
            if written == Some(ack.position) {
                self.acknowledge.notified().await;
                continue;
            }
            match self.connection.put_acknowledgement(&ack.node, ack.encode()).await {
                Ok(()) => written = Some(ack.position),
                Err(error) => {
                    tracing::debug!(%error, "this node cannot acknowledge now");
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Does what the protocol requires.
    async fn run_protocol(self: Arc<Self>) {
        let mut cut_off = true;
        let mut read = Instant::now();
        let mut snapshots = Snapshots::default();
        loop {
            let todo = self.node.advance();
            snapshots.start_if_due(&self);
            match todo.permitted_for {
                Some(left) if !left.is_zero() => cut_off = false,
                Some(_) | None if !cut_off => {
                    cut_off = true;
                    if !todo.left {
                        tracing::error!(
                            "this node's lease has ended: requests in flight are cut, new ones are answered 503"
                        );
                    }
                    // Everything in flight is judged again, and nothing is permitted any more.
                    drop(self.fence.raise(Affected::All));
                }
                Some(_) | None => {}
            }
            let overdue = todo.waiting && read.elapsed() >= READ_INTERVAL;
            if todo.read_acknowledgements || overdue {
                read = Instant::now();
                self.read_acknowledgements().await;
                continue;
            }
            if todo.propose
                && let Err(error) = self.store.propose_members().await
            {
                tracing::debug!(%error, "the members cannot be changed now");
                sleep(RETRY_PAUSE).await;
            }
            let ends = todo.permitted_for.filter(|left| !left.is_zero());
            let wait =
                todo.deadline.into_iter().chain(ends).chain([POLL_INTERVAL]).min().unwrap_or(POLL_INTERVAL);
            // A timer may fire slightly early.
            let _ = timeout(wait + Duration::from_millis(1), self.node.changed.notified()).await;
        }
    }

    async fn read_acknowledgements(&self) {
        let sent = BootTime::now();
        match self.connection.acknowledgements().await {
            Ok(acks) => {
                acks.iter().for_each(|(node, value)| self.node.acknowledged(node, value));
                self.node.update(|protocol| protocol.acknowledgements_read(sent));
            }
            Err(error) => {
                tracing::debug!(%error, "the acknowledgements cannot be read now");
                sleep(RETRY_PAUSE).await;
            }
        }
    }
}
