//! `/v1/roles` and `/v1/grants`: the permissions of roles, and who holds them.

use axum::{
    extract::{Path, Request},
    response::Response,
};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{
    ApiResult, Caller, Context, Problem,
    offload::READS,
    pagination::{PageRequest, Params},
    wire::{Json, created, deleted, if_match, ok, revised, updated, with_effect},
};
use crate::{
    authz::{
        accounts::{Accounts, built_in_roles},
        subject::Permission,
    },
    store::{
        GrantTarget, RoleEdit, Updated,
        model::{GrantRecord, Grantee, RoleRecord},
    },
};

/// A caller with one of these permissions sees roles.
pub(super) const READ_ROLES: [Permission; 2] = [Permission::ReadRole, Permission::ManageRole];

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Role)]
pub struct RoleView {
    pub key: String,
    pub name: String,
    pub permissions: Vec<String>,
    pub built_in: bool,
    pub revision: u64,
}

/// A role and its holder: a user's login or a group's name.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Grant)]
pub struct GrantView {
    pub role: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub group: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewRole)]
pub(in crate::admin) struct Create {
    key: String,
    name: String,
    permissions: Vec<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RoleEdit)]
pub(in crate::admin) struct Edit {
    name: Option<String>,
    permissions: Option<Vec<String>>,
}

pub async fn list(context: Context, caller: Caller, Params(paging): Params<PageRequest>) -> ApiResult {
    caller.require_any(&READ_ROLES)?;
    let read = move || {
        let accounts = context.store.accounts();
        let page = paging.page(accounts.roles().collect(), |role: &&RoleRecord| role.key.clone())?;
        Ok(ok(&page.map(RoleView::new)))
    };
    READS.run(read).await?
}

pub async fn show(context: Context, caller: Caller, Path(key): Path<String>) -> ApiResult {
    caller.require_any(&READ_ROLES)?;
    let accounts = context.store.accounts();
    let role = accounts.role(&key).ok_or_else(|| Problem::not_found("role"))?;
    Ok(revised(role.revision, &RoleView::new(role)))
}

pub async fn create(context: Context, caller: Caller, Json(body): Json<Create>) -> ApiResult {
    let permissions = permissions(&body.permissions)?;
    let changed = context.store.create_role(caller.actor(), body.key, body.name, permissions).await?;
    Ok(created(response(&changed), "/v1/roles", &changed.record.key))
}

pub async fn edit(
    context: Context,
    caller: Caller,
    Path(key): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Edit>,
) -> ApiResult {
    let revision = if_match(&headers)?;
    let permissions = body.permissions.as_deref().map(permissions).transpose()?;
    let edit = RoleEdit { name: body.name, permissions };
    let changed = context.store.edit_role(caller.actor(), key, revision, edit).await?;
    Ok(response(&changed))
}

fn response(changed: &Updated<RoleRecord>) -> Response {
    updated(&RoleView::new(&changed.record), changed.record.revision, changed)
}

fn permissions(words: &[String]) -> ApiResult<Vec<Permission>> {
    let known = |word: &String| {
        Permission::from_word(word).ok_or_else(|| Problem::value(format!("There is no permission {word:?}")))
    };
    words.iter().map(known).collect()
}

pub async fn remove(context: Context, caller: Caller, Path(key): Path<String>) -> ApiResult {
    let changed = context.store.delete_role(caller.actor(), key).await?;
    Ok(deleted(&changed))
}

pub async fn list_grants(context: Context, caller: Caller, Params(paging): Params<PageRequest>) -> ApiResult {
    caller.require_any(&READ_ROLES)?;
    let read = move || {
        let accounts = context.store.accounts();
        let grants = accounts.grants().map(|grant| GrantView::new(&accounts, grant)).collect();
        Ok(ok(&paging.page(grants, GrantView::order)?))
    };
    READS.run(read).await?
}

pub async fn grant(context: Context, caller: Caller, Json(body): Json<GrantView>) -> ApiResult {
    set(&context, &caller, body, true).await
}

/// The grant is in the body or, for clients that send no body with DELETE, in the query.
pub async fn withdraw(context: Context, caller: Caller, request: Request) -> ApiResult {
    use axum::extract::{FromRequest, FromRequestParts};
    let (mut parts, body) = request.into_parts();
    let body = if parts.uri.query().is_some() {
        Params::<GrantView>::from_request_parts(&mut parts, &context).await?.0
    } else {
        Json::<GrantView>::from_request(Request::from_parts(parts, body), &context).await?.0
    };
    set(&context, &caller, body, false).await
}

async fn set(context: &Context, caller: &Caller, body: GrantView, granted: bool) -> ApiResult {
    let GrantView { role, user, group } = body;
    let to = match (user, group) {
        (Some(login), None) => GrantTarget::User(caller.login(&login)?),
        (None, Some(name)) => GrantTarget::Group(name),
        _ => return Err(Problem::invalid("Name a user or a group, one of them")),
    };
    let changed = context.store.set_grant(caller.actor(), role, to, granted).await?;
    let view = GrantView::new(&context.store.accounts(), changed.record.clone());
    let mut body = with_effect(json!(view), &changed);
    body["granted"] = granted.into();
    Ok(ok(&body))
}

impl RoleView {
    pub(super) fn new(role: &RoleRecord) -> Self {
        Self {
            key: role.key.clone(),
            name: role.name.clone(),
            permissions: role.permissions.iter().map(|permission| permission.word().to_owned()).collect(),
            built_in: built_in_roles().iter().any(|built_in| built_in.key == role.key),
            revision: role.revision,
        }
    }
}

impl GrantView {
    pub(super) fn new(accounts: &Accounts, grant: GrantRecord) -> Self {
        let GrantRecord { role, to } = grant;
        match to {
            Grantee::User(id) => {
                let login = accounts.user_by_id(&id).map(|user| user.record.login.clone());
                Self { role, user: login.or(Some(id)), group: None }
            }
            Grantee::Group(id) => {
                let name = accounts.group_by_id(&id).map(|group| group.record.name.clone());
                Self { role, user: None, group: name.or(Some(id)) }
            }
        }
    }

    fn order(&self) -> String {
        let (kind, name) = match (&self.user, &self.group) {
            (Some(login), _) => ('u', login.as_str()),
            (None, name) => ('g', name.as_deref().unwrap_or_default()),
        };
        format!("{} {kind}:{name}", self.role)
    }
}
