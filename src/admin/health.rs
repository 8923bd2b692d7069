//! `/healthz`, `/readyz` and `/metrics`: for probes and scrapers, who have no token.

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use serde_json::json;

use super::{
    Context,
    wire::{answer, ok},
};

pub(super) fn routes() -> Router<Context> {
    Router::new().route("/healthz", get(health)).route("/readyz", get(ready)).route("/metrics", get(metrics))
}

/// The process runs and answers.
async fn health() -> Response {
    ok(&json!({"status": "ok"}))
}

/// Requests are taken. A store that takes no changes does not make it unready: what is known is
/// still served.
async fn ready(State(context): State<Context>) -> Response {
    match context.ready() {
        Ok(()) => {
            let store = if context.store.writable().is_ok() { "writable" } else { "read-only" };
            ok(&json!({"status": "ready", "store": store}))
        }
        Err(why) => answer(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "not ready", "reason": why})),
    }
}

async fn metrics(State(context): State<Context>) -> Response {
    context.metrics.name_services(&context.rules());
    let text = context.metrics.render(context.readings());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
