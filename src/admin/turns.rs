//! Turns of each account for requests that read: lists and explanations wait for each other, so that no account
//! takes the places of all others.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use http::{Method, request::Parts};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Caller;

/// Reads of one account that are answered at the same time; more wait. Far below the places of
/// [`READS`](super::offload::READS).
const MAX_CONCURRENT: usize = 4;
/// Above this number, accounts without a request are forgotten.
const MAX_IDLE_ACCOUNTS: usize = 1024;

/// By the account's id.
#[derive(Default)]
pub(super) struct Turns(RefCell<HashMap<String, Arc<Semaphore>>>);

impl Turns {
    /// Waits for the account's turn. The operator and changes need none: a revocation never waits here.
    pub(super) async fn take(
        &self,
        caller: Option<&Caller>,
        request: &Parts,
    ) -> Option<OwnedSemaphorePermit> {
        let reads =
            matches!(request.method, Method::GET | Method::HEAD) || request.uri.path() == "/v1/explain";
        let user = caller.and_then(Caller::user).filter(|_| reads)?;
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
