//! The admin listener's API, JSON over HTTP. Callers are tokens scoped to `permgate`, users who are signed
//! in, and the operator on the unix socket.
//!
//! `router` lists every route; `/openapi.json` describes them. Whatever else is asked for is the HTML page's, `web`.
//!
//! `/healthz` and `/readyz` need no authentication. `/metrics` is open to whom `admin.metrics` allows, and otherwise
//! needs `admin-read`.

mod audit;
mod authenticate;
mod backup;
mod body;
mod caller;
mod client;
mod cluster;
mod configuration;
mod context;
mod error;
mod explain;
mod groups;
mod guard;
mod health;
mod hub;
mod identities;
mod invitations;
mod live;
mod offload;
mod oidc;
mod openapi;
mod overview;
mod pagination;
mod passwords;
mod revoke_by_value;
mod roles;
mod server;
mod services;
mod session;
mod shares;
mod sign_in;
mod streamed;
mod tokens;
mod users;
mod verify;
mod web;
pub mod wire;

use axum::{
    Router,
    response::IntoResponse,
    routing::{delete, get, post, put},
};
use http::{StatusCode, header};

pub(crate) use self::web::reason_in_words;
pub use self::{
    audit::AuditView,
    caller::Caller,
    client::MetricsAccess,
    context::{
        Configuration, ConfigurationError, Context, Parts, RefusedRequest, ReloadError, Reloading,
        UsageTracker,
    },
    error::{ApiResult, Problem},
    explain::ExplainRequest,
    groups::GroupView,
    identities::IdentityView,
    live::LiveView,
    openapi::document,
    overview::{Overview, Series},
    roles::{GrantView, RoleView},
    server::Server,
    services::ServiceView,
    session::FormKey,
    sign_in::{GroupMapping, Provider, ProviderTls, SignIn, UserHeader},
    tokens::ImportLine,
    users::UserView,
    verify::report_json,
};

/// For a GET that has an effect, which a HEAD should not have: 405.
async fn get_only() -> impl IntoResponse {
    (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET")])
}

fn router(context: Context) -> Router {
    Router::new()
        .route("/v1/users/{login}/tokens", get(tokens::list_of_user).post(tokens::create))
        .route("/v1/tokens", get(tokens::list_all))
        .route("/v1/tokens/import", post(tokens::import::import))
        .route("/v1/tokens/{id}", get(tokens::show).patch(tokens::edit).delete(tokens::revoke))
        .route("/v1/tokens/{id}/rotate", post(tokens::rotate))
        .route("/v1/tokens/revoke-by-value", post(revoke_by_value::revoke_one))
        .route("/v1/leaks", post(revoke_by_value::report))
        .route("/oauth2/introspect", post(revoke_by_value::introspect))
        .route("/oauth2/revoke", post(revoke_by_value::revoke_oauth))
        .route("/hub/api/rest/services", get(hub::services))
        .route("/hub/api/rest/users/{user}", get(hub::user))
        .route("/hub/api/rest/users/{user}/permanenttokens", get(hub::list).post(hub::create))
        .route(
            "/hub/api/rest/users/{user}/permanenttokens/{id}",
            get(hub::show).post(hub::edit).delete(hub::revoke),
        )
        .route("/v1/users", get(users::list).post(users::create))
        .route("/v1/users/{login}", get(users::show).patch(users::edit).delete(users::delete))
        .route("/v1/users/{login}/ban", post(users::ban))
        .route("/v1/users/{login}/unban", post(users::unban))
        .route("/v1/users/{login}/password", put(passwords::set))
        .route("/v1/session", get(session::show).post(session::sign_in).delete(session::sign_out))
        .route("/v1/sessions", get(session::list).delete(session::sign_out_everywhere))
        .route("/v1/users/{login}/sessions", delete(session::sign_somebody_out))
        .route("/v1/users/{login}/invitation", post(invitations::invite))
        .route("/v1/invitation", post(invitations::redeem))
        .route("/v1/invitation/check", post(invitations::check))
        .route(
            "/v1/users/{login}/identities",
            get(identities::list).post(identities::link).delete(identities::unlink),
        )
        .route("/v1/groups", get(groups::list).post(groups::create))
        .route("/v1/groups/{name}", get(groups::show).patch(groups::edit).delete(groups::delete))
        .route("/v1/groups/{name}/members/{login}", put(groups::join).delete(groups::remove_member))
        .route("/v1/roles", get(roles::list).post(roles::create))
        .route("/v1/roles/{key}", delete(roles::remove).get(roles::show).patch(roles::edit))
        .route("/v1/grants", get(roles::list_grants).post(roles::grant).delete(roles::withdraw))
        .route("/v1/services", get(services::list))
        .route("/v1/whoami", get(caller::whoami))
        .route("/v1/explain", post(explain::explain))
        .route("/v1/audit", get(audit::list))
        .route("/v1/audit/verify", get(audit::verify))
        .route("/v1/live", get(live::list))
        .route("/v1/live/{id}", delete(live::cut))
        .route("/v1/cluster", get(cluster::show))
        .route("/v1/overview", get(overview::overview))
        .route("/openapi.json", get(openapi::show))
        .route("/v1/config", get(configuration::show))
        .route("/v1/config/check", post(configuration::check))
        .route("/v1/reload", post(configuration::reload))
        .route("/v1/backup", get(backup::stream).head(get_only).fallback(get_only))
        .route("/v1/store/verify", get(verify::verify))
        .route("/healthz", get(health::health))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .merge(web::routes())
        .fallback(web::not_found)
        .with_state(context)
}
