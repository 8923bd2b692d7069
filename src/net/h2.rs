//! HTTP/2 on one connection: its handshake, its streams, its end. Every stream is a task of its own
//! that can be severed alone; the connection is severed as one.

mod branch;
mod head;
mod inflow;
mod piece;
mod pipe;
mod stream;

use std::{
    future::poll_fn,
    pin::pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::BytesMut;
use h2::{
    Ping, PingPong, Reason, RecvStream,
    server::{self, SendResponse},
};
use http::{Method, Request};
use tokio::task::JoinSet;

use self::{branch::Place, piece::Piece, pipe::Pipe};
pub(super) use self::{
    branch::{Branch, Trunk},
    inflow::Inflow,
};
use super::{
    Connection, Handler, Refusal, Worker,
    connection::{Order, Phase},
    stream::Stream,
};

/// How a client that knows what it wants begins in clear text.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// By ALPN.
pub(super) const PROTOCOL: &[u8] = b"h2";

/// Streams that a client may have open.
const STREAMS: u32 = 100;
/// What a client may send of one body, and of all, before any of it is taken.
const STREAM_WINDOW: u32 = 64 << 10;
const WINDOW: u32 = 1 << 20;
/// Streams that a client has reset before they were looked at.
const RESETS_BEFORE_ACCEPT: usize = 20;
/// Streams that were reset since the client broke the protocol on them.
const RESETS_FOR_ERRORS: usize = 100;
const SEND_BUFFER: usize = 256 << 10;

/// Everything of one connection that is served.
struct Session<H: Handler> {
    wire: server::Connection<Pipe, Piece>,
    pings: Option<PingPong>,
    tasks: JoinSet<()>,
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    handler: Rc<H>,
    /// The client has been told to begin nothing more.
    leaving: bool,
}

/// Serves streams until the connection is over. `ahead`: bytes that were read already.
pub(super) async fn drive<H: Handler>(
    stream: Stream,
    ahead: BytesMut,
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    handler: Rc<H>,
) {
    connection.carry_streams(Trunk::new(connection.clock().now()));
    let limits = worker.limits();
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(head::largest(&limits))
        .max_pending_accept_reset_streams(RESETS_BEFORE_ACCEPT)
        .max_local_error_reset_streams(Some(RESETS_FOR_ERRORS))
        .max_send_buffer_size(SEND_BUFFER);
    let pipe = Pipe::new(stream, ahead, connection.clone());
    let outlet = pipe.outlet();
    let handshake = builder.handshake(pipe);
    let Some(Ok(mut wire)) = shaken(&connection, handshake).await else { return };
    connection.enter(Phase::Idle);
    outlet.gather();
    let pings = wire.ping_pong();
    let tasks = JoinSet::new();
    let mut session =
        Session { wire, pings, tasks, worker, connection: connection.clone(), handler, leaving: false };
    poll_fn(|cx| {
        let done = session.poll(cx);
        // What cannot be sent ends the connection, as h2 hears when it reads.
        let _ = outlet.send(cx, &connection);
        if !done.is_ready() {
            session.written();
        }
        done
    })
    .await;
    // Nothing of a stream outlives its connection.
    let Session { wire, mut tasks, .. } = session;
    drop(wire);
    tasks.shutdown().await;
}

/// Waits for the client's preface, unless the connection is told to end.
async fn shaken<F: Future>(connection: &Connection, handshake: F) -> Option<F::Output> {
    let mut handshake = pin!(handshake);
    poll_fn(|cx| {
        connection.attend(cx);
        if connection.severed() || connection.take_order().is_some() {
            return Poll::Ready(None);
        }
        handshake.as_mut().poll(cx).map(Some)
    })
    .await
}

impl<H: Handler> Session<H> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let connection = self.connection.clone();
        connection.attend(cx);
        if connection.severed() {
            return Poll::Ready(());
        }
        match connection.take_order() {
            Some(Order::Close) if self.leaving => self.wire.abrupt_shutdown(Reason::NO_ERROR),
            Some(Order::Close) => self.leave(),
            Some(Order::Refuse(refusal)) => {
                self.handler.refuse(refusal, &connection);
                self.wire.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            }
            None => {}
        }
        if self.worker.draining() && !self.leaving {
            self.leave();
        }
        loop {
            self.ping(cx);
            match self.wire.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, reply)))) => self.accept(request, reply),
                Poll::Ready(Some(Err(error))) => {
                    if error.is_library() {
                        // Its answer was the GOAWAY; this counts and tells.
                        let why = Refusal::BadRequest("a breach of HTTP/2");
                        self.handler.refuse(why, &connection);
                    }
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        while let Poll::Ready(Some(_)) = self.tasks.poll_join_next(cx) {}
        if connection.severed() {
            return Poll::Ready(());
        }
        self.settle();
        Poll::Pending
    }

    /// After what could be sent has been.
    fn written(&self) {
        if !self.connection.stalls()
            && let Some(trunk) = self.connection.trunk()
        {
            trunk.written();
        }
    }

    fn accept(&mut self, request: Request<RecvStream>, reply: SendResponse<Piece>) {
        self.connection.clock().refresh();
        let Some(place) = Place::on(&self.connection, reply) else { return };
        let bodiless = *request.method() == Method::HEAD;
        let (parts, body) = request.into_parts();
        let judged = head::take(parts, &self.worker.limits()).and_then(|head| {
            let astray = self.connection.misdirects(|| head.request.fields.get("host"));
            if astray { Err(Refusal::Misdirected) } else { Ok(head) }
        });
        self.connection.enter(Phase::Serving);
        // A task is moved several times before it runs.
        let served = Box::pin(stream::serve(judged, body, bodiless, place, self.handler.clone()));
        self.tasks.spawn_local(served);
    }

    /// With the last stream the connection becomes idle, or has nothing left to do.
    fn settle(&self) {
        let bare = self.connection.trunk().is_none_or(Trunk::is_bare);
        let resting = if self.leaving { Phase::Closing } else { Phase::Idle };
        if bare && self.connection.phase() != resting {
            self.connection.enter(resting);
        }
    }

    /// Tells the client to begin nothing more; what is under way goes on.
    fn leave(&mut self) {
        self.leaving = true;
        self.wire.graceful_shutdown();
    }

    fn ping(&mut self, cx: &mut Context<'_>) {
        let Some(pings) = &mut self.pings else { return };
        if self.connection.trunk().is_some_and(Trunk::take_ping) {
            // One that is under way already does as well.
            let _ = pings.send_ping(Ping::opaque());
        }
        let _ = pings.poll_pong(cx);
    }
}
