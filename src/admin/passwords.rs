//! `PUT /v1/users/{login}/password`: derived here, kept by the store, used by the web page's sign-in.

use argon2::{
    Argon2,
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

use super::{
    Context,
    caller::Caller,
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

/// `null` takes the password away.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Password {
    password: Option<String>,
}

async fn set(
    State(context): State<Context>,
    caller: Caller,
    Path(login): Path<String>,
    Json(body): Json<Password>,
) -> Result<Response, Problem> {
    let login = caller.login(&login)?;
    let phc = match body.password {
        Some(password) => Some(derive(password).await?),
        None => None,
    };
    let set = phc.is_some();
    let changed = context.store.set_password(caller.actor(), login, phc).await?;
    Ok(ok(&json!({"user": changed.record.login, "password": set, "cut": changed.cut.0})))
}

/// The PHC string, off this thread.
pub(super) async fn derive(password: String) -> Result<String, Problem> {
    if !LENGTH.contains(&password.len()) {
        let text = format!("A password has {} to {} bytes", LENGTH.start(), LENGTH.end());
        return Err(Problem::value(text));
    }
    let failed = || {
        let text = "The password could not be derived";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", text)
    };
    let _turn = DERIVING.acquire().await.map_err(|_| failed())?;
    let derived = tokio::task::spawn_blocking(move || {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).ok()?;
        let salt = SaltString::encode_b64(&salt).ok()?;
        let phc = Argon2::default().hash_password(password.as_bytes(), &salt).ok()?;
        Some(phc.to_string())
    });
    derived.await.ok().flatten().ok_or_else(failed)
}
