//! The page: what people see in a browser, rendered here from the same values as the API's answers.
//! Every change is a call of the API, made by the page's script with the session's CSRF token.
//!
//! A new page is a template in `web/` that extends `layout.html`, a struct that derives `Template`
//! and has a `shell`, a handler that takes a [`Reader`], and a route in [`routes`].

mod administration;
mod assets;
mod docs;
mod entrance;
mod profile;
#[cfg(feature = "sso")]
mod provider;
mod shell;
mod time;
mod token;

use axum::{Router, routing::get};

use self::shell::{Failed, Reader, Shell, render};
use super::Context;

pub(super) use self::shell::not_found;

pub(super) fn routes() -> Router<Context> {
    let routes = Router::new();
    #[cfg(feature = "sso")]
    let routes = routes.merge(provider::routes());
    routes
        .route("/", get(entrance::home))
        .route("/sign-in", get(entrance::sign_in))
        .route("/invitation", get(entrance::invitation))
        .route("/profile", get(profile::general))
        .route("/profile/authentication", get(profile::authentication))
        .route("/tokens/{id}", get(token::show))
        .route("/assets/{name}", get(assets::send))
        .route("/docs", get(docs::show))
        .merge(administration::routes())
}
