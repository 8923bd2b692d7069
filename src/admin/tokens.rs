//! `/v1/tokens` and `/v1/users/{login}/tokens`: creates, lists, edits, rotates, revokes and imports tokens.

pub mod import;
mod view;

use axum::{extract::Path, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use self::view::{addresses, scope};
pub(super) use self::{
    import::Imported,
    view::{last_used, list_all, list_of_user},
};
pub use self::{
    import::{ImportLine, ImportRequest},
    view::{ScopeEntry, TokenView},
};
use super::{
    ApiResult, Caller, Context, Problem,
    wire::{
        BodyDigest, HumanDuration, Json, Time, double_option, if_match, located, revised,
        secret_json_response, tagged, updated, zeroize_json,
    },
};
use crate::{
    authz::{secret::TokenId, subject::Permission},
    store::{
        CreatedToken, Idempotency, NewToken, TokenEdit,
        model::{RevokeReason, TokenRecord},
    },
};

/// A caller with one of these permissions sees other users' tokens.
pub(super) const READ_OTHERS_TOKENS: [Permission; 2] = [Permission::AdminRead, Permission::UpdateUser];

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewToken)]
pub(in crate::admin) struct Create {
    name: String,
    scope: Vec<ScopeEntry>,
    expires_at: Option<Time>,
    expires_in: Option<HumanDuration>,
    not_before: Option<Time>,
    #[serde(default)]
    allow_ips: Vec<String>,
    #[serde(default)]
    note: String,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TokenEdit)]
pub(in crate::admin) struct Edit {
    name: Option<String>,
    note: Option<String>,
    scope: Option<Vec<ScopeEntry>>,
    #[serde(default, deserialize_with = "double_option")]
    expires_at: Option<Option<Time>>,
    expires_in: Option<HumanDuration>,
    allow_ips: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Rotation)]
pub(in crate::admin) struct Rotate {
    grace: Option<HumanDuration>,
}

pub async fn create(
    context: Context,
    caller: Caller,
    Path(login): Path<String>,
    headers: HeaderMap,
    body: BodyDigest<Create>,
) -> ApiResult {
    let Create { name, scope: entries, expires_at, expires_in, not_before, allow_ips, note } = body.value;
    let new = NewToken {
        owner: caller.login(&login)?,
        name,
        note,
        scope: scope(entries),
        not_before: not_before.map(|time| time.0),
        expires_at: expiry(expires_at, expires_in)?,
        allow_ips: addresses(&allow_ips)?,
    };
    let once = idempotency(&caller, &headers, body.hash)?;
    let made = context.store.create_token(caller.actor(), new, once).await?;
    Ok(created_response(&context, made))
}

pub async fn show(context: Context, caller: Caller, Path(id): Path<String>) -> ApiResult {
    let record = find_visible(&context, &caller, &id)?;
    let revision = record.revision;
    Ok(revised(revision, &TokenView::new(&context, record)))
}

pub async fn edit(
    context: Context,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Edit>,
) -> ApiResult {
    let id = parse(&id)?;
    let expires_at = match (body.expires_at, body.expires_in) {
        (Some(None), None) => {
            let text = "An expiry cannot be removed: create a new token";
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "cannot_widen", text));
        }
        (at, span) => expiry(at.flatten(), span)?,
    };
    let edit = TokenEdit {
        name: body.name,
        note: body.note,
        scope: body.scope.map(scope),
        expires_at,
        allow_ips: body.allow_ips.as_deref().map(addresses).transpose()?,
    };
    let revision = if_match(&headers)?;
    let changed = context.store.edit_token(caller.actor(), id, revision, edit).await?;
    let view = TokenView::new(&context, changed.record.clone());
    Ok(updated(&view, view.revision, &changed))
}

pub async fn revoke(context: Context, caller: Caller, Path(id): Path<String>) -> ApiResult {
    let id = parse(&id)?;
    let owner = context.store.token(id)?.map(|record| record.owner);
    let own = owner.is_some_and(|owner| caller.is(&owner));
    let reason = if own { RevokeReason::User } else { RevokeReason::Admin };
    let changed = context.store.revoke_token(caller.actor(), id, reason).await?;
    Ok(updated(&json!({"revoked": true}), changed.record.revision, &changed))
}

pub async fn rotate(
    context: Context,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: BodyDigest<Rotate>,
) -> ApiResult {
    let id = parse(&id)?;
    let once = idempotency(&caller, &headers, body.hash)?;
    let grace = body.value.grace.map(|span| span.0);
    let made = context.store.rotate_token(caller.actor(), id, grace, once).await?;
    Ok(created_response(&context, made))
}

/// The response to a creation or rotation, the only one that contains a token's text.
fn created_response(context: &Context, made: CreatedToken) -> Response {
    let CreatedToken { record, text, cut } = made;
    let (id, revision) = (record.id, record.revision);
    let mut body: Value = json!(TokenView::new(context, record));
    body["cut"] = cut.0.into();
    let response = match &text {
        Some(text) => {
            body["token"] = text.expose().into();
            let response = secret_json_response(StatusCode::CREATED, &body);
            zeroize_json(body["token"].take());
            tagged(response, revision)
        }
        // A replay: the first response had the text, and nothing was created now.
        None => {
            let mut response = revised(revision, &body);
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            response
        }
    };
    located(response, "/v1/tokens", id.as_str())
}

/// The token's record; fails if the caller may not see it.
pub(super) fn find_visible(context: &Context, caller: &Caller, id: &str) -> ApiResult<TokenRecord> {
    let record = context.store.token(parse(id)?)?.ok_or_else(|| Problem::not_found("token"))?;
    if !caller.is(&record.owner) {
        caller.require_any(&READ_OTHERS_TOKENS)?;
    }
    Ok(record)
}

pub(super) fn parse(id: &str) -> ApiResult<TokenId> {
    TokenId::parse(id).ok_or_else(|| Problem::not_found("token"))
}

fn expiry(at: Option<Time>, span: Option<HumanDuration>) -> ApiResult<Option<crate::authz::time::Timestamp>> {
    match (at, span) {
        (Some(_), Some(_)) => Err(Problem::invalid("Give expires_at or expires_in, not both")),
        (Some(at), None) => Ok(Some(at.0)),
        (None, span) => Ok(span.map(|span| span.after(Time::now()))),
    }
}

/// The request's `Idempotency-Key`, which is valid for this caller only.
fn idempotency(caller: &Caller, headers: &HeaderMap, request: [u8; 32]) -> ApiResult<Option<Idempotency>> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let key = match (keys.next(), keys.next()) {
        (None, _) => return Ok(None),
        (Some(key), None) => key,
        (Some(_), Some(_)) => return Err(Problem::invalid("More than one Idempotency-Key was sent")),
    };
    let key = key.to_str().ok().filter(|key| (1..=255).contains(&key.len()));
    let key = key.ok_or_else(|| Problem::invalid("An Idempotency-Key has 1 to 255 visible characters"))?;
    Ok(Some(Idempotency { key: format!("{} {key}", caller.name()), request }))
}
