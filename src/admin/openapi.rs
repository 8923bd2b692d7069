//! `/openapi.json`: the API's OpenAPI 3.1 document. Its schemas derive from the types that the handlers read
//! and write; a test holds that no route is missing.

use std::sync::LazyLock;

use axum::response::IntoResponse as _;
use bytes::Bytes;
use http::header;
use utoipa::{
    OpenApi,
    openapi::{
        self, ObjectBuilder, Paths,
        schema::Type,
        security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
    },
};

use super::{
    ApiResult, Problem, audit, cluster, configuration, explain, groups, hub, identities, invitations, live,
    overview, passwords, revoke_by_value, roles, services, session, tokens, users,
};

mod calls;

/// The document without its calls: its schemas are those that `calls.toml` names.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "permgate",
        description = "Permanent tokens: who makes them, what they reach, and how they end.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    security(("bearer" = []), ("cookie" = [])),
    components(schemas(
        audit::AuditView,
        cluster::ClusterView,
        configuration::Check,
        explain::ExplainRequest,
        groups::Create,
        groups::Edit,
        groups::GroupView,
        hub::Body,
        identities::IdentityView,
        identities::Link,
        invitations::Check,
        invitations::InvitationView,
        invitations::Redeem,
        live::LiveView,
        overview::Overview,
        passwords::Password,
        revoke_by_value::ByValue,
        revoke_by_value::Leaks,
        revoke_by_value::Report,
        roles::Create,
        roles::Edit,
        roles::GrantView,
        roles::RoleView,
        services::ServiceView,
        session::SessionRow,
        session::SessionView,
        session::SignIn,
        tokens::Create,
        tokens::Edit,
        tokens::ImportRequest,
        tokens::Imported,
        tokens::Rotate,
        tokens::TokenView,
        users::Ban,
        users::Create,
        users::Edit,
        users::UserView,
    ))
)]
struct Document;

pub async fn show() -> ApiResult {
    static DOCUMENT: LazyLock<Option<Bytes>> =
        LazyLock::new(|| serde_json::to_vec(&document()).ok().map(Bytes::from));
    let document = DOCUMENT.clone().ok_or_else(|| Problem::not_found("document"))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], document).into_response())
}

/// The whole document.
pub fn document() -> openapi::OpenApi {
    let status = ObjectBuilder::new().property("status", of_type(Type::Integer)).required("status");
    let problem = ["error", "error_description", "request_id"]
        .iter()
        .fold(status, |object, name| object.property(*name, of_type(Type::String)).required(*name));
    let cookie = "The cookie of POST /v1/session; a change repeats `csrf` as X-CSRF-Token";
    let cookie = ApiKey::Cookie(ApiKeyValue::with_description("permgate", cookie));
    let mut document = Document::openapi();
    document.paths = calls::all().fold(Paths::builder(), |all, (path, item)| all.path(path, item)).build();
    let components = document.components.get_or_insert_default();
    components.schemas.insert("Problem".to_owned(), problem.into());
    components.add_security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    components.add_security_scheme("cookie", SecurityScheme::ApiKey(cookie));
    document
}

fn of_type(kind: Type) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(kind)
}

#[cfg(test)]
mod tests;
