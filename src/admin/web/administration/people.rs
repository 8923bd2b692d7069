//! Users, groups, and the roles that are granted to both.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Response,
};
use http::StatusCode;

use super::{Failed, Reader, Shell, link, render};
use crate::{
    admin::{
        Context, GrantView, GroupView, IdentityView, KindWord, RoleView, UserView,
        error::Problem,
        groups::SEES_GROUPS,
        pages::{Cursor, Paging, Params},
        roles::SEES_ROLES,
        users::SEES_USERS,
        web::time::Moment,
    },
    authz::{
        accounts::{Account, Group, fold},
        subject::Permission,
    },
};

#[derive(Template)]
#[template(path = "users.html")]
struct UsersPage {
    shell: Shell,
    users: Vec<UserRow>,
    next: Option<String>,
    may_create: bool,
}

struct UserRow {
    link: String,
    created: Moment,
    service: bool,
    view: UserView,
}

#[derive(Template)]
#[template(path = "user.html")]
struct UserPage {
    shell: Shell,
    user: UserRow,
    /// Every group, direct or inherited.
    effective: Vec<String>,
    permissions: Vec<&'static str>,
    services: Vec<String>,
    groups: Vec<String>,
    roles: Vec<RoleView>,
    /// Whom providers mean by the user.
    identities: Vec<IdentityView>,
    /// What the provider is called that people may sign in by.
    provider: Option<String>,
    may: May,
}

/// What the reader may change here.
struct May {
    user: bool,
    delete: bool,
    group: bool,
    role: bool,
}

#[derive(Template)]
#[template(path = "groups.html")]
struct GroupsPage {
    shell: Shell,
    groups: Vec<GroupRow>,
    may_create: bool,
}

struct GroupRow {
    link: String,
    view: GroupView,
    members: usize,
}

#[derive(Template)]
#[template(path = "group.html")]
struct GroupPage {
    shell: Shell,
    group: GroupView,
    members: Vec<String>,
    children: Vec<String>,
    groups: Vec<String>,
    roles: Vec<RoleView>,
    may: May,
}

#[derive(Template)]
#[template(path = "roles.html")]
struct RolesPage {
    shell: Shell,
    roles: Vec<RoleView>,
    grants: Vec<GrantView>,
    permissions: Vec<&'static str>,
    may_manage: bool,
}

pub async fn users(
    State(context): State<Context>,
    reader: Reader,
    Params(cursor): Params<Cursor>,
) -> Result<Response, Failed> {
    reader.caller.require_any(&SEES_USERS)?;
    let accounts = context.store.accounts();
    let users = accounts.users().filter(|user| user.record.deleted_at.is_none()).collect();
    let page = Paging::of(cursor)?.cut(users, |user: &&Account| user.record.login.to_ascii_lowercase());
    let users = page.items.into_iter().map(|user| UserView::new(&accounts, &user.record).into()).collect();
    let may_create = reader.caller.may(Permission::CreateUser);
    let page = UsersPage { shell: reader.shell("Users", "/users"), users, next: page.next, may_create };
    Ok(render(StatusCode::OK, &page))
}

pub async fn user(
    State(context): State<Context>,
    reader: Reader,
    Path(login): Path<String>,
) -> Result<Response, Failed> {
    reader.caller.require_any(&SEES_USERS)?;
    let accounts = context.store.accounts();
    let account = accounts.user_by_login(&login).ok_or_else(|| Problem::not_found("user"))?;
    let snapshot = context.state.snapshot();
    let readable = snapshot.directory.user(account.ix).map(|user| &user.readable);
    let services = snapshot.rules.services().iter();
    let services = services.filter(|service| readable.is_some_and(|readable| readable.contains(service.id)));
    let groups = accounts.groups_of(account);
    let page = UserPage {
        shell: reader.shell("User", "/users"),
        effective: groups.iter().filter_map(|ix| Some(accounts.group(*ix)?.record.name.clone())).collect(),
        permissions: accounts.permissions_of(account).iter().map(Permission::word).collect(),
        services: services.map(|service| service.spec.key.as_str().to_owned()).collect(),
        groups: joinable(&accounts),
        roles: accounts.roles().map(RoleView::new).collect(),
        identities: context.store.identities_of(&account.record.id).into_iter().map(Into::into).collect(),
        provider: context.sign_in.provider.as_ref().map(|provider| provider.title.clone()),
        user: UserView::new(&accounts, &account.record).into(),
        may: May::of(&reader),
    };
    Ok(render(StatusCode::OK, &page))
}

pub async fn groups(State(context): State<Context>, reader: Reader) -> Result<Response, Failed> {
    reader.caller.require_any(&SEES_GROUPS)?;
    let accounts = context.store.accounts();
    let mut groups: Vec<&Group> = accounts.groups().collect();
    groups.sort_by_cached_key(|group| fold(&group.record.name));
    let row = |group: &Group| GroupRow {
        link: link("/groups", &group.record.name),
        view: GroupView::new(&accounts, &group.record),
        members: accounts.members(group.ix).count(),
    };
    let page = GroupsPage {
        shell: reader.shell("Groups", "/groups"),
        groups: groups.into_iter().map(row).collect(),
        may_create: reader.caller.may(Permission::CreateGroup),
    };
    Ok(render(StatusCode::OK, &page))
}

pub async fn group(
    State(context): State<Context>,
    reader: Reader,
    Path(name): Path<String>,
) -> Result<Response, Failed> {
    reader.caller.require_any(&SEES_GROUPS)?;
    let accounts = context.store.accounts();
    let group = accounts.group_by_name(&name).ok_or_else(|| Problem::not_found("group"))?;
    let view = GroupView::new(&accounts, &group.record);
    let members = accounts.members(group.ix).filter(|_| !view.built_in);
    let page = GroupPage {
        shell: reader.shell("Group", "/groups"),
        members: members.map(|user| user.record.login.clone()).collect(),
        children: accounts.children(&group.record.id).map(|child| child.record.name.clone()).collect(),
        groups: joinable(&accounts).into_iter().filter(|other| *other != view.name).collect(),
        roles: accounts.roles().map(RoleView::new).collect(),
        group: view,
        may: May::of(&reader),
    };
    Ok(render(StatusCode::OK, &page))
}

pub async fn roles(State(context): State<Context>, reader: Reader) -> Result<Response, Failed> {
    reader.caller.require_any(&SEES_ROLES)?;
    let accounts = context.store.accounts();
    let page = RolesPage {
        shell: reader.shell("Roles", "/roles"),
        roles: accounts.roles().map(RoleView::new).collect(),
        grants: accounts.grants().map(|grant| GrantView::new(&accounts, grant)).collect(),
        permissions: Permission::ALL.into_iter().map(Permission::word).collect(),
        may_manage: reader.caller.may(Permission::ManageRole),
    };
    Ok(render(StatusCode::OK, &page))
}

/// Names of the groups that one can be put into.
fn joinable(accounts: &crate::authz::accounts::Accounts) -> Vec<String> {
    let groups = accounts.groups().filter(|group| group.record.id != crate::authz::accounts::ALL_USERS);
    let mut names: Vec<String> = groups.map(|group| group.record.name.clone()).collect();
    names.sort_by_cached_key(|name| fold(name));
    names
}

impl May {
    fn of(reader: &Reader) -> Self {
        let may = |permission| reader.caller.may(permission);
        Self {
            user: may(Permission::UpdateUser),
            delete: may(Permission::DeleteUser) || may(Permission::DeleteGroup),
            group: may(Permission::UpdateGroup),
            role: may(Permission::ManageRole),
        }
    }
}

impl From<UserView> for UserRow {
    fn from(view: UserView) -> Self {
        Self {
            link: link("/users", &view.login),
            created: view.created_at.into(),
            service: matches!(view.kind, KindWord::Service),
            view,
        }
    }
}
