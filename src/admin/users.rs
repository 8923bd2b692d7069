//! `/v1/users`: creates, lists, edits, bans and deletes users.

use axum::{extract::Path, response::Response};
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::{
    ApiResult, Caller, Context, Problem,
    offload::READS,
    pagination::{PageRequest, Params},
    passwords,
    wire::{Json, NoBody, Optional, Time, created, deleted, double_option, if_match, ok, revised, updated},
};
use crate::{
    authz::{
        accounts::{Account, Accounts},
        subject::Permission,
    },
    store::{
        NewUser, Updated, UserEdit,
        model::{UserKind, UserRecord},
    },
};

/// A caller with one of these permissions sees other users' profiles.
pub(super) const READ_OTHERS: [Permission; 3] =
    [Permission::AdminRead, Permission::UpdateUser, Permission::ReadUser];

/// A user's record, without the password.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = User)]
pub struct UserView {
    pub id: String,
    pub login: String,
    pub name: String,
    pub email: Option<String>,
    #[serde(with = "KindWord")]
    #[schema(value_type = KindWord)]
    pub kind: UserKind,
    pub banned: bool,
    pub ban_reason: Option<String>,
    pub created_at: Time,
    pub deleted_at: Option<Time>,
    /// Direct memberships, by name.
    pub groups: Vec<String>,
    /// Roles granted directly, by key.
    pub roles: Vec<String>,
    pub revision: u64,
}

#[derive(Serialize, Deserialize, ToSchema)]
#[serde(remote = "UserKind", rename_all = "lowercase")]
#[schema(as = Kind)]
enum KindWord {
    Human,
    Service,
}

const fn human() -> UserKind {
    UserKind::Human
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewUser)]
pub(in crate::admin) struct Create {
    login: String,
    /// Default: the login.
    name: Option<String>,
    #[serde(default = "human", with = "KindWord")]
    #[schema(value_type = KindWord)]
    kind: UserKind,
    email: Option<String>,
    #[schema(value_type = Option<String>)]
    password: Option<Zeroizing<String>>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserEdit)]
pub(in crate::admin) struct Edit {
    login: Option<String>,
    name: Option<String>,
    #[serde(default, deserialize_with = "double_option")]
    email: Option<Option<String>>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Ban {
    #[serde(default)]
    reason: String,
}

pub async fn list(context: Context, caller: Caller, Params(paging): Params<PageRequest>) -> ApiResult {
    caller.require_any(&READ_OTHERS)?;
    let read = move || {
        let accounts = context.store.accounts();
        let users = accounts.present_users().collect();
        let page = paging.page(users, |user: &&Account| user.record.login.to_ascii_lowercase())?;
        Ok(ok(&page.map(|user| UserView::new(&accounts, &user.record))))
    };
    READS.run(read).await?
}

pub async fn create(context: Context, caller: Caller, Json(body): Json<Create>) -> ApiResult {
    let password = match body.password {
        Some(_) if body.kind == UserKind::Service => {
            return Err(Problem::value("A service account has no password, tokens only"));
        }
        Some(password) => {
            // Checked first, because the derivation is expensive.
            caller.require(Permission::CreateUser)?;
            caller.require(Permission::UpdateUser)?;
            Some(passwords::derive(password).await?)
        }
        None => None,
    };
    let name = body.name.unwrap_or_else(|| body.login.clone());
    let new = NewUser { login: body.login, name, email: body.email, kind: body.kind, password };
    let changed = context.store.create_user(caller.actor(), new).await?;
    Ok(created(response(&context, &changed), "/v1/users", &changed.record.login))
}

pub async fn show(context: Context, caller: Caller, Path(login): Path<String>) -> ApiResult {
    let login = caller.login(&login)?;
    let accounts = context.store.accounts();
    let record = &caller.visible(accounts.user_by_login(&login), &READ_OTHERS)?.record;
    Ok(revised(record.revision, &UserView::new(&accounts, record)))
}

pub async fn edit(
    context: Context,
    caller: Caller,
    Path(login): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Edit>,
) -> ApiResult {
    let edit = UserEdit { login: body.login, name: body.name, email: body.email };
    let (login, revision) = (caller.login(&login)?, if_match(&headers)?);
    let changed = context.store.edit_user(caller.actor(), login, revision, edit).await?;
    Ok(response(&context, &changed))
}

pub async fn delete(context: Context, caller: Caller, Path(login): Path<String>) -> ApiResult {
    let login = caller.login(&login)?;
    let changed = context.store.delete_user(caller.actor(), login).await?;
    Ok(deleted(&changed))
}

pub async fn ban(
    context: Context,
    caller: Caller,
    Path(login): Path<String>,
    Optional(body): Optional<Ban>,
) -> ApiResult {
    let login = caller.login(&login)?;
    let changed = context.store.ban_user(caller.actor(), login, Some(body.reason)).await?;
    Ok(response(&context, &changed))
}

pub async fn unban(context: Context, caller: Caller, Path(login): Path<String>, _: NoBody) -> ApiResult {
    let login = caller.login(&login)?;
    let changed = context.store.ban_user(caller.actor(), login, None).await?;
    Ok(response(&context, &changed))
}

fn response(context: &Context, changed: &Updated<UserRecord>) -> Response {
    let view = UserView::new(&context.store.accounts(), &changed.record);
    updated(&view, view.revision, changed)
}

impl UserView {
    pub(super) fn is_service(&self) -> bool {
        self.kind == UserKind::Service
    }

    pub(super) fn new(accounts: &Accounts, record: &UserRecord) -> Self {
        let account = accounts.user_by_id(&record.id);
        let groups = account.iter().flat_map(|account| &account.groups);
        let groups = groups.filter_map(|ix| accounts.group(*ix)).map(|group| group.record.name.clone());
        Self {
            id: record.id.clone(),
            login: record.login.clone(),
            name: record.name.clone(),
            email: record.email.clone(),
            kind: record.kind,
            banned: record.banned.is_some(),
            ban_reason: record.banned.clone().filter(|reason| !reason.is_empty()),
            created_at: Time(record.created_at),
            deleted_at: record.deleted_at.map(Time),
            groups: groups.collect(),
            roles: account.map_or_else(Vec::new, |account| account.roles.clone()),
            revision: record.revision,
        }
    }
}
