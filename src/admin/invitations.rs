//! Invitations: a link, shown once, with which a user sets a first or new password.

use axum::{Extension, extract::Path};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::{
    ApiResult, Caller, Context, Problem,
    caller::RequestMeta,
    passwords,
    session::secret::Secret,
    wire::{Json, NoBody, Time, ok, secret_json_response},
};
use crate::{authz::secret::Digest, store::model::InvitationRecord};

/// A new invitation. No other response contains its text.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Invitation)]
pub struct InvitationView {
    /// Login.
    pub user: String,
    #[schema(value_type = String)]
    pub invitation: Zeroizing<String>,
    /// The page that accepts it. The text is in the fragment (`#`), which no browser sends and nobody logs.
    #[schema(value_type = String)]
    pub link: Zeroizing<String>,
    pub expires_at: Time,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Redeem {
    #[schema(value_type = String)]
    invitation: Zeroizing<String>,
    #[schema(value_type = String)]
    password: Zeroizing<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = InvitationText)]
pub(in crate::admin) struct Check {
    #[schema(value_type = String)]
    invitation: Zeroizing<String>,
}

pub async fn invite(context: Context, caller: Caller, Path(login): Path<String>, _: NoBody) -> ApiResult {
    let (login, secret) = (caller.login(&login)?, Secret::draw()?);
    let (user, invitation) = context.store.invite(caller.actor(), login, secret.digest()).await?.record;
    let view = InvitationView {
        user: user.login,
        link: Zeroizing::new(format!("{}/invitation#{}", context.sign_in.base(), secret.expose())),
        invitation: Zeroizing::new(secret.expose().to_owned()),
        expires_at: Time(invitation.expires_at),
    };
    Ok(secret_json_response(StatusCode::CREATED, &view))
}

/// Needs no authentication: the text is the credential. It is looked up before the password is derived, so
/// that strangers cannot keep the machine busy.
pub async fn redeem(
    context: Context,
    Extension(meta): Extension<RequestMeta>,
    Json(body): Json<Redeem>,
) -> ApiResult {
    let (digest, _) = valid(&context, &body.invitation)?;
    let phc = passwords::derive(body.password).await?;
    let changed = context.store.redeem(digest, phc, meta.client).await?;
    Ok(ok(&json!({"user": changed.record.login, "password": true, "cut": changed.cut.0})))
}

/// Needs no authentication either: the page shows whom the link is for before a password is typed.
pub async fn check(context: Context, Json(body): Json<Check>) -> ApiResult {
    let (_, record) = valid(&context, &body.invitation)?;
    let accounts = context.store.accounts();
    let user = accounts.user_by_id(&record.user).ok_or_else(|| Problem::not_found("user"))?;
    let (login, name) = (&user.record.login, &user.record.name);
    Ok(ok(&json!({"user": login, "name": name, "expires_at": Time(record.expires_at)})))
}

fn valid(context: &Context, text: &str) -> ApiResult<(Digest, InvitationRecord)> {
    let digest = Secret::parse(text).map(|secret| secret.digest());
    let found = digest.and_then(|digest| Some((digest, context.store.invitation(&digest)?)));
    found.ok_or_else(|| {
        let text = "This invitation is invalid or has expired. Ask an administrator for a new one";
        Problem::denied(text)
    })
}
