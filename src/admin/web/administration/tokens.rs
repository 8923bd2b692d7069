//! The tokens of all users.

use askama::Template;

use super::{FormQuery, PageResult, Reader, Shell, render};
use crate::{
    admin::{
        Context, Problem,
        tokens::READ_OTHERS_TOKENS,
        web::token_list::{self, Filter, Listing},
    },
    authz::subject::Permission,
};

#[derive(Template)]
#[template(path = "tokens.html")]
struct TokensPage {
    shell: Shell,
    list: Listing,
    owned: bool,
    may_revoke: bool,
    services: Vec<String>,
}

pub async fn list(context: Context, reader: Reader, FormQuery(asked): FormQuery<Filter>) -> PageResult {
    reader.caller.require_any(&READ_OTHERS_TOKENS)?;
    let owner = asked.user.clone();
    if owner.as_deref().is_some_and(|login| context.store.accounts().user_by_login(login).is_none()) {
        return Err(Problem::not_found("user").into());
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
