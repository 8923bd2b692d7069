//! `/openapi.json`: the API's OpenAPI 3.1 document. Its schemas derive from the types that the handlers read
//! and write; a test holds that no route is missing.

use std::sync::LazyLock;

use axum::response::IntoResponse as _;
use bytes::Bytes;
use http::header;
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, LicenseBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, PathItem,
    PathsBuilder,
    schema::Type,
    security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};

use super::{ApiResult, Problem};

mod calls;
mod examples;
mod operation;

use self::operation::of_type;

pub async fn show() -> ApiResult {
    static DOCUMENT: LazyLock<Option<Bytes>> =
        LazyLock::new(|| serde_json::to_vec(&document()).ok().map(Bytes::from));
    let document = DOCUMENT.clone().ok_or_else(|| Problem::not_found("document"))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], document).into_response())
}

/// The whole document.
pub fn document() -> OpenApi {
    let status = ObjectBuilder::new().property("status", of_type(Type::Integer)).required("status");
    let problem = ["error", "error_description", "request_id"]
        .iter()
        .fold(status, |object, name| object.property(*name, of_type(Type::String)).required(*name));
    let cookie = "The cookie of POST /v1/session; a change repeats `csrf` as X-CSRF-Token";
    let mut components = ComponentsBuilder::new()
        .schema("Problem", problem)
        .security_scheme("bearer", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)))
        .security_scheme(
            "cookie",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::with_description("permgate", cookie))),
        );
    let mut paths = PathsBuilder::new();
    for mut operation in calls::all() {
        for (name, schema) in std::mem::take(&mut operation.schemas) {
            components = components.schema(name, schema);
        }
        let (path, method) = (operation.path(), operation.method());
        paths = paths.path(path, PathItem::new(method, operation.build()));
    }
    let none: [&str; 0] = [];
    let info = InfoBuilder::new()
        .title("permgate")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Permanent tokens: who makes them, what they reach, and how they end."))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()));
    OpenApiBuilder::new()
        .info(info)
        .paths(paths)
        .components(Some(components.build()))
        .security(Some([SecurityRequirement::new("bearer", none), SecurityRequirement::new("cookie", none)]))
        .build()
}

#[cfg(test)]
mod tests;
