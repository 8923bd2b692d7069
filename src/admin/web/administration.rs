//! The pages of administration: each is for who holds the permission that the API asks for, and
//! shows a form only to who may use it.

mod audit;
mod gateway;
mod overview;
mod people;
mod tokens;

use axum::{Router, routing::get};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Failed, Reader, Shell, render};
use crate::admin::Context;

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/overview", get(overview::show))
        .route("/users", get(people::users))
        .route("/users/{login}", get(people::user))
        .route("/groups", get(people::groups))
        .route("/groups/{name}", get(people::group))
        .route("/roles", get(people::roles))
        .route("/services", get(gateway::services))
        .route("/tokens", get(tokens::list))
        .route("/live", get(gateway::live))
        .route("/audit", get(audit::list))
        .route("/explain", get(gateway::explain))
        .route("/configuration", get(gateway::configuration))
}

/// `/users/ann`, whatever is in the name.
fn link(section: &str, name: &str) -> String {
    format!("{section}/{}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

/// What a form sends when its field is left empty.
fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.trim().is_empty())
}
