//! HTTP/1.1 on one connection: hyper serves requests until it is over.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    pin::Pin,
    rc::Rc,
    task::Poll,
};

use http::{HeaderValue, Request, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

use super::{
    Connection, Handler, Refusal, RequestBody, Worker,
    body::{AnswerBody, Spent},
    connection::{Answer, Order, Phase},
    lifetime::End,
    stream::Stream,
    wire::Wire,
};

/// hyper's buffers beyond a head: a body passes through in pieces of at most this size.
const BUFFER: usize = 64 << 10;

/// Lets hyper serve requests until the connection is over for it.
pub(super) async fn drive<H: Handler>(
    stream: Stream,
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    handler: &Rc<H>,
) -> (End, Wire, Spent<H::Body>) {
    let spent: Spent<H::Body> = Spent::default();
    let service = service_fn(|request: Request<Incoming>| {
        connection.begin_service();
        let (connection, spent, draining) = (connection.clone(), spent.clone(), worker.clone());
        if connection.misdirects(request.headers().get(header::HOST)) {
            connection.order(Order::Refuse(Refusal::Misdirected));
        }
        let request = request.map(|body| RequestBody::new(body, connection.clone()));
        let answer = handler.clone().handle(request, connection.clone());
        async move {
            if connection.refused() {
                // The handler never comes to it; the answer is written in hyper's stead.
                pending::<()>().await;
            }
            let mut response = answer.await;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                connection.switch();
            } else if connection.body_abandoned() || draining.draining() {
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
                Some(Order::Multiplex) => return Poll::Ready(End::Multiplexed),
                None => {}
            }
            let over = Pin::new(&mut hyper).poll(cx);
            // Whatever lived in an answer's body ends when the kernel has the answer.
            if connection.answer() == Answer::Flushed && !connection.switching() {
                spent.take();
            }
            if connection.severed() {
                return Poll::Ready(End::Severed);
            }
            if connection.refused() {
                continue;
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
    (end, hyper.into_parts().io.into_inner(), spent)
}

fn ending(connection: &Connection, result: hyper::Result<()>) -> End {
    match (connection.phase(), result) {
        // hyper gave a head up without a word.
        (Phase::Judged, Err(_)) => End::Refused(Refusal::BadRequest("malformed head")),
        // An answer that broke off must not pass for a whole one.
        (Phase::Serving, Err(_)) => End::Severed,
        (_, Ok(())) if connection.switching() => match connection.answer() {
            Answer::Flushed => End::Switched,
            // hyper does not wait for a client that leaves no room for so much as a 101.
            Answer::Open | Answer::Ended => End::Severed,
        },
        _ => End::Over,
    }
}
