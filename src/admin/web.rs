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
use super::{ApiResult, Context, Problem, get_only, oidc::CALLBACK, pagination, wire::link};
use crate::authz::rules::ServiceSpec;

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
        .route(CALLBACK, get(provider::callback).head(get_only).fallback(get_only))
        .route_layer(middleware::from_fn(problems_as_pages))
}

/// `base?name=value`, without the absent values.
fn address(base: &str, query: &impl Serialize) -> String {
    let query = serde_urlencoded::to_string(query).expect("a query has only texts and numbers");
    if query.is_empty() { base.to_owned() } else { format!("{base}?{query}") }
}

/// A URL of the service, as [`explain_link`] takes it; `None`: it has no path, such as the admin listener.
fn example_url(service: &ServiceSpec) -> Option<String> {
    url_of(&service.paths, &service.hosts)
}

fn url_of(paths: &[String], hosts: &[String]) -> Option<String> {
    let path = paths.first()?;
    Some(hosts.first().map_or_else(|| path.clone(), |host| format!("http://{host}{path}")))
}

/// The link to the page that explains a GET of the URL. Without one, it is to be filled in there.
fn explain_link(url: Option<&str>, token: Option<&str>) -> String {
    address("/explain", &[("method", Some("GET")), ("url", url), ("token_id", token)])
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

#[cfg(test)]
mod tests {
    use super::{explain_link, url_of};

    #[test]
    fn a_link_to_an_explanation_has_host_and_path_of_a_service() {
        let check = |paths: &[&str], hosts: &[&str], token, expected: &str| {
            let [paths, hosts] = [paths, hosts].map(|texts| texts.iter().map(ToString::to_string).collect());
            let (paths, hosts): (Vec<String>, Vec<String>) = (paths, hosts);
            let url = url_of(&paths, &hosts);
            assert_eq!(explain_link(url.as_deref(), token), expected, "{paths:?} {hosts:?}");
        };
        check(&["/a+b", "/c"], &[], Some("A1"), "/explain?method=GET&url=%2Fa%2Bb&token_id=A1");
        let expected = "/explain?method=GET&url=http%3A%2F%2Fa.example%2Fr%26d";
        check(&["/r&d"], &["a.example", "b.example"], None, expected);
        check(&[], &[], Some("A1"), "/explain?method=GET&token_id=A1");
    }
}
