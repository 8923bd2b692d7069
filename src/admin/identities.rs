//! `/v1/users/{login}/identities`: the OpenID Connect subjects with which a user signs in. A first sign-in
//! creates one; these calls link one to an account that existed before.

use axum::extract::Path;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{
    ApiResult, Caller, Context, Problem,
    users::READ_OTHERS,
    wire::{Json, Page, ok},
};
use crate::store::model::IdentityRecord;

/// A user at an OpenID Connect provider.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Identity)]
pub struct IdentityView {
    pub issuer: String,
    pub subject: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewIdentity)]
pub(in crate::admin) struct Link {
    /// The claim `sub`.
    subject: String,
    /// Default: the configured provider.
    issuer: Option<String>,
}

pub async fn list(context: Context, caller: Caller, Path(login): Path<String>) -> ApiResult {
    let login = caller.login(&login)?;
    let accounts = context.store.accounts();
    let id = &caller.visible(accounts.user_by_login(&login), &READ_OTHERS)?.record.id;
    let items: Vec<_> = context.store.identities_of(id).into_iter().map(IdentityView::from).collect();
    Ok(ok(&Page { items, next: None }))
}

pub async fn link(
    context: Context,
    caller: Caller,
    Path(login): Path<String>,
    Json(body): Json<Link>,
) -> ApiResult {
    let login = caller.login(&login)?;
    let configured = || context.sign_in.provider.as_ref().map(|provider| provider.issuer.clone());
    let issuer = body.issuer.or_else(configured);
    let issuer = issuer.ok_or_else(|| Problem::value("No provider is configured: send the `issuer`"))?;
    let linked = context.store.link_identity(caller.actor(), login, issuer, body.subject).await?.record;
    Ok(ok(&IdentityView::from(linked)))
}

pub async fn unlink(context: Context, caller: Caller, Path(login): Path<String>) -> ApiResult {
    let login = caller.login(&login)?;
    let unlinked = context.store.unlink_identities(caller.actor(), login).await?;
    Ok(ok(&json!({"identities": unlinked.record, "cut": unlinked.cut.0})))
}

impl From<IdentityRecord> for IdentityView {
    fn from(record: IdentityRecord) -> Self {
        Self { issuer: record.issuer, subject: record.subject }
    }
}
