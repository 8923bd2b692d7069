//! `/healthz`, `/readyz` and `/metrics`, for probes and scrapers without a token.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;

use super::{
    ApiResult, Context, Problem,
    offload::Offload,
    wire::{json_response, ok},
};
use crate::metrics::Format;

/// Liveness: the process answers.
pub async fn health() -> Response {
    ok(&json!({"status": "ok"}))
}

/// Readiness: requests are accepted. A read-only store does not make the gateway unready, because it still
/// decides by what it has.
pub async fn ready(context: Context) -> Response {
    match context.ready() {
        Ok(()) => {
            let store = if context.store.writable().is_ok() { "writable" } else { "read-only" };
            ok(&json!({"status": "ready", "store": store}))
        }
        Err(why) => {
            json_response(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "not ready", "reason": why}))
        }
    }
}

/// One at a time, because `admin.metrics` may let anybody in.
static ENCODING: Offload = Offload::new(1, 16);

pub async fn metrics(context: Context, headers: HeaderMap) -> ApiResult {
    context.metrics.name_services(&context.rules());
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = Format::accepted(accept);
    let (metrics, readings) = (context.metrics.clone(), context.readings());
    let Ok(text) = ENCODING.run(move || metrics.encode(readings, format)).await? else {
        tracing::error!("the metrics could not be encoded");
        return Err(Problem::internal("The metrics could not be encoded"));
    };
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}
