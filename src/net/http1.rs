//! HTTP/1 on one connection: hyper serves requests until the connection is over or upgraded.

use std::{future::poll_fn, pin::Pin, rc::Rc, task::Poll};

use bytes::Bytes;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

use super::{
    RequestError, Service, Worker,
    body::Sent,
    connection::{ConnectionCommand, Phase, ResponseState},
    io::CancelIo,
    respond::respond,
};

/// How hyper's part of a connection ended.
pub(super) enum Outcome {
    /// The regular end. `unread`: the client has sent, or still sends, bytes that are not read.
    Over {
        unread: bool,
    },
    /// The client has received 101. These bytes followed its request.
    Upgraded(Bytes),
    Interrupted(ConnectionCommand),
}

/// The size of hyper's buffers in bytes, which an idle connection keeps after a large body.
const BUFFER: usize = 64 << 10;

pub(super) async fn drive<S: Service>(io: &CancelIo, worker: &Rc<Worker>, service: &Rc<S>) -> Outcome {
    let connection = io.connection();
    let sent: Sent<S::Body> = Sent::default();
    let limits = worker.limits();
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        // A client may close its side and wait for the response. `poll_disconnect` detects clients that
        // leave.
        .half_close(true)
        .max_buf_size(BUFFER.max(limits.head))
        .max_header_size(limits.head)
        .max_headers(limits.fields);
    let mut http = builder.serve_connection(
        TokioIo::new(io.clone()),
        service_fn(|request| {
            respond(service.clone(), request, connection.clone(), None, worker, sent.clone())
        }),
    );
    let mut draining = false;
    let outcome = poll_fn(|cx| {
        let interrupted = |command| Poll::Ready(Outcome::Interrupted(command));
        if let Some(command) = connection.poll_command(cx) {
            return interrupted(command);
        }
        let mut over = Pin::new(&mut http).poll(cx);
        if worker.draining() && !draining && over.is_pending() {
            // Only after hyper has read what is there, because it closes a connection that looks unused.
            draining = true;
            Pin::new(&mut http).graceful_shutdown();
            over = Pin::new(&mut http).poll(cx);
        }
        let response = connection.exchange.response_state();
        // A response's body lives until the kernel has the response.
        if response == ResponseState::Flushed {
            sent.take();
        }
        if let Some(command) = connection.poll_command(cx) {
            return interrupted(command);
        }
        if over.is_pending() && draining && connection.phase() == Phase::Idle {
            return interrupted(ConnectionCommand::Close);
        }
        if response == ResponseState::Flushed && connection.exchange.is_abandoned() {
            // hyper would read on, and take the rest of the body for the next head.
            return Poll::Ready(Outcome::Over { unread: true });
        }
        if over.is_pending() && io.poll_disconnect(cx).is_ready() {
            return interrupted(ConnectionCommand::Abort);
        }
        over.map(|result| match (connection.phase(), result) {
            // hyper gave up on a head without writing a response.
            (Phase::Head, Err(_)) if !connection.has_ended() => Outcome::Interrupted(
                ConnectionCommand::Reject(RequestError::BadRequest("the head cannot be parsed")),
            ),
            (Phase::Switching, Ok(())) if response == ResponseState::Flushed => {
                Outcome::Upgraded(Bytes::new())
            }
            // A response that broke off must not look complete. Also, hyper does not wait for a client whose
            // socket has no room for a 101.
            (Phase::Serving, Err(_)) | (Phase::Switching, _) => {
                Outcome::Interrupted(ConnectionCommand::Abort)
            }
            _ => Outcome::Over { unread: connection.exchange.is_unread() },
        })
    })
    .await;
    let buffered = http.into_parts().read_buf;
    match outcome {
        Outcome::Upgraded(_) => Outcome::Upgraded(buffered),
        Outcome::Over { unread } => Outcome::Over { unread: unread || !buffered.is_empty() },
        interrupted => interrupted,
    }
}
