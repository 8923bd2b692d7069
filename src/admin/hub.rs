//! The part of JetBrains Hub's REST API with which scripts make their tokens, unchanged:
//! `/hub/api/rest/users/{id|me}/permanenttokens`, `/hub/api/rest/services`, `/hub/api/rest/users/me`.
//!
//! A service's id is its key; a user may be named by id or login; times are milliseconds.

use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::get,
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    Context,
    caller::Caller,
    error::Problem,
    pages::Params,
    tokens::{SEES_TOKENS, parse},
    users::SEES_USERS,
    wire::{Json, Time, forget, ok, secret_answer},
};
use crate::{
    authz::{
        accounts::{Account, Accounts},
        rules::Service,
        subject::Access,
        time::Timestamp,
    },
    store::{
        NewToken, TokenEdit, TokenFilter, TokenState,
        model::{RevokeReason, TokenRecord},
    },
};

mod fields;

use fields::Fields;

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/hub/api/rest/services", get(services))
        .route("/hub/api/rest/users/{user}", get(user))
        .route("/hub/api/rest/users/{user}/permanenttokens", get(list).post(create))
        .route("/hub/api/rest/users/{user}/permanenttokens/{id}", get(show).post(edit).delete(revoke))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    fields: Option<String>,
    #[serde(rename = "$skip")]
    skip: Option<u32>,
    /// `-1`, as Hub has it: all.
    #[serde(rename = "$top")]
    top: Option<i64>,
}

/// What Hub's clients send to make a token, and to change one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = HubToken)]
pub(in crate::admin) struct Body {
    name: Option<String>,
    scope: Option<Vec<ServiceRef>>,
    /// Repeats the path, or is left out.
    user: Option<UserRef>,
    #[serde(rename = "type")]
    _type: Option<String>,
}

/// By `id` or `key`, which are the same here.
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

async fn services(
    State(context): State<Context>,
    caller: Caller,
    Params(query): Params<Query>,
) -> Result<Response, Problem> {
    let rules = context.rules();
    let readable = |service: &&Service| caller.user().is_none_or(|user| user.readable.contains(service.id));
    let rows = rules.services().iter().filter(readable).map(service_view).collect();
    query.page("services", rows)
}

async fn user(
    State(context): State<Context>,
    caller: Caller,
    Path(user): Path<String>,
    Params(query): Params<Query>,
) -> Result<Response, Problem> {
    let accounts = context.store.accounts();
    let known = find(&accounts, &caller, &user);
    if !known.is_some_and(|account| caller.is(&account.record.id)) {
        caller.require_any(&SEES_USERS)?;
    }
    let record = &known.ok_or_else(|| Problem::not_found("user"))?.record;
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

async fn list(
    State(context): State<Context>,
    caller: Caller,
    Path(user): Path<String>,
    Params(query): Params<Query>,
) -> Result<Response, Problem> {
    let accounts = context.store.accounts();
    let owner = owner(&accounts, &caller, &user)?;
    let filter = TokenFilter { owner: Some(owner.record.login.clone()), ..TokenFilter::default() };
    let (mut rows, mut cursor) = (Vec::new(), None);
    loop {
        let page = context.store.tokens(&filter, cursor.as_deref(), MAX_TOP)?;
        rows.extend(page.items.into_iter().filter(is_there).map(|record| view(&context, owner, &record)));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    query.page("permanenttokens", rows)
}

async fn create(
    State(context): State<Context>,
    caller: Caller,
    Path(user): Path<String>,
    Params(query): Params<Query>,
    Json(body): Json<Body>,
) -> Result<Response, Problem> {
    let fields = query.fields()?;
    let accounts = context.store.accounts();
    let known = find(&accounts, &caller, &user);
    body.agrees(known)?;
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
    // The only answer with the text in it.
    view["token"] = made.text.map(|text| text.expose().to_owned()).into();
    let mut picked = fields.pick(view);
    let response = secret_answer(StatusCode::OK, &picked);
    forget(picked["token"].take());
    Ok(response)
}

async fn show(
    State(context): State<Context>,
    caller: Caller,
    Path((user, id)): Path<(String, String)>,
    Params(query): Params<Query>,
) -> Result<Response, Problem> {
    let accounts = context.store.accounts();
    let owner = owner(&accounts, &caller, &user)?;
    let record = known_token(&context, owner, &id)?;
    Ok(ok(&query.fields()?.pick(view(&context, owner, &record))))
}

/// Hub changes with POST: the name, or a narrower scope.
async fn edit(
    State(context): State<Context>,
    caller: Caller,
    Path((user, id)): Path<(String, String)>,
    Params(query): Params<Query>,
    Json(body): Json<Body>,
) -> Result<Response, Problem> {
    let fields = query.fields()?;
    let accounts = context.store.accounts();
    let owner = owner(&accounts, &caller, &user)?;
    body.agrees(Some(owner))?;
    let record = known_token(&context, owner, &id)?;
    let scope = body.scope.map(scope).transpose()?;
    let edit = TokenEdit { name: body.name, scope, ..TokenEdit::default() };
    let changed = context.store.edit_token(caller.actor(), record.id, None, edit).await?;
    Ok(ok(&fields.pick(view(&context, owner, &changed.record))))
}

async fn revoke(
    State(context): State<Context>,
    caller: Caller,
    Path((user, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let accounts = context.store.accounts();
    let owner = owner(&accounts, &caller, &user)?;
    let record = known_token(&context, owner, &id)?;
    let reason = if caller.is(&record.owner) { RevokeReason::User } else { RevokeReason::Admin };
    let changed = context.store.revoke_token(caller.actor(), record.id, reason).await?;
    Ok(ok(&json!({"revoked": true, "cut": changed.cut.0})))
}

impl Query {
    fn fields(&self) -> Result<Fields, Problem> {
        Fields::parse(self.fields.as_deref())
    }

    fn page(&self, name: &str, rows: Vec<Value>) -> Result<Response, Problem> {
        let fields = self.fields()?;
        let skip = self.skip.unwrap_or_default() as usize;
        let top = match self.top {
            None => DEFAULT_TOP,
            Some(top) if top < 0 => MAX_TOP,
            Some(top) => usize::try_from(top).unwrap_or(MAX_TOP).min(MAX_TOP),
        };
        let (total, picked) = (rows.len(), fields.of_items(name));
        let items: Vec<Value> = rows.into_iter().skip(skip).take(top).map(|row| picked.pick(row)).collect();
        let mut page = json!({"skip": skip, "top": top, "total": total});
        page[name] = items.into();
        Ok(ok(&page))
    }
}

impl Body {
    /// Whose token it is says the path; a body that says otherwise is a mistake.
    fn agrees(&self, owner: Option<&Account>) -> Result<(), Problem> {
        let (Some(user), Some(owner)) = (&self.user, owner) else { return Ok(()) };
        let same = user.id.as_ref().is_none_or(|id| *id == owner.record.id)
            && user.login.as_ref().is_none_or(|login| login.eq_ignore_ascii_case(&owner.record.login));
        if same { Ok(()) } else { Err(Problem::invalid("The body names another user than the path")) }
    }
}

/// By id, by login, or `me`.
fn find<'a>(accounts: &'a Accounts, caller: &Caller, user: &str) -> Option<&'a Account> {
    match (user, caller.user()) {
        ("me", Some(user)) => accounts.user_by_id(&user.id),
        ("me", None) => None,
        _ => accounts.user_by_id(user).or_else(|| accounts.user_by_login(user)),
    }
    .filter(|account| account.record.deleted_at.is_none())
}

/// Whose tokens the caller may see.
fn owner<'a>(accounts: &'a Accounts, caller: &Caller, user: &str) -> Result<&'a Account, Problem> {
    let owner = find(accounts, caller, user);
    if !owner.is_some_and(|owner| caller.is(&owner.record.id)) {
        caller.require_any(&SEES_TOKENS)?;
    }
    owner.ok_or_else(|| Problem::not_found("user"))
}

/// What is revoked is gone, to Hub.
fn known_token(context: &Context, owner: &Account, id: &str) -> Result<TokenRecord, Problem> {
    let record = context.store.token(parse(id)?)?.filter(is_there);
    record.filter(|record| record.owner == owner.record.id).ok_or_else(|| Problem::not_found("token"))
}

fn is_there(record: &TokenRecord) -> bool {
    !matches!(record.state(false, Time::now()), TokenState::Revoked | TokenState::Rotated)
}

fn scope(services: Vec<ServiceRef>) -> Result<Vec<(String, Access)>, Problem> {
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
    // The operator is no user.
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
