//! `PUT /v1/users/{login}/password`, and the derivation and verification of passwords: off the control
//! thread, one at a time.

use std::{sync::LazyLock, time::Instant};

use argon2::{
    Argon2, PasswordHash, PasswordVerifier,
    password_hash::{PasswordHasher, SaltString},
};
use axum::extract::Path;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use unicode_normalization::{UnicodeNormalization, is_nfc};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::{
    ApiResult, Caller, Context, Problem,
    caller::Identity,
    offload::{Offload, join},
    session::{ActiveAttempt, SignInAttempt},
    wire::{Json, ok},
};

/// A password's length in bytes. Shorter ones are guessable; longer ones are not plausible.
const LENGTH: std::ops::RangeInclusive<usize> = 12..=1024;

/// The most bytes before normalization: decomposed text may be longer than composed text.
const MAX_SENT: usize = 4 * *LENGTH.end();

/// A derivation takes 19 MiB and keeps a core busy, so only one runs at a time.
static DERIVATIONS: Offload = Offload::new(1, 32);

/// Compared if an account has no password, so that the response takes as long.
static DUMMY_HASH: LazyLock<Option<String>> = LazyLock::new(|| hash(b"nobody has this password"));

/// `null` removes the password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Password {
    #[schema(value_type = Option<String>)]
    password: Option<Zeroizing<String>>,
    /// The current password; needed for your own account, so that an unlocked screen is not enough.
    #[schema(value_type = Option<String>)]
    current: Option<Zeroizing<String>>,
}

pub async fn set(
    context: Context,
    caller: Caller,
    Path(login): Path<String>,
    Json(body): Json<Password>,
) -> ApiResult {
    let login = caller.login(&login)?;
    let accounts = context.store.accounts();
    let own = accounts.user_by_login(&login).filter(|account| caller.is(&account.record.id));
    // The store's writer compares it again.
    let own = own.map(|account| account.record.password.clone());
    if let (Some(None), Identity::Browser { .. }) = (&own, &caller.identity) {
        let text = "This account has no password to change: an administrator's invitation sets the first one";
        return Err(Problem::denied(text));
    }
    if body.password.is_some() {
        // Otherwise any account could take every turn of the derivation, and nobody could sign in.
        context.store.may_set_password(caller.actor(), login.clone()).await?;
    }
    if let Some(Some(present)) = &own {
        // The account is signed in, so failures of strangers must not block it.
        let attempt = SignInAttempt::Password { login: &login, known: true };
        let mut attempt = context.attempts().begin(attempt, caller.client, Instant::now())?;
        let present = Some(present.clone());
        if verify(body.current.unwrap_or_default(), present, &mut attempt).await?.is_none() {
            let text = "To change your own password, send the current one as `current`";
            return Err(Problem::new(StatusCode::FORBIDDEN, "wrong_password", text));
        }
        attempt.succeed();
    }
    let phc = match body.password {
        Some(password) => Some(derive(password).await?),
        None => None,
    };
    let set = phc.is_some();
    let changed = context.store.set_password(caller.actor(), login, own, phc).await?;
    Ok(ok(&json!({"user": changed.record.login, "password": set, "cut": changed.cut.0})))
}

/// Returns the PHC string. NFC (RFC 8265, 4.2.2) makes composed and decomposed letters the same.
pub(super) async fn derive(password: Zeroizing<String>) -> ApiResult<String> {
    let password = normalize(&password);
    if !LENGTH.contains(&password.len()) {
        let text = format!("A password has {} to {} bytes", LENGTH.start(), LENGTH.end());
        return Err(Problem::value(text));
    }
    DERIVATIONS.run(move || hash(password.as_bytes())).await?.ok_or_else(failed)
}

/// Returns the PHC string if the password matches it. Takes as long without one. Older hashes are of the
/// text as it was sent, without normalization.
pub(super) async fn verify(
    password: Zeroizing<String>,
    phc: Option<String>,
    attempt: &mut ActiveAttempt<'_>,
) -> ApiResult<Option<String>> {
    if password.len() > MAX_SENT {
        attempt.compare();
        return Ok(None);
    }
    let work = move || {
        let nobody = DUMMY_HASH.as_deref()?;
        let compared = PasswordHash::new(phc.as_deref().unwrap_or(nobody)).ok()?;
        let fits = |text: &str| {
            *LENGTH.end() >= text.len()
                && Argon2::default().verify_password(text.as_bytes(), &compared).is_ok()
        };
        let fits = fits(&normalize(&password)) || !is_nfc(&password) && fits(&password);
        Some(phc.filter(|_| fits))
    };
    let verifying = DERIVATIONS.spawn(work).await?;
    attempt.compare();
    join(verifying).await?.ok_or_else(failed)
}

/// The text in NFC. The buffer does not grow, which would leave a smaller copy behind.
fn normalize(password: &str) -> Zeroizing<String> {
    let mut composed = Zeroizing::new(String::with_capacity(3 * password.len()));
    composed.extend(password.nfc());
    composed
}

fn hash(password: &[u8]) -> Option<String> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).ok()?;
    let salt = SaltString::encode_b64(&salt).ok()?;
    Argon2::default().hash_password(password, &salt).ok().map(|phc| phc.to_string())
}

fn failed() -> Problem {
    Problem::internal("The password could not be derived")
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use super::*;
    use crate::admin::session::Attempts;

    async fn verified(password: &str, phc: Option<String>) -> Option<String> {
        let (attempts, client) = (Attempts::default(), [127, 0, 0, 1].into());
        let mut attempt = attempts.begin(SignInAttempt::Provider, client, Instant::now()).ok().unwrap();
        verify(password.to_owned().into(), phc, &mut attempt).await.unwrap()
    }

    #[tokio::test]
    async fn a_password_fits_however_its_letters_are_composed() {
        let (composed, decomposed) = ("b\u{fc}cher und k\u{e4}se", "bu\u{308}cher und ka\u{308}se");
        let fits = async |password: &str, phc: &String| verified(password, Some(phc.clone())).await.is_some();
        for set in [composed, decomposed] {
            let phc = derive(set.to_owned().into()).await.unwrap();
            for typed in [composed, decomposed] {
                assert!(fits(typed, &phc).await, "{set:?}, {typed:?}");
            }
            assert!(!fits("bucher und kase", &phc).await);
        }
        let before = hash(decomposed.as_bytes()).unwrap();
        assert!(fits(decomposed, &before).await, "a hash made before");
        assert!(!fits(composed, &before).await);
    }

    #[tokio::test]
    async fn who_goes_away_before_a_turn_has_not_tried() {
        let (go, held) = std::sync::mpsc::channel::<()>();
        let turn = DERIVATIONS.spawn(move || held.recv().is_err()).await.unwrap();
        let attempts = Attempts::default();
        let ann = SignInAttempt::Password { login: "ann", known: false };
        for _ in 0..1000 {
            let mut attempt = attempts.begin(ann, [10, 0, 0, 1].into(), Instant::now()).ok().unwrap();
            let mut waits = Box::pin(verify("wrong".to_owned().into(), None, &mut attempt));
            let polled = poll_fn(|cx| Poll::Ready(waits.as_mut().poll(cx))).await;
            assert!(polled.is_pending());
        }
        drop(go);
        assert!(turn.await.unwrap());
    }

    #[tokio::test]
    async fn nobody_is_verified_by_as_much_work_as_somebody() {
        let phc = derive("correct horse battery staple".to_owned().into()).await.unwrap();
        let nobody = DUMMY_HASH.clone().unwrap();
        let work = |phc: &str| {
            let hash = PasswordHash::new(phc).unwrap();
            let output = hash.hash.unwrap().len();
            (hash.algorithm.to_string(), hash.version, hash.params.to_string(), output)
        };
        assert_eq!(work(&nobody), work(&phc));
        for phc in [None, Some(phc)] {
            assert_eq!(verified("another passphrase", phc).await, None);
        }
    }
}
