//! One connection from its first byte to its last: handshake, requests, refusal, close.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::Poll,
};

use http::{HeaderValue, Request, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Connection, Handler, Refusal, RequestBody, Worker,
    body::{AnswerBody, Spent},
    connection::{Answer, Order, Phase},
    refusal::encode,
    stream::Stream,
    wire::Wire,
    worker::Lease,
};

/// A socket as it was accepted.
pub(super) enum Accepted {
    Plain(Stream),
    Tls(TlsAcceptor, TcpStream),
}

/// How the part of a connection that hyper drives has ended.
enum End {
    /// As HTTP says.
    Over,
    /// Nothing is under way.
    Closed,
    Refused(Refusal),
    Severed,
}

/// hyper's buffers beyond a head: a body passes through in pieces of at most this size.
const BUFFER: usize = 64 << 10;

pub(super) async fn live<H: Handler>(
    accepted: Accepted,
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    handler: Rc<H>,
    lease: Lease,
) {
    let _lease = lease;
    let stream = match accepted {
        Accepted::Plain(stream) => stream,
        Accepted::Tls(acceptor, socket) => match attended(&connection, acceptor.accept(socket)).await {
            Ok(Ok(stream)) => {
                connection.enter(Phase::Fresh);
                Stream::Tls(Box::new(stream))
            }
            Ok(Err(_)) | Err(_) => return,
        },
    };
    // hyper's state and buffers are made for who has something to say.
    if attended(&connection, poll_fn(|cx| stream.poll_readable(cx))).await.is_err() {
        return end_idle(&stream, &connection);
    }
    let (end, wire) = drive(stream, &worker, &connection, &handler).await;
    match end {
        End::Severed => wire.into_stream().reset_on_close(),
        End::Closed => farewell(wire.into_stream()).await,
        End::Refused(refusal) => {
            let answer = encode(handler.refuse(refusal, &connection));
            close(wire.into_stream(), &connection, &answer).await;
        }
        End::Over if wire.has_unread() => close(wire.into_stream(), &connection, &[]).await,
        End::Over => {}
    }
}

/// Lets hyper serve requests until the connection is over for it.
async fn drive<H: Handler>(
    stream: Stream,
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    handler: &Rc<H>,
) -> (End, Wire) {
    let spent: Spent<H::Body> = Spent::default();
    let service = service_fn(|request: Request<Incoming>| {
        connection.begin_service();
        let (connection, spent, draining) = (connection.clone(), spent.clone(), worker.clone());
        let request = request.map(|body| RequestBody::new(body, connection.clone()));
        let answer = handler.clone().handle(request, connection.clone());
        async move {
            let mut response = answer.await;
            if connection.body_abandoned() || draining.draining() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response.map(|body| AnswerBody::new(body, connection, spent)))
        }
    });
    let limits = worker.limits();
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_buf_size(BUFFER.max(limits.head + (8 << 10)));
    // Fields are counted already; hyper needs room for them, on the heap only beyond its own 100.
    if limits.fields > 100 {
        builder.max_headers(limits.fields);
    }
    let mut hyper = builder
        .serve_connection(TokioIo::new(Wire::new(stream, connection.clone(), worker.clone())), service);
    let end = poll_fn(|cx| {
        connection.attend(cx);
        loop {
            if connection.severed() {
                return Poll::Ready(End::Severed);
            }
            match connection.take_order() {
                Some(Order::Close) => return Poll::Ready(End::Closed),
                Some(Order::Refuse(refusal)) => return Poll::Ready(End::Refused(refusal)),
                None => {}
            }
            let over = Pin::new(&mut hyper).poll(cx);
            // Whatever lived in an answer's body ends when the kernel has the answer.
            if connection.answer() == Answer::Flushed {
                spent.take();
            }
            if connection.severed() {
                return Poll::Ready(End::Severed);
            }
            if let Some(Order::Refuse(refusal)) = connection.peek_order() {
                connection.take_order();
                return Poll::Ready(End::Refused(refusal));
            }
            match over {
                Poll::Ready(result) => return Poll::Ready(ending(connection, result)),
                Poll::Pending if connection.take_ahead() => {}
                Poll::Pending if worker.draining() && connection.phase() == Phase::Idle => {
                    return Poll::Ready(End::Closed);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    (end, hyper.into_parts().io.into_inner())
}

fn ending(connection: &Connection, result: hyper::Result<()>) -> End {
    match (connection.phase(), result) {
        // hyper gave a head up without a word.
        (Phase::Judged, Err(_)) => End::Refused(Refusal::BadRequest("malformed head")),
        // An answer that broke off must not pass for a whole one.
        (Phase::Serving, Err(_)) => End::Severed,
        _ => End::Over,
    }
}

/// Waits, unless the connection is severed or told to close.
async fn attended<F: Future>(connection: &Connection, work: F) -> Result<F::Output, End> {
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

/// Writes a last answer and reads on for a moment, so that bytes still under way from the client
/// do not make the kernel take the answer back.
async fn close(mut stream: Stream, connection: &Connection, answer: &[u8]) {
    connection.enter(Phase::Closing);
    let closing = async {
        stream.write_all(answer).await?;
        stream.shutdown().await?;
        // Not inside the future: every connection would carry it.
        let mut waste = vec![0; 4 << 10];
        loop {
            let mut buf = ReadBuf::new(&mut waste);
            poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut buf)).await?;
            if buf.filled().is_empty() {
                return io::Result::Ok(());
            }
        }
    };
    let ended = attended(connection, closing).await;
    if ended.is_err() {
        end_idle(&stream, connection);
    }
}
