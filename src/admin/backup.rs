//! `GET /v1/backup`: the store as a stream, while changes go on. A backup contains digests and password
//! hashes, so a read-only token does not get it.

use std::{io, time::Duration};

use axum::response::IntoResponse;
use http::header;
use tokio::time::timeout;

use super::{
    ApiResult, Caller, Context,
    offload::Offload,
    streamed::{self, BodyWriter},
};
use crate::{authz::subject::Permission, store::backup::BackupError};

/// A copy keeps a thread busy for as long as its client reads.
static COPYING: Offload = Offload::new(2, 4);

/// How long a backup waits for its audit event.
const RECORDING: Duration = Duration::from_secs(5);

pub async fn stream(context: Context, caller: Caller) -> ApiResult {
    caller.require_full_access()?;
    caller.require(Permission::AdminWrite)?;
    let store = context.store.clone();
    let copy = move |out: &mut BodyWriter| match store.backup(out, &mut |_| {}) {
        // Unwrapped, because its kind tells whether the client is gone.
        Err(BackupError::Write(error)) => Err(error),
        other => other.map(drop).map_err(io::Error::other),
    };
    let body = streamed::body(&COPYING, "a backup", copy).await?;
    // Also if the store takes no changes: that is when a backup may be needed most.
    let recorded = timeout(RECORDING, context.store.record_backup(caller.as_actor())).await;
    if !matches!(recorded, Ok(Ok(()))) {
        tracing::warn!(by = caller.name(), ?recorded, "a backup is not in the audit log");
    }
    let fields = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"permgate.backup\""),
    ];
    Ok((fields, body).into_response())
}
