//! The administration pages. Each needs the permission that the API needs, and shows a form only to readers
//! who may use it. The list of all tokens is here.

pub mod audit;
pub mod configuration;
pub mod explain;
pub mod gateway;
pub mod groups;
pub mod overview;
pub mod roles;
pub mod users;

use askama::Template;

use super::{
    ApiResult, FormQuery, Reader, Shell, address, render,
    token_list::{self, Filter, Listing},
};
use crate::{
    admin::{Context, Problem, tokens::READ_OTHERS_TOKENS},
    authz::{
        accounts::{ALL_USERS, Accounts, fold},
        subject::Permission,
    },
};

/// The names of the groups that a user can be added to.
fn joinable(accounts: &Accounts) -> Vec<String> {
    let groups = accounts.groups().filter(|group| group.record.id != ALL_USERS);
    let mut names: Vec<String> = groups.map(|group| group.record.name.clone()).collect();
    names.sort_by_cached_key(|name| fold(name));
    names
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct TokensPage {
    shell: Shell,
    list: Listing,
    owned: bool,
    may_revoke: bool,
    services: Vec<String>,
}

pub async fn list_tokens(context: Context, reader: Reader, FormQuery(asked): FormQuery<Filter>) -> ApiResult {
    reader.caller.require_any(&READ_OTHERS_TOKENS)?;
    let owner = asked.user.clone();
    if owner.as_deref().is_some_and(|login| context.store.accounts().user_by_login(login).is_none()) {
        return Err(Problem::not_found("user"));
    }
    let list = token_list::read(&context, owner, asked, "/tokens").await?;
    let rules = context.rules();
    let services = rules.services().iter().filter(|service| reader.knows(service));
    let page = TokensPage {
        shell: reader.shell("All tokens", "/tokens"),
        list,
        owned: true,
        may_revoke: reader.caller.may(Permission::UpdateUser),
        services: services.map(|service| service.spec.key.as_str().to_owned()).collect(),
    };
    Ok(render(&page))
}
