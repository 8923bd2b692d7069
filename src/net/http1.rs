//! HTTP/1 on one connection: hyper serves requests until it is over.

use std::{future::poll_fn, pin::Pin, rc::Rc, task::Poll};

use bytes::Bytes;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

use super::{
    RequestError, Service, Worker,
    body::Sent,
    connection::{Answer, ConnectionCommand, Phase},
    io::CancelIo,
    respond::respond,
};

/// How the part of a connection that hyper serves has ended.
pub(super) enum Outcome {
    /// As HTTP says; `unread`: the client has sent, or sends, what nobody reads.
    Over {
        unread: bool,
    },
    /// Nothing was under way.
    Closed,
    Rejected(RequestError),
    /// The client has its 101, and these bytes came behind its request.
    Upgraded(Bytes),
    Aborted,
}

/// hyper's buffers: what an idle connection keeps of a large body.
const BUFFER: usize = 64 << 10;

pub(super) async fn drive<S: Service>(io: &CancelIo, worker: &Rc<Worker>, service: &Rc<S>) -> Outcome {
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
        .max_headers(limits.fields);
    let mut http = builder.serve_connection(
        TokioIo::new(io.clone()),
        service_fn(|request| {
            respond(service.clone(), request, connection.clone(), None, worker, sent.clone())
        }),
    );
    let mut draining = false;
    let outcome = poll_fn(|cx| {
        connection.register(cx);
        if connection.aborted() {
            return Poll::Ready(Outcome::Aborted);
        }
        match connection.take_command() {
            Some(ConnectionCommand::Close) => return Poll::Ready(Outcome::Closed),
            Some(ConnectionCommand::Reject(error)) => return Poll::Ready(Outcome::Rejected(error)),
            None => {}
        }
        let mut over = Pin::new(&mut http).poll(cx);
        if worker.draining() && !draining && over.is_pending() {
            // After hyper has read what was there: it closes what it takes for unused.
            draining = true;
            Pin::new(&mut http).graceful_shutdown();
            over = Pin::new(&mut http).poll(cx);
        }
        // Whatever lives in an answer's body ends when the kernel has the answer.
        if connection.answer() == Answer::Flushed {
            sent.take();
        }
        if connection.aborted() {
            return Poll::Ready(Outcome::Aborted);
        }
        if let Some(ConnectionCommand::Reject(error)) = connection.take_command() {
            return Poll::Ready(Outcome::Rejected(error));
        }
        if over.is_pending() && draining && connection.phase() == Phase::Idle {
            return Poll::Ready(Outcome::Closed);
        }
        if over.is_pending() && io.poll_disconnect(cx).is_ready() {
            return Poll::Ready(Outcome::Aborted);
        }
        over.map(|result| match (connection.phase(), result) {
            // hyper gave a head up without a word.
            (Phase::Head, Err(_)) if !connection.has_ended() => {
                Outcome::Rejected(RequestError::BadRequest("malformed head"))
            }
            // An answer that broke off must not pass for a whole one. Nor does hyper wait for a client
            // that leaves no room for so much as a 101.
            (Phase::Serving, Err(_)) => Outcome::Aborted,
            (_, Ok(())) if connection.is_switching() && connection.answer() != Answer::Flushed => {
                Outcome::Aborted
            }
            (_, Ok(())) if connection.is_switching() => Outcome::Upgraded(Bytes::new()),
            _ => Outcome::Over { unread: connection.is_unread() },
        })
    })
    .await;
    let ahead = http.into_parts().read_buf;
    match outcome {
        Outcome::Upgraded(_) => Outcome::Upgraded(ahead),
        Outcome::Over { unread } => Outcome::Over { unread: unread || !ahead.is_empty() },
        other => other,
    }
}
