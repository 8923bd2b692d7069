//! Bodies of responses that a thread writes while the client reads them.

use std::{
    future,
    io::{self, Write},
    thread,
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use super::{ApiResult, Problem, offload::Offload};
use crate::authz::reason::Reason;

const PART: usize = 64 << 10;

/// Parts that may wait for the client before the thread blocks.
const BUFFERED_PARTS: usize = 4;

/// Has a thread write a body, and waits for its first part: an error before that still sets the status.
/// `what` is its name in the log.
pub(super) async fn body(
    threads: &'static Offload,
    what: &'static str,
    write: impl FnOnce(&mut BodyWriter) -> io::Result<()> + Send + 'static,
) -> ApiResult<Body> {
    let (mut out, mut parts) = BodyWriter::new();
    let work = move || {
        if let Err(error) = write(&mut out).and_then(|()| out.flush()) {
            // Otherwise the client is gone.
            if error.kind() != io::ErrorKind::BrokenPipe {
                tracing::error!(%error, "{what} ended early");
            }
            out.fail(error);
        }
    };
    threads.spawn(work).await?;
    let unavailable = || Problem::from(Reason::StoreUnavailable.details(None));
    let first = parts.recv().await.and_then(Result::ok).ok_or_else(unavailable)?;
    let rest = stream::poll_fn(move |cx| parts.poll_recv(cx));
    Ok(Body::from_stream(stream::once(future::ready(Ok(first))).chain(rest)))
}

/// Collects writes and sends them in parts; fails once the receiver is gone.
pub(super) struct BodyWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    gathered: Vec<u8>,
    /// Whether the first part was sent.
    begun: bool,
}

impl BodyWriter {
    pub(super) fn new() -> (Self, mpsc::Receiver<io::Result<Bytes>>) {
        let (sender, parts) = mpsc::channel(BUFFERED_PARTS);
        (Self { sender, gathered: Vec::with_capacity(PART), begun: false }, parts)
    }

    /// Ends the body with an error, so that it is not mistaken for a complete one.
    fn fail(&mut self, error: io::Error) {
        let _ = self.sender.blocking_send(Err(error));
    }
}

impl Write for BodyWriter {
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
impl Drop for BodyWriter {
    fn drop(&mut self) {
        if thread::panicking() {
            self.fail(io::Error::other("the thread that writes the body panicked"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_does_not_make_a_file_look_complete() {
        let (out, mut parts) = BodyWriter::new();
        let panicked = thread::spawn(move || {
            let _out = out;
            panic!("as a test");
        });
        assert!(panicked.join().is_err());
        assert!(parts.try_recv().unwrap().is_err());
    }
}
