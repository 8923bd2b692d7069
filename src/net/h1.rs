//! HTTP/1.1 on one connection: one request after the other, each answered before the next is read.
//! No task and no channel stand between the socket and the handler.

mod answer;
mod line;
mod request;

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::BytesMut;
use http::StatusCode;
use http_body::Body as _;

pub use self::line::Line;
use super::{
    Connection, Handler, Refusal, RequestBody, Splice, Worker,
    connection::Order,
    lifetime::End,
    sending::{Coding, Sending},
    stream::Stream,
};
use crate::message::{Request, ResponseHead};

/// A connection after its last request in HTTP/1.1.
pub(super) struct Over<B> {
    pub end: End,
    pub stream: Stream,
    /// Read, and taken by nobody.
    pub ahead: BytesMut,
    /// The client has begun a message that it did not end.
    pub unread: bool,
    /// What came with a 101.
    pub answered: Option<B>,
}

/// Serves requests until the connection is over for HTTP/1.1. `None`: it has got lost.
pub(super) async fn drive<H: Handler>(
    stream: Stream,
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    handler: &Rc<H>,
) -> Option<Over<H::Body>> {
    let line = Rc::new(Line::new(stream, connection.clone()));
    let mut answered = None;
    let end = loop {
        match turn(&line, worker, connection, handler).await {
            Ok(None) if worker.draining() => break End::Closed,
            Ok(None) => {}
            Ok(Some(body)) => {
                answered = Some(body);
                break End::Switched;
            }
            Err(end) => break end,
        }
    };
    let unread = !line.is_read();
    let (stream, ahead) = line.take_parts()?;
    Some(Over { end, stream, unread: unread || !ahead.is_empty(), ahead, answered })
}

/// One request and its answer. The body of an answer that ends HTTP is given back.
async fn turn<H: Handler>(
    line: &Rc<Line>,
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    handler: &Rc<H>,
) -> Result<Option<H::Body>, End> {
    let (text, judged) = watched(connection, |cx| line.poll_head(cx, &worker.limits())).await??;
    let (head, wishes) = request::parse(text, judged).map_err(End::Refused)?;
    if connection.misdirects(|| head.fields.get("host")) {
        return Err(End::Refused(Refusal::Misdirected));
    }
    connection.begin_service();
    let body = if line.is_read() {
        RequestBody::full(bytes::Bytes::new())
    } else {
        if wishes.expects {
            line.await_leave();
        }
        RequestBody::line(line.clone())
    };
    // On the heap: an idle connection holds no room for it.
    let mut handling = Box::pin(handler.clone().handle(Request::from_parts(head, body), connection.clone()));
    let response = watched(connection, |cx| match handling.as_mut().poll(cx) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending => line.poll_gone(cx).map(|()| None),
    })
    .await?
    .ok_or(End::Severed)?;
    drop(handling);

    let (ResponseHead { status, fields }, body) = response.into_parts();
    let last = connection.body_abandoned() || worker.draining();
    let wishes = request::Wishes { persistent: wishes.persistent && !last, ..wishes };
    let framed = answer::frame(status, &fields, &body.size_hint(), wishes, connection.clock());
    let switching = status == StatusCode::SWITCHING_PROTOCOLS;
    drop(fields);
    let mut head = framed.head;
    let before = line.begin_answer();
    if !before.is_empty() {
        head.splice(..0, before.iter().copied());
    }
    let (body, bodiless) = if framed.coding.is_some() { (Some(body), None) } else { (None, Some(body)) };
    let mut answer = Sending::new(head, body, framed.coding.unwrap_or(Coding::Length(0)));
    let mut splice = Splice::default();
    watched(connection, |cx| {
        if line.send(cx, &mut answer, &mut splice, H::poll_pour).is_err() {
            // An answer that broke off must not pass for a whole one.
            return Poll::Ready(Err(End::Severed));
        }
        if answer.is_sent() {
            return Poll::Ready(Ok(()));
        }
        line.poll_gone(cx).map(|()| Err(End::Severed))
    })
    .await??;
    if switching {
        return Ok(bodiless);
    }
    // Whatever lives in the body ends here, when the kernel has the answer.
    drop((answer, bodiless));
    if !framed.persistent || !line.is_read() {
        return Err(End::Over);
    }
    line.rest();
    Ok(None)
}

/// Waits, unless the connection is severed or told to end.
async fn watched<T>(
    connection: &Connection,
    mut work: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Result<T, End> {
    poll_fn(|cx| {
        if connection.severed() {
            return Poll::Ready(Err(End::Severed));
        }
        match connection.take_order() {
            Some(Order::Close) => return Poll::Ready(Err(End::Closed)),
            Some(Order::Refuse(refusal)) => return Poll::Ready(Err(End::Refused(refusal))),
            None => {}
        }
        let done = work(cx);
        // Its own doing may have severed the connection.
        if connection.severed() {
            return Poll::Ready(Err(End::Severed));
        }
        if done.is_pending() {
            connection.attend(cx);
        }
        done.map(Ok)
    })
    .await
}
