//! `/v1/config` and `/v1/reload`: shows the configuration in force, validates another, reloads the file.

use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::{
    ApiResult, Caller, Context, Problem,
    context::{ConfigurationError, ReloadError},
    offload::Offload,
    wire::{Json, NoBody, ok},
};
use crate::authz::subject::Permission;

/// Reads and compares configurations with the files that they name, one at a time.
pub(in crate::admin) static FILES: Offload = Offload::new(1, 8);

/// The text of a `gateway.toml`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConfigurationText)]
pub(in crate::admin) struct Check {
    text: String,
}

pub async fn show(context: Context, caller: Caller) -> ApiResult {
    caller.require(Permission::AdminRead)?;
    Ok(ok(&json!({"text": context.configuration.text()})))
}

pub async fn check(context: Context, caller: Caller, Json(body): Json<Check>) -> ApiResult {
    caller.require(Permission::AdminRead)?;
    // Whether a file exists, and what is wrong with it, is only for callers who could replace it all.
    let references = caller.require(Permission::AdminWrite).is_ok();
    let configuration = context.configuration.clone();
    // The answer is encoded there, too: it may be large.
    let check = move || {
        let errors = configuration.check(&body.text, references).err().unwrap_or_default();
        ok(&json!({"valid": errors.is_empty(), "errors": errors, "files_read": references}))
    };
    FILES.run(check).await
}

pub async fn reload(context: Context, caller: Caller, _: NoBody) -> ApiResult {
    caller.require(Permission::AdminWrite)?;
    // Services that the reload removes keep their names in the metrics.
    context.metrics.name_services(&context.rules());
    match context.configuration.clone().reload(caller.actor()).await {
        Ok(cut) => Ok(ok(&json!({"reloaded": true, "cut": cut.0}))),
        Err(ReloadError::Invalid(errors)) => Err(invalid(&errors)),
        Err(ReloadError::Change(error)) => Err(error.into()),
    }
}

fn invalid(errors: &[ConfigurationError]) -> Problem {
    let text = "The configuration was not applied; the previous one stays in force";
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_configuration", text)
        .with("errors", json!(errors))
}
