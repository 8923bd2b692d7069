//! Notifications to the service manager, as in sd_notify(3): ready, reloading, stopping, a status line and
//! the watchdog. Sends nothing if there is no service manager.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sd_notify::NotifyState;

use super::Signals;
use crate::net::Clock;

/// The service manager, if there is one.
#[derive(Clone, Copy)]
pub struct Supervisor {
    heard: bool,
}

/// A worker's heartbeat. It counts while the worker's tasks run and its ticker ticks.
#[derive(Clone)]
pub struct Heartbeat {
    beats: Arc<AtomicU64>,
    every: Duration,
}

/// Notifies the supervisor's watchdog, as long as every worker's heartbeat advances.
pub struct Watchdog {
    supervisor: Supervisor,
    /// The supervisor ends the process after this long without a notification.
    limit: Duration,
    heartbeats: Vec<(Heartbeat, u64)>,
    late: bool,
    /// When the next notification is due, or the next check while a worker is late.
    due: Instant,
}

/// How long the process may take to end after a drain: it writes what is left, and leaves its cluster.
const CLOSING_TIME: Duration = Duration::from_secs(15);

/// Heartbeats of a worker during the watchdog's limit.
const HEARTBEATS_PER_LIMIT: u32 = 8;

/// A deadline of this length does not make the ticker faster.
const TICKER_SAFE_DEADLINE: Duration = Duration::from_millis(400);

impl Supervisor {
    /// Only a process that handles signals is a service of its own, and notifies.
    pub fn of(signals: Signals) -> Self {
        Self { heard: signals == Signals::Handled && std::env::var_os("NOTIFY_SOCKET").is_some() }
    }

    pub fn ready(self, status: &str) {
        self.notify(&[NotifyState::Ready, NotifyState::Status(&single_line(status))]);
    }

    pub fn reloading(self) {
        let Ok(now) = NotifyState::monotonic_usec_now() else { return };
        self.notify(&[NotifyState::Reloading, now, NotifyState::Status("reloading the configuration")]);
    }

    pub fn stopping(self, status: &str) {
        self.notify(&[NotifyState::Stopping, NotifyState::Status(&single_line(status))]);
    }

    /// What is left to do may take longer than the unit's `TimeoutStopSec`.
    pub fn draining(self, status: &str, at_most: Duration) {
        // Not `ExtendTimeoutUsec`, whose u32 ends after 71 minutes.
        let extend = format!("EXTEND_TIMEOUT_USEC={}", (at_most + CLOSING_TIME).as_micros());
        self.notify(&[NotifyState::Stopping, NotifyState::Status(status), NotifyState::Custom(&extend)]);
    }

    fn notify(self, states: &[NotifyState<'_>]) {
        if self.heard
            && let Err(error) = sd_notify::notify(states)
        {
            tracing::warn!(%error, "failed to notify the service manager");
        }
    }
}

impl Watchdog {
    /// Returns `None` if the supervisor has no watchdog for this process.
    pub fn new(supervisor: Supervisor) -> Option<Self> {
        let limit = sd_notify::watchdog_enabled().filter(|limit| supervisor.heard && !limit.is_zero())?;
        Some(Self { supervisor, limit, heartbeats: Vec::new(), late: false, due: Instant::now() })
    }

    /// Returns a heartbeat for one more worker, which must run [`Heartbeat::keep`].
    pub fn heartbeat(&mut self) -> Heartbeat {
        let heartbeat = Heartbeat { beats: Arc::default(), every: self.limit / HEARTBEATS_PER_LIMIT };
        self.heartbeats.push((heartbeat.clone(), 0));
        heartbeat
    }

    /// When [`Self::beat`] is to be called.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Begins to wait for heartbeats.
    pub fn start(&mut self) {
        let pause = if self.late { self.limit / HEARTBEATS_PER_LIMIT } else { self.limit / 2 };
        self.due = Instant::now() + pause;
    }

    /// Notifies the supervisor if every worker's heartbeat has advanced since the last notification.
    pub fn beat(&mut self) {
        if self.all_alive() {
            self.supervisor.notify(&[NotifyState::Watchdog]);
        }
        self.start();
    }

    fn all_alive(&mut self) -> bool {
        let silent = self.heartbeats.iter().position(|(heartbeat, seen)| heartbeat.count() == *seen);
        if let Some(worker) = silent {
            if !std::mem::replace(&mut self.late, true) {
                tracing::error!(
                    "worker {worker} is stuck: the watchdog gets no notification until it continues"
                );
            }
            return false;
        }
        self.late = false;
        for (heartbeat, seen) in &mut self.heartbeats {
            *seen = heartbeat.count();
        }
        true
    }
}

impl Heartbeat {
    /// Runs on the worker's own thread. Each beat takes the runtime's timer, then a tick of the worker's
    /// clock, which otherwise rests while the worker is idle.
    pub async fn keep(self, clock: Clock) {
        loop {
            tokio::time::sleep(self.every).await;
            let _ = clock.timeout(self.every.min(TICKER_SAFE_DEADLINE), pending::<()>()).await;
            self.beats.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }
}

/// Makes one line of a status.
fn single_line(status: &str) -> String {
    status.split(['\n', '\r']).map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Budgets, Limits, Worker};

    #[test]
    fn one_hung_worker_stops_the_watchdog_signal() {
        let supervisor = Supervisor::of(Signals::Ignored);
        let limit = Duration::from_secs(8);
        let due = Instant::now();
        let mut watchdog = Watchdog { supervisor, limit, heartbeats: Vec::new(), late: false, due };
        let workers = [watchdog.heartbeat(), watchdog.heartbeat()];
        let mut check = |name: &str, beating: &[usize], alive: bool| {
            for worker in beating {
                workers[*worker].beats.fetch_add(1, Ordering::Relaxed);
            }
            assert_eq!(watchdog.all_alive(), alive, "{name}");
            assert_eq!(watchdog.late, !alive, "{name}: looked at again soon");
        };
        check("nobody yet", &[], false);
        check("one of two", &[0], false);
        check("the other, before the next sign", &[1], true);
        check("nobody since", &[], false);
        check("one alone, however often", &[1, 1, 1], false);
        check("both", &[0], true);
    }

    #[test]
    fn idle_worker_is_alive_and_hung_worker_is_not() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let every = Duration::from_millis(5);
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let worker = Worker::new(Limits::default(), Budgets::for_process());
            let heartbeat = Heartbeat { beats: Arc::default(), every };
            tokio::task::spawn_local(heartbeat.clone().keep(worker.clock().clone()));
            while heartbeat.count() < 3 {
                tokio::task::yield_now().await;
            }
            let before = heartbeat.count();
            // Blocks the thread, like a handler that never returns.
            std::thread::sleep(every * 20);
            assert_eq!(heartbeat.count(), before);
        });
    }
}
