//! The profile of whoever is signed in: who one is here and what one may read, and one's tokens.

use askama::Template;
use axum::{extract::State, response::Response};
use http::StatusCode;

use super::{Failed, Reader, Shell, assets::TOKENS, render, token::TokenRow};
use crate::{
    admin::{Context, error::Problem, services::ServiceView, tokens::TokenView, wire::Time},
    authz::{
        accounts::{Account, Accounts},
        rules::Service,
        subject::Permission,
    },
    store::TokenFilter,
};

/// More tokens than a person has; beyond, the API pages through them.
const TOKENS_SHOWN: usize = 1_000;

#[derive(Template)]
#[template(path = "profile.html")]
struct GeneralPage {
    shell: Shell,
    name: String,
    login: String,
    email: Option<String>,
    groups: Vec<String>,
    permissions: Vec<&'static str>,
    services: Vec<Readable>,
    /// There is a password here to change.
    password: bool,
}

/// A service that one may read, and by what.
struct Readable {
    view: ServiceView,
    because: String,
}

#[derive(Template)]
#[template(path = "authentication.html")]
struct AuthenticationPage {
    shell: Shell,
    tokens_script: &'static str,
    tokens: Vec<TokenRow>,
    /// There are more than are shown.
    more: bool,
    services: Vec<ServiceView>,
    /// One may make a token.
    may_create: bool,
    /// `https://gate.example`, where the services answer.
    gateway: String,
}

pub(super) async fn general(State(context): State<Context>, reader: Reader) -> Result<Response, Failed> {
    let accounts = context.store.accounts();
    let account = accounts.user_by_id(&reader.user.id).ok_or_else(|| Problem::not_found("user"))?;
    let record = &account.record;
    let groups = accounts.groups_of(account);
    let rules = context.rules();
    let readable = rules.services().iter().filter(|service| reader.user.readable.contains(service.id));
    let page = GeneralPage {
        shell: reader.shell("Profile", "/profile"),
        name: record.name.clone(),
        login: record.login.clone(),
        email: record.email.clone(),
        groups: groups.iter().filter_map(|ix| Some(accounts.group(*ix)?.record.name.clone())).collect(),
        permissions: reader.user.permissions.iter().map(Permission::word).collect(),
        services: readable.map(|service| Readable::new(&accounts, account, service)).collect(),
        password: record.password.is_some(),
    };
    Ok(render(StatusCode::OK, &page))
}

pub(super) async fn authentication(
    State(context): State<Context>,
    reader: Reader,
) -> Result<Response, Failed> {
    let user = &reader.user;
    let rules = context.rules();
    let filter = TokenFilter { owner: Some(user.login.to_string()), ..TokenFilter::default() };
    let found = context.store.tokens(&filter, None, TOKENS_SHOWN)?;
    let (accounts, now) = (context.store.accounts(), Time::now());
    let views = found.items.into_iter().map(|record| TokenView::at(&context, &accounts, record, now));
    let mut tokens: Vec<TokenRow> = views.map(TokenRow::from).collect();
    // The newest first: it is the one that somebody has just made.
    tokens.sort_by_key(|token| std::cmp::Reverse(token.view.created_at));
    let services: Vec<ServiceView> = rules
        .services()
        .iter()
        .filter(|service| user.readable.contains(service.id))
        .map(ServiceView::new)
        .collect();
    let page = AuthenticationPage {
        shell: reader.shell("Authentication", "/profile/authentication"),
        tokens_script: &TOKENS.path,
        tokens,
        more: found.next.is_some(),
        may_create: user.permissions.contains(Permission::UpdateSelf) && !services.is_empty(),
        services,
        gateway: context.sign_in.gateway.clone().unwrap_or_default(),
    };
    Ok(render(StatusCode::OK, &page))
}

impl Readable {
    fn new(accounts: &Accounts, account: &Account, service: &Service) -> Self {
        let in_groups = accounts.groups_of(account);
        let names = in_groups.iter().filter_map(|ix| Some(&accounts.group(*ix)?.record.name));
        let by: Vec<&str> =
            names.filter(|name| service.spec.readers.contains(name)).map(String::as_str).collect();
        let because = if by.is_empty() {
            "by the permission read-service".to_owned()
        } else {
            format!("as a member of {}", by.join(", "))
        };
        Self { view: ServiceView::new(service), because }
    }
}
