//! The part of JetBrains Hub's REST API with which scripts create their tokens, unchanged:
//! `/hub/api/rest/users/{id|me}/permanenttokens`, `/hub/api/rest/services`, `/hub/api/rest/users/me`.
//!
//! A service's id is its key; a user may be named by id or login; times are milliseconds.

use axum::extract::Path;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    ApiResult, Caller, Context, Problem,
    offload::READS,
    pagination::Params,
    tokens::{READ_OTHERS_TOKENS, parse},
    users::READ_OTHERS,
    wire::{Json, Time, ok, secret_json_response, with_effect, zeroize_json},
};
use crate::{
    authz::{
        accounts::{Account, Accounts},
        rules::Service,
        subject::Access,
        time::Timestamp,
    },
    store::{
        NewToken, TokenEdit,
        model::{RevokeReason, TokenRecord},
    },
};

mod fields;

use fields::FieldSelection;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Query {
    fields: Option<String>,
    #[serde(rename = "$skip")]
    skip: Option<u32>,
    /// `-1` means all, as in Hub, but at most [`MAX_TOP`].
    #[serde(rename = "$top")]
    top: Option<i64>,
}

/// The number of rows to skip, and to return.
#[derive(Clone, Copy)]
struct Range {
    skip: usize,
    top: usize,
}

/// The body with which Hub's clients create or change a token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HubToken)]
pub(in crate::admin) struct Body {
    name: Option<String>,
    scope: Option<Vec<ServiceRef>>,
    /// The owner, who has to be that of the path; may be left out.
    user: Option<UserRef>,
    #[serde(rename = "type")]
    _type: Option<String>,
}

/// A service by `id` or `key`, which are the same here.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HubService)]
pub(in crate::admin) struct ServiceRef {
    id: Option<String>,
    key: Option<String>,
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "type")]
    _type: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HubUser)]
pub(in crate::admin) struct UserRef {
    id: Option<String>,
    login: Option<String>,
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "type")]
    _type: Option<String>,
}

const DEFAULT_TOP: usize = 100;
const MAX_TOP: usize = 1_000;
const MAX_SKIP: usize = 10_000;

pub async fn services(context: Context, caller: Caller, Params(query): Params<Query>) -> ApiResult {
    let rules = context.rules();
    let user = caller.user();
    let readable = |service: &&Service| user.as_ref().is_none_or(|user| user.readable.contains(service.id));
    let rows: Vec<&Service> = rules.services().iter().filter(readable).collect();
    let range = query.range()?;
    let there = rows.iter().skip(range.skip).take(range.top).map(|service| service_view(service));
    query.page("services", range, rows.len(), there)
}

pub async fn user(
    context: Context,
    caller: Caller,
    Path(user): Path<String>,
    Params(query): Params<Query>,
) -> ApiResult {
    let accounts = context.store.accounts();
    let record = &caller.visible(find(&accounts, &caller, &user), &READ_OTHERS)?.record;
    let view = json!({
        "id": record.id,
        "login": record.login,
        "name": record.name,
        "banned": record.banned.is_some(),
        "creationTime": record.created_at.as_millis(),
        "profile": {"email": record.email.as_ref().map(|email| json!({"email": email}))},
    });
    Ok(ok(&query.fields()?.pick(view)))
}

pub async fn list(
    context: Context,
    caller: Caller,
    Path(user): Path<String>,
    Params(query): Params<Query>,
) -> ApiResult {
    let accounts = context.store.accounts();
    let id = owner(&accounts, &caller, &user)?.record.id.clone();
    let range = query.range()?;
    let read = move || {
        let owner = accounts.user_by_id(&id).ok_or_else(|| Problem::not_found("user"))?;
        let found = context.store.slice_of_tokens(&id, range.skip, range.top)?;
        let rows = found.items.iter().map(|record| view(&context, owner, record));
        query.page("permanenttokens", range, found.total, rows)
    };
    READS.run(read).await?
}

pub async fn create(
    context: Context,
    caller: Caller,
    Path(user): Path<String>,
    Params(query): Params<Query>,
    Json(body): Json<Body>,
) -> ApiResult {
    let fields = query.fields()?;
    let accounts = context.store.accounts();
    let known = find(&accounts, &caller, &user);
    body.require_same_owner(known)?;
    let new = NewToken {
        owner: known.map_or(user, |account| account.record.login.clone()),
        name: body.name.unwrap_or_default(),
        note: String::new(),
        scope: body.scope.map(scope).transpose()?.unwrap_or_default(),
        not_before: None,
        expires_at: None,
        allow_ips: Vec::new(),
    };
    let made = context.store.create_token(caller.actor(), new, None).await?;
    let accounts = context.store.accounts();
    let owner = accounts.user_by_id(&made.record.owner).ok_or_else(|| Problem::not_found("user"))?;
    let mut view = view(&context, owner, &made.record);
    // No other response contains the text.
    view["token"] = made.text.map(|text| text.expose().to_owned()).into();
    let mut picked = fields.pick(view);
    let response = secret_json_response(StatusCode::OK, &picked);
    zeroize_json(picked["token"].take());
    Ok(response)
}

pub async fn show(
    context: Context,
    caller: Caller,
    Path((user, id)): Path<(String, String)>,
    Params(query): Params<Query>,
) -> ApiResult {
    let accounts = context.store.accounts();
    let owner = owner(&accounts, &caller, &user)?;
    let record = find_token(&context, owner, &id)?;
    Ok(ok(&query.fields()?.pick(view(&context, owner, &record))))
}

/// Renames a token or narrows its scope; Hub uses POST for changes.
pub async fn edit(
    context: Context,
    caller: Caller,
    Path((user, id)): Path<(String, String)>,
    Params(query): Params<Query>,
    Json(body): Json<Body>,
) -> ApiResult {
    let fields = query.fields()?;
    let accounts = context.store.accounts();
    let owner = owner(&accounts, &caller, &user)?;
    body.require_same_owner(Some(owner))?;
    let record = find_token(&context, owner, &id)?;
    let scope = body.scope.map(scope).transpose()?;
    let edit = TokenEdit { name: body.name, scope, ..TokenEdit::default() };
    let changed = context.store.edit_token(caller.actor(), record.id, None, edit).await?;
    Ok(ok(&fields.pick(view(&context, owner, &changed.record))))
}

pub async fn revoke(context: Context, caller: Caller, Path((user, id)): Path<(String, String)>) -> ApiResult {
    let accounts = context.store.accounts();
    let owner = owner(&accounts, &caller, &user)?;
    let record = find_token(&context, owner, &id)?;
    let reason = if caller.is(&record.owner) { RevokeReason::User } else { RevokeReason::Admin };
    let changed = context.store.revoke_token(caller.actor(), record.id, reason).await?;
    Ok(ok(&with_effect(json!({"revoked": true}), &changed)))
}

impl Query {
    fn fields(&self) -> ApiResult<FieldSelection> {
        FieldSelection::parse(self.fields.as_deref())
    }

    /// Pages beyond [`MAX_SKIP`] would cost much for little use.
    fn range(&self) -> ApiResult<Range> {
        let skip = self.skip.unwrap_or_default() as usize;
        if skip > MAX_SKIP {
            let text = format!("$skip is at most {MAX_SKIP}: page through longer lists with GET /v1/tokens");
            return Err(Problem::invalid(text));
        }
        let top = match self.top {
            None => DEFAULT_TOP,
            Some(top) => usize::try_from(top).unwrap_or(MAX_TOP).min(MAX_TOP),
        };
        Ok(Range { skip, top })
    }

    /// `rows` are the rows in the range; `total` counts the others too.
    fn page(&self, name: &str, range: Range, total: usize, rows: impl Iterator<Item = Value>) -> ApiResult {
        let fields = self.fields()?;
        let picked = fields.of_items(name);
        let items: Vec<Value> = rows.map(|row| picked.pick(row)).collect();
        let mut page = json!({"skip": range.skip, "top": range.top, "total": total});
        page[name] = items.into();
        Ok(ok(&page))
    }
}

impl Body {
    /// Fails if the body names another owner than the path.
    fn require_same_owner(&self, owner: Option<&Account>) -> ApiResult<()> {
        let (Some(user), Some(owner)) = (&self.user, owner) else { return Ok(()) };
        let same = user.id.as_ref().is_none_or(|id| *id == owner.record.id)
            && user.login.as_ref().is_none_or(|login| login.eq_ignore_ascii_case(&owner.record.login));
        if same { Ok(()) } else { Err(Problem::invalid("The body names another user than the path")) }
    }
}

/// Finds a user by id, by login, or `me`.
fn find<'a>(accounts: &'a Accounts, caller: &Caller, user: &str) -> Option<&'a Account> {
    match (user, caller.user()) {
        ("me", Some(user)) => accounts.user_by_id(&user.id),
        ("me", None) => None,
        _ => accounts.user_by_id(user).or_else(|| accounts.user_by_login(user)),
    }
    .filter(|account| account.record.deleted_at.is_none())
}

/// A user whose tokens the caller may see.
fn owner<'a>(accounts: &'a Accounts, caller: &Caller, user: &str) -> ApiResult<&'a Account> {
    caller.visible(find(accounts, caller, user), &READ_OTHERS_TOKENS)
}

/// For Hub, a revoked token does not exist.
fn find_token(context: &Context, owner: &Account, id: &str) -> ApiResult<TokenRecord> {
    let record = context.store.token(parse(id)?)?.filter(|record| !record.is_gone(Time::now()));
    record.filter(|record| record.owner == owner.record.id).ok_or_else(|| Problem::not_found("token"))
}

fn scope(services: Vec<ServiceRef>) -> ApiResult<Vec<(String, Access)>> {
    let key = |service: ServiceRef| match (service.id, service.key) {
        (Some(id), Some(key)) if id != key => Err(Problem::invalid("id and key name two services")),
        (id, key) => {
            let named = key.or(id).ok_or_else(|| Problem::invalid("A service has an id or a key"))?;
            Ok((named, Access::Full))
        }
    };
    services.into_iter().map(key).collect()
}

fn view(context: &Context, owner: &Account, record: &TokenRecord) -> Value {
    let rules = context.rules();
    let used = super::tokens::last_used(context, record);
    let accounts = context.store.accounts();
    // The operator has no account.
    let author = record.author.as_deref().and_then(|id| accounts.user_by_id(id));
    let scope: Vec<Value> = record
        .scope
        .iter()
        .map(|(key, _)| {
            rules.service_by_key(key).map_or_else(|| json!({"id": key, "key": key}), service_view)
        })
        .collect();
    json!({
        "id": record.id.as_str(),
        "name": record.name,
        "creationTime": record.created_at.as_millis(),
        "lastAccessTime": used.map(|used| used.at.as_millis()),
        "expirationTime": record.expires_at.map(Timestamp::as_millis),
        "scope": scope,
        "user": user_view(owner),
        "author": author.map(user_view),
    })
}

fn user_view(account: &Account) -> Value {
    let record = &account.record;
    json!({"type": "user", "id": record.id, "login": record.login, "name": record.name})
}

fn service_view(service: &Service) -> Value {
    let key = service.spec.key.as_str();
    json!({"id": key, "key": key, "name": service.spec.title})
}
