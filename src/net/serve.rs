//! One connection from its first byte to its last: handshake, requests, rejection, close.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Connection, ConnectionEvent, RequestError, Service, Upgraded, Worker,
    connection::{ConnectionCommand, Phase},
    http1::{self, Outcome},
    http2,
    io::CancelIo,
    request_error::encode,
    stream::Stream,
    tls::{Handshake, Shown, TlsInfo},
    worker::ConnectionSlot,
};

/// A socket as it was accepted.
pub(super) enum ClientSocket {
    Plain(Stream),
    Tls(Arc<Shown>, TcpStream),
}

/// A connection as its service counts it: one whose task is dropped ends too.
pub(super) struct ConnectionGuard<S: Service> {
    service: Rc<S>,
    connection: Rc<Connection>,
}

/// Why waiting has ended early.
pub(super) enum Interrupted {
    Aborted,
    Closed,
    Rejected(RequestError),
}

impl<S: Service> ConnectionGuard<S> {
    pub(super) fn new(service: &Rc<S>, connection: &Rc<Connection>) -> Self {
        service.observe(ConnectionEvent::Opened, connection);
        Self { service: service.clone(), connection: connection.clone() }
    }
}

impl<S: Service> Drop for ConnectionGuard<S> {
    fn drop(&mut self) {
        self.service.observe(ConnectionEvent::Closed, &self.connection);
    }
}

pub(super) async fn serve_connection<S: Service>(
    socket: ClientSocket,
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    service: Rc<S>,
    slot: ConnectionSlot,
    guard: ConnectionGuard<S>,
) {
    let held = (slot, guard);
    let stream = match socket {
        ClientSocket::Plain(stream) => stream,
        // Not inside this future: every connection would carry the room for a handshake.
        ClientSocket::Tls(shown, socket) => {
            match Box::pin(shake(shown, socket, &connection, &*service)).await {
                Some(stream) => stream,
                None => return,
            }
        }
    };
    let io = CancelIo::new(stream, connection.clone(), worker.clone());
    let mut http2 = io.agreed_on_http2();
    if !http2 {
        // State and buffers are made for who has something to say.
        if attended(&connection, poll_fn(|cx| io.poll_readable(cx))).await.is_err() {
            return;
        }
        // Over TLS, HTTP/2 is agreed on in the handshake.
        if !connection.secure {
            let rejected = match attended(&connection, poll_fn(|cx| io.poll_preface(cx))).await {
                Ok(Ok(preface)) => {
                    http2 = preface;
                    None
                }
                Ok(Err(_)) => match connection.take_command() {
                    Some(ConnectionCommand::Reject(error)) => Some(error),
                    _ => return,
                },
                Err(Interrupted::Rejected(error)) => Some(error),
                Err(Interrupted::Aborted | Interrupted::Closed) => return,
            };
            if let Some(error) = rejected {
                return Box::pin(reject(io, error, &*service)).await;
            }
        }
    }
    if http2 {
        let last_words = Box::pin(http2::drive(&io, &worker, &service)).await;
        if let Some(last_words) = last_words {
            Box::pin(close(io, &last_words)).await;
        }
        return;
    }
    match http1::drive(&io, &worker, &service).await {
        Outcome::Aborted => {}
        Outcome::Rejected(error) => Box::pin(reject(io, error, &*service)).await,
        Outcome::Upgraded(ahead) => {
            if let Some(sender) = connection.take_upgrade() {
                // Who does not want it any more drops it, and so closes the connection.
                let _ = sender.send(Upgraded::http1(io, &ahead, held));
            }
        }
        Outcome::Over { unread: true } => Box::pin(close(io, &[])).await,
        Outcome::Over { unread: false } | Outcome::Closed => farewell(io).await,
    }
}

async fn shake<S: Service>(
    shown: Arc<Shown>,
    socket: TcpStream,
    connection: &Connection,
    service: &S,
) -> Option<Stream> {
    let acceptor = TlsAcceptor::from(shown.config.clone());
    let (outcome, stream) = match attended(connection, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => {
            let session = stream.get_ref().1;
            connection.set_tls(TlsInfo::new(&shown, session.server_name()));
            connection.enter(Phase::Fresh);
            (Handshake::of_session(session), Some(Stream::Tls(Box::new(stream))))
        }
        Ok(Err(error)) => (Handshake::of_error(&error), None),
        Err(_) => (Handshake::TimedOut, None),
    };
    service.observe(ConnectionEvent::Handshake(outcome), connection);
    stream
}

/// Waits, unless the connection is aborted or told to end.
pub(super) async fn attended<F: Future>(connection: &Connection, work: F) -> Result<F::Output, Interrupted> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        connection.register(cx);
        if connection.aborted() {
            return Poll::Ready(Err(Interrupted::Aborted));
        }
        match connection.take_command() {
            Some(ConnectionCommand::Close) => return Poll::Ready(Err(Interrupted::Closed)),
            Some(ConnectionCommand::Reject(error)) => return Poll::Ready(Err(Interrupted::Rejected(error))),
            None => {}
        }
        work.as_mut().poll(cx).map(Ok)
    })
    .await
}

/// Tells a TLS client that this end is meant, if that can be said without waiting.
async fn farewell(mut io: CancelIo) {
    let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut io).poll_shutdown(cx))).await;
}

/// Answers in hyper's stead.
async fn reject<S: Service>(io: CancelIo, error: RequestError, service: &S) {
    let answer = encode(&service.reject(error, io.connection()));
    close(io, &answer).await;
}

/// So much of what nobody wants is read after a last answer: more than the sockets of a client that
/// was surprised by it hold already.
const LINGER: usize = 4 << 20;

/// Writes a last answer and reads on for a moment, so that bytes still under way from the client
/// do not make the kernel take the answer back.
async fn close(mut io: CancelIo, answer: &[u8]) {
    let connection = io.connection().clone();
    io.carry_anything();
    connection.enter(Phase::Closing);
    let closing = async {
        io.write_all(answer).await?;
        io.shutdown().await?;
        // Not inside the future: every connection would carry it.
        let mut waste = vec![0; 4 << 10];
        let mut read = 0;
        while read < LINGER {
            let mut buf = ReadBuf::new(&mut waste);
            poll_fn(|cx| Pin::new(&mut io).poll_read(cx, &mut buf)).await?;
            if buf.filled().is_empty() {
                break;
            }
            read += buf.filled().len();
        }
        io::Result::Ok(())
    };
    let _ = attended(&connection, closing).await;
}
