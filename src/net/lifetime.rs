//! One connection from its first byte to its last: handshake, requests, refusal, close.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Connection, Handler, Refusal, Worker,
    connection::{Order, Phase},
    h1, h2,
    refusal::encode,
    stream::Stream,
    tls::{Handshake, Presented, Shown},
    tunnel::Upgraded,
    worker::Lease,
};

/// A socket as it was accepted.
pub(super) enum Accepted {
    Plain(Stream),
    Tls(Arc<Shown>, TcpStream),
}

/// A connection as its handler counts it: one whose task is dropped ends too.
pub(super) struct Visit<H: Handler>(Rc<H>);

/// How the part of a connection that carries requests has ended.
pub(super) enum End {
    /// As HTTP says.
    Over,
    /// Nothing is under way.
    Closed,
    Refused(Refusal),
    /// The client has its 101.
    Switched,
    Severed,
    /// The client goes on in HTTP/2.
    Multiplexed,
}

impl<H: Handler> Visit<H> {
    pub(super) fn new(handler: &Rc<H>) -> Self {
        handler.opened();
        Self(handler.clone())
    }
}

impl<H: Handler> Drop for Visit<H> {
    fn drop(&mut self) {
        self.0.closed();
    }
}

pub(super) async fn live<H: Handler>(
    accepted: Accepted,
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    handler: Rc<H>,
    lease: Lease,
    visit: Visit<H>,
) {
    let _held = (lease, visit);
    let stream = match accepted {
        Accepted::Plain(stream) => stream,
        // Not inside this future: every connection would carry the room for a handshake.
        Accepted::Tls(shown, socket) => match Box::pin(shake(shown, socket, &connection, &*handler)).await {
            Some(stream) => stream,
            None => return,
        },
    };
    if stream.agreed_on() == Some(h2::PROTOCOL) {
        return Box::pin(h2::drive(stream, BytesMut::new(), worker, connection, handler)).await;
    }
    // State and buffers are made for who has something to say.
    if attended(&connection, poll_fn(|cx| stream.poll_readable(cx))).await.is_err() {
        return end_idle(&stream, &connection);
    }
    let Some(over) = h1::drive(stream, &worker, &connection, &handler).await else { return };
    let h1::Over { end, stream, ahead, unread, answered } = over;
    match end {
        End::Severed => stream.reset_on_close(),
        End::Refused(refusal) => {
            let answer = encode(handler.refuse(refusal, &connection));
            Box::pin(close(stream, &connection, &answer)).await;
        }
        End::Multiplexed => Box::pin(h2::drive(stream, ahead, worker, connection, handler)).await,
        End::Switched => {
            let Some(answered) = answered else { return };
            connection.begin_tunnel();
            let tunnel = handler.tunnel(answered, Upgraded::new(stream, connection.clone(), ahead));
            // Not inside this future: every connection would carry it.
            let _ = attended(&connection, Box::pin(tunnel)).await;
        }
        End::Over if unread => Box::pin(close(stream, &connection, &[])).await,
        End::Over | End::Closed => farewell(stream).await,
    }
}

async fn shake<H: Handler>(
    shown: Arc<Shown>,
    socket: TcpStream,
    connection: &Connection,
    handler: &H,
) -> Option<Stream> {
    let acceptor = TlsAcceptor::from(shown.config.clone());
    let (outcome, stream) = match attended(connection, acceptor.accept(socket)).await {
        Ok(Ok(stream)) => {
            let session = stream.get_ref().1;
            connection.present(Presented::new(&shown, session.server_name()));
            connection.enter(Phase::Fresh);
            (Handshake::of_session(session), Some(Stream::Tls(Box::new(stream))))
        }
        Ok(Err(error)) => (Handshake::of_error(&error), None),
        Err(_) => (Handshake::TimedOut, None),
    };
    handler.shaken(outcome, connection);
    stream
}

/// Waits, unless the connection is severed or told to close.
pub(super) async fn attended<F: Future>(connection: &Connection, work: F) -> Result<F::Output, End> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        connection.attend(cx);
        if connection.severed() {
            return Poll::Ready(Err(End::Severed));
        }
        match connection.take_order() {
            Some(Order::Close | Order::Refuse(_)) => return Poll::Ready(Err(End::Closed)),
            None => {}
        }
        work.as_mut().poll(cx).map(Ok)
    })
    .await
}

fn end_idle(stream: &Stream, connection: &Connection) {
    if connection.severed() {
        stream.reset_on_close();
    }
}

/// Tells a TLS client that this end is meant, if that can be said without waiting.
async fn farewell(mut stream: Stream) {
    let _ = poll_fn(|cx| Poll::Ready(Pin::new(&mut stream).poll_shutdown(cx))).await;
}

/// So much of what nobody wants is read after a last answer: more than the sockets of a client that
/// was surprised by it hold already.
const LINGER: usize = 4 << 20;

/// Writes a last answer and reads on for a moment, so that bytes still under way from the client
/// do not make the kernel take the answer back.
async fn close(mut stream: Stream, connection: &Connection, answer: &[u8]) {
    connection.enter(Phase::Closing);
    let closing = async {
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        // Not inside the future: every connection would carry it.
        let mut waste = vec![0; 4 << 10];
        let mut read = 0;
        while read < LINGER {
            let mut buf = ReadBuf::new(&mut waste);
            poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut buf)).await?;
            if buf.filled().is_empty() {
                break;
            }
            read += buf.filled().len();
        }
        io::Result::Ok(())
    };
    let ended = attended(connection, closing).await;
    if ended.is_err() {
        end_idle(&stream, connection);
    }
}
