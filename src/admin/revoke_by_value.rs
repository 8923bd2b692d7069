//! Revokes and introspects tokens by their texts. A text is looked up and dropped: it is never stored, logged
//! or echoed, and the look-up does not count as a use.

use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    ApiResult, Caller, Context, Problem, guard,
    wire::{Json, Time, ok, with_effect},
};
use crate::{
    authz::{
        reason::Reason,
        secret::{Bearer, BearerForm, Digest, find_tokens},
        subject::{Permission, scope_text},
    },
    store::{TokenState, model::TokenRecord},
};

/// The most texts in a leak report, and tokens in all of them together.
const MAX_TEXTS: usize = 1_000;
const MAX_TOKENS: usize = 10_000;
/// Tokens revoked in one change, so that other revocations do not wait for a long one.
const BATCH: usize = 100;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TokenText)]
pub(in crate::admin) struct ByValue {
    token: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = LeakReport)]
pub(in crate::admin) struct Report {
    /// Tokens, or texts with tokens somewhere in them.
    texts: Vec<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Leaks {
    items: Vec<LeakView>,
    /// Tokens that this report revoked.
    revoked: usize,
    cut: u64,
}

/// The result for one text of a report. The text is not repeated.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Leak)]
pub struct LeakView {
    pub index: usize,
    pub tokens: Vec<LeakedToken>,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct LeakedToken {
    pub id: String,
    /// `false`: it had been revoked before.
    pub revoked_now: bool,
}

pub async fn revoke_one(context: Context, caller: Caller, Json(body): Json<ByValue>) -> ApiResult {
    let digests = digest(&context, &body.token).into_iter().collect();
    let changed = context.store.revoke_by_value(caller.actor(), digests, false).await?;
    let token = changed.record.first().and_then(Option::as_ref).map(|(record, _)| record.id.to_string());
    Ok(ok(&with_effect(json!({"revoked": token.is_some(), "id": token}), &changed)))
}

/// Revokes every token in the texts, whoever owns it.
pub async fn report(context: Context, caller: Caller, Json(body): Json<Report>) -> ApiResult {
    if body.texts.len() > MAX_TEXTS {
        return Err(Problem::value(format!("A report has at most {MAX_TEXTS} texts")));
    }
    let mut found: Vec<(usize, Digest)> = Vec::new();
    for (index, text) in body.texts.iter().enumerate() {
        let mut inside: Vec<Digest> = find_tokens(text.as_bytes()).map(|(_, token)| token.digest()).collect();
        if inside.is_empty() {
            inside.extend(digest(&context, text));
        }
        inside.sort_unstable();
        inside.dedup();
        found.extend(inside.into_iter().map(|digest| (index, digest)));
    }
    if found.len() > MAX_TOKENS {
        return Err(Problem::value(format!("A report has at most {MAX_TOKENS} tokens")));
    }
    let (mut records, mut cut, mut failed) = (Vec::new(), 0, None);
    for some in found.chunks(BATCH) {
        let digests = some.iter().map(|(_, digest)| *digest).collect();
        match context.store.revoke_by_value(caller.actor(), digests, true).await {
            Ok(changed) => {
                records.extend(changed.record);
                cut += changed.cut.0;
            }
            // The change may be in force all the same; the rest is revoked in any case.
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if let Some(error) = failed {
        return Err(error.into());
    }
    let mut items: Vec<LeakView> =
        (0..body.texts.len()).map(|index| LeakView { index, tokens: Vec::new() }).collect();
    for ((index, _), revoked) in found.iter().zip(records) {
        if let (Some(view), Some((record, fresh))) = (items.get_mut(*index), revoked) {
            view.tokens.push(LeakedToken { id: record.id.to_string(), revoked_now: fresh });
        }
    }
    let revoked = items.iter().flat_map(|view| &view.tokens).filter(|token| token.revoked_now).count();
    Ok(ok(&Leaks { items, revoked, cut }))
}

/// RFC 7009: an unknown token gets the same response.
pub async fn revoke_oauth(
    context: Context,
    caller: Caller,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> ApiResult {
    let token = form_token(&headers, &body)?;
    let digests = digest(&context, &token).into_iter().collect();
    context.store.revoke_by_value(caller.actor(), digests, false).await?;
    Ok(ok(&json!({})))
}

/// RFC 7662. A token that is not in force is `{"active": false}`, without a reason.
pub async fn introspect(
    context: Context,
    caller: Caller,
    headers: HeaderMap,
    body: bytes::Bytes,
) -> ApiResult {
    caller.require(Permission::Introspect)?;
    let token = form_token(&headers, &body)?;
    let record = match digest(&context, &token) {
        Some(digest) => context.store.token_by_digest(&digest)?,
        None => None,
    };
    let introspection = record.and_then(|record| introspection(&context, &record));
    Ok(ok(&introspection.unwrap_or_else(|| json!({"active": false}))))
}

/// The introspection of a token in force, with the part of its scope that the owner may read now.
fn introspection(context: &Context, record: &TokenRecord) -> Option<Value> {
    let snapshot = context.state.snapshot();
    let accounts = context.store.accounts();
    let owner = accounts.user_by_id(&record.owner).filter(|owner| owner.record.deleted_at.is_none())?;
    let user = snapshot.directory.user(owner.ix)?;
    let state = record.state(owner.record.banned.is_some(), Time::now());
    if !matches!(state, TokenState::Active | TokenState::Rotating) {
        return None;
    }
    let readable = |key: &str| {
        let service = snapshot.rules.service_by_key(key);
        service.is_some_and(|service| user.readable.contains(service.id))
    };
    let scope = record.scope.iter().filter(|(key, _)| readable(key));
    let seconds = |time: crate::authz::time::Timestamp| time.as_millis().div_euclid(1000);
    let grace = record.rotation.map(|rotation| rotation.grace_until);
    let ends = record.expires_at.into_iter().chain(grace).min();
    let mut introspection = json!({
        "active": true,
        "scope": scope_text(scope),
        "username": owner.record.login,
        "sub": record.owner,
        "client_id": record.id.as_str(),
        "jti": record.id.as_str(),
        "token_type": "Bearer",
        "iat": seconds(record.created_at),
    });
    if let Some(ends) = ends {
        introspection["exp"] = seconds(ends).into();
    }
    if let Some(starts) = record.not_before {
        introspection["nbf"] = seconds(starts).into();
    }
    if !record.allow_ips.is_empty() {
        let nets: Vec<String> = record.allow_ips.iter().map(ToString::to_string).collect();
        introspection["allow_ips"] = nets.into();
    }
    Some(introspection)
}

/// The digest of a token's text as clients send it, also of an imported token.
fn digest(context: &Context, text: &str) -> Option<Digest> {
    let perm_alias = context.rules().settings.perm_alias;
    let (bearer, form) = Bearer::parse(text.trim())?.classify(perm_alias);
    (form != BearerForm::ChecksumMismatch).then(|| bearer.digest())
}

/// The only `token` of the form. A `token_type_hint` is ignored.
fn form_token(headers: &HeaderMap, body: &[u8]) -> ApiResult<String> {
    if !guard::has_media_type(headers, guard::FORM) {
        let text = "The request body must be application/x-www-form-urlencoded";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", text));
    }
    if body.len() > guard::MAX_FORM {
        return Err(Reason::BodyTooLarge.details(None).into());
    }
    let mut tokens = form_urlencoded::parse(body).filter(|(name, _)| name == "token");
    match (tokens.next(), tokens.next()) {
        (Some((_, token)), None) => Ok(token.into_owned()),
        _ => Err(Problem::invalid("The form must have exactly one `token`")),
    }
}
