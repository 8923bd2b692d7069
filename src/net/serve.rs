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
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    Connection, ConnectionEvent, Service, Upgraded, Worker,
    connection::{ConnectionCommand, Phase},
    http1::{self, Outcome},
    http2,
    io::CancelIo,
    request_error::encode,
    stream::{Socket, Stream},
    tls::{Handshake, ServerConfig, TlsInfo},
    worker::ConnectionSlot,
};

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
    let io = CancelIo::new(stream, connection.clone(), worker.clone());
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
        Ok(false) => http1::drive(&io, &worker, &service).await,
        Err(command) => Outcome::Interrupted(command),
    };
    match outcome {
        // Closes with a reset, so that a response without a length does not look complete.
        Outcome::Interrupted(ConnectionCommand::Abort) => connection.abort(),
        Outcome::Interrupted(ConnectionCommand::Reject(error)) => {
            let response = encode(&service.reject(error, &connection));
            Box::pin(close(io, &response, MAX_LINGER_BYTES)).await;
        }
        Outcome::Upgraded(buffered) => {
            if let Some(sender) = connection.exchange.take_upgrade() {
                // If the receiver is gone, dropping the value closes the connection.
                let _ = sender.send(Upgraded::http1(io, &buffered, held));
            }
        }
        Outcome::Over { unread: true } => Box::pin(close(io, &[], MAX_LINGER_BYTES)).await,
        Outcome::Over { unread: false } | Outcome::Interrupted(ConnectionCommand::Close) => {
            send_close_notify(io).await;
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
            connection.set_tls(TlsInfo::new(&tls, session.server_name()));
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

/// Sends TLS's close_notify, if that does not block.
async fn send_close_notify(mut io: CancelIo) {
    let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut io).poll_shutdown(cx))).await;
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
