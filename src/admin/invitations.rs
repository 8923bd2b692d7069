//! Invitations: a link, shown once, by which somebody sets their password, the first or another.

use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::post,
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::{
    Context,
    caller::Caller,
    error::Problem,
    passwords,
    session::secret::Secret,
    wire::{Json, Time, ok, secret_answer},
};

pub(super) fn routes() -> Router<Context> {
    Router::new().route("/v1/users/{login}/invitation", post(invite)).route("/v1/invitation", post(redeem))
}

/// The only answer with the text in it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Invitation)]
pub struct InvitationView {
    /// Login.
    pub user: String,
    #[schema(value_type = String)]
    pub invitation: Zeroizing<String>,
    /// The page that takes it. The text stands behind `#`, which no browser sends and nobody logs.
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

async fn invite(
    State(context): State<Context>,
    caller: Caller,
    Path(login): Path<String>,
) -> Result<Response, Problem> {
    let (login, secret) = (caller.login(&login)?, Secret::draw()?);
    let (user, invitation) = context.store.invite(caller.actor(), login, secret.digest()).await?;
    let view = InvitationView {
        user: user.login,
        link: Zeroizing::new(format!("{}/invitation#{}", context.sign_in.base(), secret.expose())),
        invitation: Zeroizing::new(secret.expose().to_owned()),
        expires_at: Time(invitation.expires_at),
    };
    Ok(secret_answer(StatusCode::CREATED, &view))
}

/// Open: the text is the credential. It is looked for before anything is derived, so that a stranger
/// cannot keep the machine busy.
async fn redeem(State(context): State<Context>, Json(body): Json<Redeem>) -> Result<Response, Problem> {
    let digest = Secret::parse(&body.invitation).map(|secret| secret.digest());
    let Some(digest) = digest.filter(|digest| context.store.invitation(digest).is_some()) else {
        let text = "The invitation does not hold, or no longer: ask for another one";
        return Err(Problem::denied(text));
    };
    let phc = passwords::derive(body.password).await?;
    let changed = context.store.redeem(digest, phc).await?;
    Ok(ok(&json!({"user": changed.record.login, "password": true, "cut": changed.cut.0})))
}
