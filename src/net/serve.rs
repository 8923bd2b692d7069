//! One connection from its first byte to its last: handshake, requests (those of HTTP/2 in `http2`),
//! rejection, close.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use bytes::Bytes;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Connection, ConnectionEvent, RequestError, Service, Upgraded, Worker,
    body::Sent,
    connection::{ConnectionCommand, Phase, ResponseState},
    http2,
    io::CancelIo,
    respond::respond,
    stream::{Socket, Stream},
    tls::{Handshake, ServerConfig, TlsInfo},
    worker::ConnectionSlot,
};
use http::{Response, header};

/// Reports a connection to its service when it opens and when it closes, even if its task is dropped.
pub(super) struct ConnectionGuard<S: Service> {
    service: Rc<S>,
    connection: Rc<Connection>,
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

/// Serves a client, after a handshake if `tls` is set. A unix socket never has one.
pub(super) async fn serve_connection<S: Service>(
    socket: Socket,
    tls: Option<Arc<ServerConfig>>,
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    service: Rc<S>,
    slot: ConnectionSlot,
    guard: ConnectionGuard<S>,
) {
    let held = (slot, guard);
    let mut http2 = false;
    let stream: Box<dyn Stream> = match (socket, tls) {
        // Boxed, because otherwise every connection would reserve space for a handshake.
        (Socket::Tcp(socket), Some(tls)) => {
            match Box::pin(handshake(tls, socket, &connection, &*service)).await {
                Some(stream) => {
                    http2 = stream.get_ref().1.alpn_protocol() == Some(http2::PROTOCOL);
                    Box::new(stream)
                }
                None => return,
            }
        }
        (Socket::Tcp(socket), None) => Box::new(socket),
        (Socket::Unix(socket), _) => Box::new(socket),
    };
    let mut io = CancelIo::new(stream, connection.clone(), worker.clone());
    // Over TLS, the handshake negotiates HTTP/2.
    let version = match connection.secure {
        true => Ok(http2),
        false => until_command(&connection, poll_fn(|cx| io.poll_preface(cx))).await,
    };
    let outcome = match version {
        Ok(true) => {
            if let Some(last_response) = Box::pin(http2::drive(&io, &worker, &service)).await {
                Box::pin(close(io, &last_response, http2::CONNECTION_WINDOW as usize)).await;
            }
            return;
        }
        Ok(false) => drive_http1(&io, &worker, &service).await,
        Err(command) => Outcome::Interrupted(command),
    };
    match outcome {
        // Closes with a reset, so that a response without a length does not look complete.
        Outcome::Interrupted(ConnectionCommand::Abort) => connection.abort(),
        Outcome::Interrupted(ConnectionCommand::Reject(error)) => {
            let response = encode(&service.reject(error, None, &connection));
            Box::pin(close(io, &response, MAX_LINGER_BYTES)).await;
        }
        Outcome::Upgraded(buffered) => {
            if let Some(sender) = connection.exchange.take_upgrade() {
                // If the receiver is gone, dropping the value closes the connection.
                let _ = sender.send(Upgraded::http1(io, &buffered, held));
            }
        }
        Outcome::Over { unread: true } => Box::pin(close(io, &[], MAX_LINGER_BYTES)).await,
        Outcome::Over { unread: false }
        | Outcome::Interrupted(ConnectionCommand::Close | ConnectionCommand::MakeRoom) => {
            // Sends TLS's close_notify, if that does not block.
            let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut io).poll_shutdown(cx))).await;
        }
    }
    // The request that waits for an upgrade holds the connection, so nothing else would end its wait.
    drop(connection.exchange.take_upgrade());
}

async fn handshake<S: Service>(
    tls: Arc<ServerConfig>,
    socket: TcpStream,
    connection: &Connection,
    service: &S,
) -> Option<TlsStream<TcpStream>> {
    let acceptor = TlsAcceptor::from(tls.config.clone());
    let (outcome, stream) = match until_command(connection, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => {
            let session = stream.get_ref().1;
            connection.set_tls(TlsInfo::new(&tls, session));
            connection.enter(Phase::Fresh);
            (Handshake::of_session(session), Some(stream))
        }
        Ok(Err(error)) => (Handshake::of_error(&error), None),
        Err(_) => (Handshake::TimedOut, None),
    };
    service.observe(ConnectionEvent::Handshake(outcome), connection);
    stream
}

/// Runs `work`, until the connection's task gets a command. The command is the error.
pub(super) async fn until_command<F: Future>(
    connection: &Connection,
    work: F,
) -> Result<F::Output, ConnectionCommand> {
    let mut work = pin!(work);
    poll_fn(|cx| match connection.poll_command(cx) {
        Some(command) => Poll::Ready(Err(command)),
        None => work.as_mut().poll(cx).map(Ok),
    })
    .await
}

/// Bytes that are read and discarded after a last response: more than the socket buffers of a client that
/// still sends can contain.
const MAX_LINGER_BYTES: usize = 4 << 20;

/// Writes a last response, then reads and discards up to `most` bytes for a moment. Otherwise bytes still in
/// flight from the client would make the kernel reset the connection before the client has read the response.
async fn close(mut io: CancelIo, response: &[u8], most: usize) {
    let connection = io.connection().clone();
    io.stop_watching();
    connection.enter(Phase::Closing);
    let closing = async {
        io.write_all(response).await?;
        io.shutdown().await?;
        // On the heap, because otherwise every connection's future would contain it.
        let mut discarded = vec![0; 16 << 10];
        let mut read = 0;
        while read < most {
            let mut buf = ReadBuf::new(&mut discarded);
            poll_fn(|cx| Pin::new(&mut io).poll_read(cx, &mut buf)).await?;
            if buf.filled().is_empty() {
                break;
            }
            read += buf.filled().len();
        }
        io::Result::Ok(())
    };
    let _ = until_command(&connection, closing).await;
}

/// How hyper's part of a connection ended.
enum Outcome {
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

async fn drive_http1<S: Service>(io: &CancelIo, worker: &Rc<Worker>, service: &Rc<S>) -> Outcome {
    let connection = io.connection();
    let sent: Sent<S::Body> = Sent::default();
    // A response's body lives until the kernel has the response.
    let drop_sent = || {
        if connection.exchange.response_state() == ResponseState::Flushed {
            sent.take();
        }
    };
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
            // hyper begins a pipelined request in the poll in which it has sent the response before it.
            drop_sent();
            respond(service.clone(), request, connection.clone(), None, worker, sent.clone())
        }),
    );
    let outcome = poll_fn(|cx| {
        let interrupted = |command| Poll::Ready(Outcome::Interrupted(command));
        let idle = connection.phase() == Phase::Idle;
        let command = connection.poll_command(cx);
        // A request may have arrived meanwhile: hyper looks before an idle connection closes.
        let may_close = idle && command == Some(ConnectionCommand::Close);
        if let Some(command) = command.filter(|_| !may_close) {
            return interrupted(command);
        }
        let over = Pin::new(&mut http).poll(cx);
        if may_close && connection.phase() == Phase::Idle && over.is_pending() {
            return interrupted(ConnectionCommand::Close);
        }
        let response = connection.exchange.response_state();
        drop_sent();
        if let Some(command) = connection.poll_command(cx) {
            return interrupted(command);
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

/// Encodes an HTTP/1.1 response that closes the connection, for cases where hyper writes none.
fn encode(response: &Response<Bytes>) -> Vec<u8> {
    let (status, body) = (response.status(), response.body());
    let reason = status.canonical_reason().unwrap_or("Refused");
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in response.headers() {
        if *name != header::CONNECTION && *name != header::CONTENT_LENGTH {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
    }
    bytes
        .extend_from_slice(format!("connection: close\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes
}
