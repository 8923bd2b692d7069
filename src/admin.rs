//! The admin listener's API, JSON over HTTP. Callers are tokens scoped to `permgate`, users who are signed
//! in, and the operator on the unix socket.
//!
//! * `POST|GET /v1/users/{login|me}/tokens`, `GET /v1/tokens` with filters
//! * `GET|PATCH|DELETE /v1/tokens/{id}`, `POST /v1/tokens/{id}/rotate`, `POST /v1/tokens/import`
//! * `POST /v1/tokens/revoke-by-value`, `POST /v1/leaks`, `POST /oauth2/introspect`,
//!   `POST /oauth2/revoke`; Hub's calls under `/hub/api/rest`
//! * `GET|POST|DELETE /v1/session`, `GET|DELETE /v1/sessions`, `DELETE /v1/users/{login}/sessions`
//! * `POST /v1/users/{login}/invitation`, `POST /v1/invitation`, `POST /v1/invitation/check`
//! * `GET|POST|DELETE /v1/users/{login}/identities`
//! * `GET|POST /v1/users`, `GET|PATCH|DELETE /v1/users/{login}`, `POST /v1/users/{login}/ban|unban`,
//!   `PUT /v1/users/{login}/password`
//! * `GET|POST /v1/groups`, `GET|PATCH|DELETE /v1/groups/{name}`,
//!   `PUT|DELETE /v1/groups/{name}/members/{login}`
//! * `GET|POST /v1/roles`, `GET|PATCH|DELETE /v1/roles/{key}`, `GET|POST|DELETE /v1/grants`
//! * `GET /v1/services`, `GET /v1/services?readable_by=me`, `GET /v1/whoami`
//! * `POST /v1/explain`, `GET /v1/audit`, `GET /v1/audit/verify`, `GET /v1/live`,
//!   `DELETE /v1/live/{id}`
//! * `GET /v1/overview`, `GET /v1/cluster`, `GET /openapi.json`
//! * `GET /v1/config`, `POST /v1/config/check`, `POST /v1/reload`, `GET /v1/backup`,
//!   `GET /v1/store/verify`
//! * everything else: the HTML page, `web`
//! * `GET /healthz` and `GET /readyz` without authentication; `GET /metrics` as `admin.metrics` allows, else
//!   with `admin-read`

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
mod live_request;
mod no_body;
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
mod sign_in;
mod tokens;
mod turns;
mod users;
mod verify;
mod web;
mod whoami;
pub mod wire;

use axum::Router;

pub(crate) use self::web::reason_in_words;
pub use self::{
    audit::AuditView,
    client::MetricsAccess,
    context::{
        Configuration, ConfigurationError, Context, Parts, RefusedRequest, ReloadError, Reloading,
        UsageTracker,
    },
    error::Problem,
    explain::ExplainRequest,
    groups::GroupView,
    identities::IdentityView,
    invitations::InvitationView,
    live::LiveView,
    openapi::document,
    overview::{Overview, Series},
    revoke_by_value::{LeakView, LeakedToken},
    roles::{GrantView, RoleView},
    server::{ResponseBody, Server},
    services::ServiceView,
    session::{Csrf, FormKey, SessionRow, SessionView},
    sign_in::{GroupMapping, Provider, SignIn, UserHeader},
    tokens::{AccessWord, ImportLine, ImportOutcome, ImportRequest, ScopeEntry, TokenView},
    users::{KindWord, UserView},
    verify::report_json,
};

fn router(context: Context) -> Router {
    Router::new()
        .merge(tokens::routes())
        .merge(revoke_by_value::routes())
        .merge(hub::routes())
        .merge(users::routes())
        .merge(passwords::routes())
        .merge(session::routes())
        .merge(invitations::routes())
        .merge(identities::routes())
        .merge(groups::routes())
        .merge(roles::routes())
        .merge(services::routes())
        .merge(whoami::routes())
        .merge(explain::routes())
        .merge(audit::routes())
        .merge(live::routes())
        .merge(cluster::routes())
        .merge(overview::routes())
        .merge(openapi::routes())
        .merge(configuration::routes())
        .merge(backup::routes())
        .merge(verify::routes())
        .merge(health::routes())
        .merge(web::routes())
        .fallback(web::not_found)
        .with_state(context)
}
