//! One request of an HTTP/2 connection from its head to the last byte of its answer.

use std::{
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use http_body::Body;
use http_body_util::Full;

use super::{
    branch::Place,
    head::{self, Head},
    inflow::Inflow,
    piece::Piece,
};
use crate::{
    message::{Response, ResponseHead},
    net::{BoxError, Handler, Refusal, RequestBody, connection::Phase},
};

/// h2 holds at most 256 KiB of an answer: this much, and one piece as large as an upstream sends.
pub(super) const ENOUGH: usize = (256 - 64) << 10;

/// The stream is over: severed, reset by the client, or its connection is gone.
struct Over;

/// Answers a request whose head was judged. `bodiless`: whose answer has no body.
pub(super) async fn serve<H: Handler>(
    judged: Result<Head, Refusal>,
    body: RecvStream,
    bodiless: bool,
    place: Place,
    handler: Rc<H>,
) {
    place.stream.set_unread(!body.is_end_stream());
    // Over either way: whoever has to know sees it in what is dropped.
    let served = match judged {
        Ok(Head { request, length, expects }) => {
            let stream = place.stream.clone();
            let body = RequestBody::stream(Inflow::new(body, length, expects, stream));
            // On the heap: it is most of all this, and would be moved into its place.
            let answer = Box::pin(handler.handle(request.map(|()| body), place.stream.clone()));
            match until_over(&place, answer).await {
                Ok(response) => send(&place, response, bodiless).await,
                Err(over) => Err(over),
            }
        }
        Err(refusal) => {
            place.branch().leave(body);
            let response = handler.refuse(refusal, &place.stream);
            send(&place, response.map(Full::new), bodiless).await
        }
    };
    match served {
        Ok(()) => linger(&place).await,
        Err(Over) if !place.stream.severed() => place.taken_back(),
        Err(Over) => {}
    }
}

/// Takes what the client still sends of a request that is answered, for a moment: many clients look
/// for an answer only behind their body, and some take the reset that RFC 9113, 8.1 allows for a
/// failure.
async fn linger(place: &Place) {
    if !place.stream.is_unread() {
        return;
    }
    place.stream.enter(Phase::Closing);
    poll_fn(|cx| {
        place.stream.attend(cx);
        if place.stream.severed() || place.stream.take_order().is_some() {
            return Poll::Ready(());
        }
        place.poll_rest(cx)
    })
    .await;
}

/// Waits, unless the stream is over before.
async fn until_over<F: Future + Unpin>(place: &Place, mut work: F) -> Result<F::Output, Over> {
    poll_fn(|cx| {
        place.stream.attend(cx);
        let reset = place.branch().with_reply(|reply| reply.poll_reset(cx).is_ready());
        if place.stream.severed() || reset.unwrap_or(true) {
            return Poll::Ready(Err(Over));
        }
        Pin::new(&mut work).poll(cx).map(Ok)
    })
    .await
}

async fn send<B>(place: &Place, response: Response<B>, bodiless: bool) -> Result<(), Over>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let (ResponseHead { status, fields }, mut body) = response.into_parts();
    let empty = body.is_end_stream();
    let length = body.size_hint().exact().filter(|_| !empty);
    let head = head::answer(status, &fields, length, place.stream.clock());
    drop(fields);
    let bare = bodiless || empty;
    let begun = place.branch().with_reply(|reply| reply.send_response(head, bare));
    let Some(Ok(mut sink)) = begun else { return Err(Over) };
    if !bare {
        poll_fn(|cx| poll_pump(cx, place, &mut sink, &mut body)).await?;
    }
    // What lives in the body sees the whole answer with the kernel.
    place.branch().end();
    poll_fn(|cx| {
        place.stream.attend(cx);
        let over = place.stream.severed() || place.branch().unsent() == 0;
        if over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    Ok(())
}

/// Hands the body on, piece by piece, as fast as the client takes it.
fn poll_pump<B>(
    cx: &mut Context<'_>,
    place: &Place,
    sink: &mut SendStream<Piece>,
    body: &mut B,
) -> Poll<Result<(), Over>>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let stream = &place.stream;
    let over = |_| Over;
    loop {
        stream.attend(cx);
        if stream.severed() || sink.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Over));
        }
        let _ = place.poll_rest(cx);
        if place.branch().unsent() >= ENOUGH {
            return Poll::Pending;
        }
        let sent = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => sink.send_data(Piece::new(Bytes::new(), stream), true).map(|()| true),
            Some(Err(_)) => {
                // Never to be taken for the end of a whole answer.
                stream.sever();
                return Poll::Ready(Err(Over));
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    let end = body.is_end_stream();
                    if data.is_empty() && !end {
                        continue;
                    }
                    sink.send_data(Piece::new(data, stream), end).map(|()| end)
                }
                Err(frame) => match frame.into_trailers() {
                    Ok(mut trailers) => {
                        strip(&mut trailers);
                        sink.send_trailers(trailers).map(|()| true)
                    }
                    Err(_) => Ok(false),
                },
            },
        };
        if sent.map_err(over)? {
            return Poll::Ready(Ok(()));
        }
    }
}

/// What has no place in trailers either.
fn strip(trailers: &mut HeaderMap) {
    let hop: Vec<_> =
        trailers.keys().filter(|name| head::is_hop(name.as_str().as_bytes())).cloned().collect();
    for name in &hop {
        trailers.remove(name);
    }
}
