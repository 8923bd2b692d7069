//! `GET /v1/backup`: the store as a stream, while changes go on. A backup contains digests and password
//! hashes, so a read-only token does not get it.

use std::{
    io::{self, Write},
    pin::Pin,
    task::{Context as TaskContext, Poll},
    thread,
    time::Duration,
};

use axum::{body::Body, response::IntoResponse};
use bytes::Bytes;
use http::header;
use http_body::Frame;
use tokio::{sync::mpsc, time::timeout};

use super::{ApiResult, Caller, Context, caller::Identity, offload::Offload};
use crate::authz::{
    reason::Reason,
    rules::BUILT_IN_SERVICE,
    subject::{Access, Permission},
};

/// A copy keeps a thread busy for as long as its client reads.
static COPYING: Offload = Offload::new(2, 4);

/// How long a backup waits for its audit event.
const RECORDING: Duration = Duration::from_secs(5);

const PART: usize = 64 << 10;

/// Parts that may wait for the client before the copying thread blocks.
const BUFFERED_PARTS: usize = 4;

pub(super) type Part = Result<Bytes, io::Error>;

pub async fn stream(context: Context, caller: Caller) -> ApiResult {
    if matches!(caller.identity, Identity::Bearer { access: Access::Read, .. }) {
        return Err(Reason::ReadOnlyScope.details(Some(BUILT_IN_SERVICE)).into());
    }
    caller.require(Permission::AdminWrite)?;
    let (mut out, mut parts) = Parts::new();
    let store = context.store.clone();
    let copying = move || {
        let copied = store.backup(&mut out, &mut |_| {}).map_err(io::Error::other);
        if let Err(error) = copied.and_then(|_| out.flush()) {
            tracing::error!(%error, "a backup ended early");
            out.fail(error);
        }
    };
    COPYING.spawn(copying).await?;
    // An error before the first part still sets the status.
    match parts.recv().await {
        Some(Ok(first)) => {
            // Also if the store takes no changes: that is when a backup may be needed most.
            let recorded = timeout(RECORDING, context.store.record_backup(caller.as_actor())).await;
            if !matches!(recorded, Ok(Ok(()))) {
                tracing::warn!(by = caller.name(), ?recorded, "a backup is not in the audit log");
            }
            let fields = [
                (header::CONTENT_TYPE, "application/octet-stream"),
                (header::CONTENT_DISPOSITION, "attachment; filename=\"permgate.backup\""),
            ];
            Ok((fields, Body::new(StreamedBody { first: Some(first), parts })).into_response())
        }
        Some(Err(_)) | None => Err(Reason::StoreUnavailable.details(None).into()),
    }
}

/// Collects writes and sends them in parts; fails once the receiver is gone.
pub(super) struct Parts {
    sender: mpsc::Sender<Part>,
    gathered: Vec<u8>,
    /// Whether the first part was sent.
    begun: bool,
}

impl Parts {
    /// The writer, and the receiver of its parts.
    pub(super) fn new() -> (Self, mpsc::Receiver<Part>) {
        let (sender, parts) = mpsc::channel(BUFFERED_PARTS);
        (Self { sender, gathered: Vec::with_capacity(PART), begun: false }, parts)
    }

    /// Ends the body with an error, so that it is not mistaken for a complete one.
    pub(super) fn fail(&mut self, error: io::Error) {
        let _ = self.sender.blocking_send(Err(error));
    }
}

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PART {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    /// The first part is sent even if it is empty: the response begins with it.
    fn flush(&mut self) -> io::Result<()> {
        if self.sender.is_closed() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.begun && self.gathered.is_empty() {
            return Ok(());
        }
        self.begun = true;
        let part = std::mem::replace(&mut self.gathered, Vec::with_capacity(PART));
        self.sender.blocking_send(Ok(part.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// A panic ends the body with an error, too.
impl Drop for Parts {
    fn drop(&mut self) {
        if thread::panicking() {
            self.fail(io::Error::other("the thread that writes the body panicked"));
        }
    }
}

/// A body in parts that a thread writes.
pub(super) struct StreamedBody {
    pub first: Option<Bytes>,
    pub parts: mpsc::Receiver<Part>,
}

impl http_body::Body for StreamedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        self.parts.poll_recv(cx).map(|part| part.map(|part| part.map(Frame::data)))
    }
}
