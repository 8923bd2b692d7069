//! Ends exchanged tokens together with the rule that issued them.

use std::sync::Arc;

use super::reload::run_blocking;
use crate::{
    authz::{secret::Digest, time::Timestamp},
    settings::{ExchangeRule, MAX_EXCHANGED_LIFETIME},
    state::State,
    store::{Actor, ActorKind, ChangeError, ReadError, Store},
};

/// Runs [`revoke_orphans`] before anything is served, because the rules may have changed while no process
/// ran. Tokens that cannot be revoked now expire within the hour. Returns the tokens that live on, as
/// [`revoke_orphans`] does, and whether it failed.
pub fn revoke_orphans_at_start(store: &Store, state: &Arc<State>) -> (Vec<(String, Timestamp)>, bool) {
    let ended = std::thread::scope(|scope| {
        let work = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let runtime = runtime.map_err(|error| error.to_string())?;
            runtime.block_on(revoke_orphans(store, state)).map_err(|error| error.to_string())
        };
        scope.spawn(work).join().unwrap_or_else(|_| Err("it was interrupted".to_owned()))
    });
    match ended {
        Ok(live) => (live, false),
        Err(error) => {
            tracing::error!(%error, "exchanged tokens outlive their rules");
            (Vec::new(), true)
        }
    }
}

/// Revokes exchanged tokens whose rule was removed or changed. Call this when the rules are in force, so that
/// the old ones issue no more tokens. A token's author in the store is its rule: returns the author and the
/// expiry of each token that lives on.
pub async fn revoke_orphans(
    store: &Store,
    state: &Arc<State>,
) -> Result<Vec<(String, Timestamp)>, ChangeError> {
    let (from, of) = (store.clone(), state.clone());
    let found = run_blocking(move || find(&from, &of)).await;
    let Exchanged { live, orphans } = found.map_err(ReadError)??;
    if !orphans.is_empty() {
        tracing::info!(tokens = orphans.len(), "exchanged tokens end with their rules");
        let actor = Actor::new(ActorKind::Operator);
        // A few in one change, so that other revocations do not wait for a long one.
        for some in orphans.chunks(100) {
            store.revoke_by_value(actor.clone(), some.to_vec(), false).await?;
        }
    }
    Ok(live)
}

/// Tokens that were exchanged: those whose rule is in force, and those whose rule is not.
struct Exchanged {
    live: Vec<(String, Timestamp)>,
    orphans: Vec<Digest>,
}

/// Finds the exchanged tokens. Takes seconds where very many tokens expire soon, because it reads them all.
fn find(store: &Store, state: &State) -> Result<Exchanged, ReadError> {
    let rules: Vec<String> = state.snapshot().proxy.exchange.iter().map(|rule| rule.author()).collect();
    // Every exchanged token expires, and few other tokens expire as soon.
    let now = Timestamp::from_millis(jiff::Timestamp::now().as_millisecond());
    let latest = now.plus_seconds(i64::try_from(MAX_EXCHANGED_LIFETIME.as_secs()).unwrap_or(i64::MAX));
    let near = state.index().find(|token| token.expires_at.is_some_and(|end| end > now && end <= latest));
    let mut found = Exchanged { live: Vec::new(), orphans: Vec::new() };
    for digest in near {
        let id = state.index().with(&digest, |token| token.map(|token| token.id));
        let record = id.map(|id| store.token(id)).transpose()?.flatten();
        let Some(record) = record.filter(|record| record.revoked.is_none()) else { continue };
        let Some((author, ends)) = record.author.zip(record.expires_at) else { continue };
        if rules.contains(&author) {
            found.live.push((author, ends));
        } else if ExchangeRule::is_author(&author) {
            found.orphans.push(digest);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

    use super::*;
    use crate::{config::Config, fence::Fence};

    #[tokio::test]
    async fn tokens_are_not_read_on_the_calling_thread() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("gateway.toml");
        let listen = "listen = [\"127.0.0.1:0\"]";
        std::fs::write(&file, format!("version = 1\n[server]\n{listen}\n[admin]\n{listen}\n")).unwrap();
        let config = Config::load(&file).unwrap();
        let fence = Fence::new(Duration::from_millis(100));
        let (store, state) = Store::open(&config.store, config.configuration(), fence).unwrap();
        let mut waited = false;
        // The other thread may once have ended before the first poll.
        for _ in 0..20 {
            let mut work = pin!(revoke_orphans(&store, &state));
            waited |= poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_pending())).await;
            if waited {
                assert_eq!(work.await.unwrap(), []);
                break;
            }
        }
        assert!(waited, "the control thread is free meanwhile");
        store.close().await;
    }
}
