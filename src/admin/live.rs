//! `/v1/live`: lists the requests in flight, and cuts one of them.

use axum::extract::Path;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{
    ApiResult, Caller, Context, Problem,
    offload::READS,
    wire::{Page, ok},
};
use crate::{
    authz::subject::{Directory, Permission},
    fence::LiveRow,
};

/// A permitted request, stream or tunnel in flight.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Live)]
pub struct LiveView {
    pub id: String,
    pub request_id: String,
    pub token: Option<String>,
    /// Login.
    pub user: Option<String>,
    pub service: String,
    pub method: String,
    pub path: String,
    pub client: String,
    pub age_ms: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

pub async fn list(context: Context, caller: Caller) -> ApiResult {
    caller.require(Permission::AdminRead)?;
    let mut rows = context.fence.list().await;
    let directory = context.state.snapshot().directory.clone();
    let read = move || {
        rows.sort_by_key(|row| std::cmp::Reverse(row.age));
        let items = rows.into_iter().map(|row| LiveView::new(&directory, row)).collect();
        ok(&Page { items, next: None })
    };
    READS.run(read).await
}

pub async fn cut(context: Context, caller: Caller, Path(id): Path<String>) -> ApiResult {
    caller.require(Permission::AdminWrite)?;
    let gone = || Problem::not_found("request in flight");
    // The audit event needs the row, which is gone after the cut.
    let row = context.fence.list().await.into_iter().find(|row| row.id == id).ok_or_else(gone)?;
    let actor = caller.actor();
    if !context.fence.cut(&id).await? {
        return Err(gone());
    }
    tracing::info!(live = id, by = caller.name(), "a request was cut");
    context.store.record_cut(actor, row).await?;
    Ok(ok(&json!({"cut": 1})))
}

impl LiveView {
    pub(super) fn new(directory: &Directory, row: LiveRow) -> Self {
        let user = row.user.and_then(|ix| directory.user(ix));
        Self {
            id: row.id,
            request_id: row.request_id,
            token: row.token.map(|token| token.to_string()),
            user: user.map(|user| user.login.to_string()),
            service: row.service,
            method: row.method,
            path: row.path,
            client: row.client.to_string(),
            age_ms: u64::try_from(row.age.as_millis()).unwrap_or(u64::MAX),
            bytes_in: row.bytes_in,
            bytes_out: row.bytes_out,
        }
    }
}
