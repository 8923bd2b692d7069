//! Signing in at the provider of `[admin.oidc]`: the redirect there, and the callback.

use askama::Template;
use axum::{
    Extension,
    extract::RawQuery,
    response::{AppendHeaders, IntoResponse, Redirect},
};
use http::{HeaderMap, StatusCode, header};

use super::{
    Shell,
    login_page::{HOME, NextQuery, is_local_path},
    render,
};
use crate::{
    admin::{
        ApiResult, Context, Problem,
        caller::RequestMeta,
        oidc::{AuthorizationRequest, AuthorizationResponse, ProviderError, RelyingParty, UserInfo},
        pagination::Params,
        session::{SignInAttempt, cookie, secret::Secret},
    },
    store::{ChangeError, FederatedSession, model::SignedInBy},
};

/// A page between the provider's and the requested one: the browser sends the new cookie, which is
/// `SameSite=Strict`, only with requests from our own site.
#[derive(Template)]
#[template(path = "signed_in.html")]
struct SignedInPage {
    shell: Shell,
    next: String,
}

pub async fn begin_sign_in(
    context: Context,
    Extension(meta): Extension<RequestMeta>,
    Params(next): Params<NextQuery>,
) -> ApiResult {
    let relying_party = relying_party(&context)?;
    let flow = AuthorizationRequest::begin(next.next.filter(|path| is_local_path(path)))?;
    let there = relying_party.authorization(&flow).await.map_err(|error| failed(&context, &meta, &error))?;
    let cookie = [(header::SET_COOKIE, flow.cookie(meta.secure))];
    Ok((cookie, Redirect::to(&there)).into_response())
}

pub async fn callback(
    context: Context,
    Extension(meta): Extension<RequestMeta>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> ApiResult {
    let relying_party = relying_party(&context)?;
    let returned: Option<AuthorizationResponse> =
        serde_urlencoded::from_str(query.as_deref().unwrap_or_default()).ok();
    let pending = |returned: &AuthorizationResponse| {
        AuthorizationRequest::pending(&headers, meta.secure, &returned.state)
    };
    let flow = returned.as_ref().and_then(pending);
    let (Some(returned), Some(flow)) = (returned, flow) else {
        let text = "This sign-in was begun in another browser or too long ago: sign in again";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "sign_in_expired", text));
    };
    let (attempt, now) = (SignInAttempt::Provider, std::time::Instant::now());
    let mut attempt = context.attempts().begin(attempt, meta.client, now)?;
    attempt.compare();
    let user_info = relying_party.user_info(&flow, returned).await;
    // Failures of the provider itself are not guesses of a client.
    if matches!(user_info, Ok(_) | Err(ProviderError::Unreachable(_) | ProviderError::Busy)) {
        attempt.succeed();
    }
    let user_info = user_info.map_err(|error| {
        context.record_sign_in_failure(None, SignedInBy::Provider, &meta);
        failed(&context, &meta, &error)
    })?;
    let secret = Secret::draw()?;
    begin(&context, relying_party, &meta, &headers, user_info, &secret).await?;
    let next = flow.next.filter(|path| is_local_path(path)).unwrap_or_else(|| HOME.to_owned());
    let cookies = [cookie::set(&secret, meta.secure), AuthorizationRequest::clear(meta.secure)];
    let cookies = AppendHeaders(cookies.map(|cookie| (header::SET_COOKIE, cookie)));
    let page = render(&SignedInPage { shell: Shell::new("Signed in", "", None), next });
    Ok((cookies, page).into_response())
}

async fn begin(
    context: &Context,
    relying_party: &RelyingParty,
    meta: &RequestMeta,
    headers: &HeaderMap,
    user_info: UserInfo,
    secret: &Secret,
) -> ApiResult<()> {
    let UserInfo { subject, login, name, email, groups } = user_info;
    let new = FederatedSession {
        issuer: relying_party.provider.issuer.clone(),
        subject,
        login,
        name,
        email,
        adopt: relying_party.provider.link_logins,
        groups,
        digest: secret.digest(),
        client: meta.client,
        replaces: cookie::read(headers, meta.secure).map(|old| old.digest()),
        request_id: meta.request_id.to_string(),
    };
    // An administrator who links the account needs the subject.
    let subject = new.subject.clone();
    match context.store.begin_federated_session(new).await {
        Ok(_) => Ok(()),
        Err(ChangeError::Refused(refusal)) => {
            let request_id = &*meta.request_id;
            tracing::warn!(client = %meta.client, request_id, subject, "sign-in through the provider was refused: {refusal}");
            context.record_sign_in_failure(None, SignedInBy::Provider, meta);
            let mut text = refusal.message.clone();
            if let Some(first) = text.get_mut(..1) {
                first.make_ascii_uppercase();
            }
            Err(Problem::new(StatusCode::FORBIDDEN, refusal.code.word(), text))
        }
        Err(error) => Err(error.into()),
    }
}

fn relying_party(context: &Context) -> ApiResult<&RelyingParty> {
    context.relying_party().ok_or_else(|| Problem::not_found("resource"))
}

/// The log gets the cause; the browser is told what to do.
fn failed(context: &Context, meta: &RequestMeta, error: &ProviderError) -> Problem {
    let request_id = &*meta.request_id;
    // Everybody can begin a sign-in, so while the provider is down everybody can cause its failures.
    let is_down =
        matches!(error, ProviderError::Unreachable(_) | ProviderError::Metadata(_) | ProviderError::Busy);
    if !is_down || context.provider_warnings().is_due(std::time::Instant::now()) {
        tracing::warn!(client = %meta.client, request_id, "sign-in through the provider failed: {error}");
    }
    let refused = (StatusCode::FORBIDDEN, "sign_in_failed");
    let ((status, code), text) = match error {
        ProviderError::Unreachable(_) | ProviderError::Metadata(_) => (
            (StatusCode::BAD_GATEWAY, "provider_unavailable"),
            "The identity provider cannot be reached at the moment: try again later",
        ),
        ProviderError::Busy => (
            (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            "Too many people are signing in at this moment: try again",
        ),
        ProviderError::NoLogin(_) => {
            (refused, "The identity provider did not send your login: ask an administrator")
        }
        ProviderError::OtherIssuer
        | ProviderError::Refused(_)
        | ProviderError::Token(_)
        | ProviderError::Claims(_) => {
            (refused, "The identity provider did not sign you in: try again, or ask an administrator")
        }
    };
    Problem::new(status, code, text)
}
