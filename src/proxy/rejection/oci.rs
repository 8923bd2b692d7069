//! Error bodies for clients of container registries.

use serde_json::json;

use crate::authz::reason::ErrorDetails;

/// OCI distribution specification, "Error Codes". Clients show `code` and `message`.
pub fn body(details: &ErrorDetails, request_id: &str) -> String {
    let code = match details.status.as_u16() {
        401 => "UNAUTHORIZED",
        403 => "DENIED",
        404 => "NAME_UNKNOWN",
        429 => "TOOMANYREQUESTS",
        500.. => "UNAVAILABLE",
        _ => "UNSUPPORTED",
    };
    let detail = json!({"error": details.error, "request_id": request_id, "status": details.status.as_u16()});
    let body = json!({"errors": [{"code": code, "message": details.description, "detail": detail}]});
    format!("{body}\n")
}
