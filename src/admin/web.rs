//! The HTML page, rendered from the same values as the API's responses. Every change is a call of the API, made
//! by the page's script with the session's CSRF token.
//!
//! A new page is a template that extends `layout.html`, a struct that derives `Template` and has a
//! `shell`, a handler that takes a [`Reader`], and a route in [`routes`]. `docs/page.md` says more.

mod administration;
mod assets;
mod design;
mod docs;
mod login_page;
mod profile;
mod provider;
mod shell;
mod token;
mod token_list;
mod words;

use axum::{Router, extract::FromRequestParts, middleware, routing::get};
use http::{Uri, request::Parts};
use serde::{Serialize, de::DeserializeOwned};

use self::administration::{audit, configuration, explain, gateway, groups, overview, roles, users};
use self::shell::{Reader, Shell, problems_as_pages, render};
use super::{ApiResult, Context, Problem, oidc::CALLBACK, pagination, wire::link};

pub(super) use self::shell::not_found;
pub(crate) use self::words::reason as reason_in_words;

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/", get(login_page::home))
        .route("/sign-in", get(login_page::sign_in))
        .route("/invitation", get(login_page::invitation))
        .route("/profile", get(profile::general))
        .route("/profile/authentication", get(profile::authentication))
        .route("/tokens/{id}", get(token::show))
        .route("/assets/{name}", get(assets::send))
        .route("/docs", get(docs::show))
        .route("/design", get(design::show))
        .route("/overview", get(overview::show))
        .route("/users", get(users::list))
        .route("/users/{login}", get(users::show))
        .route("/groups", get(groups::list))
        .route("/groups/{name}", get(groups::show))
        .route("/roles", get(roles::list))
        .route("/services", get(gateway::services))
        .route("/tokens", get(administration::list_tokens))
        .route("/live", get(gateway::live))
        .route("/audit", get(audit::list))
        .route("/audit/export", get(audit::export))
        .route("/explain", get(explain::show))
        .route("/configuration", get(configuration::show))
        .route("/sign-in/oidc", get(provider::begin_sign_in))
        .route(CALLBACK, get(provider::callback))
        .route_layer(middleware::from_fn(problems_as_pages))
}

/// `base?name=value`, without the absent values.
fn address(base: &str, query: &impl Serialize) -> String {
    let query = serde_urlencoded::to_string(query).expect("a query has only texts and numbers");
    if query.is_empty() { base.to_owned() } else { format!("{base}?{query}") }
}

/// The parameters of a page. A form field left empty counts as absent.
struct FormQuery<T>(T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for FormQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        let sent = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let filled = sent.filter(|(_, value)| !value.trim().is_empty());
        let mut query = form_urlencoded::Serializer::for_suffix("/?".to_owned(), 2);
        let uri = query.extend_pairs(filled).finish().parse::<Uri>();
        pagination::parse(&uri.map_err(|_| Problem::invalid("The query string is too long"))?).map(Self)
    }
}
