//! Telling every worker to stop accepting, and how long what is under way may take.

use std::time::Instant;

use tokio::sync::watch;

/// Begins the drain of every worker that holds its `Draining`.
pub struct Drain(watch::Sender<Option<Instant>>);

/// A worker's end of a `Drain`.
#[derive(Clone)]
pub struct Draining(watch::Receiver<Option<Instant>>);

/// How serving a listener has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections with something under way that were cut at the deadline.
    pub cut: usize,
}

pub fn drain() -> (Drain, Draining) {
    let (sender, receiver) = watch::channel(None);
    (Drain(sender), Draining(receiver))
}

impl Drain {
    /// Requests under way have until `deadline`. A second call can only bring it forward.
    pub fn begin(&self, deadline: Instant) {
        self.0.send_modify(|present| {
            *present = Some(present.map_or(deadline, |present| present.min(deadline)));
        });
    }
}

impl Draining {
    /// Ends when the drain has begun; a `Drain` that is dropped begins it, without any delay.
    pub(super) async fn begun(&mut self) {
        let _ = self.0.wait_for(Option::is_some).await;
    }

    pub(super) fn has_begun(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Ends at the deadline of the drain, as it is now or later.
    pub(super) async fn deadline(&mut self) {
        loop {
            let Some(deadline) = *self.0.borrow_and_update() else { return };
            tokio::select! {
                () = tokio::time::sleep_until(deadline.into()) => return,
                changed = self.0.changed() => if changed.is_err() {
                    return tokio::time::sleep_until(deadline.into()).await;
                },
            }
        }
    }
}
