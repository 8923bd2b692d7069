//! Runs work whose size the caller chooses off the control thread, so that revocations never wait for it.
//! Requests of one account that read, such as lists and explanations, or that may derive a password, take
//! turns, so that no account takes the places of all others.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use http::{Method, request::Parts};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};

use super::{ApiResult, Caller, Problem};

/// Reads that may scan many rows, such as a list whose filter matches few.
pub(super) static READS: Offload = Offload::new(1, 32);

/// Runs a few jobs at a time and lets a few more wait.
pub(super) struct Offload {
    running: Semaphore,
    queued: Semaphore,
}

impl Offload {
    pub(super) const fn new(turns: usize, places: usize) -> Self {
        Self { running: Semaphore::const_new(turns), queued: Semaphore::const_new(places) }
    }

    /// Answers 503 if too many jobs wait. A job keeps its permit until it ends, even if its caller is gone:
    /// otherwise callers that disconnect could start any number of threads.
    pub(super) async fn run<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> ApiResult<T> {
        join(self.spawn(work).await?).await
    }

    /// As [`Offload::run`], but returns as soon as the job has started.
    pub(super) async fn spawn<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> ApiResult<JoinHandle<T>> {
        let place = self.queued.try_acquire().map_err(|_| Problem::busy())?;
        let turn = self.running.acquire().await.map_err(|_| Problem::busy())?;
        Ok(tokio::task::spawn_blocking(move || {
            let worked = work();
            drop((turn, place));
            worked
        }))
    }
}

/// Waits for a started job; 500 if it panicked.
pub(super) async fn join<T>(work: JoinHandle<T>) -> ApiResult<T> {
    work.await.map_err(|error| {
        tracing::error!(%error, "work beside the control thread ended by a panic");
        Problem::internal("The request could not be answered")
    })
}

/// Reads and passwords of one account that are worked on at the same time; more wait. Far below the places
/// of [`READS`].
const MAX_CONCURRENT: usize = 4;
/// Above this number, accounts without a request are forgotten.
const MAX_IDLE_ACCOUNTS: usize = 1024;

/// By the account's id.
#[derive(Default)]
pub(super) struct Turns(RefCell<HashMap<String, Arc<Semaphore>>>);

impl Turns {
    /// Waits for the account's turn. The operator needs none, nor do changes without a password: a revocation
    /// never waits here.
    pub(super) async fn take(
        &self,
        caller: Option<&Caller>,
        request: &Parts,
    ) -> Option<OwnedSemaphorePermit> {
        let path = request.uri.path();
        let takes_time = match request.method {
            Method::GET | Method::HEAD => true,
            Method::POST => matches!(path, "/v1/explain" | "/v1/users"),
            Method::PUT => path.ends_with("/password"),
            _ => false,
        };
        let user = caller.and_then(Caller::account).filter(|_| takes_time)?;
        let turns = self.of(&user.id);
        turns.acquire_owned().await.ok()
    }

    fn of(&self, account: &str) -> Arc<Semaphore> {
        let mut all = self.0.borrow_mut();
        if all.len() >= MAX_IDLE_ACCOUNTS {
            all.retain(|_, turns| Arc::strong_count(turns) > 1);
        }
        all.entry(account.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(MAX_CONCURRENT))).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use http::StatusCode;

    use super::*;

    #[tokio::test]
    async fn work_keeps_its_turn_when_its_caller_goes_away() {
        static ONE: Offload = Offload::new(1, 2);
        let (go, held) = mpsc::channel::<()>();
        let (began, begun) = tokio::sync::oneshot::channel();
        let first = tokio::spawn(ONE.run(move || {
            let _ = began.send(());
            held.recv_timeout(Duration::from_secs(10)).is_ok()
        }));
        begun.await.unwrap();
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let mut second = Box::pin(ONE.run(|| 2));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut second).await.is_err(), "it waits");
        assert_eq!(ONE.run(|| 3).await.unwrap_err().status(), StatusCode::SERVICE_UNAVAILABLE);
        go.send(()).unwrap();
        assert_eq!(second.await.unwrap(), 2);
        assert_eq!(ONE.run(|| 4).await.unwrap(), 4, "the places are free again");
    }
}
