//! `/openapi.json`: the API's OpenAPI 3.1 document. Its schemas derive from the types that the handlers read
//! and write; a test holds that no route is missing.

use std::sync::LazyLock;

use axum::response::IntoResponse;
use bytes::Bytes;
use http::header;
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::{
    audit, cluster, configuration, explain, groups, hub, identities, invitations, live, overview, passwords,
    revoke_by_value, roles, services, session, tokens, users,
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

pub async fn show() -> impl IntoResponse {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone())
}

/// The whole document.
pub fn document() -> Value {
    let mut document = serde_json::to_value(Document::openapi()).expect("a document is JSON");
    document["paths"] = calls::paths();
    let text = || json!({"type": "string"});
    document["components"]["schemas"]["Problem"] = json!({
        "type": "object",
        "required": ["status", "error", "error_description", "request_id"],
        "properties": {
            "status": {"type": "integer"},
            "error": text(),
            "error_description": text(),
            "request_id": text(),
        },
    });
    document["components"]["securitySchemes"] = json!({
        "bearer": {"type": "http", "scheme": "bearer"},
        "cookie": {
            "type": "apiKey",
            "in": "cookie",
            "name": "permgate",
            "description": "The cookie of POST /v1/session; a change repeats `csrf` as X-CSRF-Token",
        },
    });
    document
}

#[cfg(test)]
mod tests;
