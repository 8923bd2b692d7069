//! Users: the list, and the page of one user with everything that can be changed.

use askama::Template;
use axum::extract::Path;
use serde::{Deserialize, Serialize};

use super::{ApiResult, FormQuery, Reader, Shell, address, joinable, render};
use crate::{
    admin::{
        Context, IdentityView, Problem, RoleView, UserView,
        offload::READS,
        pagination::PageRequest,
        tokens::READ_OTHERS_TOKENS,
        users::READ_OTHERS,
        web::{token_list::LoadedTokens, words},
        wire::Time,
    },
    authz::{accounts::Account, subject::Permission},
    fence::LiveRow,
};

#[derive(Template)]
#[template(path = "users.html")]
struct UsersPage {
    shell: Shell,
    users: Vec<UserView>,
    total: usize,
    asked: Filter,
    next: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Words to find in the login, the name, the email or a group.
    q: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

#[derive(Template)]
#[template(path = "user.html")]
struct UserPage {
    shell: Shell,
    user: UserView,
    own: bool,
    /// Whether the reader may see the user's tokens, and where the user is signed in.
    sees_tokens: bool,
    /// Memberships through another group.
    inherited: Vec<String>,
    permissions: Vec<&'static str>,
    services: Vec<String>,
    /// Groups and roles that the user does not have yet.
    joinable: Vec<String>,
    grantable: Vec<RoleView>,
    /// How many tokens work, and how many there are.
    tokens: (usize, usize),
    /// What depends on the account now, in words.
    impact: String,
    sessions: usize,
    /// The user's identities at providers.
    identities: Vec<IdentityView>,
    /// The name of the configured provider.
    provider: Option<String>,
}

pub async fn list(context: Context, reader: Reader, FormQuery(asked): FormQuery<Filter>) -> ApiResult {
    reader.caller.require_any(&READ_OTHERS)?;
    READS.run(move || list_page(&context, &reader, asked)).await?
}

fn list_page(context: &Context, reader: &Reader, asked: Filter) -> ApiResult {
    let accounts = context.store.accounts();
    let words = asked.q.as_deref().unwrap_or_default().to_lowercase();
    let fits = |user: &&Account| {
        let record = &user.record;
        let groups = user.groups.iter().filter_map(|ix| Some(accounts.group(*ix)?.record.name.as_str()));
        let email = record.email.as_deref().unwrap_or_default();
        let text =
            format!("{} {} {email} {}", record.login, record.name, groups.collect::<Vec<_>>().join(" "));
        let text = text.to_lowercase();
        record.deleted_at.is_none() && words.split_whitespace().all(|word| text.contains(word))
    };
    let users: Vec<&Account> = accounts.users().filter(fits).collect();
    let total = users.len();
    let paging = PageRequest { cursor: asked.cursor.clone(), limit: asked.limit };
    let page = paging.page(users, |user: &&Account| user.record.login.to_ascii_lowercase())?;
    let users = page.items.into_iter().map(|user| UserView::new(&accounts, &user.record)).collect();
    let next = page.next.map(|cursor| address("/users", &Filter { cursor: Some(cursor), ..asked.clone() }));
    let page = UsersPage { shell: reader.shell("Users", "/users"), users, total, asked, next };
    Ok(render(&page))
}

pub async fn show(context: Context, reader: Reader, Path(login): Path<String>) -> ApiResult {
    reader.caller.require_any(&READ_OTHERS)?;
    let live = context.fence.list().await;
    READS.run(move || user_page(&context, &reader, &login, &live)).await?
}

fn user_page(context: &Context, reader: &Reader, login: &str, live: &[LiveRow]) -> ApiResult {
    let accounts = context.store.accounts();
    let account = accounts.user_by_login(login).ok_or_else(|| Problem::not_found("user"))?;
    let record = &account.record;
    let snapshot = context.state.snapshot();
    let readable = snapshot.directory.user(account.ix).map(|user| &user.readable);
    let services = snapshot.rules.services().iter();
    let services = services.filter(|service| readable.is_some_and(|readable| readable.contains(service.id)));
    let services = services.filter(|service| reader.knows(service));
    let groups = accounts.groups_of(account);
    let inherited = groups.into_iter().filter(|ix| !account.groups.contains(ix));
    let inherited = inherited.filter_map(|ix| Some(accounts.group(ix)?.record.name.clone()));
    let tokens = tokens_of(context, &record.login, record.banned.is_some())?;
    let live = live.iter().filter(|row| row.user == Some(account.ix)).count();
    let sessions = context.store.sessions_of(&record.id).len();
    let user = UserView::new(&accounts, record);
    let mut joinable = joinable(&accounts);
    joinable.retain(|name| !user.groups.contains(name));
    let held = |role: &RoleView| user.roles.contains(&role.key);
    let page = UserPage {
        shell: reader.shell("User", "/users"),
        own: reader.caller.is(&record.id),
        sees_tokens: reader.caller.is(&record.id) || reader.caller.require_any(&READ_OTHERS_TOKENS).is_ok(),
        inherited: inherited.collect(),
        permissions: accounts.permissions_of(account).iter().map(Permission::word).collect(),
        services: services.map(|service| service.spec.key.as_str().to_owned()).collect(),
        joinable,
        grantable: accounts.roles().map(RoleView::new).filter(|role| !held(role)).collect(),
        tokens,
        impact: impact(tokens.0, live, sessions),
        sessions,
        identities: context.store.identities_of(&record.id).into_iter().map(Into::into).collect(),
        provider: context.sign_in.provider.as_ref().map(|provider| provider.title.clone()),
        user,
    };
    Ok(render(&page))
}

/// How many of the user's tokens work, or would without a ban, and how many there are.
fn tokens_of(context: &Context, login: &str, banned: bool) -> ApiResult<(usize, usize)> {
    let records = LoadedTokens::of_owner(context, login)?.all;
    let now = Time::now();
    let alive = |record: &&crate::store::model::TokenRecord| {
        crate::admin::web::token_list::is_alive(record.state(banned, now))
    };
    Ok((records.iter().filter(alive).count(), records.len()))
}

/// `8 working tokens, 3 requests in flight, 1 browser signed in`.
fn impact(tokens: usize, live: usize, sessions: usize) -> String {
    let parts = [
        words::count(tokens, "working token"),
        format!("{} in flight", words::count(live, "request")),
        format!("{} signed in", words::count(sessions, "browser")),
    ];
    parts.join(", ")
}
