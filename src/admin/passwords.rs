//! `PUT /v1/users/{login}/password`, and what sign-in needs: derived and verified beside this thread,
//! one at a time.

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use argon2::{
    Argon2, PasswordHash, PasswordVerifier,
    password_hash::{PasswordHasher, SaltString},
};
use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::put,
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use super::{
    Context,
    caller::{Caller, Identity},
    error::Problem,
    wire::{Json, ok},
};

pub(super) fn routes() -> Router<Context> {
    Router::new().route("/v1/users/{login}/password", put(set))
}

/// Shorter ones are guessed, and longer ones are no password.
const LENGTH: std::ops::RangeInclusive<usize> = 12..=1024;

/// Each derivation takes 19 MiB and a core for a while: one at a time.
static DERIVING: Semaphore = Semaphore::const_new(1);
/// Who waits for a turn; beyond so many, nobody is let in to wait.
static WAITING: AtomicUsize = AtomicUsize::new(0);
const MAX_WAITING: usize = 32;

/// What is verified where there is no password to compare with, so that it takes as long.
static NOBODY: LazyLock<Option<String>> = LazyLock::new(|| hash(b"nobody has this password"));

/// `null` takes the password away.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Password {
    password: Option<String>,
    /// The present one, for oneself: a screen that was left unlocked is not an account.
    current: Option<String>,
}

async fn set(
    State(context): State<Context>,
    caller: Caller,
    Path(login): Path<String>,
    Json(body): Json<Password>,
) -> Result<Response, Problem> {
    let login = caller.login(&login)?;
    let accounts = context.store.accounts();
    let own = accounts.user_by_login(&login).filter(|account| caller.is(&account.record.id));
    let own = own.map(|account| account.record.password.clone());
    if let (Some(None), Identity::Browser { .. }) = (&own, &caller.identity) {
        let text = "There is no present password to change: an administrator's invitation sets the first one";
        return Err(Problem::denied(text));
    }
    if let Some(present) = own.flatten() {
        let attempts = context.attempts();
        attempts.begin(&login, caller.client, Instant::now()).map_err(Problem::too_many_attempts)?;
        if verify(body.current.unwrap_or_default(), Some(present)).await?.is_none() {
            let text = "Changing one's own password needs the present one, as `current`";
            return Err(Problem::new(StatusCode::FORBIDDEN, "wrong_password", text));
        }
        attempts.succeed(&login, caller.client);
    }
    let phc = match body.password {
        Some(password) => Some(derive(password).await?),
        None => None,
    };
    let set = phc.is_some();
    let changed = context.store.set_password(caller.actor(), login, phc).await?;
    Ok(ok(&json!({"user": changed.record.login, "password": set, "cut": changed.cut.0})))
}

/// The PHC string.
pub(super) async fn derive(password: String) -> Result<String, Problem> {
    if !LENGTH.contains(&password.len()) {
        let text = format!("A password has {} to {} bytes", LENGTH.start(), LENGTH.end());
        return Err(Problem::value(text));
    }
    aside(move || hash(password.as_bytes())).await?.ok_or_else(failed)
}

/// The PHC string, if it is of this password. Takes as long without one.
pub(super) async fn verify(password: String, phc: Option<String>) -> Result<Option<String>, Problem> {
    let verified = aside(move || {
        let nobody = NOBODY.as_deref()?;
        let compared = PasswordHash::new(phc.as_deref().unwrap_or(nobody)).ok()?;
        let fits = Argon2::default().verify_password(password.as_bytes(), &compared).is_ok();
        Some(phc.filter(|_| fits && *LENGTH.end() >= password.len()))
    });
    verified.await?.ok_or_else(failed)
}

/// Off this thread, when it is one's turn.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    let _place = Place::take()?;
    let _turn = DERIVING.acquire().await.map_err(|_| failed())?;
    tokio::task::spawn_blocking(work).await.map_err(|_| failed())
}

/// A place among those who wait.
struct Place;

impl Place {
    fn take() -> Result<Self, Problem> {
        let place = Self;
        if WAITING.fetch_add(1, Ordering::Relaxed) < MAX_WAITING {
            return Ok(place);
        }
        let text = "Too many passwords are being verified at this moment";
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text).retry_after(1))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

fn hash(password: &[u8]) -> Option<String> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).ok()?;
    let salt = SaltString::encode_b64(&salt).ok()?;
    Argon2::default().hash_password(password, &salt).ok().map(|phc| phc.to_string())
}

fn failed() -> Problem {
    let text = "The password could not be derived";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn nobody_is_verified_as_long_as_somebody() {
        let phc = derive("correct horse battery staple".to_owned()).await.unwrap();
        // The derivation for nobody is made at the first use.
        verify(String::new(), None).await.unwrap();
        let least = async |phc: Option<&String>| {
            let mut least = Duration::MAX;
            for _ in 0..5 {
                let began = Instant::now();
                let verified = verify("another passphrase".to_owned(), phc.cloned()).await.unwrap();
                least = least.min(began.elapsed());
                assert_eq!(verified, None);
            }
            least
        };
        let (somebody, nobody) = (least(Some(&phc)).await, least(None).await);
        assert!(nobody * 4 > somebody && somebody * 4 > nobody, "{somebody:?} against {nobody:?}");
    }
}
