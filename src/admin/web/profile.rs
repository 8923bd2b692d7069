//! The signed-in user's pages: profile, readable services, sessions and tokens.

use askama::Template;

use super::{
    ApiResult, FormQuery, Reader, Shell, render,
    token_list::{self, Filter, Listing},
};
use crate::{
    admin::{Context, Problem, UserView, groups::READ_GROUPS, services::ServiceView, session::SessionRow},
    authz::{
        accounts::{Account, Accounts, fold},
        rules::Service,
        subject::Permission,
    },
};

/// From this many services on, the dialog has a search field.
const SEARCH_THRESHOLD: usize = 8;

#[derive(Template)]
#[template(path = "profile.html")]
struct GeneralPage {
    shell: Shell,
    user: UserView,
    groups: Vec<String>,
    permissions: Vec<&'static str>,
    services: Vec<ReadableService>,
    sessions: Vec<SessionRow>,
    /// Whether the account has a password to change.
    password: bool,
}

/// A service that the user may read, and why.
struct ReadableService {
    view: ServiceView,
    because: String,
}

#[derive(Template)]
#[template(path = "authentication.html")]
struct AuthenticationPage {
    shell: Shell,
    list: Listing,
    owned: bool,
    may_revoke: bool,
    services: Vec<ServiceView>,
    searched: bool,
    /// Whether a token of the user could do anything: not if the account reads no service and may only update
    /// itself, since everybody can read the admin API.
    of_use: bool,
    /// Whether the user may create a token that is of use.
    may_create: bool,
    /// The address of the services, such as `https://gate.example`.
    gateway: String,
}

pub(super) async fn general(context: Context, reader: Reader) -> ApiResult {
    let accounts = context.store.accounts();
    let account = accounts.user_by_id(&reader.user.id).ok_or_else(|| Problem::not_found("user"))?;
    let record = &account.record;
    let groups = accounts.groups_of(account).into_iter();
    let groups = groups.filter_map(|ix| Some(accounts.group(ix)?.record.name.clone()));
    let rules = context.rules();
    let readable = rules.services().iter().filter(|service| reader.user.readable.contains(service.id));
    let mut sessions = context.store.sessions_of(&record.id);
    sessions.sort_by_key(|session| std::cmp::Reverse(session.last_seen_at));
    let page = GeneralPage {
        shell: reader.shell("Profile", "/profile"),
        user: UserView::new(&accounts, record),
        groups: groups.collect(),
        permissions: reader.user.permissions.iter().map(Permission::word).collect(),
        services: readable.map(|service| ReadableService::new(&accounts, account, service)).collect(),
        sessions: sessions.iter().map(|session| SessionRow::new(&reader.caller, session)).collect(),
        password: record.password.is_some(),
    };
    Ok(render(&page))
}

pub(super) async fn authentication(
    context: Context,
    reader: Reader,
    FormQuery(asked): FormQuery<Filter>,
) -> ApiResult {
    let user = &reader.user;
    let owner = Some(user.login.to_string());
    let asked = Filter { user: None, ..asked };
    let list = token_list::read(&context, owner, asked, "/profile/authentication").await?;
    let services: Vec<ServiceView> = context
        .rules()
        .services()
        .iter()
        .filter(|service| user.readable.contains(service.id))
        .map(ServiceView::new)
        .collect();
    let administers = user.permissions.iter().any(|permission| permission != Permission::UpdateSelf);
    let of_use = administers || services.iter().any(|service| !service.built_in);
    let may_update_self = user.permissions.contains(Permission::UpdateSelf);
    let page = AuthenticationPage {
        shell: reader.shell("Tokens", "/profile/authentication"),
        list,
        owned: false,
        may_revoke: true,
        searched: services.len() >= SEARCH_THRESHOLD,
        may_create: of_use && may_update_self,
        of_use,
        services,
        gateway: context.sign_in.gateway.clone().unwrap_or_default(),
    };
    Ok(render(&page))
}

impl ReadableService {
    fn new(accounts: &Accounts, account: &Account, service: &Service) -> Self {
        let in_groups = accounts.groups_of(account);
        let names = in_groups.iter().filter_map(|ix| Some(&accounts.group(*ix)?.record.name));
        let readers: Vec<String> = service.spec.readers.iter().map(|name| fold(name)).collect();
        let by: Vec<&str> = names.filter(|name| readers.contains(&fold(name))).map(String::as_str).collect();
        let because = if by.is_empty() {
            "by the Read Service permission".to_owned()
        } else {
            format!("as a member of {}", by.join(", "))
        };
        Self { view: ServiceView::new(service), because }
    }
}
