//! `/v1/groups`: creates, lists, edits and deletes groups, and changes their members.

use axum::{extract::Path, response::Response};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{
    ApiResult, Caller, Context, Problem,
    offload::READS,
    pagination::{PageRequest, Params},
    wire::{Json, NoBody, created, deleted, double_option, if_match, ok, revised, updated, with_effect},
};
use crate::{
    authz::{
        accounts::{ALL_USERS, Accounts, Group, fold},
        subject::Permission,
    },
    store::{GroupEdit, Updated, model::GroupRecord},
};

pub(super) const READ_GROUPS: [Permission; 1] = [Permission::ReadGroup];

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Group)]
pub struct GroupView {
    pub id: String,
    pub name: String,
    /// Name of the parent.
    pub parent: Option<String>,
    /// The built-in group, of which every user that is not deleted is a member. It cannot be changed.
    pub built_in: bool,
    /// Roles granted directly, by key.
    pub roles: Vec<String>,
    /// Logins of the direct members; absent in lists and of the built-in group.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub members: Option<Vec<String>>,
    pub revision: u64,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewGroup)]
pub(in crate::admin) struct Create {
    name: String,
    parent: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GroupEdit)]
pub(in crate::admin) struct Edit {
    name: Option<String>,
    #[serde(default, deserialize_with = "double_option")]
    parent: Option<Option<String>>,
}

pub async fn list(context: Context, caller: Caller, Params(paging): Params<PageRequest>) -> ApiResult {
    caller.require_any(&READ_GROUPS)?;
    let read = move || {
        let accounts = context.store.accounts();
        let page = paging.page(accounts.groups().collect(), |group: &&Group| fold(&group.record.name))?;
        Ok(ok(&page.map(|group| GroupView::new(&accounts, &group.record))))
    };
    READS.run(read).await?
}

pub async fn create(context: Context, caller: Caller, Json(body): Json<Create>) -> ApiResult {
    let changed = context.store.create_group(caller.actor(), body.name, body.parent).await?;
    Ok(created(response(&context, &changed), "/v1/groups", &changed.record.name))
}

pub async fn show(context: Context, caller: Caller, Path(name): Path<String>) -> ApiResult {
    caller.require_any(&READ_GROUPS)?;
    let read = move || {
        let accounts = context.store.accounts();
        let group = accounts.group_by_name(&name).ok_or_else(|| Problem::not_found("group"))?;
        let mut view = GroupView::new(&accounts, &group.record);
        if !view.built_in {
            view.members = Some(accounts.members(group.ix).map(|user| user.record.login.clone()).collect());
        }
        Ok(revised(view.revision, &view))
    };
    READS.run(read).await?
}

pub async fn edit(
    context: Context,
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Edit>,
) -> ApiResult {
    let revision = if_match(&headers)?;
    let edit = GroupEdit { name: body.name, parent: body.parent };
    let changed = context.store.edit_group(caller.actor(), name, revision, edit).await?;
    Ok(response(&context, &changed))
}

pub async fn delete(context: Context, caller: Caller, Path(name): Path<String>) -> ApiResult {
    let changed = context.store.delete_group(caller.actor(), name).await?;
    Ok(deleted(&changed))
}

pub async fn join(
    context: Context,
    caller: Caller,
    Path((name, login)): Path<(String, String)>,
    _: NoBody,
) -> ApiResult {
    set_member(&context, &caller, name, &login, true).await
}

pub async fn remove_member(
    context: Context,
    caller: Caller,
    Path((name, login)): Path<(String, String)>,
) -> ApiResult {
    set_member(&context, &caller, name, &login, false).await
}

async fn set_member(
    context: &Context,
    caller: &Caller,
    name: String,
    login: &str,
    member: bool,
) -> ApiResult {
    let login = caller.login(login)?;
    let changed = context.store.set_member(caller.actor(), name, login.clone(), member).await?;
    let group = &changed.record.name;
    Ok(ok(&with_effect(json!({"group": group, "user": login, "member": member}), &changed)))
}

fn response(context: &Context, changed: &Updated<GroupRecord>) -> Response {
    let view = GroupView::new(&context.store.accounts(), &changed.record);
    updated(&view, view.revision, changed)
}

impl GroupView {
    pub(super) fn new(accounts: &Accounts, record: &GroupRecord) -> Self {
        let parent = record.parent.as_deref().and_then(|id| accounts.group_by_id(id));
        Self {
            id: record.id.clone(),
            name: record.name.clone(),
            parent: parent.map(|parent| parent.record.name.clone()),
            built_in: record.id == ALL_USERS,
            roles: accounts.group_by_id(&record.id).map_or_else(Vec::new, |group| group.roles.clone()),
            members: None,
            revision: record.revision,
        }
    }
}
