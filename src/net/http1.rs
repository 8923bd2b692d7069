//! HTTP/1 on one connection: hyper serves requests until it is over.

use std::{future::poll_fn, pin::Pin, rc::Rc, task::Poll};

use bytes::Bytes;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

use super::{
    RequestError, Service, Worker,
    body::Sent,
    connection::{AnswerState, ConnectionCommand, Phase},
    io::CancelIo,
    respond::respond,
};

/// How the part of a connection that hyper serves has ended.
pub(super) enum Outcome {
    /// As HTTP says; `unread`: the client has sent, or sends, what nobody reads.
    Over {
        unread: bool,
    },
    /// The client has its 101, and these bytes came behind its request.
    Upgraded(Bytes),
    Interrupted(ConnectionCommand),
}

/// hyper's buffers: what an idle connection keeps of a large body.
const BUFFER: usize = 64 << 10;

/// Fields that hyper parses on the stack. For a higher limit it allocates tables for every head.
const FIELDS_ON_STACK: usize = 100;

pub(super) async fn drive<S: Service>(io: &CancelIo, worker: &Rc<Worker>, service: &Rc<S>) -> Outcome {
    let mut fields = worker.limits().fields.min(FIELDS_ON_STACK);
    loop {
        let (outcome, ahead) = serve(io, worker, service, fields).await;
        let most = worker.limits().fields;
        if io.take_refused_as_too_large() && fields < most {
            // A head that hyper refuses is still in its buffer: once more, with all that is allowed.
            fields = most;
            io.replay_head(&ahead);
            continue;
        }
        return match outcome {
            Outcome::Upgraded(_) => Outcome::Upgraded(ahead),
            Outcome::Over { unread } => Outcome::Over { unread: unread || !ahead.is_empty() },
            interrupted => interrupted,
        };
    }
}

/// Serves requests of so many fields at most. What the client sent beyond them is returned beside.
async fn serve<S: Service>(
    io: &CancelIo,
    worker: &Rc<Worker>,
    service: &Rc<S>,
    fields: usize,
) -> (Outcome, Bytes) {
    let connection = io.connection();
    let sent: Sent<S::Body> = Sent::default();
    let limits = worker.limits();
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        // Disconnects are ours to see: a client may close its side and wait for the answer.
        .half_close(true)
        .max_buf_size(BUFFER.max(limits.head))
        .max_header_size(limits.head)
        .max_headers(fields);
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
            // After hyper has read what was there: it closes what it takes for unused.
            draining = true;
            Pin::new(&mut http).graceful_shutdown();
            over = Pin::new(&mut http).poll(cx);
        }
        let answer = connection.exchange.answer();
        // Whatever lives in an answer's body ends when the kernel has the answer.
        if answer == AnswerState::Flushed {
            sent.take();
        }
        if let Some(command) = connection.poll_command(cx) {
            return interrupted(command);
        }
        if over.is_pending() && draining && connection.phase() == Phase::Idle {
            return interrupted(ConnectionCommand::Close);
        }
        if over.is_pending() && io.poll_disconnect(cx).is_ready() {
            return interrupted(ConnectionCommand::Abort);
        }
        over.map(|result| match (connection.phase(), result) {
            // hyper gave a head up without a word.
            (Phase::Head, Err(_)) if !connection.has_ended() => {
                Outcome::Interrupted(ConnectionCommand::Reject(RequestError::BadRequest("malformed head")))
            }
            (Phase::Switching, Ok(())) if answer == AnswerState::Flushed => Outcome::Upgraded(Bytes::new()),
            // An answer that broke off must not pass for a whole one. Nor does hyper wait for a client
            // that leaves no room for so much as a 101.
            (Phase::Serving, Err(_)) | (Phase::Switching, _) => {
                Outcome::Interrupted(ConnectionCommand::Abort)
            }
            _ => Outcome::Over { unread: connection.exchange.is_unread() },
        })
    })
    .await;
    (outcome, http.into_parts().read_buf)
}
