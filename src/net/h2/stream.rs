//! One request of an HTTP/2 connection from its head to the last byte of its answer.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use http_body::Body;
use http_body_util::Full;

use super::{branch::Place, inflow::Inflow, piece::Piece};
use crate::{
    message::{Request, Response},
    net::{BoxError, Connection, Handler, Refusal, RequestBody, connection::Phase},
};

/// h2 holds at most 256 KiB of an answer: this much, and one piece as large as an upstream sends.
pub(super) const ENOUGH: usize = (256 - 64) << 10;

/// The stream is over: severed, reset by the client, or its connection is gone.
struct Over;

/// Answers a request whose head was judged.
pub(super) async fn serve<H: Handler>(
    judged: Result<(), Refusal>,
    request: http::Request<RecvStream>,
    place: Place,
    handler: Rc<H>,
) {
    let head = *request.method() == Method::HEAD;
    // Over either way: whoever has to know sees it in what is dropped.
    let served = match judged {
        Ok(()) => {
            let request = with_body(request, &place.stream);
            let answer = handler.handle(request, place.stream.clone());
            match until_over(&place, answer).await {
                Ok(response) => send(&place, response, head).await,
                Err(over) => Err(over),
            }
        }
        Err(refusal) => {
            place.stream.set_unread(!request.body().is_end_stream());
            place.branch().leave(request.into_body());
            let response = handler.refuse(refusal, &place.stream);
            send(&place, response.map(Full::new), head).await
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

fn with_body(request: http::Request<RecvStream>, stream: &Rc<Connection>) -> Request<RequestBody> {
    let headers = request.headers();
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let expects = headers
        .get(header::EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    stream.set_unread(!request.body().is_end_stream());
    let request = Request::from(request);
    request.map(|body| RequestBody::stream(Inflow::new(body, length, expects, stream.clone())))
}

/// Waits, unless the stream is over before.
async fn until_over<F: Future>(place: &Place, work: F) -> Result<F::Output, Over> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        place.stream.attend(cx);
        let reset = place.branch().with_reply(|reply| reply.poll_reset(cx).is_ready());
        if place.stream.severed() || reset.unwrap_or(true) {
            return Poll::Ready(Err(Over));
        }
        work.as_mut().poll(cx).map(Ok)
    })
    .await
}

async fn send<B>(place: &Place, response: Response<B>, head: bool) -> Result<(), Over>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    let (mut parts, mut body) = http::Response::from(response).into_parts();
    parts.version = Version::HTTP_2;
    strip(&mut parts.headers);
    complete(&mut parts.headers, &body, place);
    let bare = head || body.is_end_stream();
    let begun =
        place.branch().with_reply(|reply| reply.send_response(http::Response::from_parts(parts, ()), bare));
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

/// What speaks of an HTTP/1 connection has no place on a stream.
fn strip(headers: &mut HeaderMap) {
    const HOP: [HeaderName; 5] = [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    for name in &HOP {
        headers.remove(name);
    }
}

fn complete<B: Body>(headers: &mut HeaderMap, body: &B, place: &Place) {
    if !body.is_end_stream()
        && let Some(length) = body.size_hint().exact()
        && !headers.contains_key(header::CONTENT_LENGTH)
    {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, place.stream.clock().http_date());
    }
}
