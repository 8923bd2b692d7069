//! Roles, and who holds them.

use askama::Template;
use axum::response::Response;

use super::{ApiResult, Reader, Shell, render};
use crate::{
    admin::{Context, GrantView, RoleView, offload::READS, roles::READ_ROLES, web::words},
    authz::subject::Permission,
};

#[derive(Template)]
#[template(path = "roles.html")]
struct RolesPage {
    shell: Shell,
    roles: Vec<RoleRow>,
}

struct RoleRow {
    view: RoleView,
    users: Vec<String>,
    groups: Vec<String>,
}

impl RoleRow {
    /// How many holders a change affects, such as `2 users and 1 group`.
    fn holders(&self) -> String {
        match (self.users.len(), self.groups.len()) {
            (0, 0) => "nobody".to_owned(),
            (users, 0) => words::count(users, "user"),
            (0, groups) => words::count(groups, "group"),
            (users, groups) => {
                format!("{} and {}", words::count(users, "user"), words::count(groups, "group"))
            }
        }
    }
}

pub async fn list(context: Context, reader: Reader) -> ApiResult {
    reader.caller.require_any(&READ_ROLES)?;
    READS.run(move || Ok(list_page(&context, &reader))).await?
}

fn list_page(context: &Context, reader: &Reader) -> Response {
    let accounts = context.store.accounts();
    let grants: Vec<GrantView> = accounts.grants().map(|grant| GrantView::new(&accounts, grant)).collect();
    let row = |view: RoleView| {
        let held = || grants.iter().filter(|grant| grant.role == view.key);
        RoleRow {
            users: held().filter_map(|grant| grant.user.clone()).collect(),
            groups: held().filter_map(|grant| grant.group.clone()).collect(),
            view,
        }
    };
    let page = RolesPage {
        shell: reader.shell("Roles", "/roles"),
        roles: accounts.roles().map(RoleView::new).map(row).collect(),
    };
    render(&page)
}
