//! `/v1/whoami`: who the caller is and what it may do.

use serde_json::json;

use super::{ApiResult, Caller, Context, caller::Identity, tokens::TokenView, wire::ok};
use crate::authz::subject::{Access, Permission};

pub async fn whoami(context: Context, caller: Caller) -> ApiResult {
    let permissions: Vec<&str> = caller.permissions().iter().map(Permission::word).collect();
    let Some(user) = caller.user() else {
        return Ok(ok(&json!({"operator": true, "user": null, "permissions": permissions, "token": null})));
    };
    let rules = context.rules();
    let readable = rules.services().iter().filter(|service| user.readable.contains(service.id));
    let services: Vec<&str> = readable.map(|service| service.spec.key.as_str()).collect();
    let (access, record) = match &caller.identity {
        Identity::Bearer { token, access, .. } => (*access, context.store.token(*token)?),
        Identity::Browser { .. } | Identity::Operator => (Access::Full, None),
    };
    Ok(ok(&json!({
        "operator": false,
        "user": &*user.login,
        "user_id": &*user.id,
        "permissions": permissions,
        "services": services,
        "access": access.word(),
        "token": record.map(|record| TokenView::new(&context, record)),
    })))
}
