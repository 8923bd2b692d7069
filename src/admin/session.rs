//! `/v1/session`: sign-in with a password, for a session cookie; `/v1/sessions`: all sessions of the caller.

use std::{iter, time::Instant};

use axum::{
    Extension,
    extract::Path,
    response::{AppendHeaders, IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::{
    ApiResult, Caller, Context, Problem,
    caller::{Identity, RequestMeta},
    passwords,
    wire::{Json, Page, Time, json_response, ok},
};
use crate::{
    authz::subject::User,
    store::{
        NewSession,
        model::{SessionRecord, SignedInBy},
    },
};

mod attempts;
pub(super) mod cookie;
mod failures;
pub(super) mod secret;

pub(super) use attempts::{ActiveAttempt, AttemptRefused, Attempts, SignInAttempt};
pub(super) use failures::{FAILURES_INTERVAL, Failures};
pub use secret::{Csrf, FormKey};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct SignIn {
    login: String,
    #[schema(value_type = String)]
    password: Zeroizing<String>,
}

/// The signed-in user, and when the session ends.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Session)]
pub struct SessionView {
    /// Login.
    pub user: String,
    pub user_id: String,
    pub name: String,
    /// Sent with every change: as the header `X-CSRF-Token`, or as `csrf` in a form.
    pub csrf: String,
    /// `password`, `provider`, or `header`: a proxy in front names the user.
    pub by: &'static str,
    pub created_at: Option<Time>,
    pub expires_at: Option<Time>,
    /// The session ends at this time unless it is used before.
    pub idle_until: Option<Time>,
}

/// One of the user's sessions.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionRow {
    pub created_at: Time,
    pub last_seen_at: Time,
    pub expires_at: Time,
    pub client: String,
    /// The session of this request.
    pub current: bool,
}

/// Answers a wrong login like a wrong password, and after one derivation in either case.
pub async fn sign_in(
    context: Context,
    Extension(meta): Extension<RequestMeta>,
    headers: HeaderMap,
    Json(body): Json<SignIn>,
) -> ApiResult {
    let SignIn { login, password } = body;
    let accounts = context.store.accounts();
    let account = accounts.user_by_login(&login);
    let known = account.map(|account| account.record.id.clone());
    let proof = account.and_then(|account| context.browser_of(&account.record));
    let attempt = SignInAttempt::Password {
        login: &login,
        known: proof.as_ref().is_some_and(|proof| cookie::is_known(&headers, meta.secure, proof)),
    };
    let mut attempt = match context.attempts().begin(attempt, meta.client, Instant::now()) {
        Ok(attempt) => attempt,
        Err(refused) => {
            if matches!(refused, AttemptRefused::TooMany(_)) {
                context.record_sign_in_failure(known, SignedInBy::Password, &meta);
            }
            return Err(refused.into());
        }
    };
    let account = account.filter(|account| account.record.banned.is_none());
    let user = account.map(|account| account.record.id.clone());
    let phc = account.and_then(|account| account.record.password.clone());
    let verified = passwords::verify(password, phc, &mut attempt).await?;
    if verified.is_some() {
        attempt.succeed();
    }
    let secret = secret::Secret::draw()?;
    let begun = match (verified, user) {
        (Some(verified), Some(user)) => {
            let replaces = cookie::read(&headers, meta.secure).map(|old| old.digest());
            let new = NewSession { user, verified, digest: secret.digest(), client: meta.client, replaces };
            context.store.begin_session(new).await?.record
        }
        _ => None,
    };
    let directory = context.state.snapshot().directory.clone();
    let user = begun.as_ref().and_then(|_| directory.user_by_login(&login));
    let (Some(record), Some(user)) = (begun, user) else {
        let request_id = &*meta.request_id;
        tracing::info!(client = %meta.client, request_id, "sign-in failed");
        context.record_sign_in_failure(known, SignedInBy::Password, &meta);
        return Err(Problem::unauthorized("sign_in_failed", "The login or the password is wrong"));
    };
    let view = SessionView::new(&context, user, &secret.csrf(), Some(&record));
    let known = proof.map(|proof| cookie::make_known(&proof, meta.secure));
    let cookies = iter::once(cookie::set(&secret, meta.secure)).chain(known);
    let cookies = AppendHeaders(cookies.map(|cookie| (header::SET_COOKIE, cookie)));
    Ok((cookies, json_response(StatusCode::CREATED, &view)).into_response())
}

pub async fn show(context: Context, caller: Caller) -> ApiResult {
    let Identity::Browser { user, session, csrf } = &caller.identity else {
        return Err(Problem::not_found("session: this request used another credential"));
    };
    let record = session.and_then(|digest| context.store.session(&digest));
    Ok(ok(&SessionView::new(&context, user, csrf, record.as_ref())))
}

pub async fn list(context: Context, caller: Caller) -> ApiResult {
    caller.login("me")?;
    let Some(user) = caller.user() else { return Err(Problem::not_found("user")) };
    let rows = context.store.sessions_of(&user.id).into_iter();
    let items: Vec<_> = rows.map(|record| SessionRow::new(&caller, &record)).collect();
    Ok(ok(&Page { items, next: None }))
}

pub async fn sign_out(
    context: Context,
    Extension(meta): Extension<RequestMeta>,
    caller: Caller,
) -> ApiResult {
    let Some(digest) = caller.session() else {
        return Err(Problem::not_found("session: this request used another credential"));
    };
    let cut = context.store.end_session(caller.actor(), digest).await?.cut;
    Ok(signed_out(&meta, &json!({"signed_out": true, "cut": cut.0})))
}

pub async fn sign_out_everywhere(
    context: Context,
    Extension(meta): Extension<RequestMeta>,
    caller: Caller,
) -> ApiResult {
    let login = caller.login("me")?;
    let ended = context.store.end_sessions(caller.actor(), login).await?;
    Ok(signed_out(&meta, &json!({"sessions": ended.record, "cut": ended.cut.0})))
}

pub async fn sign_somebody_out(context: Context, caller: Caller, Path(login): Path<String>) -> ApiResult {
    let login = caller.login(&login)?;
    let ended = context.store.end_sessions(caller.actor(), login).await?;
    Ok(ok(&json!({"sessions": ended.record, "cut": ended.cut.0})))
}

fn signed_out(meta: &RequestMeta, body: &serde_json::Value) -> Response {
    let headers = [
        (header::SET_COOKIE, cookie::clear(meta.secure)),
        // Pages that "back" would show again. Not cookies: the browser stays known, and other ports share
        // them.
        (HeaderName::from_static("clear-site-data"), HeaderValue::from_static(r#""cache", "storage""#)),
    ];
    (headers, ok(body)).into_response()
}

impl SessionRow {
    pub(super) fn new(caller: &Caller, record: &SessionRecord) -> Self {
        Self {
            current: caller.session() == Some(record.digest),
            created_at: Time(record.created_at),
            last_seen_at: Time(record.last_seen_at),
            expires_at: Time(record.ends_at()),
            client: record.client.to_string(),
        }
    }
}

impl SessionView {
    fn new(context: &Context, user: &User, csrf: &Csrf, record: Option<&SessionRecord>) -> Self {
        let accounts = context.store.accounts();
        let account = accounts.user_by_id(&user.id);
        Self {
            user: user.login.to_string(),
            user_id: user.id.to_string(),
            name: account.map_or_else(String::new, |account| account.record.name.clone()),
            csrf: csrf.text(),
            by: record.map_or("header", |record| record.by.into_str()),
            created_at: record.map(|record| Time(record.created_at)),
            expires_at: record.map(|record| Time(record.ends_at())),
            idle_until: record.map(|record| Time(record.idle_until())),
        }
    }
}
